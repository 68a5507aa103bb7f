"""Convolutions and matrix products as integer steps."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import onnx_ir as ir

from codesign.graph.codes import ConstantCodes, constant_codes, constant_numbers
from codesign.graph.graph import shape_of
from codesign.graph.operators import Convolution, Gemm, MatMul, TransposedConvolution, view_of
from codesign.numerics.steps import Convolve, Multiply, MultiplyTensors, Step
from codesign.quantization.site import Site, StaysFloatError

_INT32 = 2**31
_INT64 = 2**62
_SAME_SCALE = 2.0**-22  # two roundings to float32 apart: the scale of a bias is stored rounded


def linear_step(site: Site) -> Step:
    """The step of a Conv, ConvTranspose, Gemm or MatMul. Raises StaysFloatError."""
    match view_of(site.node):
        case Convolution() as view:
            return _convolve(site, view, out_axis=0)
        case TransposedConvolution() as view:
            return _convolve(site, view, out_axis=1)
        case Gemm() as view:
            return _gemm(site, view)
        case MatMul() as view:
            return _matmul(site, view)
    raise StaysFloatError(f"this form of {site.node.op_type} is not known")


def _convolve(site: Site, view: Convolution | TransposedConvolution, out_axis: int) -> Step:
    codes = _weights(view.w)
    weights = codes.centred
    if weights.ndim == 3:
        weights = weights[:, :, np.newaxis, :]
    outputs, transposed = view.out_channels, isinstance(view, TransposedConvolution)
    scales = _channel_scales(codes, out_axis, outputs, view.group if transposed else 1)
    bias = _bias(view.b, scales, site.scaling(view.x).exact_scale, outputs)
    largest = _largest_sums(site, view.x, _by_output(weights, transposed, view.group), bias)
    factors = _factors(site, view.x, scales)
    return Convolve(
        site.island.name,
        (site.tensor(view.x),),
        site.output,
        _narrow(weights),
        bias,
        view.group,
        view.strides,
        view.dilations,
        view.pads,
        site.requantize(factors, largest),
        transposed,
        _sum_bits(largest),
        nodes=site.island.node_names,
    )


def _by_output(weights: np.ndarray, transposed: bool, group: int) -> np.ndarray:
    """Weights as one row for each output channel."""
    if not transposed:
        return weights.reshape(len(weights), -1)
    taken = weights.reshape(group, len(weights) // group, *weights.shape[1:])
    return taken.transpose(0, 2, 1, 3, 4).reshape(group * weights.shape[1], -1)


def _gemm(site: Site, view: Gemm) -> Step:
    if view.transpose_x or view.alpha != 1 or (view.b is not None and view.beta != 1):
        raise StaysFloatError("a Gemm with alpha, beta or a transposed first operand")
    codes = _weights(view.w)
    return _product(site, view.x, codes, 0 if view.transpose_w else 1, view.transpose_w, view.b)


def _matmul(site: Site, view: MatMul) -> Step:
    codes = constant_codes(view.w)
    if codes is not None and codes.codes.ndim == 2 and view.x in site.sources:
        return _product(site, view.x, codes, 1, transpose=False, bias=None)
    x, w = site.scaling(view.x), site.scaling(view.w)
    largest = shape_of(view.x)[-1] * x.largest_magnitude * w.largest_magnitude
    factor = x.exact_scale * w.exact_scale / site.target.exact_scale
    return MultiplyTensors(
        site.island.name,
        (site.tensor(view.x), site.tensor(view.w)),
        site.output,
        site.requantize((factor,), (largest,)),
        _sum_bits([largest]),
        nodes=site.island.node_names,
    )


def _product(
    site: Site, x: ir.Value, codes: ConstantCodes, out_axis: int, transpose: bool, bias: ir.Value | None
) -> Step:
    weights = codes.centred.T if transpose else codes.centred
    outputs = weights.shape[1]
    scales = _channel_scales(codes, out_axis, outputs, 1)
    offsets = _bias(bias, scales, site.scaling(x).exact_scale, outputs)
    largest = _largest_sums(site, x, weights.T, offsets)
    return Multiply(
        site.island.name,
        (site.tensor(x),),
        site.output,
        _narrow(weights),
        offsets,
        site.requantize(_factors(site, x, scales), largest),
        _sum_bits(largest),
        nodes=site.island.node_names,
    )


def _weights(value: ir.Value) -> ConstantCodes:
    codes = constant_codes(value)
    if codes is None:
        raise StaysFloatError("its weights are not quantised")
    return codes


def _channel_scales(codes: ConstantCodes, axis: int, outputs: int, group: int) -> tuple[Fraction, ...]:
    """The weights' scale for every output channel."""
    if codes.scales.size == 1:
        return (Fraction(float(codes.scales[0])),) * outputs
    if codes.axis != axis or codes.scales.size * group != outputs:
        raise StaysFloatError("its weights have scales along another axis than the output channels")
    return tuple(Fraction(float(scale)) for scale in np.tile(codes.scales, group))


def _bias(value: ir.Value | None, scales: tuple[Fraction, ...], x_scale: Fraction, outputs: int) -> np.ndarray:
    """int32 [outputs] in units of x_scale * scales. Raises StaysFloatError when the bias is none of these integers."""
    if value is None:
        return np.zeros(outputs, np.int32)
    units = np.array([float(x_scale * scale) for scale in scales])
    codes = constant_codes(value)
    if codes is not None and np.allclose(codes.scales, units, rtol=_SAME_SCALE, atol=0):
        integers = codes.centred.reshape(-1)
    else:
        numbers = constant_numbers(value)
        if numbers is None:
            raise StaysFloatError("its bias is not constant")
        exact = numbers.reshape(-1).astype(np.float64) / units
        integers = np.rint(exact).astype(np.int64)
        if (integers != exact).any():
            raise StaysFloatError("its bias is no integer multiple of the scales of inputs and weights")
    integers = np.broadcast_to(integers, (outputs,))
    if (np.abs(integers) >= _INT32).any():
        raise StaysFloatError("its bias exceeds 32 bits")
    return integers.astype(np.int32)


def _largest_sums(site: Site, x: ir.Value, by_output: np.ndarray, bias: np.ndarray) -> list[int]:
    magnitude = site.scaling(x).largest_magnitude
    return [int(most) for most in np.abs(by_output).sum(axis=1) * magnitude + np.abs(bias.astype(np.int64))]


def _factors(site: Site, x: ir.Value, scales: tuple[Fraction, ...]) -> tuple[Fraction, ...]:
    ratio = site.scaling(x).exact_scale / site.target.exact_scale
    if len(set(scales)) == 1:
        scales = scales[:1] if len(scales) == 1 else scales
    return tuple(ratio * scale for scale in scales)


def _sum_bits(largest: list[int]) -> int:
    if max(largest) >= _INT64:
        raise StaysFloatError("its sums may exceed 64 bits")
    return 32 if max(largest) < _INT32 else 64


def _narrow(weights: np.ndarray) -> np.ndarray:
    """int8 where they fit, else int16 (a zero point was taken away)."""
    fits = weights.size == 0 or (weights.min() >= -128 and weights.max() <= 127)
    return weights.astype(np.int8 if fits else np.int16)
