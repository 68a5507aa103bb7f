"""Where the batch lies in every tensor, so that a network exported for one image trains on many.

An exported graph carries its batch in the targets of Reshape, Expand and constants to concatenate. `batch_of` follows
the batch from axis 0 of the inputs through the graph and keeps this invariant: along the axis found, a tensor is a
block per sample, and each block is what the graph computes for that sample alone. So it may be repeated for any number
of samples. Where an operator mixes samples or nothing is known about it, the batch is fixed and the node is named.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from codesign.graph.graph import Graph, constant_of, node_name, shape_of
from codesign.graph.operators import reduction_axes

Axes = Mapping[ir.Value, int]


@dataclass(frozen=True)
class Batch:
    """size: samples the graph was exported for. axes: the batch's axis of every tensor that depends on an input.

    fixed_by: why it takes that many samples and no others; empty when it takes any number.
    """

    size: int
    axes: Axes
    fixed_by: str = ""


class _FixedError(Exception):
    """The node at hand mixes samples, or may do so."""


def batch_of(graph: Graph) -> Batch:
    """The batch of a graph whose inputs carry it in axis 0."""
    sizes = {shape_of(value)[:1] for value in graph.inputs}
    size = next(iter(sizes))[0] if len(sizes) == 1 and sizes != {()} else 0
    if size == 0:
        return Batch(0, {}, "its inputs do not share a first axis")
    axes: dict[ir.Value, int] = dict.fromkeys(graph.inputs, 0)
    for node in graph.nodes:
        try:
            found = _follow(node, axes, size)
        except _FixedError as error:
            return Batch(size, {}, f"node {node_name(node)}: {node.op_type} {error}")
        if found is not None:
            axes.update(dict.fromkeys(node.outputs, found))
    elsewhere = [str(value.name) for value in graph.outputs if axes.get(value) != 0]
    return Batch(size, {}, f"the batch is not the first axis of {elsewhere[0]}") if elsewhere else Batch(size, axes)


def _follow(node: ir.Node, axes: Axes, size: int) -> int | None:
    """The batch's axis in the node's results; None when it reads no batch. Raises _FixedError."""
    read = [value for value in node.inputs if value is not None and value in axes]
    if not read:
        return None
    if node.op_type not in _RULES:
        raise _FixedError("may mix samples")
    if node.op_type not in _ANY_OPERAND and read != [node.inputs[0]]:
        raise _FixedError("has more than one operand that depends on the input")
    return _RULES[node.op_type](node, axes, size)


def _x(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    assert value is not None
    return value


def _integers(node: ir.Node, index: int) -> list[int]:
    """A constant input as integers. Raises _FixedError when it is computed."""
    constant = constant_of(node.inputs[index])
    if constant is None:
        raise _FixedError("has a computed argument")
    return [int(number) for number in constant.reshape(-1)]


def _first(node: ir.Node, axes: Axes, size: int) -> int:
    """Layers whose axis 0 is the batch by definition."""
    if axes[_x(node)] != 0:
        raise _FixedError("has samples in its channels")
    return 0


def _broadcast(node: ir.Node, axes: Axes, size: int) -> int:
    """Element by element: aligned from the right, samples must meet samples."""
    return _aligned(node, axes)


def _aligned(node: ir.Node, axes: Axes) -> int:
    values = [value for value in node.inputs if value is not None]
    places = {axes[value] - len(shape_of(value)) for value in values if value in axes}
    sizes = {shape_of(value)[axes[value]] for value in values if value in axes}
    if len(places) > 1 or len(sizes) > 1:
        raise _FixedError("meets samples in different places")
    place = places.pop()
    for value in values:
        shape = shape_of(value)
        if value not in axes and len(shape) >= -place and shape[place] != 1:
            raise _FixedError(f"has a constant for every sample: {value.name}")
    return len(shape_of(node.outputs[0])) + place


def _product(node: ir.Node, axes: Axes, size: int) -> int:
    """MatMul: the batch among the leading axes, or in the rows of activations times a matrix of weights."""
    x, w = node.inputs[0], node.inputs[1]
    assert x is not None and w is not None
    if w not in axes and len(shape_of(w)) == 2 and len(shape_of(x)) > 1 and axes[x] < len(shape_of(x)) - 1:
        return axes[x]
    found = _aligned(node, axes)
    if min(len(shape_of(x)), len(shape_of(w))) < 2 or found >= len(shape_of(node.outputs[0])) - 2:
        raise _FixedError("sums over samples")
    return found


def _gemm(node: ir.Node, axes: Axes, size: int) -> int:
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    per_row = bias is not None and len(shape_of(bias)) == 2 and shape_of(bias)[0] != 1
    if axes[_x(node)] != 0 or node.attributes.get_int("transA", 0) != 0 or per_row:
        raise _FixedError("treats samples differently")
    return 0


def _along(default: int) -> Callable[[ir.Node, Axes, int], int]:
    """Operators that work along one axis, which must not be the batch's."""

    def rule(node: ir.Node, axes: Axes, size: int) -> int:
        if node.attributes.get_int("axis", default) % len(shape_of(_x(node))) == axes[_x(node)]:
            raise _FixedError("works along the samples")
        return axes[_x(node)]

    return rule


def _layer_norm(node: ir.Node, axes: Axes, size: int) -> int:
    if node.attributes.get_int("axis", -1) % len(shape_of(_x(node))) <= axes[_x(node)]:
        raise _FixedError("normalises over samples")
    return axes[_x(node)]


def _concat(node: ir.Node, axes: Axes, size: int) -> int:
    """Constants among the parts are repeated for every sample, so one sample's worth is what they must hold."""
    values = [value for value in node.inputs if value is not None]
    (axis, *others) = {axes[value] for value in values if value in axes}
    along = node.attributes["axis"].as_int() % len(shape_of(values[0]))
    if others or along == axis or any(shape_of(value)[axis] != 1 for value in values if value not in axes):
        raise _FixedError("joins samples")
    return axis


