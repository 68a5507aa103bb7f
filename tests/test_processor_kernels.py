"""Kernels for processors against onnxruntime: every kind of window, group and tile, and the MACs read back off them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.lowering.processor.convolution import Convolution, group_split, pack_bias, pack_weights
from codesign.lowering.processor.depthwise import Depthwise, pack_depthwise
from codesign.lowering.processor.layout import Layout
from codesign.lowering.processor.loops import Part, Tile, parts
from codesign.lowering.processor.macs import macs_expected, macs_of_function
from codesign.vocabulary import Dimension, OperationKind
from codesign.workload.loop_nest import LoopNest
from tests.processor_cases import Case, blocked, called, reference, relative_difference, unblocked

LANES = 8
HALO = (1, 2, 0, 3)


def kernel_of(case: Case, tile: Tile, input_lanes: int = LANES, threads: int = 1) -> Convolution | Depthwise:
    past = tuple(
        max(0, (outputs - 1) * stride + (taps - 1) * dilation - pad - (size - 1))
        for outputs, stride, taps, dilation, pad, size in zip(
            case.output_size, case.stride, case.kernel, case.dilation, case.pads[:2], case.size, strict=True
        )
    )
    source = Layout(case.batch, case.inputs, *case.size, input_lanes, (*case.pads[:2], *past))
    result = Layout(case.batch, case.outputs, *case.output_size, LANES, HALO)
    window = (case.kernel, case.stride, case.dilation, case.pads[:2])
    if case.groups == case.inputs == case.outputs and case.groups > 1:
        return Depthwise(source, result, *window, tile, (), threads)
    groups = group_split(case.groups, case.outputs // case.groups, case.inputs // case.groups, LANES, input_lanes)
    assert groups is not None
    return Convolution(source, result, *window, groups, LANES, tile, (), threads)


def packed(case: Case, kernel: Convolution | Depthwise, w: np.ndarray) -> np.ndarray:
    return (pack_depthwise(w, LANES) if isinstance(kernel, Depthwise) else pack_weights(w, case.groups, kernel)).ravel()


def run_kernel(kernel: Any, *arrays: np.ndarray) -> np.ndarray:
    """What a kernel makes of float arrays."""
    return called(kernel, "float32", *arrays)


def nest_of_case(case: Case) -> LoopNest:
    groups = case.groups
    sizes = (case.batch, groups, case.outputs // groups, case.inputs // groups, *case.output_size, *case.kernel)
    kinds = {1: OperationKind.CONVOLUTION, case.inputs: OperationKind.DEPTHWISE_CONVOLUTION}
    kind = kinds.get(groups, OperationKind.GROUPED_CONVOLUTION) if groups > 1 else OperationKind.CONVOLUTION
    return LoopNest(kind, sizes, case.stride, case.dilation, case.pads, *case.size)


CASES = {
    "3x3": (Case(16, 24, (9, 11)), Tile(2, 1, 4)),
    "strided": (Case(8, 16, (10, 13), stride=(2, 2)), Tile(1, 2, 3)),
    "dilated": (Case(8, 8, (9, 9), dilation=(2, 3), pads=(2, 3, 2, 3)), Tile(1, 1, 5)),
    "uneven": (Case(8, 8, (7, 8), kernel=(3, 2), stride=(2, 1), pads=(0, 1, 2, 0)), Tile(1, 2, 2)),
    "1x1": (Case(24, 40, (5, 6), kernel=(1, 1), pads=(0, 0, 0, 0)), Tile(3, 2, 2)),
    "ragged": (Case(5, 19, (6, 7)), Tile(2, 1, 4)),
    "groups": (Case(32, 16, (6, 7), groups=2), Tile(1, 1, 4)),
    "narrow groups": (Case(16, 16, (6, 7), groups=4), Tile(1, 2, 4)),
    "a last vector half full": (Case(20, 20, (6, 7), groups=5), Tile(1, 1, 4)),
    "batch": (Case(8, 16, (5, 5), batch=3), Tile(2, 1, 3)),
    "depthwise 5x5": (Case(24, 24, (9, 8), kernel=(5, 5), pads=(2, 2, 2, 2), groups=24), Tile(1, 2, 3)),
    "depthwise strided": (Case(12, 12, (9, 8), stride=(2, 2), groups=12), Tile(1, 1, 3)),
    "loops twice": (
        Case(8, 40, (11, 11)),
        Tile(1, 1, 2, ((Dimension.OX, 9), (Dimension.K, 2), (Dimension.OY, 1), (Dimension.K, 2), (Dimension.OX, 2))),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_kernel_computes_what_onnxruntime_does(name: str) -> None:
    case, tile = CASES[name]
    x, w, b = case.arrays()
    kernel = kernel_of(case, tile)
    result = run_kernel(kernel, blocked(x, kernel.source), packed(case, kernel, w), pack_bias(b, case.outputs, LANES))
    image, around = unblocked(result, kernel.result)
    assert relative_difference(image, reference(case, x, w, b)) < 1e-5
    assert not around.any()


def test_a_plain_image_is_read_lane_by_lane() -> None:
    case = Case(3, 16, (12, 10), kernel=(5, 5), stride=(2, 2), pads=(2, 2, 2, 2))
    x, w, b = case.arrays()
    kernel = kernel_of(case, Tile(2, 1, 5), input_lanes=1)
    result = run_kernel(kernel, blocked(x, kernel.source), packed(case, kernel, w), pack_bias(b, 16, LANES))
    assert relative_difference(unblocked(result, kernel.result)[0], reference(case, x, w, b)) < 1e-5


def test_a_wrong_weight_and_a_wrong_halo_are_seen() -> None:
    case, tile = CASES["3x3"]
    x, w, b = case.arrays()
    kernel = kernel_of(case, tile)
    expected = reference(case, x, w, b)
    wrong = packed(case, kernel, w)
    wrong[5] += 1
    bias = pack_bias(b, case.outputs, LANES)
    changed = run_kernel(kernel, blocked(x, kernel.source), wrong, bias)
    assert relative_difference(unblocked(changed, kernel.result)[0], expected) > 1e-3
    dirty = run_kernel(kernel, blocked(x, kernel.source, around=1.0), packed(case, kernel, w), bias)
    assert relative_difference(unblocked(dirty, kernel.result)[0], expected) > 1e-3


def test_threads_share_the_tiles() -> None:
    case, tile = CASES["batch"]
    x, w, b = case.arrays()
    kernel = kernel_of(case, tile, threads=2)
    assert "T.parallel" in str(kernel.function().script())
    result = run_kernel(kernel, blocked(x, kernel.source), packed(case, kernel, w), pack_bias(b, case.outputs, LANES))
    assert relative_difference(unblocked(result, kernel.result)[0], reference(case, x, w, b)) < 1e-5


@settings(max_examples=8, deadline=None)
@given(
    st.integers(1, 20),
    st.integers(1, 30),
    st.integers(3, 9),
    st.integers(3, 9),
    st.sampled_from([(1, 1), (3, 3), (2, 3)]),
    st.sampled_from([(1, 1), (2, 1), (2, 3)]),
    st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5)),
)
def test_any_tile_of_any_convolution(
    inputs: int,
    outputs: int,
    rows: int,
    columns: int,
    window: tuple[int, int],
    stride: tuple[int, int],
    block: tuple[int, int, int],
) -> None:
    case = Case(inputs, outputs, (rows, columns), kernel=window, stride=stride)
    x, w, b = case.arrays()
    kernel = kernel_of(case, Tile(*block))
    result = run_kernel(kernel, blocked(x, kernel.source), packed(case, kernel, w), pack_bias(b, outputs, LANES))
    image, around = unblocked(result, kernel.result)
    assert relative_difference(image, reference(case, x, w, b)) < 1e-5
    assert not around.any()
    assert macs_of_function(kernel.function()) == kernel.macs_issued


@pytest.mark.parametrize("name", CASES)
def test_macs_are_read_back(name: str) -> None:
    case, tile = CASES[name]
    kernel = kernel_of(case, tile)
    counted = macs_of_function(kernel.function())
    nest = nest_of_case(case)
    assert counted == kernel.macs_issued == macs_expected(nest, LANES, LANES) >= nest.macs


def test_macs_of_a_kernel_that_does_less_differ() -> None:
    case, tile = CASES["3x3"]
    kernel = kernel_of(case, tile)
    short = replace(kernel, kernel=(3, 2))
    assert macs_of_function(short.function()) != macs_expected(nest_of_case(case), LANES, LANES)


def test_parts_cover_an_extent_once() -> None:
    assert parts(7, 3) == [Part(0, (2,), 3), Part(6, (1,), 1)]
    assert parts(20, 2, [9, 2, 2]) == [Part(0, (2, 2, 2), 2), Part(16, (2, 1, 1), 2)]
    assert parts(5, 8) == [Part(0, (1,), 5)]


def test_groups_that_do_not_fit_vectors_are_refused() -> None:
    assert group_split(3, 5, 5, 16, 16) is None
    assert group_split(6, 4, 8, 16, 16) is None
    assert group_split(4, 16, 16, 16, 16) == 4
    assert group_split(8, 4, 4, 16, 16) == 2
