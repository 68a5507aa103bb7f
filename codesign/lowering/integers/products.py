"""Convolutions and matrix products of codes as tensor expressions: sums of 32 or 64 bits, requantised at the end."""

from __future__ import annotations

from typing import Any

import numpy as np

from codesign.lowering.integers.requantizing import Requantizer
from codesign.numerics.steps import Convolve, Multiply, MultiplyTensors, Tensor

Expression = Any  # a tensor or a scalar expression; tvm carries no types


def convolved(step: Convolve, x: Expression, weights: Expression, bias: Expression, *ratios: Expression) -> Expression:
    """[B, K, OY, OX] codes of a convolution of [B, C, IY, IX] (a rank less, and there are no rows)."""
    from tvm import te

    sums = _transposed_sums(step, x, weights) if step.transposed else _sums(step, x, weights)
    requantizer = Requantizer(step.requantization, step.output.dtype)
    dtype = _sum_type(step.sum_bits)
    image = te.compute(
        sums.shape,
        lambda b, k, y, x: requantizer.codes(sums[b, k, y, x] + bias[k].astype(dtype), ratios, k),
        name="codes",
    )
    if len(step.output.shape) == 4:
        return image
    return te.compute(step.output.shape, lambda b, k, x: image[b, k, 0, x], name="row")


def constants_of(step: Convolve | Multiply) -> tuple[np.ndarray, ...]:
    """What `convolved` and `multiplied` read beside the codes."""
    ratios = Requantizer(step.requantization, step.output.dtype).constants
    return (step.weights, step.bias, *ratios)


def multiplied(step: Multiply, x: Expression, weights: Expression, bias: Expression, *ratios: Expression) -> Expression:
    """[..., N] codes of [..., K] codes times constant weights [K, N]."""
    from tvm import te

    dtype = _sum_type(step.sum_bits)
    k = te.reduce_axis((0, step.weights.shape[0]), "k")
    centred = _centre(step.inputs[0], dtype)
    sums = te.compute(
        step.output.shape,
        lambda *i: te.sum(centred(x[(*i[:-1], k)]) * weights[k, i[-1]].astype(dtype), axis=k),
        name="sums",
    )
    requantizer = Requantizer(step.requantization, step.output.dtype)
    return te.compute(
        step.output.shape,
        lambda *i: requantizer.codes(sums[i] + bias[i[-1]].astype(dtype), ratios, i[-1]),
        name="codes",
    )


def tensors_multiplied(step: MultiplyTensors, left: Expression, right: Expression) -> Expression:
    """[..., M, N] codes of [..., M, K] times [..., K, N], leading dimensions broadcast."""
    from tvm import te

    dtype = _sum_type(step.sum_bits)
    k = te.reduce_axis((0, step.inputs[0].shape[-1]), "k")
    first, second = (_centre(tensor, dtype) for tensor in step.inputs)

    def total(*i: Expression) -> Expression:
        outer = i[:-2]
        a = left[(*_broadcast(outer, step.inputs[0].shape[:-2]), i[-2], k)]
        b = right[(*_broadcast(outer, step.inputs[1].shape[:-2]), k, i[-1])]
        return te.sum(first(a) * second(b), axis=k)

    sums = te.compute(step.output.shape, total, name="sums")
    requantizer = Requantizer(step.requantization, step.output.dtype)
    return te.compute(step.output.shape, lambda *i: requantizer.codes(sums[i]), name="codes")


def _broadcast(indices: tuple[Expression, ...], sizes: tuple[int, ...]) -> tuple[Expression, ...]:
    """Indices into a tensor of fewer or single entries, aligned at the end."""
    taken = indices[len(indices) - len(sizes) :]
    return tuple(0 if size == 1 else index for index, size in zip(taken, sizes, strict=True))


def _sum_type(bits: int) -> str:
    return f"int{bits}"


def _centre(tensor: Tensor, dtype: str) -> Any:
    """What takes a code's zero point away."""
    from tvm import tirx

    if tensor.zero_point == 0:
        return lambda code: code.astype(dtype)
    return lambda code: code.astype(dtype) - tirx.const(tensor.zero_point, dtype)


