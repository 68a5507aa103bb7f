"""Runs an integer network in numpy: the reference every other reading of it is held against.

Sums are integers of 64 bits. Matrix products go through float64, whose sums are exact below 2^53: codes of at most 16
bits and fewer than 2^21 products a sum stay below that, and it is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from codesign.numerics.rounding import divide_half_even
from codesign.numerics.steps import (
    AveragePool,
    Concatenate,
    Constant,
    Convolve,
    Dequantize,
    Fill,
    Floating,
    IntegerNetwork,
    Interpolate,
    Lookup,
    MaximumPool,
    Move,
    Multiply,
    MultiplyTensors,
    Pads,
    Pair,
    Product,
    Quantize,
    Softmax,
    Step,
    Sum,
    Tensor,
)

Arrays = dict[str, np.ndarray]
RunFloating = Callable[[Floating, Mapping[str, np.ndarray]], np.ndarray]
_EXACT_IN_FLOAT64 = 2**53


def no_floating(step: Floating, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Refuses: for networks that are integers throughout."""
    del arrays
    raise ValueError(f"{step.name} stays in floating point ({step.reason}), and nothing was given to run it")


def run_network(
    network: IntegerNetwork, inputs: Mapping[str, np.ndarray], run_floating: RunFloating = no_floating
) -> Arrays:
    """Every tensor of the network by name. inputs: by name, of the network's types and shapes."""
    arrays: Arrays = {tensor.name: np.asarray(inputs[tensor.name]) for tensor in network.inputs}
    for step in network.steps:
        if isinstance(step, Floating):
            result = run_floating(step, arrays)
        else:
            result = run_step(step, [arrays[tensor.name] for tensor in step.inputs])
        arrays[step.output.name] = result.astype(step.output.dtype).reshape(step.output.shape)
    return arrays


def run_step(step: Step, inputs: list[np.ndarray]) -> np.ndarray:
    """What a step makes of its inputs: codes as int64, or float32 numbers."""
    match step:
        case Convolve():
            return step.requantization.apply(convolve(step, inputs[0]), 1)
        case Multiply():
            x = _centred(step.inputs[0], inputs[0])
            return step.requantization.apply(_product(x, step.weights) + step.bias.astype(np.int64), -1)
        case MultiplyTensors():
            left, right = (_centred(tensor, x) for tensor, x in zip(step.inputs, inputs, strict=True))
            return step.requantization.apply(_product(left, right))
        case Sum():
            return step.requantization.apply(_weighted_sum(step, inputs))
        case Product():
            left, right = (_centred(tensor, x) for tensor, x in zip(step.inputs, inputs, strict=True))
            return step.requantization.apply(left * right)
        case Constant():
            return step.values
        case Lookup():
            return _lookup(step, inputs[0])
        case MaximumPool():
            lowest = int(np.iinfo(inputs[0].dtype).min)
            windows = _windows(inputs[0], step.kernel, step.strides, step.dilations, step.pads, lowest, step.output)
            return np.asarray(windows.max(axis=(-2, -1)))
        case AveragePool():
            return _average(step, inputs[0])
        case Concatenate():
            return np.concatenate(inputs, axis=step.axis)
        case Move():
            flat = inputs[0].reshape(-1)
            return flat if step.source is None else flat[step.source]
        case Fill():
            return _filled(step, inputs[0])
        case Interpolate():
            return _interpolated(step, inputs[0])
        case Softmax():
            return _softmax(step, inputs[0])
        case Quantize():
            return quantize(inputs[0], step.output)
        case Dequantize():
            return dequantize(inputs[0], step.inputs[0])
    raise TypeError(f"{step.name}: no integer semantics for {type(step).__name__}")


def quantize(values: np.ndarray, tensor: Tensor) -> np.ndarray:
    """Codes of numbers as ONNX's QuantizeLinear makes them: round(x / scale) half to even, zero point, saturation."""
    assert tensor.scale is not None
    limits = np.iinfo(tensor.dtype)
    codes = np.rint(np.asarray(values, np.float32) / np.float32(tensor.scale)) + tensor.zero_point
    return np.asarray(np.clip(codes, limits.min, limits.max), tensor.dtype)


