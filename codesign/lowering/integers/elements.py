"""Element-wise work, pooling, resizing, softmax and moves of codes as tensor expressions."""

from __future__ import annotations

from typing import Any

import numpy as np

from codesign.lowering.integers.products import _broadcast, _centre, _image_sizes
from codesign.lowering.integers.requantizing import Requantizer
from codesign.numerics.steps import (
    Affine,
    AveragePool,
    Dequantize,
    Fill,
    Interpolate,
    Lookup,
    MaximumPool,
    Product,
    Quantize,
    Softmax,
    Sum,
)

Expression = Any  # a tensor or a scalar expression; tvm carries no types


def looked_up(step: Lookup, x: Expression, table: Expression) -> Expression:
    """y = table[x]; table: [1 or channels, codes]."""
    from tvm import te, tirx

    lowest = int(np.iinfo(step.inputs[0].dtype).min)
    per_channel = len(step.table) > 1
    return te.compute(
        step.output.shape,
        lambda *i: table[i[1] if per_channel else 0, x[i].astype("int32") - tirx.const(lowest, "int32")],
        name="looked_up",
    )


def added(step: Sum, left: Expression, right: Expression) -> Expression:
    """Both operands times their multipliers, added and requantised."""
    from tvm import te, tirx

    dtype = "int32" if step.requantization.fits_32_bits and max(map(abs, step.multipliers)) < 2**31 else "int64"
    first, second = (_centre(tensor, dtype) for tensor in step.inputs)
    one, other = (tirx.const(number, dtype) for number in step.multipliers)
    requantizer = Requantizer(step.requantization, step.output.dtype)

    def code(*i: Expression) -> Expression:
        a = first(left[_broadcast(i, step.inputs[0].shape)])
        b = second(right[_broadcast(i, step.inputs[1].shape)])
        return requantizer.codes(a * one + b * other)

    return te.compute(step.output.shape, code, name="added")


def multiplied_elements(step: Product, left: Expression, right: Expression) -> Expression:
    """Element by element, requantised."""
    from tvm import te

    first, second = (_centre(tensor, "int32") for tensor in step.inputs)
    requantizer = Requantizer(step.requantization, step.output.dtype)

    def code(*i: Expression) -> Expression:
        a = first(left[_broadcast(i, step.inputs[0].shape)])
        return requantizer.codes(a * second(right[_broadcast(i, step.inputs[1].shape)]))

    return te.compute(step.output.shape, code, name="multiplied")


def largest(step: MaximumPool, x: Expression) -> Expression:
    """The largest code of every window; places outside the image never win."""
    from tvm import te, tirx

    lowest = tirx.const(int(np.iinfo(step.output.dtype).min), step.output.dtype)
    fy, fx = (te.reduce_axis((0, size), name) for size, name in zip(step.kernel, ("fy", "fx"), strict=True))

    def code(*i: Expression) -> Expression:
        return te.max(_window_element(step, x, i, fy, fx, lambda value: value, lowest), axis=[fy, fx])

    return te.compute(step.output.shape, code, name="largest")


def averaged(step: AveragePool, x: Expression, *tensors: Expression) -> Expression:
    """Sums of windows, requantised by the ratio of each window's number of elements.

    tensors: [OY, OX] shift and multiplier where the numbers differ (see average_constants).
    """
    from tvm import te, tirx

    fy, fx = (te.reduce_axis((0, size), name) for size, name in zip(step.kernel, ("fy", "fx"), strict=True))
    centred = _centre(step.inputs[0], "int32")
    keeps = len(step.output.shape) == len(step.inputs[0].shape)
    space = (1,) * (len(step.inputs[0].shape) - len(step.output.shape))
    shape = step.output.shape + space

    def total(*i: Expression) -> Expression:
        return te.sum(_window_element(step, x, i, fy, fx, centred, tirx.const(0, "int32")), axis=[fy, fx])

    sums = te.compute(shape, total, name="sums")
    requantizer = Requantizer(average_requantization(step), step.output.dtype)

    def code(*i: Expression) -> Expression:
        at = (*i, *space[: 0 if keeps else None])
        index = tuple(0 if not keeps and position >= len(i) else value for position, value in enumerate(at))
        place = _place(step, index) if tensors else None
        return requantizer.codes(sums[index], tensors, place)

    return te.compute(step.output.shape, code, name="averaged")