def _as_image(step: Convolve, x: Expression) -> Expression:
    from tvm import te

    if len(step.inputs[0].shape) == 4:
        return x
    batch, channels, columns = step.inputs[0].shape
    return te.compute((batch, channels, 1, columns), lambda b, c, _, i: x[b, c, i], name="image")


def _image_sizes(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    batch, channels, *space = shape
    rows, columns = space if len(space) == 2 else (1, space[0])
    return batch, channels, rows, columns


def _sums(step: Convolve, x: Expression, weights: Expression) -> Expression:
    from tvm import te

    batch, outputs, rows, columns = _image_sizes(step.output.shape)
    _, channels, taps_down, taps_across = step.weights.shape
    padded = _padded(step, _as_image(step, x))
    made = outputs // step.group
    c, fy, fx = (
        te.reduce_axis((0, size), name) for size, name in ((channels, "c"), (taps_down, "fy"), (taps_across, "fx"))
    )
    dtype = _sum_type(step.sum_bits)
    (down, across), (apart_down, apart_across) = step.strides, step.dilations

    def total(b: Expression, k: Expression, oy: Expression, ox: Expression) -> Expression:
        channel = c if step.group == 1 else k // made * channels + c
        value = padded[b, channel, oy * down + fy * apart_down, ox * across + fx * apart_across]
        return te.sum(value.astype(dtype) * weights[k, c, fy, fx].astype(dtype), axis=[c, fy, fx])

    return te.compute((batch, outputs, rows, columns), total, name="sums")


def _padded(step: Convolve, image: Expression) -> Expression:
    """The image with zero points taken away and zeros around it; as it is where neither is needed."""
    from tvm import te, tirx

    tensor = step.inputs[0]
    top, left, bottom, right = step.pads
    if not any(step.pads) and tensor.zero_point == 0:
        return image
    batch, channels, rows, columns = _image_sizes(tensor.shape)
    dtype = tensor.dtype if tensor.zero_point == 0 else "int16" if tensor.dtype.endswith("int8") else "int32"
    zero = tirx.const(tensor.zero_point, dtype)

    def element(b: Expression, c: Expression, y: Expression, x: Expression) -> Expression:
        value = image[b, c, y - top, x - left].astype(dtype) - zero
        if not any(step.pads):
            return value
        inside = tirx.all(y >= top, y < top + rows, x >= left, x < left + columns)
        return tirx.if_then_else(inside, value, tirx.const(0, dtype))

    return te.compute((batch, channels, rows + top + bottom, columns + left + right), element, name="padded")


def _transposed_sums(step: Convolve, x: Expression, weights: Expression) -> Expression:
    """Every output looks for the inputs whose windows reach it."""
    from tvm import te, tirx

    image = _as_image(step, x)
    batch, outputs, rows, columns = _image_sizes(step.output.shape)
    _, channels, input_rows, input_columns = _image_sizes(step.inputs[0].shape)
    taken, made = channels // step.group, outputs // step.group
    c = te.reduce_axis((0, taken), "c")
    fy = te.reduce_axis((0, step.weights.shape[2]), "fy")
    fx = te.reduce_axis((0, step.weights.shape[3]), "fx")
    dtype = _sum_type(step.sum_bits)
    centred = _centre(step.inputs[0], dtype)
    (down, across), (apart_down, apart_across) = step.strides, step.dilations

    def total(b: Expression, k: Expression, oy: Expression, ox: Expression) -> Expression:
        channel = k // made * taken + c
        y, column = oy + step.pads[0] - fy * apart_down, ox + step.pads[1] - fx * apart_across
        reached = tirx.all(
            y >= 0,
            column >= 0,
            tirx.floormod(y, down) == 0,
            tirx.floormod(column, across) == 0,
            y < input_rows * down,
            column < input_columns * across,
        )
        value = image[b, channel, tirx.floordiv(y, down), tirx.floordiv(column, across)]
        product = centred(value) * weights[channel, k % made, fy, fx].astype(dtype)
        return te.sum(tirx.if_then_else(reached, product, tirx.const(0, dtype)), axis=[c, fy, fx])

    return te.compute((batch, outputs, rows, columns), total, name="sums")