def dequantize(codes: np.ndarray, tensor: Tensor) -> np.ndarray:
    """Numbers of codes as ONNX's DequantizeLinear makes them, float32."""
    assert tensor.scale is not None
    return np.asarray((codes.astype(np.int32) - tensor.zero_point).astype(np.float32) * np.float32(tensor.scale))


def convolve(step: Convolve, x: np.ndarray) -> np.ndarray:
    """The sums of a convolution before requantisation, int64 [B, K, OY, OX]."""
    sums: np.ndarray = _transposed_sums(step, x) if step.transposed else _sums(step, x)
    return np.asarray(sums + step.bias.astype(np.int64).reshape(1, -1, *([1] * (sums.ndim - 2))))


def _sums(step: Convolve, x: np.ndarray) -> np.ndarray:
    image = _centred(step.inputs[0], _as_image(x))
    kernel = (int(step.weights.shape[2]), int(step.weights.shape[3]))
    windows = _windows(image, kernel, step.strides, step.dilations, step.pads, 0, step.output)
    batch, _, rows, columns = windows.shape[:4]
    outputs = step.weights.shape[0] // step.group
    sums = np.empty((batch, step.weights.shape[0], rows, columns), np.int64)
    channels = step.weights.shape[1]
    for group in range(step.group):
        taken = windows[:, group * channels : (group + 1) * channels]
        matrix = taken.transpose(0, 2, 3, 1, 4, 5).reshape(batch * rows * columns, -1)
        weights = step.weights[group * outputs : (group + 1) * outputs].reshape(outputs, -1)
        made = _product(matrix, weights.T).reshape(batch, rows, columns, outputs)
        sums[:, group * outputs : (group + 1) * outputs] = made.transpose(0, 3, 1, 2)
    return sums.reshape(step.output.shape)


def _transposed_sums(step: Convolve, x: np.ndarray) -> np.ndarray:
    """Every input element adds its weights to the outputs of its window; what falls on the pads is left out."""
    image = _centred(step.inputs[0], _as_image(x))
    batch, channels, rows, columns = image.shape
    taken, made = channels // step.group, step.weights.shape[1]
    taps_down, taps_across = step.weights.shape[2:]
    height, width = _as_image_shape(step.output.shape)[2:]
    top, left, bottom, right = step.pads
    full = np.zeros((batch, made * step.group, height + top + bottom, width + left + right), np.int64)
    for group in range(step.group):
        inputs = image[:, group * taken : (group + 1) * taken].transpose(0, 2, 3, 1).reshape(-1, taken)
        for down in range(taps_down):
            for across in range(taps_across):
                weights = step.weights[group * taken : (group + 1) * taken, :, down, across]
                part = _product(inputs, weights).reshape(batch, rows, columns, made).transpose(0, 3, 1, 2)
                y, x_at = down * step.dilations[0], across * step.dilations[1]
                target = full[:, group * made : (group + 1) * made]
                end_y = y + (rows - 1) * step.strides[0] + 1
                end_x = x_at + (columns - 1) * step.strides[1] + 1
                target[:, :, y : end_y : step.strides[0], x_at : end_x : step.strides[1]] += part
    return np.asarray(full[:, :, top : top + height, left : left + width].reshape(step.output.shape))


def _product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """A matrix product of integers, exact."""
    exact: type[np.float64] | type[np.int64] = np.float64
    if left.size and right.size:
        largest = float(np.abs(left).max()) * float(np.abs(right).max()) * left.shape[-1]
        exact = np.float64 if largest < _EXACT_IN_FLOAT64 else np.int64
    return np.asarray(np.matmul(left.astype(exact), right.astype(exact)), np.int64)


def _centred(tensor: Tensor, codes: np.ndarray) -> np.ndarray:
    return np.asarray(codes.astype(np.int64) - tensor.zero_point)


