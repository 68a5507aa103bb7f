"""decompose-layer-norm: layer, group, instance and RMS normalisation become means and element-wise work."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from codesign.graph.graph import Graph, constant_of, node_name, shape_of
from codesign.graph.operators import is_operator, optional_input
from codesign.rewriting.building import Builder
from codesign.rewriting.decomposing import (
    CannotDecomposeError,
    Decomposition,
    DivisionOption,
    Parts,
    ReductionsOption,
    form_for,
)
from codesign.rewriting.graph_pass import Applied, Declined, Effect, GraphPass, Outcome, PassContext
from codesign.vocabulary import OperationKind

_ARITHMETIC = tuple((OperationKind.ELEMENTWISE, operator) for operator in ("Sub", "Mul", "Add"))
_PARTS = Parts(("mean",), (*_ARITHMETIC, (OperationKind.ACTIVATION, "Sqrt")))
_OVER_ROWS = ("LayerNormalization", "RMSNormalization")
_OVER_GROUPS = ("InstanceNormalization", "GroupNormalization")


@dataclass(frozen=True)
class DecomposeLayerNorm(GraphPass):
    """Writes normalisations over the picture at hand as means and element-wise work, for units that have none.

    before:  x -> LayerNormalization(scale, shift) -> y

    after:   x -> ReduceMean -> m
             Sub(x, m) -> d
             Mul(d, d) -> ReduceMean -> Add(epsilon) -> Sqrt -> Reciprocal -> r
             Mul(d, r) -> Mul(scale) -> Add(shift) -> y

    Exact: that is the definition, (x - m) / sqrt(mean((x - m)^2) + epsilon) scale + shift. With `division=reciprocal`
    a row takes one division and not one for every element; in floating point the last bit may differ.

    LayerNormalization, GroupNormalization and InstanceNormalization (also the one inside an exported group
    normalisation) differ in what a row is; several dimensions are viewed as one. RMSNormalization takes no mean away.
    A scale of 1 and a shift of 0 are left out. A machine whose vector unit pools but does not reduce gets AveragePool
    for the means (`reductions=pool`).

    Stays whole where the machine does the normalisation itself or lacks one of the parts; where its mean or deviation
    is read too; where it computes in another precision than its input's; where a scale per channel is not constant.

    Source: LayerNormalization, GroupNormalization, InstanceNormalization and RMSNormalization of the ONNX operator set;
    Ba, Kiros and Hinton, Layer Normalization, arXiv:1607.06450, equation 4.
    """

    name: ClassVar[str] = "decompose-layer-norm"
    effect: ClassVar[Effect] = Effect.EXACT

    reductions: ReductionsOption = "auto"
    division: DivisionOption = "reciprocal"

    def run(self, graph: Graph, context: PassContext) -> list[Outcome]:
        """Every normalisation but BatchNormalization, which is none at inference."""
        nodes = [node for node in graph.nodes if is_operator(node, *_OVER_ROWS, *_OVER_GROUPS)]
        return [self._decompose(graph, node, context) for node in nodes]

    def _decompose(self, graph: Graph, node: ir.Node, context: PassContext) -> Outcome:
        try:
            whole = (OperationKind.NORMALIZATION, node.op_type)
            form = form_for(context.profile, whole, _PARTS, self.reductions, self.division)
            norm = _read(node)
        except CannotDecomposeError as error:
            return Declined(node_name(node), str(error))
        parts = Decomposition(Builder(graph, node), form, self.division)
        parts.builder.replace(_write(parts, norm))
        how = "reductions" if form == "reduce" else "poolings"
        return Applied(node_name(node), f"{node.op_type} over {norm.rows[-1]} became {how} and element-wise work")


@dataclass(frozen=True)
class _Norm:
    """A normalisation of x viewed as `rows`, each along the last axis, then scaled and shifted in the shape of x.

    scale, shift: a value, an array that becomes a constant, or None. takes_mean: whether the mean is subtracted.
    """

    x: ir.Value
    rows: tuple[int, ...]
    epsilon: float
    scale: ir.Value | np.ndarray | None
    shift: ir.Value | np.ndarray | None
    takes_mean: bool


def _read(node: ir.Node) -> _Norm:
    x = node.inputs[0]
    assert x is not None
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        raise CannotDecomposeError("its mean or deviation is read too")
    if node.op_type != "InstanceNormalization" and node.attributes.get_int("stash_type", 1) != x.dtype:
        raise CannotDecomposeError(f"it computes in another precision than its input's, {x.dtype}")
    shape, epsilon = shape_of(x), node.attributes.get_float("epsilon", 1e-5)
    terms = (optional_input(node, 1), optional_input(node, 2))
    if is_operator(node, *_OVER_GROUPS):
        groups = node.attributes.get_int("num_groups", shape[1])
        by_channel = (_per_channel(terms[0], 1, shape), _per_channel(terms[1], 0, shape))
        return _Norm(x, (shape[0], groups, prod(shape[1:]) // groups), epsilon, *by_channel, True)
    axis = node.attributes.get_int("axis", -1) % len(shape)
    rows = (*shape[:axis], prod(shape[axis:]))
    scale, shift = (None if _is_neutral(term, neutral) else term for term, neutral in zip(terms, (1, 0), strict=True))
    return _Norm(x, rows, epsilon, scale, shift, node.op_type == "LayerNormalization")


def _is_neutral(term: ir.Value | None, neutral: int) -> bool:
    array = constant_of(term)
    return term is None or (array is not None and bool((array == neutral).all()))


def _per_channel(term: ir.Value | None, neutral: int, shape: tuple[int, ...]) -> np.ndarray | None:
    """A constant for every channel, shaped for x [batch, channels, ...]."""
    if _is_neutral(term, neutral):
        return None
    array = constant_of(term)
    if array is None:
        raise CannotDecomposeError("its scale or shift is not constant")
    return array.reshape(-1, *[1] * (len(shape) - 2))


def _write(parts: Decomposition, norm: _Norm) -> ir.Value:
    add, last = parts.builder.add, len(norm.rows) - 1
    rows = parts.builder.reshape(norm.x, norm.rows)
    if norm.takes_mean:
        rows = add("Sub", rows, parts.mean(rows, last))
    variance = parts.mean(add("Mul", rows, rows), last)
    deviation = add("Sqrt", add("Add", variance, parts.builder.number(norm.epsilon, norm.x, "epsilon")))
    result = parts.builder.reshape(parts.divided(rows, deviation), shape_of(norm.x))
    for operator, term in (("Mul", norm.scale), ("Add", norm.shift)):
        if isinstance(term, np.ndarray):
            term = parts.builder.constant(term, "scale" if operator == "Mul" else "shift")
        result = add(operator, result, term) if term is not None else result
    return result
