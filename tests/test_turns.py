"""Axes whose lanes work in turn, by hand; tests.simulator walks them on random machines."""

from __future__ import annotations

from codesign.hardware.board import load_board
from codesign.hardware.listing import show_profile
from codesign.hardware.loading import load_profile
from codesign.hardware.profile import HardwareProfile
from codesign.hardware.resources import estimate
from codesign.mapping.layer_cost import LayerCost
from codesign.mapping.mapper import map_layer
from codesign.mapping.objective import Objective
from codesign.planning.changes import engine_changes
from codesign.vocabulary import OperationKind
from codesign.workload.loop_nest import LoopNest
from tests.test_losses import axis, machine


def streaming(block: int) -> HardwareProfile:
    """4 x 4 lanes whose commands take blocks of output columns."""
    data = machine(rows=axis(4, "C"), columns=axis(4, "K"), dram=64).model_dump(mode="json")
    data["engines"]["array"]["axes"]["block"] = axis(block, "OX") | {"in_turn": True}
    return HardwareProfile.model_validate(data)


def layer(columns: int) -> LoopNest:
    return LoopNest(
        OperationKind.CONVOLUTION, sizes=(1, 1, 8, 8, 3, columns, 1, 1), input_rows=3, input_columns=columns
    )


def mapped(columns: int, block: int) -> LayerCost:
    return map_layer(layer(columns), streaming(block), "array", Objective.LATENCY)


def test_a_block_takes_as_long_as_a_full_one() -> None:
    in_time = 3 * 2 * 2  # rows, and steps of K and of C
    assert [mapped(columns, 16).compute_cycles for columns in (1, 7, 16)] == [in_time * 16] * 3
    assert [mapped(columns, 16).compute_cycles for columns in (17, 28, 32)] == [in_time * 2 * 16] * 3
    assert [mapped(columns, 1).compute_cycles for columns in (1, 7, 28)] == [
        in_time * columns for columns in (1, 7, 28)
    ]


def test_lanes_in_turn_add_nothing_to_the_peak() -> None:
    profile = streaming(16)
    assert (profile.peak_macs_per_cycle, profile.macs_per_cycle("array")) == (16, 16)
    assert (profile.passes("array"), profile.cycles_per_step("array")) == (1, 16)
    full, part = mapped(16, 16), mapped(7, 16)
    assert (full.spatial_utilization, part.spatial_utilization) == (1.0, 7 / 16)
    assert full.energy_pj >= part.energy_pj


def test_no_advice_makes_blocks_longer() -> None:
    paths = [change.where for change in engine_changes(layer(7), streaming(16), "array")]
    assert "engines.array.axes.rows.size" in paths
    assert "engines.array.axes.block.size" not in paths


def test_show_says_what_works_in_turn_and_which_lanes_are_the_same() -> None:
    text = " ".join(show_profile("gemmini16").split())
    assert "block 16 (up to OX, in turn)" in text
    assert "the lanes of array, driven another way" in text


def test_lanes_of_two_engines_are_built_once() -> None:
    parts = [line.part for line in estimate(load_profile("gemmini16").profile, load_board("zu9eg")).lines]
    assert [part for part in parts if part.startswith("engines.")] == ["engines.array"]