def average_requantization(step: AveragePool) -> Any:
    """One requantisation whose channels are the places [OY * OX] of a window, or a single one."""
    from dataclasses import replace

    first = step.requantizations[0]
    if len(step.requantizations) == 1:
        return first
    ratios = tuple(step.requantizations[index].ratios[0] for index in step.counts.reshape(-1))
    most = max(requantization.largest_sum for requantization in step.requantizations)
    return replace(first, ratios=ratios, largest_sum=most)


def average_constants(step: AveragePool) -> tuple[np.ndarray, ...]:
    """What `averaged` reads beside the codes."""
    return Requantizer(average_requantization(step), step.output.dtype).constants


def _place(step: AveragePool, index: tuple[Expression, ...]) -> Expression:
    columns = step.counts.shape[1]
    rows = index[2] * columns if len(index) == 4 else 0
    return rows + index[-1]


def _window_element(
    step: MaximumPool | AveragePool,
    x: Expression,
    index: tuple[Expression, ...],
    fy: Expression,
    fx: Expression,
    of: Any,
    outside: Expression,
) -> Expression:
    """What a tap of a window sees: a code of the image, or `outside`."""
    from tvm import tirx

    _, _, rows, columns = _image_sizes(step.inputs[0].shape)
    is_row = len(step.inputs[0].shape) == 3
    batch, channel, *place = index
    oy, ox = (0, place[0]) if is_row else place
    y = oy * step.strides[0] + fy * step.dilations[0] - step.pads[0]
    column = ox * step.strides[1] + fx * step.dilations[1] - step.pads[1]
    value = of(x[batch, channel, column] if is_row else x[batch, channel, y, column])
    _, _, output_rows, output_columns = (1, 1, 1, 1) if len(step.output.shape) == 2 else _image_sizes(step.output.shape)
    conditions = []
    for position, at, size, outputs, axis in ((y, 0, rows, output_rows, 0), (column, 1, columns, output_columns, 1)):
        last = (outputs - 1) * step.strides[axis] + (step.kernel[axis] - 1) * step.dilations[axis] - step.pads[at]
        if step.pads[at] > 0:
            conditions.append(position >= 0)
        if last >= size:
            conditions.append(position < size)
    return tirx.if_then_else(tirx.all(*conditions), value, outside) if conditions else value


def moved(affine: Affine, x: Expression) -> Expression:
    """[*sizes] of a flat tensor, element by element along strides."""
    from tvm import te

    def element(*i: Expression) -> Expression:
        return x[sum((index * stride for index, stride in zip(i, affine.strides, strict=True)), affine.offset)]

    return te.compute(affine.sizes, element, name="moved")


def gathered(elements: int, x: Expression, source: Expression) -> Expression:
    """[elements] of a flat tensor by a table of places."""
    from tvm import te

    return te.compute((elements,), lambda i: x[source[i]], name="gathered")


def filled(step: Fill, x: Expression) -> Expression:
    """The tensor with a border of one code."""
    from tvm import te, tirx

    sizes = step.inputs[0].shape

    def code(*i: Expression) -> Expression:
        places = [at - begin for at, begin in zip(i, step.begins, strict=True)]
        inside = []
        for place, begin, size, whole in zip(places, step.begins, sizes, step.output.shape, strict=True):
            inside += [place >= 0] if begin else []
            inside += [place < size] if begin + size < whole else []
        value = x[tuple(places)]
        return (
            tirx.if_then_else(tirx.all(*inside), value, tirx.const(step.value, step.output.dtype)) if inside else value
        )

    return te.compute(step.output.shape, code, name="filled")


