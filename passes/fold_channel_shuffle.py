"""fold-channel-shuffle: the order a channel shuffle makes becomes the order of weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from codesign.graph.graph import Graph, node_name
from codesign.rewriting.channels import CannotReorderError, Shuffle, shuffle_at
from codesign.rewriting.edit import remove_if_unused, remove_node
from codesign.rewriting.graph_pass import Applied, Declined, Effect, GraphPass, Outcome, PassContext
from codesign.rewriting.reordering import Reordering, expect_inside, into_text
from codesign.rewriting.reordering_rules import follow


@dataclass(frozen=True)
class FoldChannelShuffle(GraphPass):
    """Takes out operators that bring channels into a fixed order, and puts weights into that order instead.

    before:  x -> Reshape [1, 2, 58, 28, 28] -> Transpose (0, 2, 1, 3, 4) -> Reshape [1, 116, 28, 28] -> Conv w
    after:   x -> Conv w[:, order]

    Exact: with y[:, i] = x[:, p[i]], a sum over channels of w[:, i] y[:, i] is the same sum over channels of x, its
    terms in another order. Operators that keep channels apart do the same to every channel, or get their numbers for
    each channel in the new order.

    Shuffles are Reshape-Transpose-Reshape within one axis, a Gather by a constant list and a Slice that turns the
    channels round. The order goes forwards, to everybody who reads the result, or else backwards, to who makes the
    input: through activations, normalisations, depthwise convolutions, pooling, sums and products (whose other operand
    must come in the order too), transpositions and reshapes, into dense convolutions and layers. A grouped convolution
    takes up an order that keeps its groups together, and passes on one that moves whole groups; Concat, Split and Slice
    along the channels pass on one that leaves every part its own channels. A Gather that leaves channels out can only
    go backwards, into weights of which nobody reads the other results: behind it, more would have to be read.

    Declined, with the operator that stops it: where the order crosses groups (ShuffleNetV1, CondenseNet; expand-grouped
    before it opens the way), or the parts of a Split or Concat (ShuffleNetV2 but for the end of each stage), and where
    a result is an output of the graph. Such a shuffle stays as it is: a Gather in its place would move the same bytes.

    Source: Zhang et al., ShuffleNet, arXiv:1707.01083 (section 3.1); Ma et al., ShuffleNet V2, arXiv:1807.11164.
    """

    name: ClassVar[str] = "fold-channel-shuffle"
    effect: ClassVar[Effect] = Effect.EXACT

    def run(self, graph: Graph, context: PassContext) -> list[Outcome]:
        """Fold until nothing folds any more: a shuffle that goes can open the way for the one before."""
        outcomes: list[Outcome] = []
        while True:
            sweep: list[Outcome] = []
            for node in graph.nodes:
                shuffle = shuffle_at(node) if node.graph is not None else None
                if shuffle is not None:
                    sweep.append(_fold(graph, shuffle))
            applied = [outcome for outcome in sweep if isinstance(outcome, Applied)]
            outcomes += applied
            if not applied:
                return outcomes + sweep


def _fold(graph: Graph, shuffle: Shuffle) -> Outcome:
    name = node_name(shuffle.nodes[-1])
    try:
        return Applied(name, _forwards(graph, shuffle))
    except CannotReorderError as error:
        forwards = str(error)
    try:
        return Applied(name, _backwards(graph, shuffle))
    except CannotReorderError as error:
        return Declined(name, f"forwards: {forwards}; backwards: {error}")


def _forwards(graph: Graph, shuffle: Shuffle) -> str:
    """The readers of y read x: they get y in the order that undoes the shuffle's."""
    if not shuffle.order.is_permutation:
        raise CannotReorderError("it leaves channels out or repeats them, which only weights before it can take up")
    expect_inside(shuffle.y)
    plan = Reordering(frozenset({shuffle.x}), frozenset(shuffle.nodes))
    follow(plan, shuffle.y, shuffle.order.inverted())
    plan.apply(graph)
    _remove(graph, shuffle)
    return f"forwards, {into_text(plan)}"


def _backwards(graph: Graph, shuffle: Shuffle) -> str:
    """x is made in the order of y."""
    order = shuffle.order
    if len(order.index) > order.size:
        raise CannotReorderError(f"it repeats channels: {len(order.index)} of {order.size} would be computed")
    expect_inside(shuffle.x)
    plan = Reordering(frozenset({shuffle.y}), frozenset(shuffle.nodes))
    follow(plan, shuffle.x, order)
    name = shuffle.y.name
    plan.apply(graph)
    _remove(graph, shuffle)
    shuffle.x.name = name
    return f"backwards, {into_text(plan)}"


def _remove(graph: Graph, shuffle: Shuffle) -> None:
    """Whoever reads y reads x."""
    remove_node(graph, shuffle.nodes[-1], shuffle.x)
    for node in reversed(shuffle.nodes[:-1]):
        inputs: list[ir.Value | None] = list(node.inputs)
        graph.model.graph.remove(node, safe=True)
        for value in inputs:
            remove_if_unused(graph, value)
