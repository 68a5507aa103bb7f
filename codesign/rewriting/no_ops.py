"""Which operators change nothing: their result is one of their inputs, element for element.

Shapes are static, so that for most movers of data it is enough that the result has the shape of the input.
Source: the operator definitions of the ONNX specification.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from codesign.graph.graph import constant_of, node_name, shape_of
from codesign.graph.operators import Pool, is_operator, optional_input
from codesign.rewriting.ranges import Range, clip_bounds, range_of

VIEWS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")
# With a result of the shape of the first input, these cannot have moved, repeated, left out or summed anything.
_SAME_BY_SHAPE = (
    *VIEWS,
    *("Identity", "Expand", "Tile", "Split", "DepthToSpace", "SpaceToDepth", "GlobalAveragePool", "GlobalMaxPool"),
    *("ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceProd"),
)
_OF_SEVERAL = ("Concat", "Sum", "Max", "Min", "Mean")
_NEUTRAL = {"Mul": 1.0, "Div": 1.0, "Pow": 1.0, "Add": 0.0, "Sub": 0.0}
_PASS_POSITIVE = ("Relu", "LeakyRelu", "PRelu", "Abs")
_EXACT_COORDINATES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "asymmetric", "align_corners")


@dataclass(frozen=True)
class NoOp:
    """`value` can stand for the node's first output, because of `why`."""

    value: ir.Value
    why: str


def no_op_of(node: ir.Node) -> NoOp | None:
    """What a node's first output equals, or None when it is not known to equal anything."""
    x = node.inputs[0] if node.inputs else None
    if x is None or not is_operator(node, node.op_type) or _has_no_shape(x, node.outputs[0]):
        return None
    return _of_one_input(node, x) or _of_neutral_constant(node) or _of_pair(node)


def _of_one_input(node: ir.Node, x: ir.Value) -> NoOp | None:
    same_shape = shape_of(x) == shape_of(node.outputs[0])
    op = node.op_type
    if op in _SAME_BY_SHAPE and same_shape:
        return NoOp(x, f"{op} leaves its input as it is")
    if op in _OF_SEVERAL and len(node.inputs) == 1:
        return NoOp(x, f"{op} of one tensor")
    if op in ("Cast", "CastLike") and x.dtype == node.outputs[0].dtype:
        return NoOp(x, f"{op} to the type it has already")
    if op == "Slice" and same_shape and _all(node, 4, lambda steps: steps > 0):
        return NoOp(x, "Slice takes all of its input")
    if op == "Pad" and same_shape and optional_input(node, 1) is not None and _all(node, 1, lambda pads: pads == 0):
        return NoOp(x, "Pad adds nothing")
    if op == "Transpose" and same_shape and _keeps_order(node, x):
        return NoOp(x, "Transpose changes no order")
    if op == "Dropout" and _is_inference(node):
        return NoOp(x, "Dropout does nothing at inference")
    if op == "Resize" and same_shape and _samples_every_element(node):
        return NoOp(x, "Resize to the size it has already")
    if op in ("MaxPool", "AveragePool") and same_shape and _is_single_element(node):
        return NoOp(x, f"{op} over single elements")
    return _of_range(node, x)


def _of_range(node: ir.Node, x: ir.Value) -> NoOp | None:
    """Operators that pass on numbers of a range in which all of their inputs lie."""
    known = range_of(x)
    if node.op_type in _PASS_POSITIVE and known.low >= 0 and shape_of(x) == shape_of(node.outputs[0]):
        return NoOp(x, f"{node.op_type} of numbers that are not negative")
    bounds = clip_bounds(node) if node.op_type == "Clip" else None
    if bounds is not None and bounds.contains(known):
        return NoOp(x, "Clip without bounds" if bounds == Range() else "Clip of numbers that lie within its bounds")
    # A reader that lifts everything negative to zero or higher itself makes a Relu before it superfluous.
    uses = node.outputs[0].uses() if node.op_type == "Relu" and not node.outputs[0].is_graph_output() else ()
    if uses and all(use.idx == 0 and _lifts_negative(use.node) for use in uses):
        readers = [use.node for use in uses]
        return NoOp(x, f"Relu before {', '.join(f'{reader.op_type} {node_name(reader)}' for reader in readers)}")
    return None


def _lifts_negative(reader: ir.Node) -> bool:
    bounds = clip_bounds(reader) if is_operator(reader, "Clip") else None
    return is_operator(reader, "Relu") or (bounds is not None and bounds.low >= 0)


