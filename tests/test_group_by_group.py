"""Groups that run one after another, by hand; tests.machines has them on random machines."""

from __future__ import annotations

from codesign.hardware.board import load_board
from codesign.hardware.listing import show_profile
from codesign.hardware.loading import load_profile
from codesign.hardware.profile import HardwareProfile
from codesign.hardware.resources import estimate
from codesign.mapping.layer_cost import LayerCost
from codesign.mapping.legality import problems_of
from codesign.mapping.mapper import map_layer
from codesign.mapping.objective import Objective
from codesign.vocabulary import Operand, OperationKind
from codesign.workload.loop_nest import LoopNest
from tests.test_losses import axis, machine

DEPTHWISE = LoopNest(
    OperationKind.DEPTHWISE_CONVOLUTION, sizes=(1, 32, 1, 1, 4, 4, 3, 3), input_rows=6, input_columns=6
)


def machine_of(*, alone: bool) -> HardwareProfile:
    """4 x 4 lanes over one sram, over a dram that moves whole bursts of 16 neighbouring channels."""
    data = machine(rows=axis(4, "C"), columns=axis(4, "K"), dram=8).model_dump(mode="json")
    data["engines"]["array"] |= {"group_by_group": alone}
    data["memories"]["dram"] |= {"burst_bytes": 16, "read_pj_per_byte": 1, "write_pj_per_byte": 1}
    return HardwareProfile.model_validate(data)


def mapped(*, alone: bool) -> LayerCost:
    return map_layer(DEPTHWISE, machine_of(alone=alone), "array", Objective.LATENCY)


def read(cost: LayerCost) -> int:
    return next(part.read_bytes for part in cost.traffic if (part.memory, part.operand) == ("dram", Operand.INPUTS))


def test_pixels_of_one_channel_take_a_burst_each() -> None:
    together, alone = mapped(alone=False), mapped(alone=True)
    assert read(together) == 32 * 6 * 6
    assert read(alone) == 32 * 6 * 6 * 16
    assert together.proven and alone.proven


def test_a_tile_of_two_groups_is_refused() -> None:
    mapping = mapped(alone=False).mapping
    assert mapping is not None
    assert problems_of(DEPTHWISE, mapping, machine_of(alone=False)) == []
    problems = problems_of(DEPTHWISE, mapping, machine_of(alone=True))
    found = "groups run one after another on engine array: the tile of "
    assert problems and all(problem.startswith(found) and problem.endswith(" of them") for problem in problems)


def test_cells_of_two_memories_are_built_once() -> None:
    profile = load_profile("gemmini16").profile
    parts = [line.part for line in estimate(profile, load_board("zu9eg")).lines]
    assert "memories.scratchpad" in parts and "memories.scratchpad_of_a_channel" not in parts
    assert profile.memories["scratchpad_of_a_channel"].same_cells_as == "scratchpad"
    text = " ".join(show_profile("gemmini16").split())
    assert "the cells of scratchpad, used another way" in text
    assert "groups run one after another: no tile holds anything of two" in text
