"""Operands with homes of their own: on an Ethos-U55 features lie in SRAM, and only weights come from flash."""

from __future__ import annotations

from codesign.hardware.loading import load_profile
from codesign.mapping.layer_cost import LayerCost
from codesign.mapping.mapper import map_layer
from codesign.mapping.objective import Objective
from codesign.mapping.streaming import fused_cost, host_cost, vector_cost, way_out
from codesign.vocabulary import Operand, OperationKind
from codesign.workload.layer import Layer
from codesign.workload.loop_nest import LoopNest

PROFILE = load_profile("ethos_u55_128").profile
CONVOLUTION = LoopNest(OperationKind.CONVOLUTION, (1, 1, 32, 16, 24, 24, 1, 1), input_rows=24, input_columns=24)
DENSE = LoopNest(OperationKind.DENSE, (1, 1, 32, 16, 1, 1, 1, 1))
WEIGHTS = 32 * 16


def moved(cost: LayerCost) -> dict[tuple[str, Operand], tuple[int, int]]:
    """Bytes read and written by memory and operand."""
    return {(part.memory, part.operand): (part.read_bytes, part.write_bytes) for part in cost.traffic}


def test_every_operand_has_a_home() -> None:
    assert [PROFILE.home(operand) for operand in Operand] == ["flash", "system_sram", "system_sram"]
    assert PROFILE.hierarchy("mac_array", Operand.WEIGHTS) == ("weight_registers", "system_sram", "flash")
    assert PROFILE.hierarchy("mac_array", Operand.INPUTS) == ("shram", "system_sram")
    assert PROFILE.hierarchy("mac_array_dense", Operand.WEIGHTS) == ("weight_registers", "flash")


def test_weights_of_a_convolution_are_copied_once_and_read_for_every_block_of_outputs() -> None:
    cost = map_layer(CONVOLUTION, PROFILE, "mac_array", Objective.EDP)
    traffic = moved(cost)
    assert traffic["flash", Operand.WEIGHTS] == (WEIGHTS, 0)
    read, written = traffic["system_sram", Operand.WEIGHTS]
    assert written == WEIGHTS and read % WEIGHTS == 0
    assert read // WEIGHTS >= 2  # accumulators of 24 x 24 x 8 outputs are too many for the SHRAM already
    assert traffic["system_sram", Operand.OUTPUTS] == (0, 24 * 24 * 32)
    assert {operand for memory, operand in traffic if memory == "flash"} == {Operand.WEIGHTS}


def test_weights_of_a_dense_layer_pass_the_sram_by() -> None:
    traffic = moved(map_layer(DENSE, PROFILE, "mac_array_dense", Objective.EDP))
    assert traffic["flash", Operand.WEIGHTS] == (WEIGHTS, 0)
    assert ("system_sram", Operand.WEIGHTS) not in traffic
    assert traffic["system_sram", Operand.INPUTS] == (16, 0)


def test_other_work_reads_and_writes_features_where_they_lie() -> None:
    nest = LoopNest(OperationKind.ACTIVATION, (1, 8, 1, 1, 4, 4, 1, 1), input_elements=128, output_elements=128)
    layer = Layer("relu", "Relu", nest, ("x",), ("y",), parameters=0)
    for cost in (vector_cost(layer, PROFILE), host_cost(layer, PROFILE)):
        traffic = moved(cost)
        assert traffic["system_sram", Operand.INPUTS] == (128, 0)
        assert traffic["system_sram", Operand.OUTPUTS] == (0, 128)
        assert not any(memory == "flash" and sum(size) for (memory, _), size in traffic.items())


def test_a_fused_addition_reads_its_other_operand_where_it_lies() -> None:
    nest = LoopNest(OperationKind.ELEMENTWISE, (1, 32, 1, 1, 24, 24, 1, 1), input_elements=36864, output_elements=18432)
    layer = Layer("add", "Add", nest, ("x", "y"), ("z",), parameters=0)
    head = map_layer(CONVOLUTION, PROFILE, "mac_array", Objective.EDP)
    cost, _ = fused_cost(layer, PROFILE, way_out(head, "mac_array", PROFILE))
    assert moved(cost)["system_sram", Operand.INPUTS] == (18432, 0)
    assert not any(memory == "flash" for memory, _ in moved(cost))
