"""Folding a scale and shift, wherever it stands, into the linear operators before or after it.

    Conv -> Transpose -> (scale x + shift) -> y        backwards: into the convolution that makes x
    (scale x + shift) -> Reshape -> Conv, Conv         forwards: into every convolution that reads the result

Both walks only read; nothing is changed before all of it is known to fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from codesign.graph.graph import Graph, constant_of, node_name, shape_of
from codesign.graph.operators import is_operator
from codesign.rewriting.affine import Affine, carried_back, carried_forward, part_of, without_leading_ones
from codesign.rewriting.edit import fresh_name, remove_node, set_constant
from codesign.rewriting.linear import (
    CannotFoldError,
    Folded,
    Linear,
    channel_axes,
    fold_after,
    fold_before,
    linear_of,
    write,
)


@dataclass(frozen=True)
class Stretch:
    """Nodes in a row that together compute an Affine. index: which input of the first one is the tensor."""

    nodes: tuple[ir.Node, ...]
    index: int

    @property
    def x(self) -> ir.Value:
        """The tensor read."""
        value = self.nodes[0].inputs[self.index]
        assert value is not None
        return value

    @property
    def y(self) -> ir.Value:
        """The result."""
        return self.nodes[-1].outputs[0]


@dataclass(frozen=True)
class _Sum:
    """What the constant of an addition, its input `index`, becomes."""

    index: int
    constant: np.ndarray


@dataclass(frozen=True)
class _Target:
    """An operator that takes an affine in. fold: what becomes of the operator; change: that, for this affine."""

    node: ir.Node
    affine: Affine
    change: Folded | _Sum
    fold: Callable[[Affine], Folded | _Sum]

    @classmethod
    def of(cls, node: ir.Node, affine: Affine, fold: Callable[[Affine], Folded | _Sum]) -> _Target:
        """Raises CannotFoldError where the operator cannot take it."""
        return cls(node, affine, fold(affine), fold)


@dataclass(frozen=True)
class Walk:
    """What has to change. values: tensors in between whose numbers change, and which therefore take new names."""

    targets: tuple[_Target, ...]
    values: tuple[ir.Value, ...] = ()

    @property
    def into(self) -> str:
        """`into the weights of Conv_0, Conv_1`."""
        names = [node_name(target.node) for target in self.targets if isinstance(target.change, Folded)]
        return f"into the weights of {', '.join(names)}"

    def with_value(self, value: ir.Value) -> Walk:
        """One more tensor whose numbers change."""
        return Walk(self.targets, (*self.values, value))


def fold_backwards(graph: Graph, stretch: Stretch, affine: Affine) -> str:
    """Fold into the operators that make x, and remove the stretch; says where to. Raises CannotFoldError."""
    walk = _walked_back(stretch.x, affine)
    apply(graph, walk)
    # Read only now: behind a MatMul, writing has put an addition in between.
    result, name = stretch.x, stretch.y.name
    replace(graph, stretch, result)
    result.name = name
    return walk.into


def fold_forwards(graph: Graph, stretch: Stretch, affine: Affine) -> str:
    """Fold into every operator that reads y, and remove the stretch; says where to. Raises CannotFoldError."""
    walk = walked_forward(stretch.y, affine)
    apply(graph, walk)
    replace(graph, stretch, stretch.x)
    return walk.into


def apply(graph: Graph, walk: Walk) -> None:
    """Change what the walk says."""
    for value in dict.fromkeys(walk.values):
        value.name = fresh_name(graph, f"{value.name}.folded")
    for target in walk.targets:
        match target.change:
            case Folded() as folded:
                write(graph, folded)
            case _Sum() as addition:
                set_constant(graph, target.node, addition.index, addition.constant, "constant")


def replace(graph: Graph, stretch: Stretch, replacement: ir.Value) -> None:
    """Take the stretch out: who read y reads `replacement`."""
    for node in reversed(stretch.nodes):
        remove_node(graph, node, replacement)


def walked_forward(value: ir.Value, affine: Affine) -> Walk:
    """What makes everything that reads `value` compute what it would compute from affine(value)."""
    if value.is_graph_output():
        raise CannotFoldError("its result is an output of the graph")
    if not value.uses():
        raise CannotFoldError("nothing reads its result")
    return _joined(_walked_into(use.node, use.idx, affine) for use in value.uses())


def _walked_into(reader: ir.Node, index: int, affine: Affine) -> Walk:
    view = linear_of(reader)
    if view is not None and constant_of(view.w) is not None:
        if index != 0:
            raise CannotFoldError(f"{node_name(reader)} reads its result as bias")
        return Walk((_target_before(view, affine),))
    results = _scaled_product(reader, index, affine) if _is_product(reader) else carried_forward(reader, index, affine)
    if results is None:
        raise CannotFoldError(f"its result goes to {reader.op_type} {node_name(reader)}, which has no weights")
    return _joined(walked_forward(result, after).with_value(result) for result, after in results)


def _target_before(view: Linear, affine: Affine) -> _Target:
    axis, _ = channel_axes(view)
    channels = shape_of(view.x)[axis]
    where = f"the input of {node_name(view.node)}"
    return _Target.of(
        view.node, affine, lambda all_of_it: fold_before(view, all_of_it.for_channels(axis, channels, where))
    )


def _scaled_product(node: ir.Node, index: int, affine: Affine) -> tuple[tuple[ir.Value, Affine]] | None:
    """What a scale of one factor does to a product of two tensors, or None when it does not come out as a scale."""
    factor, result = node.inputs[index], node.outputs[0]
    assert factor is not None
    extra = len(shape_of(result)) - len(shape_of(factor))
    if affine.shift.any() or extra < 0 or (node.op_type == "MatMul" and affine.axes):
        return None
    return ((result, Affine(*(term.reshape((1,) * extra + term.shape) for term in (affine.scale, affine.shift)))),)


def _walked_back(value: ir.Value, affine: Affine) -> Walk:
    """What makes `value` come out as affine(value)."""
    node = _producer(value, affine)
    if _is_product(node):
        return _walked_factor(node, affine).with_value(value)
    if (view := linear_of(node)) is not None:
        return Walk((_target_after(view, affine),), (value,))
    if is_operator(node, "Concat"):
        return _walked_parts(node, affine).with_value(value)
    if is_operator(node, "Add") and (found := _constant_input(node)) is not None:
        index, constant = found
        other = node.inputs[1 - index]
        if other is not None and shape_of(other) == shape_of(value):
            # The shift enters a chain once, here; the rest is only scaled.
            addition = _Target.of(
                node, affine, lambda term: _Sum(index, _cast(term.scale * constant + term.shift, constant))
            )
            return _joined([Walk((addition,), (value,)), _walked_back(other, affine.only_scale())])
    source = carried_back(value, affine)
    if source is None:
        raise CannotFoldError(f"its input comes from {node.op_type} {node_name(node)}, which has no weights")
    return _walked_back(*source).with_value(value)


def _target_after(view: Linear, affine: Affine) -> _Target:
    _, axis = channel_axes(view)
    channels = shape_of(view.y)[axis]
    where = f"the result of {node_name(view.node)}"
    return _Target.of(
        view.node, affine, lambda all_of_it: fold_after(view, all_of_it.for_channels(axis, channels, where), axis)
    )


def _walked_parts(node: ir.Node, affine: Affine) -> Walk:
    """Every part of a concatenation for itself."""
    axis = node.attributes.get_int("axis") % len(shape_of(node.outputs[0]))
    walks, start = [], 0
    for part in filter(None, node.inputs):
        length = shape_of(part)[axis]
        walks.append(_walked_back(part, affine.part(axis, start, length)))
        start += length
    return _joined(walks)


def _walked_factor(node: ir.Node, affine: Affine) -> Walk:
    """A scale of a product of two tensors scales either one; of a matrix product, only the same scale everywhere."""
    reason = f"its input comes from {node.op_type} {node_name(node)}, a product that is not only scaled"
    passes = not affine.shift.any() and (node.op_type == "Mul" or not affine.axes)
    for factor in filter(None, node.inputs if passes else ()):
        try:
            if (fitted := affine.fitted(shape_of(factor))) is not None:
                return _walked_back(factor, fitted)
        except CannotFoldError as error:
            reason = str(error)
    raise CannotFoldError(reason)


def _is_product(node: ir.Node) -> bool:
    """Whether it multiplies two tensors of which neither is constant."""
    return is_operator(node, "Mul", "MatMul") and all(constant_of(value) is None for value in node.inputs)


def _constant_input(node: ir.Node) -> tuple[int, np.ndarray] | None:
    found = [(index, constant_of(value)) for index, value in enumerate(node.inputs)]
    return next(((index, constant) for index, constant in found if constant is not None), None)


def _cast(new: np.ndarray, old: np.ndarray) -> np.ndarray:
    """In the type of the old constant, without leading dimensions of size 1 that it did not have."""
    with np.errstate(over="ignore"):
        cast: np.ndarray = without_leading_ones(new, old.ndim).astype(old.dtype)
    if not np.isfinite(cast.astype(np.float64)).all():
        raise CannotFoldError(f"an added constant would not fit {old.dtype}")
    return cast


def _producer(value: ir.Value, affine: Affine) -> ir.Node:
    """The node that makes a value, of which all readers but one see only parts that affine leaves alone."""
    producer = value.producer()
    if constant_of(value) is not None:
        raise CannotFoldError(f"its input {value.name} is a constant")
    if producer is None:
        raise CannotFoldError(f"its input {value.name} is an input of the graph")
    touched = [use for use in value.uses() if not _sees_no_change(use.node, affine)]
    if len(touched) > 1 or value.is_graph_output():
        raise CannotFoldError(f"the result of {node_name(producer)} is used elsewhere too")
    return producer


def _sees_no_change(reader: ir.Node, affine: Affine) -> bool:
    parts = [part_of(result) for result in reader.outputs]
    seen = [affine.part(part.axis, part.start, part.length) for part in parts if part is not None]
    return len(seen) == len(parts) and all(piece.is_identity for piece in seen)


def _joined(walks: Iterable[Walk]) -> Walk:
    """Several walks as one. An operator reached on two ways takes in what comes on the first, then the second."""
    parts = tuple(walks)
    targets: dict[ir.Node, _Target] = {}
    for target in (target for part in parts for target in part.targets):
        before = targets.get(target.node)
        affine = target.affine if before is None else before.affine.then(target.affine)
        targets[target.node] = _Target.of(target.node, affine, target.fold) if before is not None else target
    return Walk(tuple(targets.values()), tuple(value for part in parts for value in part.values))
