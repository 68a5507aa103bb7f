"""Which channels element-wise operators tie together, and what they make of a new channel that holds zeros."""

from __future__ import annotations

import onnx_ir as ir

from codesign.graph.graph import constant_of, shape_of
from codesign.graph.operators import optional_input
from codesign.graph.segments import Dimension, Reason
from codesign.graph.tracking import Axes, Extra, Tracker

KEEPS_ZERO = (
    *("Relu", "LeakyRelu", "ThresholdedRelu", "Elu", "Selu", "Celu", "Tanh", "Erf", "Gelu", "HardSwish"),
    *("Swish", "Mish", "Softsign", "Sin", "Tan", "Sinh", "Asinh", "Atan", "Abs", "Neg", "Sign", "Floor"),
    *("Ceil", "Round", "Shrink", "Identity", "Dropout", "Cast"),
)
STAYS_FINITE = ("Sigmoid", "HardSigmoid", "Exp", "Softplus", "Cos", "Cosh")
_FILLS = {"Div": 1.0, "Pow": 1.0}


def of_one(tracker: Tracker, node: ir.Node) -> None:
    """An operator of one tensor, on every element alone. A zero stays a zero, or becomes a finite number."""
    x, y = node.inputs[0], node.outputs[0]
    extra = tracker.extra_of(x) if node.op_type in KEEPS_ZERO else Extra.FINITE
    tracker.set(y, tracker.axes_of(x), extra)


def square_root(tracker: Tracker, node: ir.Node) -> None:
    """Sqrt: of zero it is zero; of another number it may be none."""
    x, y = node.inputs[0], node.outputs[0]
    axes, extra = tracker.axes_of(x), tracker.extra_of(x)
    if extra is not Extra.ZERO:
        _forbid_growth(tracker, node, axes)
    tracker.set(y, axes, extra)


def clip(tracker: Tracker, node: ir.Node) -> None:
    """Clip: a zero stays one if it lies between the bounds."""
    x, y = node.inputs[0], node.outputs[0]
    low, high = _bound(node, 1, "min"), _bound(node, 2, "max")
    extra = tracker.extra_of(x) if low <= 0 <= high else Extra.FINITE
    tracker.set(y, tracker.axes_of(x), extra)


def _bound(node: ir.Node, index: int, attribute: str) -> float:
    """A bound of a Clip; one that is absent is no nearer than zero."""
    given = constant_of(optional_input(node, index))
    return node.attributes.get_float(attribute, 0.0) if given is None else float(given.reshape(-1)[0])


def unbounded(tracker: Tracker, node: ir.Node) -> None:
    """Log, Reciprocal and others that have no finite value at zero: channels may go here, but none may come."""
    axes = tracker.axes_of(node.inputs[0])
    _forbid_growth(tracker, node, axes)
    tracker.set(node.outputs[0], axes, Extra.FINITE)


def of_several(tracker: Tracker, node: ir.Node) -> None:
    """Add, Mul, ...: what stands at one place agrees; a constant follows; one channel that is broadcast stays one."""
    y = node.outputs[0]
    shape = shape_of(y)
    values = [value for value in node.inputs if value is not None]
    axes = tuple(_axis(tracker, node, values, place, shape) for place in range(-len(shape), 0))
    for index, value in enumerate(node.inputs):
        if value is not None and constant_of(value) is not None:
            sizes = shape_of(value)
            aligned = axes[len(shape) - len(sizes) :]
            given = [axis if size > 1 else None for axis, size in zip(aligned, sizes, strict=True)]
            tracker.parameter(node, index, given, _FILLS.get(node.op_type, 0.0))
    tracker.set(y, axes, _extra(tracker, node, axes))


def _axis(
    tracker: Tracker, node: ir.Node, values: list[ir.Value], place: int, shape: tuple[int, ...]
) -> Dimension | None:
    """The dimension of the result at `place`, counted from the end."""
    full: list[Dimension | None] = []
    for value in values:
        sizes, axes = shape_of(value), tracker.axes_of(value)
        if constant_of(value) is not None or len(sizes) < -place:
            continue
        if sizes[place] == shape[place]:
            full.append(axes[place])
        else:
            tracker.freeze(axes[place], Reason.BROADCAST, node)
    return tracker.agree(full, node)


def _extra(tracker: Tracker, node: ir.Node, axes: Axes) -> Extra:
    """What a new channel holds behind the operator."""
    terms = [_term(tracker, value, axes) for value in node.inputs if value is not None]
    if node.op_type == "Mul":
        return min(terms)
    if node.op_type in ("Div", "Pow"):
        if not _stays_finite(tracker, node, axes, terms[0]):
            _forbid_growth(tracker, node, axes)
        return terms[0]
    return max(terms)


def _stays_finite(tracker: Tracker, node: ir.Node, axes: Axes, first: Extra) -> bool:
    """Whether a new channel divided by its divisor, or raised to its power, is a number (constants get 1)."""
    second = node.inputs[1]
    constant = constant_of(second)
    if node.op_type == "Div":
        return constant is not None or not _has_channels(tracker, second, axes)
    return first is Extra.ZERO and constant is not None and bool((constant > 0).all())


def _term(tracker: Tracker, value: ir.Value, axes: Axes) -> Extra:
    """What an operand brings to a new channel: its own, its fill value, or numbers that are there for all channels."""
    return tracker.extra_of(value) if _has_channels(tracker, value, axes) else Extra.FINITE


def _has_channels(tracker: Tracker, value: ir.Value | None, axes: Axes) -> bool:
    """Whether an operand has entries of its own for every channel of the result."""
    if value is None or constant_of(value) is None:
        return any(tracker.axes_of(value))
    sizes = shape_of(value)
    return any(axis is not None and size > 1 for axis, size in zip(axes[len(axes) - len(sizes) :], sizes, strict=True))


def _forbid_growth(tracker: Tracker, node: ir.Node, axes: Axes) -> None:
    for axis in axes:
        tracker.freeze(axis, Reason.NOT_FINITE, node, shrinks=False)
