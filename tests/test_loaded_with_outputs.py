"""Operands loaded anew for every tile of outputs, by hand; tests.machines has them on random machines."""

from __future__ import annotations

from codesign.hardware.listing import show_profile
from codesign.hardware.profile import HardwareProfile
from codesign.mapping.layer_cost import LayerCost
from codesign.mapping.legality import problems_of
from codesign.mapping.mapper import map_layer
from codesign.mapping.objective import Objective
from codesign.mapping.stages import stairs
from codesign.vocabulary import Operand, OperationKind
from codesign.workload.loop_nest import LoopNest
from tests.test_losses import axis, machine

POINTWISE = LoopNest(OperationKind.CONVOLUTION, sizes=(1, 1, 64, 16, 1, 16, 1, 1), input_rows=1, input_columns=16)


def blocks(together: list[str]) -> HardwareProfile:
    """4 x 4 lanes; 256 sums of 4 bytes; all inputs fit beside the weights of a step."""
    data = machine(rows=axis(4, "C"), columns=axis(4, "K"), dram=1).model_dump(mode="json")
    data["engines"]["array"] |= {"loaded_with_outputs": together}
    data["memories"]["accumulators"] |= {"size_bytes": 1024, "buffering": "overlapped"}
    data["memories"]["sram"] |= {"holds": ["weights", "inputs"]}
    return HardwareProfile.model_validate(data)


def mapped(together: list[str]) -> LayerCost:
    return map_layer(POINTWISE, blocks(together), "array", Objective.LATENCY)


def read(cost: LayerCost, operand: Operand) -> int:
    return next(part.read_bytes for part in cost.traffic if (part.memory, part.operand) == ("dram", operand))


def test_a_block_of_outputs_reads_its_own_inputs_and_weights() -> None:
    kept, anew = mapped([]), mapped(["weights", "inputs"])
    inputs, weights = 16 * 16, 64 * 16
    assert (read(kept, Operand.INPUTS), read(kept, Operand.WEIGHTS)) == (inputs, weights)
    # blocks of 16 channels x 16 pixels; 32 x 8 would read 2 x inputs + 2 x weights, 64 x 4 inputs + 4 x weights
    assert (read(anew, Operand.INPUTS), read(anew, Operand.WEIGHTS)) == (4 * inputs, weights)
    assert kept.proven and anew.proven


def test_a_mapping_that_keeps_them_is_refused() -> None:
    mapping = mapped([]).mapping
    assert mapping is not None
    assert problems_of(POINTWISE, mapping, blocks([])) == []
    problems = problems_of(POINTWISE, mapping, blocks(["weights", "inputs"]))
    found = "are loaded anew for every tile of outputs on engine array"
    assert problems and all(
        found in problem and "must run outside their innermost tile" in problem for problem in problems
    )


def test_cuts_wait_for_those_inside_them() -> None:
    free, bound = stairs((1, 1, 1)), stairs((1, 1, 1), (1,))
    assert [step.cut for step in free.steps[0]] == [0, 1, 2]
    assert [step.cut for step in bound.steps[0]] == [0, 1]
    assert all(stage.placed[1] for stage in bound.stages if stage.placed[2])


def test_show_says_so() -> None:
    text = " ".join(show_profile("ethos_u55_128").split())
    assert "weights and inputs are loaded anew for every tile of outputs" in text
