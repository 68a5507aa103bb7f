"""A graph as layers: its nodes as work for a machine, the host's share at the end included, and its parameters."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

import onnx_ir as ir

from codesign.graph.codes import is_quantized
from codesign.graph.division import is_part_of_pooling
from codesign.graph.graph import Graph, HostTail, node_name
from codesign.graph.marks import ActivationGroup, marked_groups
from codesign.vocabulary import OperationKind
from codesign.workload.layer import Layer
from codesign.workload.loop_nest import LoopNest
from codesign.workload.operators.entry import Entry
from codesign.workload.operators.host import host_nest
from codesign.workload.operators.movement import view
from codesign.workload.operators.table import OPERATORS
from codesign.workload.quantized import quantized_layers
from codesign.workload.tensors import activations, elements, is_computed_once, results, tensor_bytes

_UNKNOWN = Entry(host_nest)
_VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"})
_SIZES = frozenset({"Shape", "Size"})
_PICKS = frozenset({"Gather", "GatherElements", "GatherND", "Slice"})


def layers_of(graph: Graph, floating: Collection[str] = ()) -> tuple[Layer, ...]:
    """One Layer per node in topological order, then one of kind HOST per node of the host tail.

    Nodes marked as one activation are one Layer, in the place of the last of them; so is in a quantised graph what
    stands between codes and codes. floating: names of those no integer step computes, which are host work then.

    An operator without an entry in the table, or in a form its entry cannot read, is host work: its bytes, and an
    operation for every element at least. Raises ValueError when a shape is not static.
    """
    tail = _tail_layers(graph.host_tail) if graph.host_tail is not None else ()
    if is_quantized(graph):
        return (*quantized_layers(graph, floating, _layer), *tail)
    groups = {group.nodes[-1]: group for group in marked_groups(graph) if _is_one_layer(group)}
    inner = {node for group in groups.values() for node in group.nodes[:-1]}
    nodes = (node for node in graph.nodes if node not in inner)
    return (*(_grouped(groups[node]) if node in groups else _layer(node) for node in nodes), *tail)


def parameters_of(graph: Graph) -> int:
    """Learned values of the network, each tensor once however many nodes share it.

    Counted are weights, biases, scales and shifts, slopes and embeddings, wherever an operator learns one; not the
    running mean and variance of BatchNormalization (statistics), single numbers in arithmetic, indices, sizes.
    """
    values = dict.fromkeys(value for node in graph.nodes for value in _learned(node))
    return sum(_stored_elements(value) for value in values)


def nest_of(node: ir.Node) -> LoopNest:
    """The loops of one node.

    A view is a node that reads constants alone: it is computed before the network runs. So is a multiplication marked
    as the division of the pooling before it, whose operations are the pooling's: one for every element of a window.
    """
    if is_computed_once(node) or is_part_of_pooling(node):
        return view(node)
    nest = _entry(node).nest(node) or host_nest(node)
    is_moved = nest.kind not in (OperationKind.VIEW, OperationKind.HOST)
    return host_nest(node) if is_moved and _is_index_arithmetic(node) else nest


def _is_one_layer(group: ActivationGroup) -> bool:
    """Several nodes, all of them work element by element."""
    kinds = (OperationKind.ACTIVATION, OperationKind.ELEMENTWISE)
    return len(group.nodes) > 1 and all(nest_of(node).kind in kinds for node in group.nodes)


def _grouped(group: ActivationGroup) -> Layer:
    """One pass over the data: the input read once, the result written once, and every node's operations in between."""
    members = tuple(_layer(node) for node in group.nodes)
    nest = replace(
        members[-1].nest,
        kind=OperationKind.ACTIVATION,
        input_elements=elements(group.x),
        operations=sum(member.nest.operations for member in members),
    )
    return replace(
        members[-1],
        op=group.operator,
        nest=nest,
        inputs=(str(group.x.name),),
        parameters=sum(member.parameters for member in members),
        members=members,
    )


def _layer(node: ir.Node) -> Layer:
    return Layer(
        name=node_name(node),
        op=node.op_type,
        nest=nest_of(node),
        inputs=tuple(str(value.name) for value in activations(node)),
        outputs=tuple(str(value.name) for value in results(node)),
        parameters=sum(_stored_elements(value) for value in dict.fromkeys(_learned(node))),
    )


def _entry(node: ir.Node) -> Entry:
    return OPERATORS.get(node.op_type, _UNKNOWN) if node.domain in ("", "ai.onnx") else _UNKNOWN


def _learned(node: ir.Node) -> tuple[ir.Value, ...]:
    return _entry(node).learned(node)


def _stored_elements(value: ir.Value) -> int:
    return int(value.const_value.size) if value.const_value is not None else 0


def _is_index_arithmetic(node: ir.Node) -> bool:
    """Whether a node reads and writes 64-bit integers alone: indices and sizes, which no engine computes."""
    return all(value.dtype == ir.DataType.INT64 for value in (*activations(node), *results(node)))


def _tail_layers(tail: HostTail) -> Iterator[Layer]:
    """Nodes that run on the host at upper bounds of their sizes; elements of their nests are bytes."""
    sizes = {bound.name: _Size(bound.elements, bound.elements * bound.element_bytes) for bound in tail.bounds}
    for value in tail.model.graph.inputs:
        sizes[str(value.name)] = _Size(elements(value), tensor_bytes([value]))
    nodes = {node.name: node for node in tail.model.graph}
    for name, op in tail.nodes:
        reads = tuple(str(value.name) for value in activations(nodes[name]))
        writes = tuple(str(value.name) for value in results(nodes[name]))
        nest = _bounded_nest(op, [sizes[read] for read in reads], [sizes[written] for written in writes])
        yield Layer(name, op, nest, reads, writes)


@dataclass(frozen=True)
class _Size:
    """Elements and bytes of a tensor, at most."""

    elements: int
    bytes: int

    def at_most(self, elements: int) -> _Size:
        """No more than that many of its elements."""
        kept = min(self.elements, elements)
        return _Size(kept, kept * (self.bytes // self.elements) if self.elements else 0)


def _bounded_nest(op: str, reads: list[_Size], writes: list[_Size]) -> LoopNest:
    """Host work on tensors of these sizes. What a node does not touch is not charged: a view moves nothing, a shape is
    known without its tensor, and of a tensor that elements are picked from, as much is read as is written."""
    if op in _VIEWS:
        reads, writes = [], []
    if op in _SIZES:
        reads = []
    if op in _PICKS:
        most = sum(size.elements for size in writes)
        reads = [reads[0].at_most(most), *reads[1:]] if reads else []
    written = sum(size.elements for size in writes)
    return LoopNest(
        OperationKind.HOST,
        (1, 1, 1, 1, 1, max(1, written), 1, 1),
        input_elements=sum(size.bytes for size in reads),
        output_elements=sum(size.bytes for size in writes),
        operations=max(1, written, *(size.elements for size in reads)),
    )
