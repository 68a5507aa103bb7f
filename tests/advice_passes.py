"""Passes made for tests of advice: exact and lossy ones that gain, conflict, lose, change nothing, or break."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import onnx_ir as ir

from codesign.graph.graph import Graph, constant_of, node_name
from codesign.rewriting.graph_pass import Applied, Declined, Effect, GraphPass, Outcome, PassContext


def _bypass(graph: Graph, node: ir.Node) -> None:
    """Let everybody read what the node reads; the graph's output keeps its name."""
    source, result = node.inputs[0], node.outputs[0]
    assert source is not None
    if result in graph.model.graph.outputs:
        producer = source.producer()
        assert producer is not None
        name = result.name
        graph.model.graph.outputs[graph.outputs.index(result)] = source
        graph.model.graph.remove(node, safe=False)
        source.name = name
        return
    result.replace_all_uses_with(source)
    graph.model.graph.remove(node, safe=True)


def _nodes(graph: Graph, *kinds: str) -> list[ir.Node]:
    return [node for node in graph.nodes if node.op_type in kinds]


@dataclass(frozen=True)
class SkipNorm(GraphPass):
    """Leaves normalisations out: all of them, or the first."""

    name: ClassVar[str] = "skip-norm"
    effect: ClassVar[Effect] = Effect.APPROXIMATE

    how: Annotated[Literal["all", "first"], "which"] = "all"

    def run(self, graph: Graph, context: PassContext) -> list[Outcome]:
        found = _nodes(graph, "BatchNormalization")
        if not found:
            return [Declined("network", "no normalisation is left")]
        found = found[: 1 if self.how == "first" else None]
        for node in found:
            _bypass(graph, node)
        return [Applied(node_name(node), "left out") for node in found]


@dataclass(frozen=True)
class Shrink(GraphPass):
    """Fewer output channels of the last convolution."""

    name: ClassVar[str] = "shrink"
    effect: ClassVar[Effect] = Effect.RESHAPES

    to: Annotated[Literal["half", "quarter"], "how many are left"] = "half"

    def run(self, graph: Graph, context: PassContext) -> list[Outcome]:
        last = _nodes(graph, "Conv")[-1]
        weights = constant_of(last.inputs[1])
        assert weights is not None
        kept = {"half": 8, "quarter": 4}[self.to]
        if len(weights) <= kept or len(list(last.outputs[0].uses())):
            return [Declined(node_name(last), "its channels are few, or somebody reads them")]
        name = f"w_{kept}"
        value = ir.Value(name=name, const_value=ir.tensor(weights[:kept].copy(), name=name))
        value.shape, value.dtype = ir.Shape(weights[:kept].shape), ir.DataType.FLOAT
        graph.model.graph.register_initializer(value)
        last.replace_input_with(1, value)
        shape = last.outputs[0].shape
        assert shape is not None
        last.outputs[0].shape = ir.Shape((shape[0], kept, *shape[2:]))
        return [Applied(node_name(last), f"{len(weights)} -> {kept}")]


@dataclass(frozen=True)
class Choice(GraphPass):
    """One activation left out as if that were exact, or all of them and a convolution as well."""

    name: ClassVar[str] = "choice"
    effect: ClassVar[Effect] = Effect.EXACT
    effects = {"take=all": Effect.APPROXIMATE}

    take: Annotated[Literal["one", "all"], "how many"] = "one"

    def run(self, graph: Graph, context: PassContext) -> list[Outcome]:
        found = _nodes(graph, "Sigmoid")[:1] if self.take == "one" else _nodes(graph, "Sigmoid", "Conv")[1:-1]
        for node in found:
            _bypass(graph, node)
        return [Applied(node_name(node), "left out") for node in found]


@dataclass(frozen=True)
class Later(GraphPass):
    """Leaves an activation out where no normalisation is left, as if that were exact."""

    name: ClassVar[str] = "later"
    effect: ClassVar[Effect] = Effect.EXACT

    def run(self, graph: Graph, context: PassContext) -> list[Outcome]:
        if _nodes(graph, "BatchNormalization"):
            return [Declined("network", "fold its normalisations first")]
        found = _nodes(graph, "Sigmoid")[:1]
        for node in found:
            _bypass(graph, node)
        return [Applied(node_name(node), "left out") for node in found]


@dataclass(frozen=True)
class Pad(GraphPass):
    """One more activation in front of the network: it costs."""

    name: ClassVar[str] = "pad"
    effect: ClassVar[Effect] = Effect.EXACT

    def run(self, graph: Graph, context: PassContext) -> list[Outcome]:
        first = graph.nodes[0]
        if first.op_type == "Abs":
            return []
        source = graph.inputs[0]
        node = ir.node("Abs", [source], name="abs")
        node.outputs[0].name, node.outputs[0].shape, node.outputs[0].dtype = "magnitude", source.shape, source.dtype
        graph.model.graph.insert_before(first, node)
        first.replace_input_with(0, node.outputs[0])
        return [Applied("abs", "put in")]


@dataclass(frozen=True)
class Mark(GraphPass):
    """Writes a note at every node."""

    name: ClassVar[str] = "mark"
    effect: ClassVar[Effect] = Effect.EXACT

    def run(self, graph: Graph, context: PassContext) -> list[Outcome]:
        fresh = [node for node in graph.nodes if "note" not in node.metadata_props]
        for node in fresh:
            node.metadata_props["note"] = "seen"
        return [Applied(node_name(node), "marked") for node in fresh]


@dataclass(frozen=True)
class Nudge(GraphPass):
    """Rounds the first weights: other numbers at the same cost."""

    name: ClassVar[str] = "nudge"
    effect: ClassVar[Effect] = Effect.APPROXIMATE

    def run(self, graph: Graph, context: PassContext) -> list[Outcome]:
        value = _nodes(graph, "Conv")[0].inputs[1]
        assert value is not None
        weights = constant_of(value)
        assert weights is not None
        rounded = (np.round(weights * 16) / 16).astype(np.float32)
        if (rounded == weights).all():
            return []
        value.const_value = ir.tensor(rounded, name=value.name)
        return [Applied(str(value.name), "rounded")]


@dataclass(frozen=True)
class Break(GraphPass):
    """Renames an output, which no pass may, or raises."""

    name: ClassVar[str] = "break"
    effect: ClassVar[Effect] = Effect.EXACT

    loudly: Annotated[bool, "raise an exception"] = False

    def run(self, graph: Graph, context: PassContext) -> list[Outcome]:
        if self.loudly:
            raise KeyError("missing")
        graph.outputs[0].name = "other"
        return [Applied("other", "renamed")]