def _of_neutral_constant(node: ir.Node) -> NoOp | None:
    """x * 1, x / 1, x ^ 1, x + 0, x - 0, and the two sides that may be swapped."""
    neutral = _NEUTRAL.get(node.op_type)
    if neutral is None or len(node.inputs) != 2:
        return None
    for index in (1, 0) if node.op_type in ("Mul", "Add") else (1,):
        constant, x = constant_of(node.inputs[index]), node.inputs[1 - index]
        if constant is None or x is None or _has_no_shape(x) or shape_of(x) != shape_of(node.outputs[0]):
            continue
        if (constant == neutral).all():
            return NoOp(x, f"{node.op_type} {'of' if neutral == 0 else 'by'} {neutral:.0f}")
    return None


def _of_pair(node: ir.Node) -> NoOp | None:
    """Two operators, the second of which undoes the first."""
    if node.op_type in VIEWS:
        root = node.inputs[0]
        while root is not None and (producer := root.producer()) is not None and is_operator(producer, *VIEWS):
            root = producer.inputs[0]
            if root is not None and shape_of(root) == shape_of(node.outputs[0]):
                return NoOp(root, f"{node.op_type} back to the shape before {producer.op_type} {node_name(producer)}")
    before = transposed_twice(node)
    if before is not None and before.order == tuple(range(len(before.order))):
        return NoOp(before.x, f"Transpose back to the order before Transpose {node_name(before.first)}")
    return _of_split(node) if node.op_type == "Concat" else None


@dataclass(frozen=True)
class TransposedTwice:
    """A Transpose behind the Transpose `first` of x; both together put the axes into `order`."""

    first: ir.Node
    x: ir.Value
    order: tuple[int, ...]


def transposed_twice(node: ir.Node) -> TransposedTwice | None:
    """What a Transpose behind a Transpose comes to, or None when there is none before it."""
    middle = node.inputs[0]
    first = middle.producer() if middle is not None and is_operator(node, "Transpose") else None
    if first is None or not is_operator(first, "Transpose") or (x := first.inputs[0]) is None:
        return None
    order = order_of(first)
    return TransposedTwice(first, x, tuple(order[axis] for axis in order_of(node)))


def order_of(transpose: ir.Node) -> tuple[int, ...]:
    """The order a Transpose puts axes into; left out, it turns them round."""
    given = transpose.attributes.get_ints("perm")
    return tuple(given) if given else tuple(reversed(range(len(shape_of(transpose.outputs[0])))))


def _of_split(concat: ir.Node) -> NoOp | None:
    """All results of a Split put together again."""
    split = concat.inputs[0].producer() if concat.inputs[0] is not None else None
    if split is None or not is_operator(split, "Split") or list(split.outputs) != list(concat.inputs):
        return None
    rank, x = len(shape_of(concat.outputs[0])), split.inputs[0]
    axes = [node.attributes.get_int("axis", 0) % rank for node in (split, concat)]
    return NoOp(x, f"Concat of all parts of Split {node_name(split)}") if x is not None and axes[0] == axes[1] else None


def _has_no_shape(*values: ir.Value) -> bool:
    return any(value.shape is None or not value.shape.is_static() for value in values)


def _all(node: ir.Node, index: int, holds: Any) -> bool:
    """Whether a condition holds for all of a constant input; an absent one has its default, for which it does."""
    value = optional_input(node, index)
    constant = constant_of(value)
    return value is None or (constant is not None and bool(np.all(holds(constant))))


def _keeps_order(node: ir.Node, x: ir.Value) -> bool:
    """Whether only axes of size 1 change places."""
    moved = [axis for axis in order_of(node) if shape_of(x)[axis] != 1]
    return moved == sorted(moved)


def _is_inference(node: ir.Node) -> bool:
    training = optional_input(node, 2)
    off = training is None or (constant_of(training) is not None and not np.any(constant_of(training)))
    return off and not any(mask.uses() or mask.is_graph_output() for mask in node.outputs[1:])


def _samples_every_element(node: ir.Node) -> bool:
    """Whether a Resize with a result of its input's size reads the elements where they lie."""
    scales = constant_of(optional_input(node, 2))
    exact = (scales == 1).all() if scales is not None and scales.size else optional_input(node, 3) is not None
    coordinates = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    return bool(exact) and coordinates in _EXACT_COORDINATES


def _is_single_element(node: ir.Node) -> bool:
    pool = Pool.of(node)
    used = any(output.uses() or output.is_graph_output() for output in node.outputs[1:])
    return pool is not None and not used and pool.kernel == pool.strides == (1, 1) and not any(pool.pads)
