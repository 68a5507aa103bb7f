"""Register blocks of the C kernels follow the mappings, and their MACs are those of the layers."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from codesign.compiler import plan_model
from codesign.errors import DoesNotFitError
from codesign.hardware.loading import load_profile
from codesign.lowering.c_source.network import c_program
from codesign.lowering.library import legalised
from codesign.lowering.microcontroller import convolution, floats
from codesign.lowering.microcontroller.blocks import CODE_BITS, FLOAT_BITS, Block, MappedBlocks
from codesign.lowering.network import build_network
from codesign.settings import Planned, Settings
from tests.small_networks import write_network

NODES = "a = Conv<pads = [1, 1, 1, 1]>(x, w) b = Relu(a) c = GlobalAveragePool(b) d = Flatten(c) y = Gemm(d, v)"
WEIGHTS = {"w": (16, 4, 3, 3), "v": (16, 8)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A convolution and a dense layer."""
    return str(write_network(tmp_path_factory.mktemp("blocks") / "n.onnx", NODES, (1, 4, 8, 8), WEIGHTS))


def planned(model: str, hw: str, passes: str = "default") -> Planned:
    return plan_model(model, Settings(hw=hw, passes=passes, calibration="synthetic" if "quantize" in passes else None))


def machine(name: str, folder: Path, sums_bytes: int) -> str:
    """A shipped machine with room for other sums in its registers."""
    text = yaml.safe_load(load_profile(name).path.read_text(encoding="utf-8"))
    text["memories"]["sum_registers"]["size_bytes"] = sums_bytes
    (folder / "machine.yaml").write_text(yaml.safe_dump(text | {"name": "machine"}, sort_keys=False), encoding="utf-8")
    return str(folder / "machine.yaml")


def sources(done: Planned) -> str:
    """The C of all kernels."""
    blocks = MappedBlocks(done.plan, done.hardware.profile)
    network = build_network(done.graph, channels_last=True, blocks=blocks)
    program = c_program(legalised(network.module, with_views=True), network.interface)
    return "".join(kernel.source for kernel in program.kernels.values())


@pytest.mark.parametrize(
    ("sums_bytes", "called"),
    [(16, {"multiply_2x2", "multiply_4x1"}), (8, {"multiply_2x1"}), (4, {"multiply_1x1"})],
)
def test_integer_blocks_are_the_mappings(model: str, tmp_path: Path, sums_bytes: int, called: set[str]) -> None:
    done = planned(model, machine("stm32l4r5", tmp_path, sums_bytes), "default,quantize")
    assert set(re.findall(r"\bmultiply_\dx\d\b", sources(done))) == called


@pytest.mark.parametrize(("sums_bytes", "sums"), [(64, 16), (16, 4)])
def test_float_blocks_are_those_of_the_mappings(model: str, tmp_path: Path, sums_bytes: int, sums: int) -> None:
    text = sources(planned(model, machine("stm32l4r5_float", tmp_path, sums_bytes)))
    assert max(int(number) for number in re.findall(r"float sums\[(\d+)\]", text)) == sums


def test_other_machines_and_widths_have_the_kernels_own_blocks(model: str) -> None:
    own = Block(2, 1)
    for hw in ("edge_npu", "stm32l4r5_float"):
        done = planned(model, hw)
        layer = done.plan.layers[0].layer.name
        blocks = MappedBlocks(done.plan, done.hardware.profile)
        assert blocks.block(layer, own, convolution.KNOWN, CODE_BITS) == own
        assert blocks.block("no such layer", own, convolution.KNOWN, CODE_BITS) == own
    assert blocks.block(layer, own, floats.KNOWN, FLOAT_BITS) == Block(4, 4)


def test_blocks_of_too_many_registers_are_not_taken(model: str) -> None:
    done = planned(model, "stm32l4r5_float")
    small = done.hardware.profile.model_copy(
        update={"microcontroller": done.hardware.profile.microcontroller.model_copy(update={"registers": 9})}  # type: ignore[union-attr]
    )
    layer = done.plan.layers[0].layer.name
    block = MappedBlocks(done.plan, small).block(layer, Block(1, 1), floats.KNOWN, FLOAT_BITS)
    assert block.registers <= 9
    assert block.pixels * block.channels == 4


def test_a_kernel_that_does_other_macs_is_refused(model: str) -> None:
    done = planned(model, "stm32l4r5_float")
    blocks = MappedBlocks(done.plan, done.hardware.profile)
    name, macs = done.plan.layers[0].layer.name, done.plan.layers[0].layer.nest.macs
    blocks.check(name, macs, macs)
    with pytest.raises(DoesNotFitError, match=f"issued MACs: its vectors need {macs}, the kernel does {macs + 1}"):
        blocks.check(name, macs + 1, macs)
    with pytest.raises(DoesNotFitError, match=f"useful MACs: the layer has {macs}, the kernel does {macs - 1}"):
        blocks.check(name, macs - 1, macs - 1)
    with pytest.raises(RuntimeError, match="a kernel does 3 MACs, not 4"):
        MappedBlocks(replace(done.plan, layers=()), done.hardware.profile).check(name, 3, 4)
