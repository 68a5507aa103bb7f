"""expand-grouped: grouped convolutions as dense ones, for machines that do not run groups, or run them badly."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Annotated, ClassVar, Literal

import numpy as np
import onnx_ir as ir

from codesign.graph.graph import Graph, constant_of, node_name, shape_of
from codesign.graph.operators import Convolution, TransposedConvolution
from codesign.rewriting.edit import fresh_name, remove_if_unused, set_constant
from codesign.rewriting.graph_pass import Applied, Declined, Effect, GraphPass, Outcome, PassContext
from codesign.rewriting.lanes import ConvolutionSizes, least_cycles

_MOST_DEPTHWISE_CHANNELS = 64


@dataclass(frozen=True)
class ExpandGrouped(GraphPass):
    """Merges the groups of a convolution into one, or gives every group an operator of its own.

    before:  x [1, 64, 28, 28] -> Conv 3x3 [64, 16, 3, 3], 4 groups -> y
    after:   x [1, 64, 28, 28] -> Conv 3x3 [64, 64, 3, 3], zeros outside four blocks of [16, 16, 3, 3] -> y      (dense)
             x [1, 64, 28, 28] -> Split -> four Conv 3x3 [16, 16, 3, 3] -> Concat -> y                           (split)

    Exact: a weight of zero adds nothing to a sum (of finite inputs), and the group of a convolution is the convolution
    of its channels. Dense takes as many times the MACs and weights as groups are merged; split takes as many as before,
    but moves the input and the output once more. Dense is the default, because it stays one operator and can fill lanes
    that groups leave idle; split helps only machines that run no groups at all, and there it may beat dense.

    With a machine, dense merges as many groups at a time as take the fewest cycles there (at least: lanes as full as
    the sizes allow, every operand moved once), which may be all, some, or none: then it is declined, as is split where
    an engine runs groups. `always` expands all the same. Without a machine all groups become one.

    Depthwise convolutions stay unless asked for; without a machine, up to 64 channels. Declined too: weights or a bias
    that are not constants, and transposed convolutions.

    Source: ONNX operator definition of Conv (group).
    """

    name: ClassVar[str] = "expand-grouped"
    effect: ClassVar[Effect] = Effect.EXACT

    into: Annotated[Literal["dense", "split"], "merge groups, or make every group a convolution of its own"] = "dense"
    depthwise: Annotated[bool, "expand depthwise convolutions as well"] = False
    always: Annotated[bool, "expand all groups, also where the machine gains nothing"] = False

    def run(self, graph: Graph, context: PassContext) -> list[Outcome]:
        """Every convolution with groups."""
        outcomes = (self._expand(graph, node, context) for node in graph.nodes)
        return [outcome for outcome in outcomes if outcome is not None]

    def _expand(self, graph: Graph, node: ir.Node, context: PassContext) -> Outcome | None:
        transposed = TransposedConvolution.of(node)
        if transposed is not None and transposed.group > 1:
            return Declined(node_name(node), "a transposed convolution with groups")
        view = Convolution.of(node)
        if view is None or view.group == 1:
            return None
        sizes = ConvolutionSizes.of(view)
        times = self._times(sizes, context)
        reason = _not_constant(view) or self._unwanted(sizes, context) or (times if isinstance(times, str) else "")
        if reason or isinstance(times, str):
            return Declined(node_name(node), reason)
        if self.into == "split":
            _split(graph, view)
            return Applied(node_name(node), f"{view.group} convolutions, {_macs(sizes.macs)} as before")
        _merge(graph, view, times)
        return Applied(node_name(node), _merged_text(sizes, sizes.merged(times)))

    def _unwanted(self, sizes: ConvolutionSizes, context: PassContext) -> str:
        if sizes.inputs > 1 or (self.depthwise and self.always):
            return ""
        if not self.depthwise:
            return "it is depthwise; depthwise=true expands it too"
        if context.profile is None and sizes.groups > _MOST_DEPTHWISE_CHANNELS:
            return (
                f"it is depthwise with {sizes.groups} channels: {sizes.groups} times the MACs; always=true expands it"
            )
        return ""

    def _times(self, sizes: ConvolutionSizes, context: PassContext) -> int | str:
        """How many groups to merge into one, or why none."""
        if self.always or context.profile is None:
            return sizes.groups
        profile = context.profile
        now = least_cycles(sizes, profile)
        if self.into == "split":
            return sizes.groups if now == inf else f"{profile.name} runs groups; a convolution for each is no faster"
        factors = [factor for factor in range(2, sizes.groups + 1) if sizes.groups % factor == 0]
        best = min(factors, key=lambda factor: least_cycles(sizes.merged(factor), profile))
        cycles = least_cycles(sizes.merged(best), profile)
        if cycles < now:
            return best
        if now == inf:
            return f"no engine of {profile.name} runs it, with groups or without"
        return (
            f"{profile.name} takes at least {now:,.0f} cycles for its groups, and {cycles:,.0f} with {best} at a time"
        )


def _not_constant(view: Convolution) -> str:
    if constant_of(view.w) is None:
        return "its weights are not constant"
    return "its bias is not constant" if view.b is not None and constant_of(view.b) is None else ""


def _merged_text(before: ConvolutionSizes, after: ConvolutionSizes) -> str:
    groups = "one dense convolution" if after.groups == 1 else f"{after.groups} groups"
    return f"{before.groups} groups become {groups}, {_macs(before.macs)} become {_macs(after.macs)}"


def _macs(number: int) -> str:
    return f"{number:,} MACs"


def _merge(graph: Graph, view: Convolution, times: int) -> None:
    """`times` groups at a time as one: their weights are blocks on a diagonal, zeros elsewhere."""
    weights = constant_of(view.w)
    assert weights is not None
    groups, outputs, inputs = view.group // times, view.out_channels // view.group, weights.shape[1]
    blocks = weights.reshape(groups, times, outputs, inputs, *weights.shape[2:])
    wide = np.zeros((groups, times, outputs, times, inputs, *weights.shape[2:]), weights.dtype)
    for place in range(times):
        wide[:, place, :, place] = blocks[:, place]
    set_constant(graph, view.node, 1, wide.reshape(len(weights), times * inputs, *weights.shape[2:]), "weight")
    view.node.attributes["group"] = ir.AttrInt64("group", groups)


def _split(graph: Graph, view: Convolution) -> None:
    """Split, a convolution for every group, Concat; the result keeps its name."""
    node, group, name = view.node, view.group, node_name(view.node)
    split = ir.Node("", "Split", [view.x, None], [ir.AttrInt64("axis", 1)], num_outputs=group, name=f"{name}.split")
    parts = [_part(graph, view, number, split.outputs[number]) for number in range(group)]
    concat = ir.Node(
        "", "Concat", [part.outputs[0] for part in parts], [ir.AttrInt64("axis", 1)], name=f"{name}.concat"
    )
    graph.model.graph.insert_before(node, [split, *parts, concat])
    set_constant(graph, split, 1, np.full(group, view.in_channels // group, np.int64), "split")
    for number, part in enumerate(parts):
        _give_weights(graph, view, part, number)
    _take_over(graph, node, concat.outputs[0])


def _part(graph: Graph, view: Convolution, number: int, x: ir.Value) -> ir.Node:
    """The convolution of one group, its weights still missing."""
    attributes = [attribute for key, attribute in view.node.attributes.items() if key != "group"]
    name = f"{node_name(view.node)}.group_{number}"
    part = ir.Node("", "Conv", [x, None], attributes, name=name)
    _describe(graph, x, view.x, f"{node_name(view.node)}.split_{number}", view.in_channels // view.group)
    _describe(graph, part.outputs[0], view.y, name, view.out_channels // view.group)
    return part


def _describe(graph: Graph, value: ir.Value, like: ir.Value, name: str, channels: int) -> None:
    value.name, value.type = fresh_name(graph, name), like.type
    value.shape = ir.Shape((shape_of(like)[0], channels, *shape_of(like)[2:]))


def _give_weights(graph: Graph, view: Convolution, part: ir.Node, number: int) -> None:
    """The weights of one group, and its share of the bias."""
    for index, value in ((1, view.w), (2, view.b)):
        array = constant_of(value)
        if array is not None:
            size = len(array) // view.group
            set_constant(graph, part, index, array[number * size : (number + 1) * size], ("weight", "bias")[index - 1])


def _take_over(graph: Graph, node: ir.Node, total: ir.Value) -> None:
    """`total` in the place of a node's result, with its name."""
    result, inputs = node.outputs[0], list(node.inputs)
    total.shape, total.type = result.shape, result.type
    result.replace_all_uses_with(total, replace_graph_outputs=True)
    total.name, result.name = result.name, None
    graph.model.graph.remove(node, safe=True)
    for value in inputs:
        remove_if_unused(graph, value)
