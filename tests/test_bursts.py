"""Whole bursts off chip, by hand; tests.simulator counts runs of really moved neighbours on random machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codesign.hardware.listing import show_profile
from codesign.hardware.loading import shipped_folder
from codesign.hardware.profile import HardwareProfile
from codesign.mapping.bursts import Runs
from codesign.mapping.layer_cost import LayerCost
from codesign.mapping.mapper import map_layer
from codesign.mapping.objective import Objective
from codesign.vocabulary import Operand, OperationKind
from codesign.workload.loop_nest import LoopNest
from tests.test_losses import axis, machine


def bursting(burst_bytes: int | None, **changes: Any) -> HardwareProfile:
    """4 x 4 lanes over one sram, over a dram of 8 bytes a cycle that takes 2 pJ for each."""
    data = machine(rows=axis(4, "C"), columns=axis(4, "K"), dram=8).model_dump(mode="json")
    data["memories"]["dram"] |= {"burst_bytes": burst_bytes, "read_pj_per_byte": 2, "write_pj_per_byte": 2}
    data["memories"]["sram"] |= changes
    return HardwareProfile.model_validate(data)


def dram_bytes(cost: LayerCost) -> dict[Operand, int]:
    """Read and written together, by operand."""
    return {part.operand: part.read_bytes + part.write_bytes for part in cost.traffic if part.memory == "dram"}


@pytest.mark.parametrize(
    ("groups", "channels", "bursts"),
    [(2, 24, 3), (1, 24, 2 * 2), (2, 12, 2 * 2), (1, 12, 4), (1, 16, 2 * (1 + 1)), (2, 10, 2 * 3), (1, 1, 48)],
)
def test_runs_of_two_groups_of_24_channels(groups: int, channels: int, bursts: int) -> None:
    """Bursts of 16 bytes for all 48 channels of a pixel; the last tile is ragged."""
    assert Runs(2, 24, 8, 16).per_element(groups, channels) * 48 == pytest.approx(bursts)


@given(st.integers(1, 6), st.integers(1, 40), st.sampled_from([4, 8, 24]), st.integers(1, 64), st.data())
def test_bursts_hold_what_moves(groups: int, channels: int, bits: int, size: int, draw: st.DataObject) -> None:
    runs = Runs(groups, channels, bits, size)
    tile = draw.draw(st.integers(1, groups)), draw.draw(st.integers(1, channels))
    moved = runs.per_element(*tile) * size
    assert moved >= bits / 8 - 1e-9
    assert moved <= bits / 8 + size
    assert runs.per_element(groups, channels) <= runs.per_element(*tile) + 1e-9, "longer runs take no more bursts"
    assert runs.per_element(*tile) == pytest.approx(runs.per_element_of_tile(*tile)) or any(
        whole % part for whole, part in zip((groups, channels), tile, strict=True)
    )


def test_a_layer_moves_whole_bursts() -> None:
    """10 pixels of 20 channels into 8: runs of 20, 8 and 8 bytes, in bursts of 16 of 32, 16 and 16."""
    nest = LoopNest(OperationKind.CONVOLUTION, (1, 1, 8, 20, 1, 10, 1, 1), input_rows=1, input_columns=10)
    plain, whole = (map_layer(nest, bursting(size), "array", Objective.ENERGY) for size in (None, 16))
    assert dram_bytes(plain) == {Operand.WEIGHTS: 20 * 8, Operand.INPUTS: 10 * 20, Operand.OUTPUTS: 10 * 8}
    assert dram_bytes(whole) == {Operand.WEIGHTS: 20 * 16, Operand.INPUTS: 10 * 32, Operand.OUTPUTS: 10 * 16}
    assert whole.proven
    assert whole.energy_pj - plain.energy_pj == 2 * (sum(dram_bytes(whole).values()) - sum(dram_bytes(plain).values()))


def test_bursts_take_the_port() -> None:
    """A dense layer reads 64 weights a step: 1,024 runs of 16 bytes are 4,096 cycles in bursts of 32."""
    nest = LoopNest(OperationKind.DENSE, (1, 1, 16, 1024, 1, 1, 1, 1), input_rows=1, input_columns=1)
    cost = map_layer(nest, bursting(32), "array", Objective.LATENCY)
    assert cost.limited_by == "dram.read_write"
    inputs, outputs = 1024, 32
    assert cost.cycles == (1024 * 32 + inputs + outputs) / 8


def test_the_search_finds_longer_runs() -> None:
    """An sram with room for a part of the weights takes all outputs of some inputs, not all inputs of some outputs."""
    nest = LoopNest(OperationKind.DENSE, (1, 1, 64, 64, 1, 1, 1, 1), input_rows=1, input_columns=1)
    cost = map_layer(nest, bursting(64, size_bytes=1024), "array", Objective.LATENCY)
    assert cost.proven
    assert dram_bytes(cost)[Operand.WEIGHTS] == 64 * 64


def test_show_names_the_bursts(tmp_path: Path) -> None:
    text = (shipped_folder() / "edge_npu.yaml").read_text(encoding="utf-8")
    assert "whole bursts" not in show_profile("edge_npu")
    path = tmp_path / "edge_npu.yaml"
    path.write_text(text.replace("  dram:\n", "  dram:\n    burst_bytes: 64\n", 1), encoding="utf-8")
    assert "whole bursts of 64 bytes" in " ".join(show_profile(str(path)).split())
