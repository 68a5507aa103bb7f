"""Formats of numbers: rounding, the least squared error against brute force, and sums that stay within 32 bits."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, parser

from codesign.quantization.formats import ErrorSums, FixedPoint, format_of, widest
from codesign.quantization.weighted import Weighted
from codesign.quantization.weights import best_fraction_bits, weight_codes
from tests.pass_models import graph_of, run

NUMBERS = st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=60).filter(
    lambda numbers: max(map(abs, numbers)) > 1e-4
)


def squared_error(numbers: np.ndarray, fraction_bits: int, bits: int = 8) -> float:
    """By the definition, in float64."""
    scale = 2.0**-fraction_bits
    codes = np.clip(np.round(numbers / scale), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return float(np.square(codes * scale - numbers).sum())


@pytest.mark.parametrize("bits", [8, 16])
def test_codes_are_those_of_onnx(bits: int) -> None:
    form = FixedPoint(bits, 3)
    halves = np.arange(-(2**bits), 2**bits, dtype=np.float32) / 16  # every tie, and both ends
    text = f"""<ir_version: 10, opset_import: ["" : 21]> codes (float[{halves.size}] x) => (int{bits}[n] y)
        <float s = {{{form.scale}}}, int{bits} z = {{0}}> {{ y = QuantizeLinear(x, s, z) }}"""
    assert run(parser.parse_model(text), {"x": halves})["y"].tolist() == form.codes(halves).tolist()
    np.testing.assert_array_equal(form.rounded(halves), form.codes(halves) * np.float32(form.scale))


def test_a_zero_point_makes_codes_unsigned() -> None:
    form = FixedPoint(8, 7, 127)
    assert form.codes(np.array([-1.0, -127 / 128, 0.0, 1.0, 1.01])).tolist() == [0, 0, 127, 255, 255]
    assert (form.low, form.high, form.dtype, str(form)) == (-127, 128, np.uint8, "uint8 x 2^-7")
    assert form.rounded(np.array([0.25, 0.2500001])).tolist() == [0.25, 0.25]


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.sampled_from([8, 16]))
def test_the_widest_format_holds_both_ends_and_no_wider_one_does(below: float, above: float, bits: int) -> None:
    if max(below, above) < 1e-6:
        return
    form = widest(-below, above, bits)
    ends = np.array([-below, above])
    assert squared_error(ends, form.fraction_bits, bits) <= 2 * (form.scale / 2) ** 2 * (1 + 1e-9)
    codes = np.round(ends * 2.0 ** (form.fraction_bits + 1))
    assert codes[0] < form.low or codes[1] > form.high


def test_zeros_have_no_format() -> None:
    with pytest.raises(ValueError, match="all numbers are zero"):
        widest(0.0, 0.0, 8)
    assert format_of(np.zeros(3), least_squares=True).codes(np.zeros(3)).tolist() == [0, 0, 0]


@given(NUMBERS)
@settings(deadline=None, max_examples=40)
def test_the_chosen_range_is_that_of_brute_force(numbers: list[float]) -> None:
    array = np.array(numbers, np.float32)
    sums = ErrorSums.around(widest(float(array.min()), float(array.max()), 8))
    for part in np.array_split(array, 3):
        sums.add(part)
    everywhere = [squared_error(array.astype(np.float64), bits) for bits in range(-30, 61)]
    tried = [squared_error(array.astype(np.float64), form.fraction_bits) for form in sums.candidates]
    np.testing.assert_allclose(sums.errors, tried, rtol=1e-4, atol=1e-9)
    assert tried[sums.best] <= min(everywhere) * (1 + 1e-3) + 1e-9


def test_least_squares_clips_an_outlier_and_the_maximum_does_not() -> None:
    array = np.append(np.random.default_rng(0).standard_normal(100_000), 30).astype(np.float32)
    best, whole = format_of(array, least_squares=True), format_of(array, least_squares=False)
    assert best.fraction_bits > whole.fraction_bits
    assert squared_error(array, best.fraction_bits) < squared_error(array, whole.fraction_bits) * 0.7
    sums = ErrorSums([best])
    sums.add(array)
    assert sums.saturated.tolist() == [1]


@given(st.lists(NUMBERS, min_size=1, max_size=4))
@settings(deadline=None, max_examples=40)
def test_weights_of_every_channel_have_the_least_error(rows: list[list[float]]) -> None:
    width = min(map(len, rows))
    array = np.array([row[:width] for row in rows])
    live = np.abs(array).max(axis=1) > 1e-6
    found = best_fraction_bits(array, least_squares=True)
    for row, bits in zip(array[live], found[live], strict=True):
        best = min(squared_error(row, tried) for tried in range(bits - 6, bits + 3))
        assert squared_error(row, int(bits)) <= best * (1 + 1e-9) + 1e-12


def layer_of(weights: np.ndarray, bias: np.ndarray | None) -> Weighted:
    """A 1 x 1 convolution."""
    names = ["x", "w", *([] if bias is None else ["b"])]
    constants = {"w": weights.astype(np.float32)} | ({} if bias is None else {"b": bias.astype(np.float32)})
    graph = helper.make_graph(
        [helper.make_node("Conv", names, ["y"], name="conv")],
        "one",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, weights.shape[1], 2, 2])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, weights.shape[0], 2, 2])],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    found = Weighted.of(graph_of(model).nodes[0])
    assert isinstance(found, Weighted)
    return found


@pytest.mark.parametrize("per_channel", [True, False])
def test_sums_and_biases_stay_within_32_bits(per_channel: bool) -> None:
    random = np.random.default_rng(0)
    weights = random.standard_normal((3, 70, 1, 1)) * np.array([1.0, 1e-4, 1.0]).reshape(3, 1, 1, 1)
    bias, x = np.array([1.0, 3e4, 0.0]), FixedPoint(16, 14)
    layer = layer_of(weights, bias)
    codes = weight_codes(layer, x, bias, per_channel=per_channel, least_squares=True)
    assert codes.bias is not None
    largest = np.abs(codes.weights.astype(np.int64)).sum(axis=(1, 2, 3)) * 2**15 + np.abs(codes.bias.astype(np.int64))
    assert largest.max() < 2**31
    free = best_fraction_bits(layer.rows if per_channel else layer.rows.reshape(1, -1), least_squares=True)
    unchecked = np.abs(bias) * 2.0 ** (free + 14) + np.abs(layer.rows * 2.0 ** free[:, None]).sum(axis=1) * 2**15
    assert unchecked.max() > 2**31, "without the check it would overflow"
    assert codes.coarser == (1 if per_channel else 3)
    if per_channel:
        assert codes.fraction_bits[0] == free[0], "other channels keep their scale"
    np.testing.assert_allclose(codes.rounded_bias, bias, atol=2.0 ** -float(codes.bias_fraction_bits.min()))


def test_a_channel_of_zeros_keeps_its_bias() -> None:
    weights = np.stack([np.zeros((2, 1, 1)), np.full((2, 1, 1), 0.3)])
    codes = weight_codes(
        layer_of(weights, None), FixedPoint(8, 5), np.array([0.7, 0.1]), per_channel=True, least_squares=True
    )
    np.testing.assert_allclose(codes.rounded_bias, [0.7, 0.1], atol=1e-3)
    assert not codes.weights[0].any() and codes.weights[1].any()
