"""Partial sums that leave their tile and return: executed, counted, and every copy of them needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.lowering.counts import counts_of_function
from codesign.lowering.schedule import schedule_layer
from codesign.mapping.counts import counts_of
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
from codesign.vocabulary import MAC_KINDS, Dimension, OperationKind
from codesign.workload.loop_nest import LoopNest
from tests.lowering_cases import Case, cases, machine, onnxruntime_outputs, operands, run
from tests.test_lowering_schedule import INPUTS, MACHINE, OUTPUTS, WEIGHTS, difference

TILES = ["outputs_accumulators", "outputs_sram", "outputs"]
NEST = LoopNest(OperationKind.CONVOLUTION, (1, 1, 4, 5, 4, 4, 3, 3), (1, 1), (1, 1), (1, 1, 1, 1), 4, 4)
ORDER = (("K", 2), ("C", 3), ("OX", 4), ("FY", 3), ("OY", 4), ("FX", 3))  # the last of the C tiles is half empty
MAPPING = Mapping(
    "array",
    (SpatialLoop("rows", Dimension.C, 2), SpatialLoop("columns", Dimension.K, 2)),
    tuple(TemporalLoop(Dimension(dimension), extent) for dimension, extent in ORDER),
    (
        Residence(WEIGHTS, "registers", 5),
        Residence(WEIGHTS, "sram", 1),
        Residence(INPUTS, "registers", 5),
        Residence(INPUTS, "sram", 0),
        Residence(OUTPUTS, "accumulators", 4),  # leaves within C and FY
        Residence(OUTPUTS, "sram", 2),  # leaves within C
    ),
)
CHARGED = counts_of(NEST, MAPPING, MACHINE)


def scheduled() -> Any:
    return schedule_layer(NEST, MAPPING, MACHINE, "conv1").function


def altered(function: Any, change: Callable[[Any], Any]) -> Any:
    """The function with each block's realization as `change` returns it."""
    import tvm_ffi
    from tvm import s_tir

    return tvm_ffi.structural_map(function, [(s_tir.SBlockRealize, change)])


def poisoned(function: Any, tiles: list[str]) -> Any:
    """Every copy out of a tile of outputs leaves NaN (or the least integer) behind. tiles: innermost first."""
    from tvm import s_tir, tirx

    def poison(realize: Any) -> Any:
        if not is_copy(realize, tiles) or not is_outwards(realize, tiles):
            return realize
        block, copy = realize.block, realize.block.body
        dtype = str(copy.value.ty)
        nothing = tirx.const(float("nan") if dtype == "float32" else -(2**31), dtype)
        body = tirx.SeqStmt([copy, tirx.BufferStore(copy.value.source, nothing, copy.value.indices)])
        writes = [*block.writes, *block.reads]
        return s_tir.SBlockRealize(
            realize.iter_values,
            realize.predicate,
            s_tir.SBlock(block.iter_vars, block.reads, writes, block.name_hint, body),
        )

    return altered(function, poison)


def is_copy(realize: Any, tiles: list[str]) -> bool:
    store = realize.block.body
    kinds = type(store).__name__, type(getattr(store, "value", None)).__name__
    return kinds == ("BufferStore", "TensorLoad") and {store.buffer.name, store.value.source.name} <= set(tiles)


def is_outwards(realize: Any, tiles: list[str]) -> bool:
    store = realize.block.body
    return tiles.index(store.value.source.name) < tiles.index(store.buffer.name)


def never(block: str, outwards: bool | None) -> Callable[[Any], Any]:
    """The block of this name never runs. outwards: of the copies called so, the one in this direction."""

    def change(realize: Any) -> Any:
        from tvm import tirx

        if realize.block.name_hint != block:
            return realize
        if outwards is not None and is_outwards(realize, TILES) != outwards:
            return realize
        return type(realize)(realize.iter_values, tirx.const(False, "bool"), realize.block)

    return change


def zeros_and_sums_change_places(realize: Any) -> Any:
    """Sums come in at the first visit, zeros at every other: no output tile is ragged, they differ in this alone."""
    from tvm import tirx

    if realize.block.name_hint not in ("outputs_init", "outputs_accumulators"):
        return realize
    return type(realize)(realize.iter_values, tirx.Not(realize.predicate), realize.block)


def tiles_of(case: Case) -> list[str]:
    return [f"outputs_{memory}" for memory in case.profile.hierarchy("array", OUTPUTS)[:-1]] + ["outputs"]


@pytest.mark.parametrize("kind", sorted(MAC_KINDS))
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_sums_survive_where_the_next_memory_keeps_them(kind: OperationKind, data: st.DataObject) -> None:
    """Nothing stays behind in a tile that was copied out, and yet the sums are complete."""
    case: Case = data.draw(cases(kind, evicting=True).filter(lambda case: case.evicts))
    inputs, weights = operands(case.nest)
    function = poisoned(schedule_layer(case.nest, case.mapping, case.profile, "layer").function, tiles_of(case))
    assert difference(run(function, inputs, weights, case.nest), onnxruntime_outputs(case.nest, inputs, weights)) < 1e-5


@settings(max_examples=60, deadline=None)
@given(case=cases(evicting=True).filter(lambda case: case.evicts))
def test_tir_counts_equal_the_closed_form(case: Case) -> None:
    found = counts_of_function(schedule_layer(case.nest, case.mapping, case.profile, "layer").function)
    assert found == counts_of(case.nest, case.mapping, case.profile)
    assert any(transfer.partial for transfer in found.transfers)


