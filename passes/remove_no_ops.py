"""remove-no-ops: operators that change nothing, are computed twice or are read by nobody go."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from codesign.graph.graph import Graph, node_name, shape_of
from codesign.graph.operators import is_operator
from codesign.rewriting.duplicates import duplicates
from codesign.rewriting.edit import only_reader, remove_if_unused, remove_node, set_constant
from codesign.rewriting.graph_pass import Applied, Declined, Effect, GraphPass, Outcome, PassContext
from codesign.rewriting.no_ops import VIEWS, no_op_of, transposed_twice


@dataclass(frozen=True)
class RemoveNoOps(GraphPass):
    """Takes out operators without effect, second copies of the same computation, and what nobody reads.

    before:  x -> Relu -> Slice [all of it] -> Reshape -> Reshape -> y        x -> Exp -> z (read by nobody)
    after:   x -> Relu -> Reshape -> y

    Exact: every value that is left holds the numbers it held before, in the same order.

    Nothing is changed by: Identity; Dropout at inference; Cast to the same type; Reshape, Squeeze, Flatten, Expand,
    Tile, Split, DepthToSpace and reductions whose result has the shape of their input; Slice of everything; Pad by
    nothing; Transpose and Resize that leave all elements where they are; Concat or Sum of one tensor; pooling of
    single elements; Mul, Div and Pow by 1, Add and Sub of 0; Relu, Clip and their like on numbers that lie in the
    range they pass on (Relu behind Relu, pooling, Sigmoid), or a Relu whose readers raise negative numbers to zero
    themselves (Clip from 0 to 6). Pairs that cancel go: Transpose and its inverse, Squeeze and Unsqueeze, Split and
    the Concat of all its parts. Two reshapes in a row become one, two transpositions too.

    Two operators with the same attributes on the same inputs become one; constants up to 4 KiB are compared by value.
    Operators and constants nobody reads go with what only they read.

    Declined, because graph inputs and outputs keep their names: an operator that makes an output straight from an input
    or from another output, and one of two that make two outputs in the same way.

    Source: ONNX operator definitions; dead branches by onnx_ir's RemoveUnusedNodesPass.
    """

    name: ClassVar[str] = "remove-no-ops"
    effect: ClassVar[Effect] = Effect.EXACT

    def run(self, graph: Graph, context: PassContext) -> list[Outcome]:
        """Sweep until nothing goes any more: what goes brings others together."""
        outcomes: list[Outcome] = []
        while True:
            sweep = [*_without_unused(graph), *_without_no_ops(graph), *_without_duplicates(graph)]
            applied = [outcome for outcome in sweep if isinstance(outcome, Applied)]
            outcomes += applied
            if not applied:
                return outcomes + sweep


def _without_unused(graph: Graph) -> list[Applied]:
    """Dead branches, and constants nobody reads."""
    reads = {node: {value.name for value in node.inputs if value is not None} for node in graph.nodes}
    constants = list(graph.model.graph.initializers)
    RemoveUnusedNodesPass()(graph.model)
    left, initializers = set(graph.nodes), graph.model.graph.initializers
    gone = [node for node in reads if node not in left]
    read_by_gone = {name for node in gone for name in reads[node]}
    unread = [name for name in constants if name not in initializers and name not in read_by_gone]
    return [Applied(name, "nothing reads it") for name in (*map(node_name, gone), *unread)]


def _without_no_ops(graph: Graph) -> Iterator[Outcome]:
    for node in graph.nodes:
        found = no_op_of(node)
        outcome: Outcome | None
        if found is None:
            outcome = _merged(graph, node)
        elif reason := _keeps_name(node, found.value):
            outcome = Declined(node_name(node), f"{found.why}, but {reason}")
        else:
            outcome = Applied(node_name(node), found.why)
            remove_node(graph, node, found.value)
        if outcome is not None:
            yield outcome


def _keeps_name(node: ir.Node, value: ir.Value) -> str:
    """Why another value cannot take the place of a node's first output, or nothing."""
    result = node.outputs[0]
    if not result.is_graph_output():
        return ""
    if value.is_graph_input() or value.is_initializer():
        return f"it makes the output {result.name} of {value.name}, which is no operator's result"
    return f"{result.name} and {value.name} are both outputs of the graph" if value.is_graph_output() else ""


def _merged(graph: Graph, node: ir.Node) -> Applied | None:
    """Two reshapes or transpositions in a row as one, when nobody else reads what is between them."""
    middle = node.inputs[0] if node.inputs else None
    first = middle.producer() if middle is not None else None
    if middle is None or first is None or only_reader(middle) is not node or not node.outputs[0].shape:
        return None
    twice = transposed_twice(node)
    if twice is not None:
        node.attributes["perm"] = ir.AttrInt64s("perm", twice.order)
    elif is_operator(node, *VIEWS) and is_operator(first, *VIEWS):
        _reshape_from(graph, node, first)
    else:
        return None
    node.replace_input_with(0, first.inputs[0])
    _remove(graph, first)
    return Applied(node_name(node), f"does the work of {first.op_type} {node_name(first)} too")


def _reshape_from(graph: Graph, node: ir.Node, first: ir.Node) -> None:
    """Make a view a Reshape to its result's shape. A 0 keeps the batch what it is, as far as it is in front of both."""
    assert first.inputs[0] is not None
    before, after = shape_of(first.inputs[0]), shape_of(node.outputs[0])
    batch = [0] if before and before[:1] == after[:1] and 0 not in after else []
    target = batch + list(after[len(batch) :])
    node.op_type = "Reshape"
    node.attributes.clear()
    if 0 in after:
        node.attributes["allowzero"] = ir.AttrInt64("allowzero", 1)
    set_constant(graph, node, 1, np.array(target, np.int64), "shape")


def _without_duplicates(graph: Graph) -> Iterator[Outcome]:
    for later, earlier in duplicates(graph.nodes):
        name, outputs = node_name(later), list(zip(later.outputs, earlier.outputs, strict=True))
        seen = next((pair for pair in outputs if pair[0].is_graph_output()), None)
        if seen is not None and (len(outputs) > 1 or seen[1].is_graph_output()):
            yield Declined(name, f"{later.op_type} {node_name(earlier)} computes the same; {seen[0].name} is an output")
            continue
        for result, same in outputs[1:]:
            result.replace_all_uses_with(same)
        remove_node(graph, later, earlier.outputs[0])
        yield Applied(name, f"{earlier.op_type} {node_name(earlier)} computes the same")


def _remove(graph: Graph, node: ir.Node) -> None:
    inputs = list(node.inputs)
    graph.model.graph.remove(node, safe=True)
    for value in inputs:
        remove_if_unused(graph, value)
