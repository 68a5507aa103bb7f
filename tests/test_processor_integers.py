"""Integer kernels for processors against numpy in 64 bits: sums, and codes rounded half to even."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from codesign.lowering.processor.convolution import group_split
from codesign.lowering.processor.depthwise import pack_depthwise
from codesign.lowering.processor.integer_convolution import (
    SIGNED_OFFSET,
    IntegerConvolution,
    IntegerDepthwise,
    Requantization,
    RequantizedConvolution,
    RequantizedDepthwise,
    pack_integer_bias,
    pack_integer_weights,
)
from codesign.lowering.processor.layout import Layout
from codesign.lowering.processor.loops import Tile
from codesign.lowering.processor.macs import macs_of_function
from codesign.lowering.targets import host_features
from tests.processor_cases import Case, called

LANES = 16
TILE = Tile(2, 1, 4)
HALO = (1, 0, 2, 1)
CASES = {
    "3x3": Case(32, 40, (7, 9)),
    "strided, ragged": Case(20, 19, (9, 9), stride=(2, 2)),
    "1x1": Case(48, 32, (5, 6), kernel=(1, 1), pads=(0, 0, 0, 0)),
    "dilated, groups": Case(64, 32, (8, 8), dilation=(2, 2), pads=(2, 2, 2, 2), groups=2),
    "narrow groups": Case(32, 32, (6, 7), groups=8),
    "depthwise": Case(24, 24, (9, 8), kernel=(5, 5), pads=(2, 2, 2, 2), groups=24),
    "depthwise, 3x3": Case(24, 24, (5, 7), groups=24),
    "depthwise, strided": Case(16, 16, (9, 8), stride=(2, 2), groups=16),
}
KINDS = [pytest.param(False, id="plain")]
KINDS += [pytest.param(True, id="vnni")] * bool(host_features().get("avx512vnni"))


def arrays(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Input codes, weights (the least codes of both among them) and bias."""
    generator = np.random.default_rng(1)
    x = generator.integers(-128, 128, (case.batch, case.inputs, *case.size)).astype(np.int8)
    w = generator.integers(-128, 128, (case.outputs, case.inputs // case.groups, *case.kernel)).astype(np.int8)
    x[0, :, :3, :3], w[0] = -128, -128
    return x, w, generator.integers(-50_000, 50_000, case.outputs).astype(np.int32)


def sums(case: Case, x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    """By numpy, in 64 bits."""
    top, left, bottom, right = case.pads
    padded = np.pad(x.astype(np.int64), ((0, 0), (0, 0), (top, bottom), (left, right)))
    rows, columns = case.output_size
    own_inputs, own_outputs = case.inputs // case.groups, case.outputs // case.groups
    result = np.zeros((case.batch, case.outputs, rows, columns), np.int64)
    for fy in range(case.kernel[0]):
        for fx in range(case.kernel[1]):
            y, z = fy * case.dilation[0], fx * case.dilation[1]
            seen = padded[:, :, y:, z:][:, :, :: case.stride[0], :: case.stride[1]][:, :, :rows, :columns]
            for group in range(case.groups):
                part = seen[:, group * own_inputs : (group + 1) * own_inputs]
                outputs = slice(group * own_outputs, (group + 1) * own_outputs)
                taps = w[outputs, :, fy, fx].astype(np.int64)
                result[:, outputs] += np.einsum("bcyx,kc->bkyx", part, taps)
    result += b.reshape(1, -1, 1, 1)
    return result


def layouts(case: Case) -> tuple[Layout, Layout]:
    source = Layout(case.batch, case.inputs, *case.size, LANES, case.pads)
    return source, Layout(case.batch, case.outputs, *case.output_size, LANES, HALO)


def kernel_of(case: Case, vnni: bool, requantization: Requantization | None = None) -> Any:
    source, result = layouts(case)
    window = (case.kernel, case.stride, case.dilation, case.pads[:2])
    if case.groups == case.inputs:
        if requantization is None:
            return IntegerDepthwise(source, result, *window, TILE, vnni=vnni)
        return RequantizedDepthwise(source, result, *window, TILE, vnni=vnni, requantization=requantization)
    groups = group_split(case.groups, case.outputs // case.groups, case.inputs // case.groups, LANES, LANES)
    assert groups is not None
    if requantization is None:
        return IntegerConvolution(source, result, *window, groups, LANES, TILE, vnni=vnni)
    return RequantizedConvolution(
        source, result, *window, groups, LANES, TILE, vnni=vnni, requantization=requantization
    )


def packed(case: Case, kernel: Any, w: np.ndarray) -> np.ndarray:
    if isinstance(kernel, IntegerDepthwise):
        return pack_depthwise(w, LANES).reshape(-1)
    return pack_integer_weights(w, case.groups, kernel)


def with_offset(x: np.ndarray, layout: Layout) -> np.ndarray:
    """Codes as the kernels keep them, zeros around the image."""
    top, left, bottom, right = layout.halo
    channels = layout.blocks * layout.lanes - layout.channels
    full = np.pad(x.astype(np.int16), ((0, 0), (0, channels), (top, bottom), (left, right))) + SIGNED_OFFSET
    split = full.astype(np.uint8).reshape(layout.batch, layout.blocks, layout.lanes, *full.shape[2:])
    return np.ascontiguousarray(split.transpose(0, 1, 3, 4, 2)).reshape(-1)


def run_kernel(kernel: Any, dtype: str, *operands: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The image a kernel makes, and what it leaves around it."""
    layout = kernel.result
    top, left, bottom, right = layout.halo
    shape = (layout.batch, layout.blocks, layout.rows + top + bottom, layout.columns + left + right, layout.lanes)
    full = called(kernel, dtype, *operands).reshape(shape).transpose(0, 1, 4, 2, 3)
    full = full.reshape(layout.batch, -1, *full.shape[3:])
    inside = np.zeros(full.shape, dtype=bool)
    inside[:, :, top : top + layout.rows, left : left + layout.columns] = True
    return full[:, : layout.channels, top : top + layout.rows, left : left + layout.columns], full[~inside]


@pytest.mark.parametrize("vnni", KINDS)
@pytest.mark.parametrize("name", CASES)
def test_sums_are_numpys(name: str, vnni: bool) -> None:
    case = CASES[name]
    x, w, b = arrays(case)
    kernel = kernel_of(case, vnni)
    bias = pack_integer_bias(b, w, SIGNED_OFFSET, LANES)
    inputs = with_offset(x, kernel.source)
    image, around = run_kernel(kernel, "int32", inputs, packed(case, kernel, w), bias)
    expected = sums(case, x, w, b)
    assert len(np.unique(expected)) > 50
    np.testing.assert_array_equal(image, expected)
    assert not around.any()
    assert macs_of_function(kernel.function()) == kernel.macs_issued
    w[-1, 0, 0, 0] ^= 1
    changed, _ = run_kernel(kernel, "int32", inputs, packed(case, kernel, w), bias)
    assert (changed != expected).any()


@pytest.mark.skipif(not host_features().get("avx512vbmi"), reason="no AVX-512 VBMI")
@pytest.mark.parametrize("name", ["depthwise", "depthwise, strided", "depthwise, 3x3"])
def test_depthwise_sums_of_four_taps_at_once_are_numpys(name: str) -> None:
    case = CASES[name]
    x, w, b = arrays(case)
    top, left, bottom, right = case.pads
    source = Layout(case.batch, case.inputs, *case.size, LANES, (top, left, bottom, right + -case.kernel[1] % 4))
    window = (case.kernel, case.stride, case.dilation, case.pads[:2])
    kernel = IntegerDepthwise(source, layouts(case)[1], *window, TILE, vnni=True, shuffles=True)
    bias = pack_integer_bias(b, w, SIGNED_OFFSET, LANES)
    image, _ = run_kernel(kernel, "int32", with_offset(x, source), kernel.packed(w), bias)
    np.testing.assert_array_equal(image, sums(case, x, w, b))
    assert macs_of_function(kernel.function()) == kernel.macs_issued
    assert kernel.macs_issued % (4 * -(-case.kernel[1] // 4) * case.kernel[0]) == 0
    w[-1, 0, 0, -1] ^= 1
    changed, _ = run_kernel(kernel, "int32", with_offset(x, source), kernel.packed(w), bias)
    assert (changed != image).any()


@pytest.mark.parametrize("name", ["3x3", "depthwise"])
def test_codes_are_sums_rounded_half_to_even(name: str) -> None:
    case = CASES[name]
    x, w, b = arrays(case)
    shifts = np.arange(case.outputs, dtype=np.int32) % 5 + (12 if name == "3x3" else 9)
    shifts[:2] = 0, 1
    kernel = kernel_of(case, len(KINDS) > 1, Requantization(low=-100))
    bias = pack_integer_bias(b, w, SIGNED_OFFSET, LANES)
    all_shifts = np.zeros(len(bias), np.int32)
    all_shifts[: case.outputs] = shifts
    operands = with_offset(x, kernel.source), packed(case, kernel, w), bias, all_shifts
    image, around = run_kernel(kernel, "uint8", *operands)
    scaled = sums(case, x, w, b) / 2.0 ** shifts.reshape(1, -1, 1, 1)  # exact: below 2^53
    expected = np.clip(np.rint(scaled), -100, 127)
    assert (scaled % 1 == 0.5).any()
    assert len(np.unique(expected)) > 50
    np.testing.assert_array_equal(image.astype(np.int64) - SIGNED_OFFSET, expected)
    assert (around == SIGNED_OFFSET).all()
    assert (np.clip(np.floor(scaled + 0.5), -100, 127) != expected).any()  # half up would be seen


@pytest.mark.parametrize("offset", [SIGNED_OFFSET, 3])
def test_small_sums_are_rounded_half_to_even_in_float(offset: int) -> None:
    case = CASES["3x3"]
    x, w, b = arrays(case)
    w >>= 3
    shifts = np.arange(case.outputs) % 6 + 6
    shifts[:3] = 0, 1, -1  # to the left: twice the sum
    low = -100 if offset == SIGNED_OFFSET else -3
    kernel = kernel_of(case, len(KINDS) > 1, Requantization(low, low + 200, offset, in_float=True))
    bias = pack_integer_bias(b, w, SIGNED_OFFSET, LANES)
    factors = np.zeros(len(bias), np.float32)
    factors[: case.outputs] = 2.0**-shifts
    image, around = run_kernel(kernel, "uint8", with_offset(x, kernel.source), packed(case, kernel, w), bias, factors)
    scaled = sums(case, x, w, b) / 2.0 ** shifts.reshape(1, -1, 1, 1)
    assert np.abs(scaled).max() < 2**21
    expected = np.clip(np.rint(scaled), low, low + 200)
    assert (scaled % 1 == 0.5).any()
    assert len(np.unique(expected)) > 50
    np.testing.assert_array_equal(image.astype(np.int64) - offset, expected)
    assert (around == offset).all()
    assert (np.clip(np.floor(scaled + 0.5), low, low + 200) != expected).any()  # half up would be seen


def test_a_bias_that_leaves_int32_is_refused() -> None:
    weights = np.full((1, 1, 1, 1), 127, np.int8)
    with pytest.raises(OverflowError, match="leaves int32"):
        pack_integer_bias(np.array([-(2**31) + 1000], np.int32), weights, SIGNED_OFFSET, LANES)
