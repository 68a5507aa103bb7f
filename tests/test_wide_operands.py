"""Operands wider than the lanes' multipliers, and weights in whole tiles of the lanes: Google's first TPU, by hand."""

from __future__ import annotations

from math import ceil

import pytest

from codesign.hardware.board import load_board
from codesign.hardware.loading import load_profile
from codesign.hardware.profile import HardwareProfile
from codesign.hardware.resources import estimate
from codesign.mapping.layer_cost import LayerCost
from codesign.mapping.mapper import map_layer
from codesign.mapping.objective import Objective
from codesign.vocabulary import Operand, OperationKind
from codesign.workload.loop_nest import LoopNest

BYTES_PER_CYCLE = 48.57  # of the weight memory
BATCH = 96


def product(size: int, batch: int = BATCH) -> LoopNest:
    """A square fully connected layer."""
    return LoopNest(OperationKind.DENSE, (1, 1, size, size, 1, batch, 1, 1), input_columns=batch)


def tpu(*, weights_bits: int = 8, activations_bits: int = 8, whole: bool = True) -> HardwareProfile:
    described = load_profile("tpu_v1").profile.model_dump(mode="json")
    described["precision"] |= {"weights_bits": weights_bits, "activations_bits": activations_bits}
    described["conventions"]["whole_weight_tiles"] = whole
    described["memories"]["weight_registers"]["size_bytes"] *= weights_bits // 8 or 1
    return HardwareProfile.model_validate(described)


def on(profile: HardwareProfile, nest: LoopNest) -> LayerCost:
    return map_layer(nest, profile, "array", Objective.LATENCY)


def test_a_matrix_of_600_takes_nine_tiles_and_the_time_to_fetch_them() -> None:
    """Section 7 of the paper: 9 steps, 18 us in all."""
    cost = on(tpu(), product(600))
    fetched = [part.read_bytes for part in cost.traffic if (part.memory, part.operand) == ("dram", Operand.WEIGHTS)]
    assert fetched == [9 * 256 * 256]
    assert cost.proven and cost.cycles == ceil(9 * 256 * 256 / BYTES_PER_CYCLE)
    assert cost.cycles / 700 == pytest.approx(18, rel=0.05)
    assert cost.counts is not None and cost.counts.macs_useful == 600 * 600 * BATCH


def test_without_whole_tiles_no_zero_is_fetched() -> None:
    cost = on(tpu(whole=False), product(600))
    assert cost.cycles == ceil(600 * 600 / BYTES_PER_CYCLE)


@pytest.mark.parametrize(
    ("weights_bits", "activations_bits", "passes"), [(8, 8, 1), (8, 16, 2), (16, 8, 2), (16, 16, 4), (4, 9, 2)]
)
def test_wider_operands_take_passes(weights_bits: int, activations_bits: int, passes: int) -> None:
    """Section 2: half speed with a mix of 8 and 16 bits, a quarter with both of 16."""
    profile, nest = tpu(weights_bits=weights_bits, activations_bits=activations_bits), product(512, 1024)
    cost, engine = on(profile, nest), profile.engines["array"]
    assert profile.passes("array") == passes
    assert profile.peak_macs_per_cycle == 65_536 // passes
    assert cost.compute_cycles == 4 * 1024 * passes
    assert cost.spatial_utilization == 1
    (energy,) = (part.energy_pj for part in cost.energy if part.component == "engine")
    assert energy == pytest.approx(nest.macs * passes * engine.energy_pj_per_mac)


def test_lanes_without_a_width_take_any_operand_at_once() -> None:
    described = tpu(activations_bits=16).model_dump(mode="json")
    described["engines"]["array"]["operand_bits"] = None
    assert HardwareProfile.model_validate(described).passes("array") == 1


def test_multipliers_on_a_board_are_as_wide_as_the_lanes() -> None:
    (line, *_) = estimate(tpu(activations_bits=16), load_board("zu9eg")).lines
    assert "65,536 multipliers of 8 x 8 bits" in line.built_as
