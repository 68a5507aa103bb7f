"""Carries an order of channels through a network until weights take it up.

A plan starts at one value whose elements are to come in another order along one axis, and follows it: operators that
keep channels apart pass it on (their own constants are put into the order too), linear operators take it up in the rows
or columns of their weights. Whoever makes or reads a reordered value must agree, so that a plan may spread over a
residual sum or a gate before it ends. Nothing is changed before the whole plan stands.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from codesign.graph.graph import Graph, constant_of, shape_of
from codesign.graph.operators import Convolution, Gemm, MatMul, TransposedConvolution, is_operator
from codesign.rewriting.channels import CannotReorderError, Order, named
from codesign.rewriting.edit import fresh_name, set_constant


@dataclass
class Reordering:
    """A plan: what `reordering_rules.follow` fills in and `apply` carries out.

    blocked: values that must stay as they are. passed: nodes that need not agree, for they will go. orders: the values
    that come in another order. constants: new inputs, by node and place. groups: new numbers of groups. absorbers: the
    linear operators (and Gathers) in whose constants the order ends.
    """

    blocked: frozenset[ir.Value]
    passed: frozenset[ir.Node]
    orders: dict[ir.Value, Order] = field(default_factory=dict)
    constants: dict[tuple[ir.Node, int], np.ndarray] = field(default_factory=dict)
    groups: dict[ir.Node, int] = field(default_factory=dict)
    absorbers: dict[ir.Node, None] = field(default_factory=dict)
    _waiting: deque[ir.Node] = field(default_factory=deque)

    def next_node(self) -> ir.Node | None:
        """The next node to look at, if any is left; a concatenation last, when all of its parts are known."""
        for _ in range(len(self._waiting)):
            if not is_operator(self._waiting[0], "Concat"):
                break
            self._waiting.rotate(-1)
        return self._waiting.popleft() if self._waiting else None

    def order(self, value: ir.Value | None) -> Order | None:
        """The order planned for a value, or None where it stays as it is."""
        return self.orders.get(value) if value is not None else None

    def assign(self, value: ir.Value | None, order: Order, by: ir.Node | None) -> None:
        """Plan an order for a value, an identity for one that must stay, and look at everybody it concerns next."""
        if value is None or self.orders.get(value) == order:
            return
        who = f"{named(by)} needs" if by is not None else "it needs"
        if value in self.orders:
            raise CannotReorderError(f"{who} {value.name} in an order other than another operator does")
        if order.is_identity:
            return
        if value in self.blocked:
            raise CannotReorderError(f"{who} {value.name} in the old order and in the new one")
        expect_inside(value)
        self.orders[value] = order
        producer = value.producer()
        readers = [use.node for use in value.uses()]
        for node in [producer, *readers] if producer is not None else readers:
            if node not in self.passed and node not in self._waiting:
                self._waiting.append(node)

    def reindex(self, node: ir.Node, place: int, order: Order, axis: int) -> None:
        """Plan a constant input of a node in an order along one of its axes."""
        array = constant_of(node.inputs[place])
        if array is None:
            raise CannotReorderError(f"input {place} of {named(node)} is not constant")
        self.constants[node, place] = order.take(array, axis)

    def absorb(self, node: ir.Node, place: int, array: np.ndarray) -> None:
        """Plan a constant in which the order ends."""
        self.constants[node, place] = array
        self.absorbers[node] = None

    def apply(self, graph: Graph) -> None:
        """Carry the plan out. Values in a new order get new names: a tensor that keeps its name keeps its numbers."""
        for (node, place), array in self.constants.items():
            set_constant(graph, node, place, array, _role(node, place))
        for node, groups in self.groups.items():
            node.attributes["group"] = ir.AttrInt64("group", groups)
        for value, order in self.orders.items():
            shape = list(shape_of(value))
            shape[order.axis] = len(order.index)
            value.shape = ir.Shape(shape)
            value.name = fresh_name(graph, f"{value.name}.reordered")


def expect_inside(value: ir.Value) -> None:
    """Raise CannotReorderError for a value the network's users see."""
    if value.is_graph_output() or value.is_graph_input():
        kind = "output" if value.is_graph_output() else "input"
        raise CannotReorderError(f"{value.name} is an {kind} of the graph")


def _role(node: ir.Node, place: int) -> str:
    linear = Convolution.of(node) or TransposedConvolution.of(node) or Gemm.of(node) or MatMul.of(node)
    return {1: "weight", 2: "bias"}.get(place, "constant") if linear else f"input_{place}"


def into_text(plan: Reordering) -> str:
    """`into Conv Conv_3, Gemm Gemm_5`."""
    return f"into {', '.join(map(named, plan.absorbers))}" if plan.absorbers else "and no weights depend on it"
