"""fold-batch-norm: batch normalisation goes into the weights of the linear operator before or after it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from codesign.graph.graph import Graph, constant_of, node_name, shape_of
from codesign.graph.operators import BatchNormalization, Gemm, MatMul, is_operator
from codesign.rewriting.edit import fresh_name, only_reader, remove_node, set_constant
from codesign.rewriting.graph_pass import Applied, Declined, Effect, GraphPass, Outcome, PassContext
from codesign.rewriting.linear import CannotFoldError, Folded, ScaleShift, fold_after, fold_before, linear_of, write

_RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity")


@dataclass(frozen=True)
class FoldBatchNorm(GraphPass):
    """Folds batch normalisation into the weights of the operator before it, or else the one after it.

    before:  x -> Conv(w, b) -> BatchNormalization(scale, shift, mean, variance) -> y
    after:   x -> Conv(w', b') -> y

        s  = scale / sqrt(variance + epsilon)        one factor per channel, in float64
        w' = s w                                     b' = s (b - mean) + shift

    Exact: at inference a normalisation is s x + t with constant s and t, and s (w x + b) + t = (s w) x + (s b + t).
    The operator is a convolution of any grouping, a transposed convolution, or a dense layer (Gemm, MatMul), also
    with reshapes, transpositions, the concatenation of several such results or the addition of a constant in
    between, as long as the channels stay apart.

    Folding forwards, w (s x + t) + b = (w s) x + (w t + b), needs windows of real elements only: it is declined for
    a convolution that pads with zeros unless t is zero.

    A normalisation also stays where its neighbour's result is used elsewhere, where its statistics are not
    constants, and in training mode.

    Source: the definition of BatchNormalization in the ONNX operator set; folding as in Jacob et al., "Quantization and
    Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018, section 3.2.
    """

    name: ClassVar[str] = "fold-batch-norm"
    effect: ClassVar[Effect] = Effect.EXACT

    def run(self, graph: Graph, context: PassContext) -> list[Outcome]:
        """Fold until nothing folds any more: a fold can make room for the next."""
        outcomes: list[Outcome] = []
        while True:
            sweep = [_fold(graph, node) for node in graph.nodes if is_operator(node, "BatchNormalization")]
            applied = [outcome for outcome in sweep if isinstance(outcome, Applied)]
            outcomes += applied
            if not applied:
                return outcomes + sweep


def _fold(graph: Graph, node: ir.Node) -> Outcome:
    name = node_name(node)
    try:
        norm, affine = _read(node)
    except CannotFoldError as error:
        return Declined(name, str(error))
    try:
        return Applied(name, _fold_backwards(graph, norm, affine))
    except CannotFoldError as error:
        backwards = str(error)
    try:
        return Applied(name, _fold_forwards(graph, norm, affine))
    except CannotFoldError as error:
        return Declined(name, f"backwards: {backwards}; forwards: {error}")


def _read(node: ir.Node) -> tuple[BatchNormalization, ScaleShift]:
    """The normalisation and what it computes per channel."""
    norm = BatchNormalization.of(node)
    if norm is None:
        raise CannotFoldError("it is in training mode")
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        raise CannotFoldError("its batch statistics are used")
    terms = [constant_of(value) for value in (norm.scale, norm.shift, norm.mean, norm.variance)]
    if any(term is None for term in terms):
        raise CannotFoldError("its statistics are not constants")
    scale, shift, mean, variance = (term.astype(np.float64) for term in terms if term is not None)
    channels = shape_of(norm.x)[1]
    if any(term.shape != (channels,) for term in (scale, shift, mean, variance)):
        raise CannotFoldError(f"its statistics are not one number for each of the {channels} channels")
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = scale / np.sqrt(variance + norm.epsilon)
        affine = ScaleShift(factor, shift - factor * mean)
    if not (np.isfinite(affine.scale).all() and np.isfinite(affine.shift).all()):
        raise CannotFoldError("a variance is not positive")
    return norm, affine


@dataclass(frozen=True)
class _Sum:
    """An addition to `other` of a constant per channel, its input `index`, and what that constant becomes."""

    node: ir.Node
    index: int
    other: ir.Value
    constant: np.ndarray


def _fold_backwards(graph: Graph, norm: BatchNormalization, affine: ScaleShift) -> str:
    """Into the operator that makes the normalisation's input, through whatever keeps the channels apart."""
    changes = _changes_before(norm.x, affine, 1)
    for change in changes:
        match change:
            case Folded():
                write(graph, change)
            case _Sum():
                set_constant(graph, change.node, change.index, change.constant, "constant")
    # Read only now: behind a MatMul, writing has put an addition before the normalisation.
    result, name = norm.node.inputs[0], norm.y.name
    assert result is not None
    operators = [change.view.node for change in changes if isinstance(change, Folded)]
    _rename_up_to(graph, result, operators)
    remove_node(graph, norm.node, result)
    result.name = name
    return _into(operators)


