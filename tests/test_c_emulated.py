"""The C on an emulated Cortex-M4: the same values as here, instructions counted exactly, stack as used."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks.emulated import INSTRUCTIONS_PER_TICK, calibrated, emulate, missing_tools
from codesign.artifacts.c_folder import measuring
from codesign.importers.onnx_importer import load_onnx
from tests.c_builds import write_c
from tests.small_networks import write_network

BOARD = Path(measuring.__file__).parent / "mps2_an386"
pytestmark = pytest.mark.skipif(bool(missing_tools()), reason=f"not installed: {', '.join(missing_tools())}")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network: 8 x 8 x 8 x 3 x 9 products of a convolution, a ReLU, averages."""
    folder = tmp_path_factory.mktemp("emulated")
    nodes = "a = Conv<pads = [1, 1, 1, 1]>(x, wa) b = Relu(a) y = GlobalAveragePool(b)"
    graph = load_onnx(write_network(folder / "n.onnx", nodes, (1, 3, 8, 8), {"wa": (8, 3, 3, 3)}))
    return write_c(graph, folder / "out")


@pytest.mark.parametrize("turns", [2000, 300_000])
def test_instructions_of_a_loop_of_known_length(turns: int, tmp_path: Path) -> None:
    found = calibrated(tmp_path / "loop", BOARD, turns)
    assert abs(found - 2 * turns) <= INSTRUCTIONS_PER_TICK


def test_a_network_gives_the_same_there(built: Path) -> None:
    done = emulate(built)
    assert done.ok, done.output
    products = 8 * 8 * 8 * 3 * 9
    assert 2 * products < done.instructions < 40 * products
    assert 0 < done.stack_bytes < 2048


def test_a_changed_weight_is_caught_there(built: Path) -> None:
    weights = built / "weights.c"
    text = weights.read_text()
    found = re.search(r"-?\d\.\d{5,}f", text)
    assert found
    weights.write_text(f"{text[: found.start()]}{np.float32(found[0][:-1]) + 1:.9g}f{text[found.end() :]}")
    done = emulate(built)
    assert not done.ok
    assert "test vector: FAILED" in done.output


def test_sizes_are_measured(built: Path) -> None:
    sizes = {size.machine: size for size in measuring.measured(built, "codesign")}
    assert set(sizes) == set(measuring.COMPILERS)
    arena = int(re.search(r"ARENA_BYTES (\d+)", (built / "model.h").read_text())[1])  # type: ignore[index]
    for size in sizes.values():
        assert arena <= size.static_bytes < arena + 64
        assert 100 < size.text_bytes < 4000
        assert 0 < size.stack_bytes < 500
