"""Quantised networks as C: the same codes at every layer boundary as the integer semantics, here and on a Cortex-M4."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
import pytest

from codesign.artifacts.c_folder.checking import TestVector
from codesign.artifacts.c_folder.folder import write_sources
from codesign.artifacts.c_runner import call_c, compiled
from codesign.graph.graph import Graph
from codesign.importers.model import load_model
from codesign.lowering.c_source.network import c_program, with_layers
from codesign.lowering.interface import Interface
from codesign.lowering.library import legalised
from codesign.lowering.network import MAIN_LAYERS, build_network
from codesign.numerics.execution import run_network
from codesign.quantization.reading import integer_network, run_floating
from tests.c_builds import SANITIZED, build, needs, run
from tests.command import Command
from tests.quantized_networks import NETWORKS, make_network

Arrays = dict[str, np.ndarray]


def imported(model: onnx.ModelProto, folder: Path) -> Graph:
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "model.onnx")
    return load_model(folder / "model.onnx", {}, None)


def write_layers(graph: Graph, folder: Path, prefix: str = "codesign") -> tuple[Interface, Arrays, Arrays]:
    """The C of a network that hands out all its codes; its interface, inputs, and what numpy makes of them."""
    network = build_network(graph, channels_last=True)
    interface = with_layers(network.interface)
    program = c_program(legalised(network.module, with_views=True), interface, MAIN_LAYERS)
    generator = np.random.default_rng(1)
    inputs = {t.name: generator.standard_normal(t.shape).astype(t.dtype) for t in interface.inputs}
    expected = run_network(integer_network(graph), inputs, run_floating(graph))
    vector = TestVector(inputs, {t.name: expected[t.name] for t in interface.outputs}, 0.0, "numpy")
    write_sources(program, vector, folder, "layers", prefix)
    return interface, inputs, expected


@lru_cache
def codes(any_scale: bool, folder: Path) -> tuple[Arrays, Arrays]:
    """What C and numpy make of all networks, by network and tensor."""
    written = {}
    for name in NETWORKS:
        place = folder / name
        graph = imported(make_network(name, any_scale=any_scale), place)
        written[name] = (place / "c", *write_layers(graph, place / "c", name))
    library = compiled([item[0] for item in written.values()], folder / "all.so")
    found, expected = {}, {}
    for name, (place, interface, inputs, reference) in written.items():
        made = call_c(library, place, interface, inputs)
        found.update({f"{name}.{tensor}": array for tensor, array in made.items()})
        expected.update({f"{name}.{tensor}": reference[tensor] for tensor in made})
    return found, expected


@pytest.mark.parametrize("any_scale", [False, True])
def test_c_makes_the_same_codes_at_every_layer(any_scale: bool, tmp_path: Path) -> None:
    needs("gcc")
    found, expected = codes(any_scale, tmp_path)
    assert len(found) > 40
    assert [name for name, array in found.items() if not np.array_equal(array, expected[name])] == []


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command, run in a folder of its own."""
    return Command(tmp_path, monkeypatch, capsys)


@pytest.fixture(scope="module")
def convolutions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A network of convolutions of many kinds, all codes as outputs."""
    folder = tmp_path_factory.mktemp("convolutions")
    write_layers(imported(make_network("convolutions"), folder), folder / "c")
    yield folder / "c"


def test_clang_finds_nothing_and_computes_the_same(convolutions: Path) -> None:
    assert run(build(convolutions, "-O2", compiler="clang")).code == 0


def test_nothing_is_undefined_in_a_run(convolutions: Path) -> None:
    done = run(build(convolutions, *SANITIZED))
    assert done.code == 0, done.text


def test_a_quantised_network_takes_and_makes_codes(convolutions: Path, tmp_path: Path, command: Command) -> None:
    needs("gcc")
    model = convolutions.parent / "model.onnx"
    done = command("compile", model, "--hw", "edge_npu", "--passes", "none", "--emit", "c", "-o", "out")
    assert done.code == 0, done.err
    folder = command.folder / "out" / "c"
    header = (folder / "model.h").read_text()
    assert re.search(r"void codesign_run\(const int8_t \*\w+, int8_t \*\w+\);", header)
    assert re.search(r"int8 1x\d+x\d+x\d+: input \S+; value = [0-9.e-]+ \* \(code - 0\)", header)
    assert run(build(folder, *SANITIZED)).text.endswith("test vector: passed\n")
    done = command("verify", "out")
    assert (done.code, "c/model.c against codesign.numerics" in done.out) == (0, True), done.out
    weights = (folder / "weights.c").read_text()
    (folder / "weights.c").write_text(
        re.sub(r"= \{\n    (-?\d+),", lambda m: f"= {{\n    {int(m[1]) ^ 16},", weights, count=1)
    )
    done = command("verify", "out")
    assert (done.code, "DIFFERS" in done.out) == (1, True)
