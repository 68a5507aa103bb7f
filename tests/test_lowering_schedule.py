"""Scheduled layers compute what onnxruntime computes, whatever the mapping."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.lowering.schedule import lanes_in_loops, schedule_layer
from codesign.lowering.tir_reading import memory_of, scope_of
from codesign.mapping.mapping import Mapping, Residence, SpatialLoop, TemporalLoop
from codesign.mapping.window import windows_of
from codesign.vocabulary import MAC_KINDS, Dimension, Operand, OperationKind
from codesign.workload.loop_nest import LoopNest
from tests.lowering_cases import Case, cases, machine, onnxruntime_outputs, operands, run

INPUTS, WEIGHTS, OUTPUTS = Operand.INPUTS, Operand.WEIGHTS, Operand.OUTPUTS
MACHINE = machine(
    {"registers": ["weights", "inputs"], "accumulators": ["outputs"], "sram": ["weights", "inputs", "outputs"]},
    {"rows": {"size": 4, "unrolls": ["C"]}, "columns": {"size": 4, "unrolls": ["K"]}},
)
NEST = LoopNest(OperationKind.CONVOLUTION, (1, 1, 10, 6, 9, 9, 3, 3), (2, 2), (1, 1), (1, 1, 1, 1), 17, 17)
ORDER = (("K", 2), ("OY", 3), ("K", 2), ("OX", 9), ("C", 2), ("FY", 3), ("OY", 3), ("FX", 3))
MAPPING = Mapping(
    "array",
    (SpatialLoop("rows", Dimension.C, 4), SpatialLoop("columns", Dimension.K, 4)),
    tuple(TemporalLoop(Dimension(dimension), extent) for dimension, extent in ORDER),
    (
        Residence(WEIGHTS, "registers", 7),
        Residence(WEIGHTS, "sram", 3),
        Residence(INPUTS, "registers", 6),
        Residence(INPUTS, "sram", 2),
        Residence(OUTPUTS, "accumulators", 3),
        Residence(OUTPUTS, "sram", 2),
    ),
)


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference over the largest value."""
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-6))


@pytest.mark.parametrize("kind", sorted(MAC_KINDS))
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_every_kind_equals_onnxruntime(kind: OperationKind, data: st.DataObject) -> None:
    case: Case = data.draw(cases(kind))
    inputs, weights = operands(case.nest)
    function = schedule_layer(case.nest, case.mapping, case.profile, "layer").function
    assert difference(run(function, inputs, weights, case.nest), onnxruntime_outputs(case.nest, inputs, weights)) < 1e-5


def test_a_flipped_weight_shows() -> None:
    inputs, weights = operands(NEST)
    found = run(schedule_layer(NEST, MAPPING, MACHINE, "layer").function, inputs, weights, NEST)
    assert difference(found, onnxruntime_outputs(NEST, inputs, weights)) < 1e-5
    one_wrong = weights.copy()
    one_wrong[0, 7, 5, 2, 0] *= -1
    assert difference(found, onnxruntime_outputs(NEST, inputs, one_wrong)) > 1e-2
    assert difference(found, onnxruntime_outputs(NEST, inputs, weights[..., ::-1])) > 1e-1


@settings(max_examples=15, deadline=None)
@given(case=cases())
def test_pixels_no_loop_touches_are_not_read(case: Case) -> None:
    if case.nest.kind in (OperationKind.DENSE, OperationKind.MATMUL):
        return
    inputs, weights = operands(case.nest)
    expected = onnxruntime_outputs(case.nest, inputs, weights)
    inputs[..., [row for row in range(case.nest.input_rows) if not _touched(case.nest, 0, row)], :] = np.nan
    inputs[..., [column for column in range(case.nest.input_columns) if not _touched(case.nest, 1, column)]] = np.nan
    function = schedule_layer(case.nest, case.mapping, case.profile, "layer").function
    assert difference(run(function, inputs, weights, case.nest), expected) < 1e-5