@settings(max_examples=20, deadline=None)
@given(case=cases(OperationKind.CONVOLUTION, evicting=True).filter(lambda case: case.evicts))
def test_int8_is_exact(case: Case) -> None:
    generator = np.random.default_rng(3)
    inputs, weights = (generator.integers(-128, 128, array.shape, dtype=np.int8) for array in operands(case.nest))
    function = schedule_layer(case.nest, case.mapping, case.profile, "layer", "int8").function
    found = run(poisoned(function, tiles_of(case)), inputs, weights, case.nest, "int32")
    exact = onnxruntime_outputs(case.nest, inputs.astype(np.float32), weights.astype(np.float32))
    assert (found == exact).all()  # at most 150 products: float32 holds every sum


def test_the_tir_reads_as_the_mapping(golden: Callable[[str, str], None]) -> None:
    golden("scheduled_partial_sums.txt", str(scheduled().script()) + "\n")


def test_a_layer_counted_by_hand() -> None:
    """2 outputs of 3 channels over 2 columns, accumulators for one column: they are left 6 times.

    In the first of the three channels sums start at zero; the other two bring them back.
    """
    profile = machine(
        {"accumulators": ["outputs"], "buffer": ["weights", "inputs"]}, {"lanes": {"size": 2, "unrolls": ["K"]}}
    )
    nest = LoopNest(OperationKind.CONVOLUTION, (1, 1, 2, 3, 1, 2, 1, 1), input_rows=1, input_columns=2)
    loops = (TemporalLoop(Dimension.C, 3), TemporalLoop(Dimension.OX, 2))
    tiles = (Residence(WEIGHTS, "buffer", 1), Residence(INPUTS, "buffer", 2), Residence(OUTPUTS, "accumulators", 2))
    mapping = Mapping("array", (SpatialLoop("lanes", Dimension.K, 2),), loops, tiles)
    assert counts_of_function(schedule_layer(nest, mapping, profile, "layer").function) == LayerCounts(
        macs_useful=12,
        macs_issued=12,
        transfers=(
            Transfer(INPUTS, "buffer", ENGINE, 6),
            Transfer(INPUTS, "dram", "buffer", 6),
            Transfer(OUTPUTS, "accumulators", "dram", 12, partial=True),
            Transfer(OUTPUTS, "accumulators", ENGINE, 8),
            Transfer(OUTPUTS, "dram", "accumulators", 8, partial=True),
            Transfer(OUTPUTS, ENGINE, "accumulators", 12),
            Transfer(WEIGHTS, "buffer", ENGINE, 12),
            Transfer(WEIGHTS, "dram", "buffer", 6),
        ),
        allocations=(
            Allocation(INPUTS, "buffer", 1),
            Allocation(OUTPUTS, "accumulators", 2),
            Allocation(WEIGHTS, "buffer", 2),
        ),
    )


@pytest.mark.parametrize(
    "change",
    [
        never("outputs_init", None),
        never("outputs_accumulators", outwards=False),
        never("outputs_sram", outwards=True),
        never("outputs_sram", outwards=False),
        never("outputs", outwards=True),
        zeros_and_sums_change_places,
    ],
    ids=["no zeros", "no way back in", "no way out", "no way back from dram", "no way to dram", "zeros too late"],
)
def test_no_zero_and_no_copy_can_be_left_out(change: Callable[[Any], Any]) -> None:
    inputs, weights = operands(NEST)
    expected = onnxruntime_outputs(NEST, inputs, weights)
    function = scheduled()
    assert counts_of_function(function) == CHARGED
    assert difference(run(poisoned(function, TILES), inputs, weights, NEST), expected) < 1e-5
    wrong = altered(function, change)
    assert counts_of_function(wrong) != CHARGED
    assert not difference(run(poisoned(wrong, TILES), inputs, weights, NEST), expected) < 1e-2


@pytest.mark.parametrize(("memory", "position"), [("accumulators", 3), ("accumulators", 5), ("sram", 0), ("sram", 4)])
def test_another_position_is_noticed(memory: str, position: int) -> None:
    tiles = tuple(
        replace(tile, position=position) if (tile.operand, tile.memory) == (OUTPUTS, memory) else tile
        for tile in MAPPING.residences
    )
    function = schedule_layer(NEST, replace(MAPPING, residences=tiles), MACHINE, "conv1").function
    assert counts_of_function(function) != CHARGED


def test_a_tile_that_leaves_takes_no_more_room_than_itself() -> None:
    """TVM allocates each tile of outputs where it lives: the buffers are as large as the counts say."""
    import tvm
    import tvm_ffi
    from tvm import s_tir

    module = tvm.IRModule({"conv1": scheduled()})
    for name in ("PlanAndUpdateBufferAllocationLocation", "ConvertBlocksToOpaque", "CompactBufferAllocation"):
        module = getattr(s_tir.transform, name)()(module)
    sizes: dict[str, int] = {}

    def note(block: Any) -> None:
        sizes.update({str(tile.name): prod(int(size) for size in tile.ty.shape) for tile in block.alloc_buffers})

    tvm_ffi.structural_walk(module["conv1"], [(s_tir.SBlock, note)])
    for allocation in CHARGED.allocations:
        if allocation.operand is OUTPUTS:
            assert sizes[f"outputs_{allocation.memory}"] == allocation.elements