def _as_image_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """[B, C, X] as [B, C, 1, X]."""
    return shape if len(shape) == 4 else (*shape[:2], 1, *shape[2:])


def _as_image(x: np.ndarray) -> np.ndarray:
    return x.reshape(_as_image_shape(x.shape))


def _windows(
    x: np.ndarray, kernel: Pair, strides: Pair, dilations: Pair, pads: Pads, border: int, output: Tensor
) -> np.ndarray:
    """What every window sees, [B, C, OY, OX, FY, FX]; `border` stands outside the image.

    Outputs whose window ends behind the padding (ceil_mode) see the border there.
    """
    image = _as_image(x)
    rows, columns = _as_image_shape(output.shape)[2:] if len(output.shape) > 2 else (1, 1)
    span = tuple((tap - 1) * dilation + 1 for tap, dilation in zip(kernel, dilations, strict=True))
    top, left, bottom, right = pads
    below = max(bottom, (rows - 1) * strides[0] + span[0] - image.shape[2] - top)
    behind = max(right, (columns - 1) * strides[1] + span[1] - image.shape[3] - left)
    padded = np.pad(image, ((0, 0), (0, 0), (top, below), (left, behind)), constant_values=border)
    windows = np.lib.stride_tricks.sliding_window_view(padded, span, axis=(2, 3))
    windows = windows[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]
    return np.asarray(windows[:, :, :rows, :columns])


def _weighted_sum(step: Sum, inputs: list[np.ndarray]) -> np.ndarray:
    left, right = (_centred(tensor, x) for tensor, x in zip(step.inputs, inputs, strict=True))
    return np.asarray(left * step.multipliers[0] + right * step.multipliers[1])


def _lookup(step: Lookup, x: np.ndarray) -> np.ndarray:
    index = x.astype(np.int64) - int(np.iinfo(x.dtype).min)
    if len(step.table) == 1:
        return np.asarray(step.table[0][index])
    channels = np.arange(x.shape[1]).reshape(1, -1, *([1] * (x.ndim - 2)))
    return np.asarray(step.table[channels, index])


def _average(step: AveragePool, x: np.ndarray) -> np.ndarray:
    image = _centred(step.inputs[0], _as_image(x))
    output = step.output
    if len(output.shape) < len(x.shape):  # a reduction that drops its axes
        sums = image.sum(axis=(2, 3), keepdims=True)
    else:
        windows = _windows(image, step.kernel, step.strides, step.dilations, step.pads, 0, output)
        sums = windows.sum(axis=(-2, -1))
    result = np.empty(sums.shape, np.int64)
    for index, requantization in enumerate(step.requantizations):
        place = step.counts == index
        result[:, :, place] = requantization.apply(sums[:, :, place])
    return result.reshape(output.shape)


def _filled(step: Fill, x: np.ndarray) -> np.ndarray:
    result = np.full(step.output.shape, step.value, np.int64)
    sizes = tuple(zip(step.begins, x.shape, result.shape, strict=True))
    place = tuple(slice(max(0, begin), max(0, begin + size)) for begin, size, _ in sizes)
    kept = tuple(slice(max(0, -begin), max(0, whole - begin)) for begin, _, whole in sizes)
    result[place] = x[kept]
    return result


def _interpolated(step: Interpolate, x: np.ndarray) -> np.ndarray:
    image = _centred(step.inputs[0], x)
    first, second, near, far = step.rows.T
    rows = image[:, :, first] * near.reshape(-1, 1) + image[:, :, second] * far.reshape(-1, 1)
    first, second, near, far = step.columns.T
    return step.requantization.apply(rows[..., first] * near + rows[..., second] * far)


def _softmax(step: Softmax, x: np.ndarray) -> np.ndarray:
    distance = x.max(axis=step.axis, keepdims=True).astype(np.int64) - x.astype(np.int64)
    exponentials = step.exponentials[distance]
    total = exponentials.sum(axis=step.axis, keepdims=True)
    codes = divide_half_even(exponentials * step.numerator, total) + step.output.zero_point
    return np.asarray(np.clip(codes, step.minimum, step.maximum))
