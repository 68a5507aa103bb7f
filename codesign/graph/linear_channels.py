"""Which channels convolutions, matrix products and normalisations tie together."""

from __future__ import annotations

import onnx_ir as ir

from codesign.graph.graph import constant_of, shape_of
from codesign.graph.segments import Dimension, Reason, Run, fresh, repeated, resolved
from codesign.graph.tracking import Axes, Extra, Tracker


def convolution(tracker: Tracker, node: ir.Node) -> None:
    """Conv: new channels behind it, but for a depthwise one; groups are of equal size, read and write the same places.

    Weights [K, C / group, ...]. A new input channel meets zero weights, so it need only be finite.
    """
    x, w, y = node.inputs[0], node.inputs[1], node.outputs[0]
    assert x is not None and w is not None
    if constant_of(w) is None:
        tracker.freeze_all(node, Reason.NOT_CONSTANT)
        return
    batch, channels, *space = tracker.axes_of(x)
    outputs, group = shape_of(w)[0], node.attributes.get_int("group", 1)
    if _is_depthwise(node, x):
        out = None if channels is None else repeated(channels, outputs // group)
        tracker.parameter(node, 1, (out, *_none(w)[1:]))
    else:
        part = tracker.tile(channels, group, node)
        out = _groups(outputs, group)
        tracker.parameter(node, 1, (out, part, *_none(w)[2:]))
    tracker.parameter(node, 2, (out,))
    _along_space(tracker, node, (batch, out), space)
    if any(space):
        tracker.extras[y] = Extra.FINITE


def transposed_convolution(tracker: Tracker, node: ir.Node) -> None:
    """ConvTranspose, as Conv. Weights [C, K / group, ...]."""
    x, w, y = node.inputs[0], node.inputs[1], node.outputs[0]
    assert x is not None and w is not None
    batch, channels, *space = tracker.axes_of(x)
    if constant_of(w) is None or any(space):
        tracker.freeze_all(node, Reason.NOT_CONSTANT if constant_of(w) is None else Reason.NEIGHBOURS)
        return
    multiplier, group = shape_of(w)[1], node.attributes.get_int("group", 1)
    if _is_depthwise(node, x):
        out = None if channels is None else repeated(channels, multiplier)
        tracker.parameter(node, 1, (channels, *_none(w)[1:]))
    else:
        tracker.tile(channels, group, node)
        part = fresh(multiplier)
        out = part * group
        tracker.parameter(node, 1, (channels, part, *_none(w)[2:]))
    tracker.parameter(node, 2, (out,))
    tracker.set(y, (batch, out, *space))


def gemm(tracker: Tracker, node: ir.Node) -> None:
    """Gemm with constant weights: new channels behind it."""
    x, w, y = node.inputs[0], node.inputs[1], node.outputs[0]
    assert x is not None and w is not None
    if constant_of(w) is None or bool(node.attributes.get_int("transA", 0)):
        tracker.freeze_all(node, Reason.NOT_CONSTANT)
        return
    rows, channels = tracker.axes_of(x)
    transposed = bool(node.attributes.get_int("transB", 0))
    out, extra = fresh(shape_of(y)[1]), Extra.ZERO
    tracker.parameter(node, 1, (out, channels) if transposed else (channels, out))
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        bias = shape_of(node.inputs[2])
        axes: Axes = (*[None] * (len(bias) - 1), out if bias and bias[-1] == shape_of(y)[1] else None)
        tracker.parameter(node, 2, axes[: len(bias)])
        # A bias of one number for all reaches new channels too.
        extra = Extra.ZERO if any(axes[: len(bias)]) else Extra.FINITE
    tracker.set(y, (rows, out), extra)


def matrix_product(tracker: Tracker, node: ir.Node) -> None:
    """MatMul: with constant weights a dense layer; of two activations, as in attention, the summed dimensions agree.

    A summed new channel adds the product of what both sides hold, so one side must be zero.
    """
    x, w, y = node.inputs[0], node.inputs[1], node.outputs[0]
    assert x is not None and w is not None
    left, right = tracker.axes_of(x), tracker.axes_of(w)
    if constant_of(x) is not None or len(left) < 2 or len(right) < 2:
        tracker.freeze_all(node, Reason.NOT_CONSTANT)
        return
    if constant_of(w) is not None:
        if len(right) != 2:
            tracker.freeze_all(node, Reason.OPERATOR)
            return
        out = fresh(shape_of(w)[1])
        tracker.parameter(node, 1, (left[-1], out))
        tracker.set(y, (*left[:-1], out))
        return
    summed = tracker.agree((left[-1], right[-2]), node)
    extra = max(tracker.extra_of(x), tracker.extra_of(w))
    if min(tracker.extra_of(x), tracker.extra_of(w)) is not Extra.ZERO:
        tracker.freeze(summed, Reason.NOT_FINITE, node, shrinks=False)
    batch = _batch(tracker, node, left[:-2], right[:-2], shape_of(y)[:-2])
    tracker.set(y, (*batch, left[-2], right[-1]), extra)


def batch_normalisation(tracker: Tracker, node: ir.Node) -> None:
    """BatchNormalization at inference: one scale, shift, mean and variance for each channel; new ones map 0 to 0."""
    axes = tracker.axes_of(node.inputs[0])
    channels = axes[1]
    for index, fill in enumerate((1.0, 0.0, 0.0, 1.0), 1):
        tracker.parameter(node, index, (channels,), fill)
    tracker.set(node.outputs[0], axes, tracker.extra_of(node.inputs[0]))


def instance_normalisation(tracker: Tracker, node: ir.Node) -> None:
    """InstanceNormalization: each channel for itself, so channels may change, but not what one normalises over."""
    batch, channels, *space = tracker.axes_of(node.inputs[0])
    for axis in space:
        tracker.freeze(axis, Reason.NORMALISATION, node)
    tracker.parameter(node, 1, (channels,))
    tracker.parameter(node, 2, (channels,))
    tracker.set(node.outputs[0], (batch, channels, *space), Extra.FINITE)


def normalisation(tracker: Tracker, node: ir.Node) -> None:
    """Normalisations over the channels: layer, group, local response, and others along an axis."""
    axes = tracker.axes_of(node.inputs[0])
    first = node.attributes.get_int("axis", -1) % len(axes) if node.op_type in _FROM_AXIS else 1
    for axis in axes[first:]:
        tracker.freeze(axis, Reason.NORMALISATION, node)
    tracker.set(node.outputs[0], axes, Extra.FINITE)


_FROM_AXIS = ("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")


def _is_depthwise(node: ir.Node, x: ir.Value) -> bool:
    return node.attributes.get_int("group", 1) == shape_of(x)[1] > 1


def _groups(outputs: int, group: int) -> Dimension:
    """New channels in groups of one size."""
    return fresh(outputs // group) * group


def _none(value: ir.Value) -> list[None]:
    return [None] * len(shape_of(value))


def _along_space(tracker: Tracker, node: ir.Node, front: Axes, space: list[Dimension | None]) -> None:
    """The result of a convolution whose rows or columns may be channels (an attention over neighbouring channels).

    Exact with new zeros where the padding was: at the end alone, of a convolution that keeps the size.
    """
    x, y = node.inputs[0], node.outputs[0]
    assert x is not None
    sizes, results = shape_of(x)[2:], shape_of(y)[2:]
    kept: list[Dimension | None] = []
    for axis, size, result in zip(space, sizes, results, strict=True):
        if axis is None:
            kept.append(None)
            continue
        *before, last = resolved(axis)
        zero = tracker.extra_of(x) is Extra.ZERO and size == result and last.repeat == 1
        tracker.freeze((last,), Reason.NEIGHBOURS, node, grows=not zero or _among(last, before))
        tracker.freeze(tuple(before), Reason.NEIGHBOURS, node)
        kept.append(axis if size == result else None)
    tracker.set(y, (*front, *kept))


def _among(last: Run, before: list[Run]) -> bool:
    return any(run.segment is last.segment for run in before)


def _batch(
    tracker: Tracker, node: ir.Node, left: Axes, right: Axes, shape: tuple[int, ...]
) -> tuple[Dimension | None, ...]:
    """Leading dimensions of a product of two activations: those that are channels agree."""
    padded = [(*[None] * (len(shape) - len(axes)), *axes) for axes in (left, right)]
    return tuple(tracker.agree(pair, node) for pair in zip(*padded, strict=True))
