"""Upper bounds for the tensors of a data-dependent tail: how many elements each can hold at most.

Every result gets the largest shape it can have, by the operators' own shape inference on its inputs' largest shapes.
Integers computed from shapes (how many candidates, at most 400) are followed as intervals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from codesign.errors import CodesignError
from codesign.graph.graph import TensorBound, constant_of, node_name

Shape = tuple[int, ...]
Interval = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
_MOST_VALUES = 64  # longer tensors are data, not shapes
_RISING = frozenset(
    {"Add", "Cast", "Ceil", "Concat", "Floor", "Gather", "Identity", "Max", "Min", "Mul", "ReduceMax", "ReduceMin"}
    | {"ReduceProd", "ReduceSum", "Reshape", "Slice", "Squeeze", "Unsqueeze"}
)
_FALLING_IN_SECOND = frozenset({"Sub", "Div"})
_BROADCASTING = frozenset(
    {"Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"}
    | {"Max", "Min", "Mod", "Mul", "Or", "Pow", "Sub", "Where", "Xor"}
)
_NO_BOUND_HINT = "end the exported network before this node and do the rest outside"


def bound_tensors(nodes: Sequence[ir.Node], opset: int, where: str) -> tuple[TensorBound, ...]:
    """An upper bound for every result of `nodes` (in order of flow; what they read from outside has static shapes).

    Raises CodesignError naming the first node whose results no bound can be stated for.
    """
    bounds = _Bounds(opset, where)
    bounds.visit(nodes)
    return tuple(
        TensorBound(str(value.name), math.prod(bounds.most(value)), _element_bytes(value))
        for node in nodes
        for value in node.outputs
        if value.name
    )


def _element_bytes(value: ir.Value) -> int:
    return max(1, math.ceil(value.dtype.itemsize)) if value.dtype is not None else 8


class _Bounds:
    """Largest shapes and, for small integers, intervals, filled in order of flow."""

    def __init__(self, opset: int, where: str) -> None:
        self._opset = opset
        self._where = where
        self._most: dict[ir.Value, Shape] = {}
        self._values: dict[ir.Value, Interval] = {}

    def visit(self, nodes: Iterable[ir.Node]) -> None:
        for node in nodes:
            shapes = self._shapes(node)
            for value, shape in zip(node.outputs, shapes, strict=False):
                self._most[value] = shape
            interval = self._interval(node)
            if interval is not None:
                self._values[node.outputs[0]] = interval

    def most(self, value: ir.Value) -> Shape:
        """The largest shape a value can have."""
        if value in self._most:
            return self._most[value]
        if value.const_value is not None:
            return tuple(value.const_value.shape.numpy())
        if value.shape is None or not value.shape.is_static():
            raise CodesignError(self._where, f"no upper bound can be stated for {value.name}", _NO_BOUND_HINT)
        return tuple(value.shape.numpy())

    def at_most(self, value: ir.Value | None) -> np.ndarray[Any, Any] | None:
        """The largest values of a small integer tensor, where they are known."""
        interval = self._interval_of(value)
        return None if interval is None else interval[1]

    def _shapes(self, node: ir.Node) -> list[Shape]:
        if node.op_type == "If":
            return self._of_if(node)
        rule = _RULES.get(node.op_type)
        shapes = rule(node, self) if rule is not None else None
        shapes = shapes or self._inferred(node)
        if shapes is None and node.op_type in _BROADCASTING:
            shapes = [_widest([self.most(value) for value in node.inputs if value is not None])]
        if shapes is None:
            at = f"{self._where}: node {node_name(node)}"
            raise CodesignError(at, f"no upper bound can be stated for the result of {node.op_type}", _NO_BOUND_HINT)
        return shapes

    def _of_if(self, node: ir.Node) -> list[Shape]:
        """The larger of the two branches, result by result."""
        branches = [node.attributes[name].as_graph() for name in ("then_branch", "else_branch")]
        for branch in branches:
            self.visit(branch)
        shapes = []
        for one, other in zip(branches[0].outputs, branches[1].outputs, strict=True):
            a, b = self.most(one), self.most(other)
            same_rank = len(a) == len(b)
            shapes.append(tuple(map(max, a, b)) if same_rank else max(a, b, key=math.prod))
        return shapes

    def _inferred(self, node: ir.Node) -> list[Shape] | None:
        """Shapes by onnx's own inference, or None when it cannot tell."""
        values = [value for value in node.inputs if value is not None]
        types = {str(value.name): _type_proto(value, self.most(value)) for value in values}
        data = {}
        for value in values:
            interval = self._interval_of(value)
            if interval is not None and np.array_equal(*interval):
                data[str(value.name)] = onnx.numpy_helper.from_array(interval[0])
        try:
            schema = onnx.defs.get_schema(node.op_type, self._opset, node.domain)
            found = onnx.shape_inference.infer_node_outputs(schema, ir.to_proto(node), types, data)
        except (onnx.shape_inference.InferenceError, onnx.defs.SchemaError, RuntimeError, ValueError):
            return None  # inputs whose bounds do not fit together; the caller has other rules
        shapes = [_static_sizes(found.get(str(value.name))) for value in node.outputs]
        return None if None in shapes else [shape for shape in shapes if shape is not None]

    def _interval_of(self, value: ir.Value | None) -> Interval | None:
        if value is None:
            return None
        if value in self._values:
            return self._values[value]
        if value.const_value is None or value.const_value.size > _MOST_VALUES:
            return None
        constant = constant_of(value)
        assert constant is not None
        return constant, constant

    def _interval(self, node: ir.Node) -> Interval | None:
        """The interval of a node's result, where it is small and follows from shapes."""
        if node.op_type == "Shape":
            return self._shape_interval(node)
        intervals = [self._interval_of(value) for value in node.inputs if value is not None]
        known = [interval for interval in intervals if interval is not None]
        falls = node.op_type in _FALLING_IN_SECOND
        if len(known) < len(intervals) or not known or not (falls or node.op_type in _RISING):
            return None
        if node.op_type in ("Mul", "ReduceProd", "Div") and any((low < 0).any() for low, _ in known):
            return None
        lows, highs = [low for low, _ in known], [high for _, high in known]
        if falls:
            lows[1], highs[1] = highs[1], lows[1]
            if node.op_type == "Div" and not (highs[1] > 0).all():
                return None
        return _evaluate(node, lows), _evaluate(node, highs)

    def _shape_interval(self, node: ir.Node) -> Interval:
        value = node.inputs[0]
        assert value is not None
        most = self.most(value)
        declared = value.shape if value.shape is not None and len(value.shape) == len(most) else (None,) * len(most)
        least = [size if isinstance(size, int) else 0 for size in declared]
        part = slice(node.attributes.get_int("start", 0), node.attributes.get_int("end"))
        return np.array(least[part], np.int64), np.array(most[part], np.int64)