def interpolated(step: Interpolate, x: Expression, rows: Expression, columns: Expression) -> Expression:
    """Two rows and two columns with integer weights, requantised. rows, columns: [size, 4] as in the step."""
    from tvm import te

    wide = "int32" if step.requantization.largest_sum < 2**31 else "int64"
    centred = _centre(step.inputs[0], wide)
    requantizer = Requantizer(step.requantization, step.output.dtype)

    def at(table: Expression, index: Expression, column: int, dtype: str) -> Expression:
        return table[index, column].astype(dtype)

    def code(b: Expression, c: Expression, y: Expression, ox: Expression) -> Expression:
        def row(line: int) -> Expression:
            place = at(rows, y, line, "int32")
            first = centred(x[b, c, place, at(columns, ox, 0, "int32")]) * at(columns, ox, 2, wide)
            return first + centred(x[b, c, place, at(columns, ox, 1, "int32")]) * at(columns, ox, 3, wide)

        return requantizer.codes(row(0) * at(rows, y, 2, wide) + row(1) * at(rows, y, 3, wide))

    return te.compute(step.output.shape, code, name="interpolated")


def softmax(step: Softmax, x: Expression, exponentials: Expression) -> Expression:
    """Exponentials of differences from a table, divided by their sum, half to even."""
    from tvm import te, tirx

    shape, axis = step.output.shape, step.axis
    outer = tuple(size for at, size in enumerate(shape) if at != axis)
    first, second = (te.reduce_axis((0, shape[axis]), "k") for _ in range(2))

    def along(i: tuple[Expression, ...], k: Expression) -> tuple[Expression, ...]:
        return (*i[:axis], k, *i[axis:])

    def without(i: tuple[Expression, ...]) -> tuple[Expression, ...]:
        return (*i[:axis], *i[axis + 1 :])

    top = te.compute(
        outer or (1,),
        lambda *i: te.max(x[along(i if outer else (), first)], axis=first),
        name="top",
    )

    def exponential(i: tuple[Expression, ...], k: Expression) -> Expression:
        most = top[i if outer else (0,)].astype("int32")
        return exponentials[most - x[along(i, k)].astype("int32")]

    total = te.compute(
        outer or (1,),
        lambda *i: te.sum(exponential(i if outer else (), second), axis=second),
        name="total",
    )

    def code(*i: Expression) -> Expression:
        one = tirx.const(1, "int64")
        rest = without(i)
        whole = total[rest if outer else (0,)]
        value = exponential(rest, i[axis]) * tirx.const(step.numerator, "int64")
        quotient = tirx.truncdiv(value, whole)
        twice = (value - quotient * whole) * tirx.const(2, "int64")
        up = tirx.any(twice > whole, tirx.all(twice == whole, (quotient & one) == one))
        rounded = quotient + tirx.Select(up, one, tirx.const(0, "int64"))
        shifted = rounded + tirx.const(step.output.zero_point, "int64")
        limited = tirx.max(tirx.min(shifted, tirx.const(step.maximum, "int64")), tirx.const(step.minimum, "int64"))
        return limited.astype(step.output.dtype)

    return te.compute(shape, code, name="softmax")


def quantized(step: Quantize, x: Expression) -> Expression:
    """Codes of float32 numbers: divided by the scale, rounded half to even, saturated."""
    from tvm import te, tirx

    tensor = step.output
    assert tensor.scale is not None
    limits = np.iinfo(tensor.dtype)
    low, high = (float(limit - tensor.zero_point) for limit in (limits.min, limits.max))

    def code(*i: Expression) -> Expression:
        rounded = tirx.nearbyint(x[i] / tirx.const(tensor.scale, "float32"))
        limited = tirx.max(tirx.min(rounded, tirx.const(high, "float32")), tirx.const(low, "float32"))
        return (limited.astype("int32") + tirx.const(tensor.zero_point, "int32")).astype(tensor.dtype)

    return te.compute(tensor.shape, code, name="quantized")


def dequantized(step: Dequantize, x: Expression) -> Expression:
    """float32 numbers of codes."""
    from tvm import te, tirx

    tensor = step.inputs[0]
    assert tensor.scale is not None

    def number(*i: Expression) -> Expression:
        centred = x[i].astype("int32") - tirx.const(tensor.zero_point, "int32")
        return centred.astype("float32") * tirx.const(tensor.scale, "float32")

    return te.compute(step.output.shape, number, name="dequantized")
