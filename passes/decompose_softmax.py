"""decompose-softmax: softmax becomes the maximum, exponentials, sum and division a vector unit can do one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from codesign.graph.graph import Graph, node_name, shape_of
from codesign.graph.operators import is_operator
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

_SUB = (OperationKind.ELEMENTWISE, "Sub")
_EXP = (OperationKind.ACTIVATION, "Exp")
_LOG = (OperationKind.ACTIVATION, "Log")
_PARTS = {"Softmax": Parts(("max", "sum"), (_SUB, _EXP)), "LogSoftmax": Parts(("max", "sum"), (_SUB, _EXP, _LOG))}


@dataclass(frozen=True)
class DecomposeSoftmax(GraphPass):
    """Writes softmax as reductions and element-wise work, for vector units that have no softmax.

    before:  x -> Softmax -> y

    after:   x -> ReduceMax -> m
             Sub(x, m) -> Exp -> e -> ReduceSum -> Reciprocal -> r
             Mul(e, r) -> y

    Exact: that is how softmax is computed without overflow, exp(x - m) / sum(exp(x - m)); m cancels. LogSoftmax
    becomes (x - m) - log(sum(exp(x - m))). With `division=reciprocal` a row takes one division and not one for every
    element; in floating point e (1 / s) and e / s differ in the last bit.

    A machine whose vector unit pools but does not reduce gets MaxPool for the maximum and AveragePool for the sum,
    which is n times the average (`reductions=pool`); only the last axis can be a window.

    Stays whole where the machine does Softmax itself, and where it lacks one of the parts: that part would go to the
    host, where the whole would have gone.

    Source: Softmax and LogSoftmax of the ONNX operator set; on vector units in these parts, with a max pool first: Arm,
    ethos-u-vela, softmax.py.
    """

    name: ClassVar[str] = "decompose-softmax"
    effect: ClassVar[Effect] = Effect.EXACT

    reductions: ReductionsOption = "auto"
    division: DivisionOption = "reciprocal"

    def run(self, graph: Graph, context: PassContext) -> list[Outcome]:
        """Every Softmax and LogSoftmax."""
        return [self._decompose(graph, node, context) for node in graph.nodes if is_operator(node, *_PARTS)]

    def _decompose(self, graph: Graph, node: ir.Node, context: PassContext) -> Outcome:
        where, kind = node_name(node), node.op_type
        [x] = node.inputs
        assert x is not None
        axis = node.attributes.get_int("axis", -1) % len(shape_of(x))
        try:
            form = form_for(
                context.profile, (OperationKind.SOFTMAX, kind), _PARTS[kind], self.reductions, self.division
            )
        except CannotDecomposeError as error:
            return Declined(where, str(error))
        if form == "pool" and axis != len(shape_of(x)) - 1:
            return Declined(where, f"it goes along axis {axis}, which is not the last and so no window of a pooling")
        _write(Decomposition(Builder(graph, node), form, self.division), x, axis, is_log=kind == "LogSoftmax")
        how = "reductions" if form == "reduce" else "poolings"
        return Applied(where, f"{kind} over {shape_of(x)[axis]} became {how} and element-wise work")


def _write(parts: Decomposition, x: ir.Value, axis: int, *, is_log: bool) -> None:
    add = parts.builder.add
    below = add("Sub", x, parts.maximum(x, axis))
    exponentials = add("Exp", below)
    total = parts.sum(exponentials, axis)
    parts.builder.replace(add("Sub", below, add("Log", total)) if is_log else parts.divided(exponentials, total))