def _evaluate(node: ir.Node, inputs: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    proto = ir.to_proto(node)
    names = [name for name in proto.input if name]
    found = ReferenceEvaluator(proto).run(None, dict(zip(names, inputs, strict=True)))
    return np.asarray(list(found)[0])


def _type_proto(value: ir.Value, shape: Shape) -> onnx.TypeProto:
    element = value.dtype.value if value.dtype is not None else onnx.TensorProto.FLOAT
    return onnx.helper.make_tensor_type_proto(element, shape)


def _static_sizes(found: onnx.TypeProto | None) -> Shape | None:
    if found is None or not found.tensor_type.HasField("shape"):
        return None
    sizes = [dim.dim_value if dim.HasField("dim_value") else None for dim in found.tensor_type.shape.dim]
    return None if None in sizes else tuple(int(size) for size in sizes if size is not None)


def _widest(shapes: list[Shape]) -> Shape:
    """Sizes aligned at the end, the largest of each."""
    rank = max(len(shape) for shape in shapes)
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(map(max, *padded)) if len(padded) > 1 else padded[0]


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _data(node: ir.Node, bounds: _Bounds) -> Shape:
    value = node.inputs[0]
    assert value is not None
    return bounds.most(value)


def _non_zero(node: ir.Node, bounds: _Bounds) -> list[Shape]:
    shape = _data(node, bounds)
    return [(len(shape), math.prod(shape))]


def _non_max_suppression(node: ir.Node, bounds: _Bounds) -> list[Shape]:
    """At most max_output_boxes_per_class boxes (none when it is absent) of every class of every image."""
    scores = node.inputs[1]
    assert scores is not None
    batch, classes, boxes = bounds.most(scores)
    limit = _input(node, 2)
    most = bounds.at_most(limit) if limit is not None else np.zeros(1)
    per_class = boxes if most is None else min(boxes, int(most.max()))
    return [(batch * classes * per_class, 3)]


def _top_k(node: ir.Node, bounds: _Bounds) -> list[Shape]:
    """At most k, never more than there are."""
    shape, most = list(_data(node, bounds)), bounds.at_most(node.inputs[1])
    axis = node.attributes.get_int("axis", -1)
    shape[axis] = shape[axis] if most is None else min(shape[axis], int(most.max()))
    return [tuple(shape), tuple(shape)]


def _unique(node: ir.Node, bounds: _Bounds) -> list[Shape]:
    shape = _data(node, bounds)
    axis = node.attributes.get_int("axis")
    count = math.prod(shape) if axis is None else shape[axis]
    return [(count,) if axis is None else shape, (count,), (count,), (count,)]


def _compress(node: ir.Node, bounds: _Bounds) -> list[Shape]:
    shape, axis, condition = list(_data(node, bounds)), node.attributes.get_int("axis"), node.inputs[1]
    assert condition is not None
    most = math.prod(bounds.most(condition))
    if axis is None:
        return [(min(math.prod(shape), most),)]
    shape[axis] = min(shape[axis], most)
    return [tuple(shape)]


def _slice(node: ir.Node, bounds: _Bounds) -> list[Shape] | None:
    """Constant limits go through inference; others are bounded where start and end are, else by the input."""
    if all(value is None or value.const_value is not None for value in node.inputs[1:]):
        return None
    shape = list(_data(node, bounds))
    start, end, axes, steps = (bounds._interval_of(_input(node, place)) for place in (1, 2, 3, 4))
    steps_forward = _input(node, 4) is None or (steps is not None and (steps[0] > 0).all())
    if start is None or end is None or (axes is None and _input(node, 3) is not None) or not steps_forward:
        return [tuple(shape)]
    if (start[0] < 0).any() or (end[0] < 0).any():
        return [tuple(shape)]  # counted from the end: nothing more is known
    for place, axis in enumerate(range(len(start[0])) if axes is None else axes[0]):
        shape[axis] = min(shape[axis], max(0, int(end[1][place] - start[0][place])))
    return [tuple(shape)]


def _constant_of_shape(node: ir.Node, bounds: _Bounds) -> list[Shape] | None:
    most = bounds.at_most(node.inputs[0])
    return None if most is None else [tuple(int(size) for size in most)]


def _range(node: ir.Node, bounds: _Bounds) -> list[Shape] | None:
    start, stop, step = (bounds._interval_of(value) for value in node.inputs)
    if start is None or stop is None or step is None or not (step[0] > 0).all():
        return None
    return [(max(0, math.ceil((float(stop[1]) - float(start[0])) / float(step[0]))),)]


def _expand(node: ir.Node, bounds: _Bounds) -> list[Shape] | None:
    most = bounds.at_most(node.inputs[1])
    return None if most is None else [_widest([_data(node, bounds), tuple(int(size) for size in most)])]


def _tile(node: ir.Node, bounds: _Bounds) -> list[Shape] | None:
    most = bounds.at_most(node.inputs[1])
    shape = _data(node, bounds)
    return None if most is None else [tuple(size * int(times) for size, times in zip(shape, most, strict=True))]


def _reshape(node: ir.Node, bounds: _Bounds) -> list[Shape] | None:
    """The elements stay; the one open size takes what the others leave."""
    elements, shape = math.prod(_data(node, bounds)), node.outputs[0].shape
    target = bounds._interval_of(node.inputs[1])
    if target is not None and np.array_equal(*target):
        return None  # a known target: inference says it exactly
    if shape is not None and sum(not isinstance(size, int) for size in shape) == 1:
        others = math.prod(size for size in shape if isinstance(size, int))
        return [tuple(size if isinstance(size, int) else -(-elements // max(1, others)) for size in shape)]
    return [(elements,)]


_RULES: dict[str, Callable[[ir.Node, _Bounds], list[Shape] | None]] = {
    "NonZero": _non_zero,
    "NonMaxSuppression": _non_max_suppression,
    "TopK": _top_k,
    "Unique": _unique,
    "Compress": _compress,
    "Slice": _slice,
    "ConstantOfShape": _constant_of_shape,
    "Range": _range,
    "Expand": _expand,
    "Tile": _tile,
    "Reshape": _reshape,
}
