"""What an order of channels on one tensor of an operator asks of its other tensors and of its constants.

A rule reads the orders planned so far and plans the rest, or raises CannotReorderError. It is run again whenever one
more tensor of its operator comes into a plan. Source: the operator definitions of the ONNX specification.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import accumulate, pairwise
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from codesign.graph.graph import constant_of, shape_of
from codesign.graph.operators import BatchNormalization, is_operator, optional_input, reduction_axes
from codesign.rewriting.channels import CannotReorderError, Order, named
from codesign.rewriting.reordering import Reordering
from codesign.rewriting.reordering_weights import (
    agree_convolution,
    agree_dense,
    agree_gather,
    all_channels,
    axis_of,
    expect_axis,
)

Rule: TypeAlias = Callable[[Reordering, ir.Node], None]


def follow(plan: Reordering, value: ir.Value, order: Order) -> None:
    """Plan all that must change for `value` to come in an order. Raises CannotReorderError, and nothing is changed."""
    plan.assign(value, order, None)
    while (node := plan.next_node()) is not None:
        rule = _RULES.get(node.op_type) if is_operator(node, node.op_type) else None
        if rule is None:
            raise CannotReorderError(f"{named(node)} is not known to keep channels apart")
        if rule not in (_elementwise, _concat) and any(plan.order(value) is not None for value in node.inputs[1:]):
            raise CannotReorderError(f"{named(node)} reads the channels as something else than its data")
        rule(plan, node)


def _known(plan: Reordering, node: ir.Node) -> Iterator[tuple[ir.Value, Order]]:
    """Tensors of a node that have an order."""
    for value in (*node.outputs, *node.inputs):
        if value is not None and (order := plan.order(value)) is not None:
            yield value, order


def _elementwise(plan: Reordering, node: ir.Node) -> None:
    """Operators on elements in the same place; what is broadcast along the channels stays."""
    rank = len(shape_of(node.outputs[0]))
    first, known = next(_known(plan, node))
    order = known.on(known.axis + rank - len(shape_of(first)))
    plan.assign(node.outputs[0], order, node)
    for place, value in enumerate(node.inputs):
        axis = order.axis - rank + (len(shape_of(value)) if value is not None else 0)
        if value is None or axis < 0 or (shape_of(value)[axis] == 1 and order.size > 1):
            continue
        if constant_of(value) is not None:
            plan.reindex(node, place, order, axis)
        else:
            plan.assign(value, order.on(axis), node)


def _softmax(plan: Reordering, node: ir.Node) -> None:
    """Over the channels it sums all of them, in any order."""
    _, order = next(_known(plan, node))
    for value in (node.inputs[0], node.outputs[0]):
        plan.assign(value, all_channels(node, order), node)


def _normalization(plan: Reordering, node: ir.Node) -> None:
    """BatchNormalization and InstanceNormalization: numbers for each channel, on axis 1."""
    if is_operator(node, "BatchNormalization") and BatchNormalization.of(node) is None:
        raise CannotReorderError(f"{named(node)} is in training mode")
    _, order = next(_known(plan, node))
    expect_axis(node, order, 1)
    for place in range(1, len(node.inputs)):
        plan.reindex(node, place, order, 0)
    for value in (node.inputs[0], node.outputs[0]):
        plan.assign(value, order, node)


def _pooling(plan: Reordering, node: ir.Node) -> None:
    """Windows slide over the axes behind the channels."""
    _, order = next(_known(plan, node))
    expect_axis(node, order, 1)
    if any(output.uses() for output in node.outputs[1:]):
        raise CannotReorderError(f"the indices {named(node)} gives count channels")
    for value in (node.inputs[0], node.outputs[0]):
        plan.assign(value, order, node)


def _whole_axis(plan: Reordering, node: ir.Node) -> None:
    """Resize and Pad: an axis whose size they leave alone may come in any order."""
    _, order = next(_known(plan, node))
    x, y = node.inputs[0], node.outputs[0]
    if x is None or shape_of(x)[order.axis] != shape_of(y)[order.axis] or not _leaves_alone(node, order.axis):
        raise CannotReorderError(f"{named(node)} works along the channels")
    for value in (x, y):
        plan.assign(value, all_channels(node, order), node)


def _leaves_alone(node: ir.Node, axis: int) -> bool:
    if not is_operator(node, "Pad"):
        mode = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
        return mode != "tf_crop_and_resize"
    pads = constant_of(node.inputs[1])
    return optional_input(node, 3) is None and pads is not None and pads[axis] == 0 == pads[axis + len(pads) // 2]


def _transpose(plan: Reordering, node: ir.Node) -> None:
    """The axis moves."""
    x, y = node.inputs[0], node.outputs[0]
    places = node.attributes.get_ints("perm") or tuple(reversed(range(len(shape_of(y)))))
    if (order := plan.order(x)) is not None:
        plan.assign(y, order.on(places.index(order.axis)), node)
    if (order := plan.order(y)) is not None:
        plan.assign(x, order.on(places[order.axis]), node)


def _reshape(plan: Reordering, node: ir.Node) -> None:
    """The channels stay on one axis, alone, with inner axes joined to them, or as the outer of several."""
    x, y = node.inputs[0], node.outputs[0]
    assert x is not None
    for source, target in ((x, y), (y, x)):
        if (order := plan.order(source)) is None:
            continue
        there = all_channels(node, order).reshaped(shape_of(source), shape_of(target))
        back = there.reshaped(shape_of(target), shape_of(source)) if there is not None else None
        if there is None or back != order:
            raise CannotReorderError(f"{named(node)} mixes the channels with other dimensions")
        plan.assign(target, there, node)


def _reduction(plan: Reordering, node: ir.Node) -> None:
    """A sum or maximum over the channels is the same in any order; over other axes the channels stay apart."""
    x, y, axes = node.inputs[0], node.outputs[0], reduction_axes(node)
    if x is None or axes is None:
        raise CannotReorderError(f"the axes of {named(node)} are not constant")
    left = [axis for axis in range(len(shape_of(x))) if axis not in axes]
    if node.attributes.get_int("keepdims", 1):
        left = list(range(len(shape_of(x))))
    if (order := plan.order(x)) is not None:
        if order.axis in axes:
            all_channels(node, order)
        else:
            plan.assign(y, order.on(left.index(order.axis)), node)
    if (order := plan.order(y)) is not None:
        plan.assign(x, order.on(left[order.axis]), node)


def _concat(plan: Reordering, node: ir.Node) -> None:
    """Along the channels every part keeps its place; along another axis all parts share the order."""
    y, axis = node.outputs[0], axis_of(node, 0)
    _, order = next(_known(plan, node))
    if order.axis != axis:
        _elementwise(plan, node)
        return
    sizes = [shape_of(part)[axis] for part in node.inputs if part is not None]
    if plan.order(y) is None:
        known = [
            plan.order(part) or Order.of(axis, range(size), size) for part, size in zip(node.inputs, sizes, strict=True)
        ]
        starts = accumulate(sizes[:-1], initial=0)
        index = [
            start + place for start, part in zip(starts, known, strict=True) for place in all_channels(node, part).index
        ]
        plan.assign(y, Order.of(axis, np.array(index), sum(sizes)), node)
    for place, part in enumerate(_parts(plan, node, y, sizes)):
        if constant_of(node.inputs[place]) is not None:
            plan.reindex(node, place, part, axis)
        else:
            plan.assign(node.inputs[place], part, node)


def _split(plan: Reordering, node: ir.Node) -> None:
    """As a concatenation, the other way round."""
    x, axis = node.inputs[0], axis_of(node, 0)
    assert x is not None
    _, order = next(_known(plan, node))
    if order.axis != axis:
        for value in (x, *node.outputs):
            plan.assign(value, order, node)
        return
    sizes = [shape_of(part)[axis] for part in node.outputs]
    starts = accumulate(sizes, initial=0)
    if plan.order(x) is None:
        index = np.arange(sum(sizes))
        for (start, end), part in zip(pairwise(starts), node.outputs, strict=True):
            if (own := plan.order(part)) is not None:
                index[start:end] = start + np.array(all_channels(node, own).index)
        plan.assign(x, Order.of(axis, index, len(index)), node)
    for output, share in zip(node.outputs, _parts(plan, node, x, sizes), strict=True):
        plan.assign(output, share, node)


def _parts(plan: Reordering, node: ir.Node, whole: ir.Value, sizes: list[int]) -> list[Order]:
    """The order of a whole as orders of its parts."""
    order = plan.order(whole)
    assert order is not None
    parts = [order.part(start, end) for start, end in pairwise(accumulate(sizes, initial=0))]
    if any(part is None for part in parts):
        raise CannotReorderError(f"{named(node)} would get channels of one part among those of another")
    return [part for part in parts if part is not None]


def _slice(plan: Reordering, node: ir.Node) -> None:
    """Along the channels, those it takes must stay among themselves; along other axes it takes the same of all."""
    x, y = node.inputs[0], node.outputs[0]
    starts, axes, steps = (constant_of(optional_input(node, place)) for place in (1, 3, 4))
    axes = np.arange(len(starts)) if starts is not None and optional_input(node, 3) is None else axes
    _, order = next(_known(plan, node))
    assert x is not None
    if starts is None or axes is None:
        raise CannotReorderError(f"the bounds of {named(node)} are not constant")
    rank, size = len(shape_of(x)), shape_of(x)[order.axis]
    cuts = [place for place, axis in enumerate(axes.tolist()) if axis % rank == order.axis]
    if not cuts:
        for value in (x, y):
            plan.assign(value, order, node)
        return
    if steps is not None and steps[cuts[0]] != 1:
        raise CannotReorderError(f"{named(node)} takes channels in steps")
    start = min(max(int(starts[cuts[0]]) + (size if starts[cuts[0]] < 0 else 0), 0), size)
    end = start + shape_of(y)[order.axis]
    if plan.order(x) is None and (own := plan.order(y)) is not None:
        index = np.arange(size)
        index[start:end] = start + np.array(all_channels(node, own).index)
        plan.assign(x, Order.of(order.axis, index, size), node)
    whole = plan.order(x)
    part = whole.part(start, end) if whole is not None else None
    if part is None:
        raise CannotReorderError(f"{named(node)} takes channels {start} to {end - 1}, and would get others")
    plan.assign(y, part, node)


_ELEMENTWISE = (
    *("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean", "PRelu", "Where", "Clip", "Identity", "Cast"),
    *("Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Gelu", "Mish", "Softplus", "Softsign", "ThresholdedRelu"),
    *("Sigmoid", "HardSigmoid", "HardSwish", "Swish", "Tanh", "Erf", "Exp", "Log", "Sqrt", "Reciprocal"),
    *("Neg", "Abs", "Floor", "Ceil", "Round", "Sign"),
)
_POOLS = ("MaxPool", "AveragePool", "LpPool", "GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool")
_REDUCTIONS = ("Mean", "Sum", "Max", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare")
_RULES: dict[str, Rule] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(_POOLS, _pooling),
    **{f"Reduce{name}": _reduction for name in _REDUCTIONS},
    **dict.fromkeys(("BatchNormalization", "InstanceNormalization"), _normalization),
    **dict.fromkeys(("Resize", "Pad"), _whole_axis),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape),
    **dict.fromkeys(("Softmax", "LogSoftmax"), _softmax),
    "Transpose": _transpose,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": agree_gather,
    **dict.fromkeys(("Conv", "ConvTranspose"), agree_convolution),
    **dict.fromkeys(("Gemm", "MatMul"), agree_dense),
}
