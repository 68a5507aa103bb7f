"""Counts read off the TIR equal the closed form of the cost model, and notice every change of the schedule."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings

from codesign.hardware.loading import load_profile
from codesign.lowering.computation import layer_function
from codesign.lowering.counts import counts_of_function
from codesign.lowering.schedule import schedule_layer
from codesign.mapping.counts import counts_of
from codesign.mapping.mapper import search
from codesign.mapping.mapping import (
    ENGINE,
    Allocation,
    LayerCounts,
    Mapping,
    Residence,
    SpatialLoop,
    TemporalLoop,
    Transfer,
)
from codesign.mapping.objective import Objective
from codesign.vocabulary import Dimension, Operand, OperationKind
from codesign.workload.loop_nest import LoopNest
from tests.lowering_cases import Case, cases, machine
from tests.test_lowering_schedule import INPUTS, MACHINE, MAPPING, NEST, OUTPUTS, WEIGHTS


@settings(max_examples=120, deadline=None)
@given(case=cases())
def test_tir_counts_equal_the_closed_form(case: Case) -> None:
    layer = schedule_layer(case.nest, case.mapping, case.profile, "layer")
    assert counts_of_function(layer.function) == counts_of(case.nest, case.mapping, case.profile)


@pytest.mark.parametrize("machine_name", ["ecnn", "gemmini16", "edge_npu"])
@pytest.mark.parametrize(
    "sizes",
    [
        (1, 1, 64, 3, 112, 112, 7, 7),
        (1, 1, 64, 64, 224, 224, 3, 3),
        (1, 96, 1, 1, 56, 56, 3, 3),
        (1, 1, 10, 48, 7, 7, 1, 1),
    ],
)
def test_the_mappers_choice_for_real_layers(machine_name: str, sizes: tuple[int, ...]) -> None:
    profile = load_profile(machine_name).profile
    kind = OperationKind.CONVOLUTION if sizes[1] == 1 else OperationKind.DEPTHWISE_CONVOLUTION
    pad = sizes[-1] // 2
    nest = LoopNest(kind, sizes, (2, 2), (1, 1), (pad,) * 4, 2 * sizes[4], 2 * sizes[5])  # type: ignore[arg-type]
    engine = next(name for name, engine in profile.engines.items() if kind in engine.operations)
    mapping = search(nest, profile, engine, Objective.LATENCY).mapping
    found = counts_of_function(schedule_layer(nest, mapping, profile, "layer").function, profile.homes)
    assert found == counts_of(nest, mapping, profile)


def test_a_layer_counted_by_hand() -> None:
    """3 outputs of 2 channels over 5 columns, one tap in stride 2: of the real columns 0, 2 and 4 are touched.

    Two lanes over K, in two steps, the second half idle. Weights stay in their buffer, inputs come column by column.
    """
    profile = machine(
        {"accumulators": ["outputs"], "buffer": ["weights", "inputs"]}, {"lanes": {"size": 2, "unrolls": ["K"]}}
    )
    nest = LoopNest(OperationKind.CONVOLUTION, (1, 1, 3, 2, 1, 3, 1, 1), (1, 2), input_rows=1, input_columns=5)
    loops = (TemporalLoop(Dimension.OX, 3), TemporalLoop(Dimension.K, 2), TemporalLoop(Dimension.C, 2))
    tiles = (Residence(WEIGHTS, "buffer", 0), Residence(INPUTS, "buffer", 1), Residence(OUTPUTS, "accumulators", 2))
    mapping = Mapping("array", (SpatialLoop("lanes", Dimension.K, 2),), loops, tiles)
    assert counts_of_function(schedule_layer(nest, mapping, profile, "layer").function) == LayerCounts(
        macs_useful=18,
        macs_issued=24,
        transfers=(
            Transfer(INPUTS, "buffer", ENGINE, 12),  # one value for both lanes, every step
            Transfer(INPUTS, "dram", "buffer", 6),
            Transfer(OUTPUTS, "accumulators", "dram", 9),
            Transfer(OUTPUTS, "accumulators", ENGINE, 9),  # the second channel adds to the first
            Transfer(OUTPUTS, ENGINE, "accumulators", 18),
            Transfer(WEIGHTS, "buffer", ENGINE, 18),
            Transfer(WEIGHTS, "dram", "buffer", 6),
        ),
        allocations=(
            Allocation(INPUTS, "buffer", 2),
            Allocation(OUTPUTS, "accumulators", 2),
            Allocation(WEIGHTS, "buffer", 6),
        ),
    )


def moved(operand: Operand, memory: str, position: int) -> Mapping:
    tiles = tuple(
        replace(tile, position=position) if (tile.operand, tile.memory) == (operand, memory) else tile
        for tile in MAPPING.residences
    )
    return replace(MAPPING, residences=tiles)


CHARGED = counts_of(NEST, MAPPING, MACHINE)


def read_off(mapping: Mapping) -> LayerCounts:
    return counts_of_function(schedule_layer(NEST, mapping, MACHINE, "layer").function)


def test_the_schedule_charged_is_the_schedule_read() -> None:
    assert read_off(MAPPING) == CHARGED


@pytest.mark.parametrize(
    "altered",
    [
        moved(WEIGHTS, "sram", 1),
        moved(INPUTS, "registers", 8),
        moved(OUTPUTS, "accumulators", 4),
        replace(MAPPING, loops=(MAPPING.loops[0], TemporalLoop(Dimension.OY, 9), *MAPPING.loops[2:])),
        replace(MAPPING, spatial=(SpatialLoop("rows", Dimension.C, 3), MAPPING.spatial[1])),
    ],
    ids=["weights earlier", "inputs later", "outputs later", "another tile", "other lanes"],
)
def test_an_altered_schedule_is_noticed(altered: Mapping) -> None:
    assert read_off(altered) != CHARGED


@pytest.mark.parametrize("block", ["inputs_sram", "weights_registers", "outputs", "outputs_update"])
def test_altered_tir_is_noticed(block: str) -> None:
    """One loop inside the scheduled function runs one iteration less."""
    function = schedule_layer(NEST, MAPPING, MACHINE, "layer").function
    assert counts_of_function(_shortened(function, block)) != CHARGED
    assert counts_of_function(_shortened(function, "no such block")) == CHARGED


def _shortened(function: Any, block: str) -> Any:
    import tvm_ffi
    from tvm import tirx

    def shorten(loop: Any) -> Any:
        realize = loop.body
        if type(realize).__name__ != "SBlockRealize" or realize.block.name_hint != block:
            return loop
        extent = tirx.const(int(loop.extent) - 1, "int32")
        return tirx.For(loop.loop_var, loop.min, extent, loop.kind, loop.body, None, loop.annotations)

    return tvm_ffi.structural_map(function, [(tirx.For, shorten)])


def test_a_function_that_is_no_schedule_is_refused() -> None:
    with pytest.raises(ValueError) as refused:
        counts_of_function(layer_function(NEST, "layer"))
    assert str(refused.value) == "block outputs: its initialisation must be a block of its own"
