"""fuse-residual-add: additions are marked with the layer that can do them on its way out, and it runs last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from codesign.graph.graph import Graph, node_name, shape_of
from codesign.graph.marks import ADDED_TO, data_inputs
from codesign.graph.operators import is_operator
from codesign.rewriting.activations import is_pointwise
from codesign.rewriting.graph_pass import Applied, Declined, Effect, GraphPass, Outcome, PassContext
from codesign.rewriting.linear import linear_of


@dataclass(frozen=True)
class FuseResidualAdd(GraphPass):
    """Marks every addition of tensors with the layer that can do it on its way out, which then runs last.

    before:  conv a, Resize b, Add(a, b)      a is written, read again and added when b is there
    after:   Resize b, conv a, Add(a, b)      a runs last: b lies in memory, so a's outputs leave as the sum
                                              codesign.added_to = conv, on the Add

    The layer is a convolution or matrix product that makes an operand for this addition alone, perhaps through
    activations and other work element by element. Of several the one that runs last anyway is taken, so that nothing
    moves; otherwise the latest of them runs right before the addition. On machines whose vector unit adds on the way
    out the planner then reads the other operand meanwhile and never writes the first. Exact: operators and numbers
    stay what they are; only the order of independent nodes changes, and no node in between reads what moves.

    Declined are additions that broadcast, and those whose operands all have other readers or come from elsewhere (a
    pooling, an input of the network).

    Source: the element-wise operand of NVDLA's single point processor, read while the convolution's outputs pass
    (nvdla/doc, doc/hw/v1/ias/unit_description.rst); residual additions: He et al., arXiv:1512.03385.
    """

    name: ClassVar[str] = "fuse-residual-add"
    effect: ClassVar[Effect] = Effect.EXACT

    def run(self, graph: Graph, context: PassContext) -> list[Outcome]:
        """From the first addition to the last; a mark that no longer holds is removed."""
        outcomes: list[Outcome] = []
        for node in graph.nodes:
            if is_operator(node, "Add", "Sum") and len(node.inputs) == len(data_inputs(node)) > 1:
                outcomes += _mark(graph, node)
            elif node.metadata_props.pop(ADDED_TO, None) is not None:
                outcomes.append(Applied(node_name(node), "no longer marked: it adds no two tensors"))
        return outcomes


class _CannotAddError(Exception):
    """Why a layer cannot do an addition."""


@dataclass(frozen=True)
class _Chain:
    """A layer, and what stands between it and the addition, in order; nobody else reads what any of them makes."""

    nodes: tuple[ir.Node, ...]

    @property
    def head(self) -> ir.Node:
        """The layer."""
        return self.nodes[0]


def _mark(graph: Graph, addition: ir.Node) -> list[Outcome]:
    name, earlier = node_name(addition), addition.metadata_props.pop(ADDED_TO, None)
    order = {node: at for at, node in enumerate(graph.nodes)}
    try:
        chain, others = _chosen(addition, order)
    except _CannotAddError as error:
        gone = [Applied(name, f"no longer marked: {error}")] if earlier is not None else []
        return [*gone, Declined(name, str(error))]
    head = addition.metadata_props[ADDED_TO] = node_name(chain.head)
    if order[chain.head] > others:
        return [] if earlier == head else [Applied(name, f"added on the way out of {head}")]
    graph.model.graph.remove(chain.nodes)
    graph.model.graph.insert_before(addition, chain.nodes)
    return [Applied(name, f"added on the way out of {head}, which now runs after the other operands' layers")]


def _chosen(addition: ir.Node, order: Mapping[ir.Node, int]) -> tuple[_Chain, int]:
    """The chain that does the addition, and the place of the last layer that makes another operand."""
    operands = data_inputs(addition)
    shapes = [shape_of(value) for value in operands]
    if len(set(shapes)) > 1:
        written = " and ".join("x".join(map(str, shape)) or "scalar" for shape in shapes)
        raise _CannotAddError(f"it adds {written}: nothing is broadcast on the way out of a layer")
    found: list[tuple[_Chain, int]] = []
    reasons = []
    for operand in operands:
        makers = [value.producer() for value in operands if value is not operand]
        try:
            chain = _chain(operand, addition, order)
        except _CannotAddError as error:
            reasons.append(str(error))
        else:
            found.append((chain, max(order[maker] if maker is not None else -1 for maker in makers)))
    if not found:
        raise _CannotAddError("; ".join(reasons))
    return max(found, key=lambda each: (order[each[0].head] > each[1], order[each[0].head]))


def _chain(operand: ir.Value, addition: ir.Node, order: Mapping[ir.Node, int]) -> _Chain:
    """From the operand back to the convolution or matrix product it comes from."""
    nodes: set[ir.Node] = set()
    read = {operand}
    while True:
        value = max(read, key=lambda each: order.get(each.producer(), -1))  # type: ignore[arg-type]
        producer = value.producer()
        if producer is None:
            raise _CannotAddError(f"{value.name} is an input of the network")
        allowed = {addition} if value is operand else nodes
        if value.is_graph_output() or not allowed.issuperset(use.node for use in value.uses()):
            raise _CannotAddError(f"{value.name} is used elsewhere too")
        nodes.add(producer)
        if linear_of(producer) is not None:
            return _Chain(tuple(sorted(nodes, key=order.__getitem__)))
        if not is_pointwise(producer, vectors=True):
            raise _CannotAddError(f"{value.name} comes from {producer.op_type} {node_name(producer)}")
        read = (read - {value}) | set(data_inputs(producer))