def _rename_up_to(graph: Graph, value: ir.Value, operators: list[ir.Node]) -> None:
    """New names for `value` and what leads to it from the operators: a tensor that keeps its name keeps its numbers."""
    producer = value.producer()
    if producer is None or constant_of(value) is not None:
        return
    value.name = fresh_name(graph, f"{value.name}.folded")
    for source in producer.inputs if producer not in operators else ():
        if source is not None:
            _rename_up_to(graph, source, operators)


def _changes_before(value: ir.Value, affine: ScaleShift, axis: int) -> list[Folded | _Sum]:
    """What makes `value` come out as affine(value), its channels on `axis`. Nothing is changed yet."""
    node = _producer(value)
    if (view := linear_of(node)) is not None:
        return [fold_after(view, affine, axis)]
    if is_operator(node, "Concat") and node.attributes.get_int("axis") % len(shape_of(value)) == axis:
        parts = [part for part in node.inputs if part is not None]
        ends = np.cumsum([shape_of(part)[axis] for part in parts])[:-1]
        scales, shifts = np.split(affine.scale, ends), np.split(affine.shift, ends)
        terms = map(ScaleShift, scales, shifts)
        return [change for part, term in zip(parts, terms, strict=True) for change in _changes_before(part, term, axis)]
    if (addition := _addition_of(node, affine, axis)) is not None:
        # The shift enters a chain once, here; the rest is only scaled.
        only_scale = ScaleShift(affine.scale, np.zeros_like(affine.shift))
        return [addition, *_changes_before(addition.other, only_scale, axis)]
    return _changes_before(*_through(node, affine, axis))


def _into(nodes: Iterable[ir.Node]) -> str:
    return f"into the weights of {', '.join(map(node_name, nodes))}"


def _producer(value: ir.Value) -> ir.Node:
    """The node that makes a value for one reader only."""
    producer = value.producer()
    if producer is None:
        raise CannotFoldError(f"its input {value.name} is an input of the graph")
    if only_reader(value) is None:
        raise CannotFoldError(f"the result of {node_name(producer)} is used elsewhere too")
    return producer


def _through(node: ir.Node, affine: ScaleShift, axis: int) -> tuple[ir.Value, ScaleShift, int]:
    """The input of a reshape or transposition, and the axis on which the same channels lie there."""
    source = node.inputs[0] if node.inputs else None
    if source is not None and is_operator(node, "Transpose"):
        order = node.attributes.get_ints("perm") or list(reversed(range(len(shape_of(source)))))
        return source, affine, order[axis]
    if source is None or not is_operator(node, *_RESHAPES):
        raise CannotFoldError(f"its input comes from {node.op_type} {node_name(node)}, which has no weights")
    there, here = shape_of(source), shape_of(node.outputs[0])
    for candidate, size in enumerate(there):
        if size == here[axis] and prod(there[:candidate]) == prod(here[:axis]):
            return source, affine, candidate
    raise CannotFoldError(f"{node.op_type} {node_name(node)} mixes the channels with other dimensions")


def _addition_of(node: ir.Node, affine: ScaleShift, axis: int) -> _Sum | None:
    """An addition of one constant c for all or for each channel, with scale c + shift instead; or None."""
    if not is_operator(node, "Add"):
        return None
    shape = shape_of(node.outputs[0])
    for index, constant in enumerate(node.inputs):
        array, other = constant_of(constant), node.inputs[1 - index]
        if array is None or other is None or shape_of(other) != shape:
            continue
        aligned = (1,) * (len(shape) - array.ndim) + array.shape
        if all(size == 1 for place, size in enumerate(aligned) if place != axis):
            new = (array.astype(np.float64).reshape(-1) * affine.scale + affine.shift).astype(array.dtype)
            return _Sum(node, index, other, new.reshape(-1, *[1] * (len(shape) - axis - 1)))
    return None


def _fold_forwards(graph: Graph, norm: BatchNormalization, affine: ScaleShift) -> str:
    """Into the one operator that reads the normalisation's result, possibly flattened."""
    folded = _folded_forwards(norm.y, affine)
    write(graph, folded)
    remove_node(graph, norm.node, norm.x)
    value = folded.view.node.inputs[0]
    while value is not None and value is not norm.x and (reshape := value.producer()) is not None:
        value.name = fresh_name(graph, f"{value.name}.folded")
        value = reshape.inputs[0]
    return _into([folded.view.node])


def _folded_forwards(value: ir.Value, affine: ScaleShift) -> Folded:
    reader = only_reader(value)
    if reader is None:
        raise CannotFoldError("its result is an output of the graph or has several readers")
    view = linear_of(reader)
    shape = shape_of(value)
    if view is None:
        flat = reader.outputs[0]
        if not is_operator(reader, *_RESHAPES) or shape_of(flat) != (shape[0], prod(shape[1:])):
            raise CannotFoldError(f"its result goes to {reader.op_type} {node_name(reader)}, which has no weights")
        return _folded_forwards(flat, affine.repeated(prod(shape[2:])))
    if view.x is not value:
        raise CannotFoldError(f"{node_name(reader)} reads its result as weights")
    if isinstance(view, Gemm | MatMul) and len(shape) != 2:
        raise CannotFoldError(f"{node_name(reader)} does not sum over the channels")
    return fold_before(view, affine)
