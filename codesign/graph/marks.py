"""Marks that passes leave in the metadata of nodes, which Netron shows, and how they are read back.

A mark is believed only where it holds: a later rewrite may have changed the nodes around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from codesign.graph.graph import Graph, constant_of, node_name, shape_of

ACTIVATION = "codesign.activation"
ADDED_TO = "codesign.added_to"


@dataclass(frozen=True)
class ActivationGroup:
    """Nodes that compute one activation y = f(x), element by element, in topological order.

    operator: the ONNX operator that computes the same (`Swish`). Nothing outside reads what the inner nodes make.
    """

    operator: str
    nodes: tuple[ir.Node, ...]
    x: ir.Value

    @property
    def y(self) -> ir.Value:
        """The result."""
        return self.nodes[-1].outputs[0]

    @property
    def mark(self) -> str:
        """What its nodes carry: `Swish at /features/0/Mul`."""
        return f"{self.operator} at {node_name(self.nodes[-1])}"


def marked_groups(graph: Graph) -> tuple[ActivationGroup, ...]:
    """The groups whose marks hold, in the order of their last nodes."""
    members: dict[str, list[ir.Node]] = {}
    for node in graph.nodes:
        mark = node.metadata_props.get(ACTIVATION)
        if mark is not None:
            members.setdefault(mark, []).append(node)
    groups = (_group(mark, nodes) for mark, nodes in members.items())
    return tuple(group for group in groups if group is not None)


def _group(mark: str, nodes: list[ir.Node]) -> ActivationGroup | None:
    operator, _, last = mark.partition(" at ")
    source = source_of(nodes)
    if source is None or used_outside(nodes) is not None or node_name(nodes[-1]) != last:
        return None
    return ActivationGroup(operator, tuple(nodes), source)


def source_of(nodes: Sequence[ir.Node]) -> ir.Value | None:
    """The one value that nodes in topological order read from outside, constants left out, if they keep its shape."""
    inside = {output for node in nodes for output in node.outputs}
    read = dict.fromkeys(value for node in nodes for value in data_inputs(node) if value not in inside)
    if len(read) != 1:
        return None
    (source,) = read
    return source if all(shape_of(value) == shape_of(source) for value in inside) else None


def used_outside(nodes: Sequence[ir.Node]) -> ir.Node | None:
    """The first node but the last whose result is an output of the graph, or is read by none or others than these."""
    inside = set(nodes)
    for node in nodes[:-1]:
        readers = [use.node for output in node.outputs for use in output.uses()]
        shown = any(output.is_graph_output() for output in node.outputs)
        if shown or not readers or not inside.issuperset(readers):
            return node
    return None


def data_inputs(node: ir.Node) -> tuple[ir.Value, ...]:
    """Distinct values a node reads that are no constants."""
    return tuple(dict.fromkeys(value for value in node.inputs if value is not None and constant_of(value) is None))
