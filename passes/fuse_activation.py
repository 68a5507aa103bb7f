"""fuse-activation: nodes that compute one activation are marked as one, for the vector unit to do in one go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from codesign.graph.graph import Graph, node_name
from codesign.graph.marks import ACTIVATION, ActivationGroup
from codesign.rewriting.activations import activations_of
from codesign.rewriting.graph_pass import Applied, Declined, Effect, GraphPass, Outcome, PassContext


@dataclass(frozen=True)
class FuseActivation(GraphPass):
    """Marks every activation, however many operators it is written as, as one of the layer that makes its input.

    before:  conv -> t -> Sigmoid -> Mul(t, .) -> y        two passes over t, one operator each
    after:   conv -> t -> Sigmoid -> Mul(t, .) -> y        codesign.activation = Swish at Mul, on both

    The operators stay what they were, standard ONNX; only their metadata says which activation they are part of. The
    cost model prices marked nodes as one layer: the operations of all of them, the input read once, the result written
    once. Where a machine's vector unit does activations on the way out of the layer before, not even that. A machine
    without a vector unit, or one that lacks an operator of the group, runs the nodes one by one as before. Exact: no
    operator and no number changes.

    An activation is recognised by what it computes: nodes that compute a function of one tensor element by element are
    evaluated, and compared with Swish (of slope 1 or 1.702), HardSwish, Gelu (by erf or by tanh), Mish, HardSigmoid,
    Sigmoid, Tanh, Softplus, Softsign, Relu and Relu6. Single activations (Relu, LeakyRelu, PRelu, Clip, ...) are marked
    too. Declined are nodes whose inner results are used elsewhere, and functions not known here.

    Source: the function definitions of the ONNX operators of these names; post-processing in one go is what NVDLA's
    single point processor does (nvdla/doc, doc/hw/v1/ias/unit_description.rst).
    """

    name: ClassVar[str] = "fuse-activation"
    effect: ClassVar[Effect] = Effect.EXACT

    def run(self, graph: Graph, context: PassContext) -> list[Outcome]:
        """Mark what was found; a mark that no longer holds is removed."""
        found = activations_of(graph)
        groups = [place.group for place in found if place.group is not None]
        member = {node for group in groups for node in group.nodes}
        outcomes: list[Outcome] = []
        for node in graph.nodes:
            if node not in member and node.metadata_props.pop(ACTIVATION, None) is not None:
                outcomes.append(Applied(node_name(node), "no longer marked: it is part of no activation"))
        for place in found:
            if place.group is None:
                outcomes.append(Declined(node_name(place.nodes[-1]), place.reason))
            else:
                outcomes += _mark(place.group)
        return outcomes


def _mark(group: ActivationGroup) -> list[Outcome]:
    """Nothing where the mark stands already."""
    if all(node.metadata_props.get(ACTIVATION) == group.mark for node in group.nodes):
        return []
    for node in group.nodes:
        node.metadata_props[ACTIVATION] = group.mark
    producer = group.x.producer()
    source = node_name(producer) if producer is not None else str(group.x.name)
    written = f", written as {', '.join(node.op_type for node in group.nodes)}" if len(group.nodes) > 1 else ""
    return [Applied(node_name(group.nodes[-1]), f"{group.operator} of {source}{written}")]