def _touched(nest: LoopNest, axis: int, at: int) -> bool:
    window = windows_of(nest)[axis]
    place = at * window.input_dilation + window.pad
    return any(
        output * window.stride + tap * window.dilation == place
        for output in range(window.outputs)
        for tap in range(window.taps)
    )


def test_int8_accumulates_in_int32() -> None:
    generator = np.random.default_rng(3)
    inputs, weights = (generator.integers(-128, 128, array.shape, dtype=np.int8) for array in operands(NEST))
    found = run(schedule_layer(NEST, MAPPING, MACHINE, "layer", "int8").function, inputs, weights, NEST, "int32")
    exact = onnxruntime_outputs(NEST, inputs.astype(np.float32), weights.astype(np.float32))
    assert (found == exact).all()
    assert np.abs(exact).max() > 2**15


def test_the_tir_reads_as_the_mapping(golden: Callable[[str, str], None]) -> None:
    function = schedule_layer(NEST, MAPPING, MACHINE, "conv1").function
    golden("scheduled_convolution.txt", str(function.script()) + "\n")


def test_idle_lanes_stand_in_the_annotation_alone() -> None:
    loops = (SpatialLoop("a", Dimension.K, 4), SpatialLoop("b", Dimension.K, 4), SpatialLoop("c", Dimension.FY, 3))
    nest = LoopNest(OperationKind.CONVOLUTION, (1, 1, 6, 1, 1, 1, 1, 1), input_rows=1, input_columns=1)
    assert lanes_in_loops(nest, Mapping("array", loops, (), ())) == (2, 4, 1)


@pytest.mark.parametrize("memory", ["sram", "vtcm", "vtcm0", "texture", "shared", "local"])
def test_a_memory_may_have_any_name(memory: str) -> None:
    assert memory_of(scope_of(memory)) == memory
    axes = {"rows": {"size": 1, "unrolls": ["C"]}}
    profile = machine({"accumulators": ["outputs"], memory: ["weights", "inputs"]}, axes)
    nest = LoopNest(OperationKind.CONVOLUTION, (1, 1, 2, 3, 4, 4, 1, 1), input_rows=4, input_columns=4)
    loops = tuple(TemporalLoop(Dimension(name), extent) for name, extent in (("OY", 4), ("K", 2), ("OX", 4), ("C", 3)))
    tiles = (Residence(WEIGHTS, memory, 0), Residence(INPUTS, memory, 1), Residence(OUTPUTS, "accumulators", 1))
    inputs, weights = operands(nest)
    function = schedule_layer(nest, Mapping("array", (), loops, tiles), profile, "layer").function
    assert difference(run(function, inputs, weights, nest), onnxruntime_outputs(nest, inputs, weights)) < 1e-5


def without(operand: Operand, memory: str) -> tuple[Residence, ...]:
    return tuple(tile for tile in MAPPING.residences if (tile.operand, tile.memory) != (operand, memory))


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (replace(MAPPING, residences=without(WEIGHTS, "sram")), "the mapping has no residence of weights in sram"),
        (
            replace(MAPPING, residences=(*without(INPUTS, "sram"), Residence(INPUTS, "sram", 8))),
            "inputs: the tile in sram lies inside the one in registers",
        ),
        (
            replace(MAPPING, residences=(*without(INPUTS, "registers"), Residence(INPUTS, "registers", 9))),
            "inputs in registers: there is no position 9",
        ),
        (replace(MAPPING, loops=(TemporalLoop(Dimension.K, 1), *MAPPING.loops[1:])), "the loops cover 8 of 10 in K"),
    ],
)
def test_a_mapping_of_another_layer_is_refused(mapping: Mapping, message: str) -> None:
    with pytest.raises(ValueError) as refused:
        schedule_layer(NEST, mapping, MACHINE, "layer")
    assert str(refused.value) == message


def test_a_layer_without_macs_is_refused() -> None:
    pool = replace(NEST, kind=OperationKind.MAX_POOL)
    with pytest.raises(ValueError) as refused:
        schedule_layer(pool, MAPPING, MACHINE, "pool1")
    assert str(refused.value) == "pool1: max_pool has no multiply-accumulates to schedule"