def _reduce(node: ir.Node, axes: Axes, size: int) -> int:
    reduced, axis = reduction_axes(node), axes[_x(node)]
    if reduced is None or axis in reduced:
        raise _FixedError("reduces over samples")
    return axis if node.attributes.get_int("keepdims", 1) else axis - sum(other < axis for other in reduced)


def _reshape(node: ir.Node, axes: Axes, size: int) -> int:
    """Samples are blocks in memory as long as what stands before them keeps its product.

    Axes of one element leave a choice, and any is right; an axis of samples alone is what the network's author meant.
    """
    before, after, axis = shape_of(_x(node)), shape_of(node.outputs[0]), axes[_x(node)]
    leading = math.prod(before[:axis])
    places = [at for at in range(len(after)) if math.prod(after[:at]) == leading and after[at] % size == 0]
    if not places:
        raise _FixedError("mixes samples with another axis")
    return min(places, key=lambda at: (after[at] != size, abs(at - axis)))


def _transpose(node: ir.Node, axes: Axes, size: int) -> int:
    rank = len(shape_of(_x(node)))
    order = list(node.attributes.get_ints("perm") or reversed(range(rank)))
    return order.index(axes[_x(node)])


def _squeeze(node: ir.Node, axes: Axes, size: int) -> int:
    shape, axis = shape_of(_x(node)), axes[_x(node)]
    given = node.inputs[1] if len(node.inputs) > 1 else None
    gone = {at for at, length in enumerate(shape) if length == 1}
    if given is not None:
        gone = {at % len(shape) for at in _integers(node, 1)}
    if axis in gone:
        raise _FixedError("drops the batch")
    return axis - sum(at < axis for at in gone)


def _unsqueeze(node: ir.Node, axes: Axes, size: int) -> int:
    rank = len(shape_of(node.outputs[0]))
    new = {at % rank for at in _integers(node, 1)}
    return [at for at in range(rank) if at not in new][axes[_x(node)]]


def _slice(node: ir.Node, axes: Axes, size: int) -> int:
    shape, axis = shape_of(_x(node)), axes[_x(node)]
    if shape_of(node.outputs[0])[axis] != shape[axis] or axis in _turned(node, len(shape)):
        raise _FixedError("picks samples")
    return axis


def _turned(node: ir.Node, rank: int) -> set[int]:
    """Axes a Slice walks backwards."""
    if len(node.inputs) < 5 or node.inputs[4] is None:
        return set()
    steps = _integers(node, 4)
    along = range(len(steps)) if node.inputs[3] is None else _integers(node, 3)
    return {axis % rank for axis, step in zip(along, steps, strict=True) if step < 0}


def _gather(node: ir.Node, axes: Axes, size: int) -> int:
    shape, axis = shape_of(_x(node)), axes[_x(node)]
    along = node.attributes.get_int("axis", 0) % len(shape)
    if along == axis:
        raise _FixedError("picks samples")
    return axis if axis < along else axis + len(shape_of(node.outputs[0])) - len(shape)


def _expand(node: ir.Node, axes: Axes, size: int) -> int:
    before, after = shape_of(_x(node)), shape_of(node.outputs[0])
    axis = axes[_x(node)] - len(before) + len(after)
    if after[axis] != before[axes[_x(node)]]:
        raise _FixedError("repeats samples")
    return axis


def _same_size(node: ir.Node, axes: Axes, size: int) -> int:
    """Tile and Pad: what they do to other axes is no concern of the batch. (A negative pad could shift samples.)"""
    axis = axes[_x(node)]
    if min(_integers(node, 1)) < 0:
        raise _FixedError("crops")
    if shape_of(node.outputs[0])[axis] != shape_of(_x(node))[axis]:
        raise _FixedError("changes the number of samples")
    return axis


_LAYERS = (
    "Conv ConvTranspose BatchNormalization InstanceNormalization GroupNormalization LRN MaxPool AveragePool "
    "GlobalMaxPool GlobalAveragePool Resize DepthToSpace SpaceToDepth"
)
_ELEMENTWISE = (
    "Abs Ceil Cos Erf Exp Floor Identity Log Neg Not Reciprocal Relu Round Sigmoid Sign Sin Sqrt Softplus Softsign "
    "Tanh HardSwish Mish Elu Selu Celu LeakyRelu HardSigmoid Gelu Swish PRelu Clip Cast Dropout "
    "Add Sub Mul Div Pow Max Min Sum Mean And Or Xor Equal Greater GreaterOrEqual Less LessOrEqual Where"
)
_REDUCTIONS = "ReduceMean ReduceSum ReduceMax ReduceMin ReduceL1 ReduceL2"
_RULES: dict[str, Callable[[ir.Node, Axes, int], int]] = {
    **dict.fromkeys(_LAYERS.split(), _first),
    **dict.fromkeys(_ELEMENTWISE.split(), _broadcast),
    **dict.fromkeys(_REDUCTIONS.split(), _reduce),
    **dict.fromkeys(("Softmax", "LogSoftmax"), _along(-1)),
    **dict.fromkeys(("Reshape", "Flatten"), _reshape),
    **dict.fromkeys(("Tile", "Pad"), _same_size),
    "Split": _along(0),
    "MatMul": _product,
    "Gemm": _gemm,
    "LayerNormalization": _layer_norm,
    "Concat": _concat,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Slice": _slice,
    "Gather": _gather,
    "Expand": _expand,
}
_ANY_OPERAND = frozenset(op for op, rule in _RULES.items() if rule in (_broadcast, _product, _concat))
