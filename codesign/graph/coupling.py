"""Channel coupling: which channel dimensions of a network must change together, and which cannot change, and why.

    a = Conv(x)   b = Conv(a)   y = Conv(Relu(a + b))        a, b, a + b: one group

Source: dependencies between layers as in DepGraph (Fang et al. 2023, arXiv:2301.12900), here by segments of dimensions,
so that concatenations, splits, groups and heads keep their places.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from codesign.graph import elementwise_channels as elementwise
from codesign.graph import linear_channels as linear
from codesign.graph import shape_channels as shapes
from codesign.graph.graph import Graph, node_name, shape_of
from codesign.graph.operators import is_operator
from codesign.graph.segments import Dimension, Frozen, Reason, Segment, fresh, resolved
from codesign.graph.tracking import Axes, Parameter, Selection, Tracker

Rule = Callable[[Tracker, ir.Node], None]


@dataclass(frozen=True)
class Member:
    """A place of a group: `size` entries from `offset` on `axis` of a tensor, `repeat` of them for each channel."""

    tensor: str
    axis: int
    offset: int
    repeat: int


@dataclass(frozen=True)
class Group:
    """Channels that change together. name: the node that makes them first. members: all places they stand in."""

    segment: Segment
    name: str
    members: tuple[Member, ...]

    @property
    def size(self) -> int:
        """Channels."""
        return self.segment.size

    @property
    def frozen(self) -> tuple[Frozen, ...]:
        """Why they cannot change, if so; some reasons forbid only new channels, some only fewer."""
        return tuple(self.segment.frozen)

    @property
    def grows(self) -> bool:
        """Whether channels may be added."""
        return not any(frozen.grows for frozen in self.frozen)

    @property
    def shrinks(self) -> bool:
        """Whether channels may be taken away."""
        return not any(frozen.shrinks for frozen in self.frozen)


@dataclass(frozen=True)
class Coupling:
    """The groups of a graph in the order they are made, and all that must follow when one changes."""

    groups: tuple[Group, ...]
    axes: dict[ir.Value, Axes]
    parameters: tuple[Parameter, ...]
    selections: tuple[Selection, ...]


def couple(graph: Graph) -> Coupling:
    """The coupling of a graph's channels. It holds for this graph object, until that is changed."""
    tracker = Tracker()
    for value in graph.inputs:
        _input(tracker, value)
    for node in graph.nodes:
        if node not in tracker.done:
            _step(tracker, node)
    for value in graph.outputs:
        for axis in tracker.axes_of(value):
            tracker.freeze(axis, Reason.GRAPH_OUTPUT, str(value.name))
    _without_source(tracker)
    axes = {value: tracker.axes_of(value) for value in tracker.axes}
    return Coupling(_groups(axes), axes, tuple(tracker.parameters), tuple(tracker.selections))


def _input(tracker: Tracker, value: ir.Value) -> None:
    shape = shape_of(value)
    channels: list[Dimension | None] = [None] * len(shape)
    if len(shape) > 1:
        channels[1] = fresh(shape[1])
        tracker.freeze(channels[1], Reason.GRAPH_INPUT, str(value.name))
    tracker.set(value, channels)


def _step(tracker: Tracker, node: ir.Node) -> None:
    """One node by its rule. What is not understood has no channels, and freezes what it reads."""
    if _shuffle(tracker, node) or node.op_type == "Constant":
        return
    rule = RULES.get(node.op_type) if is_operator(node, node.op_type) else None
    if rule is None or any(attribute.type == ir.AttributeType.GRAPH for attribute in node.attributes.values()):
        tracker.freeze_all(node, Reason.OPERATOR)
        return
    rule(tracker, node)


def _shuffle(tracker: Tracker, node: ir.Node) -> bool:
    """Reshape to groups, Transpose, Reshape back: a channel shuffle, a selection that takes every channel once."""
    found = shuffle_of(node)
    if found is None:
        return False
    nodes, axis, group = found
    x, y = node.inputs[0], nodes[-1].outputs[0]
    assert x is not None
    axes = tracker.axes_of(x)
    if axes[axis] is None:
        return False
    indices = np.arange(shape_of(x)[axis]).reshape(group, -1).T.reshape(-1)
    after = shapes.select(tracker, nodes, x, y, axis, indices)
    tracker.set(y, (*axes[:axis], after, *axes[axis + 1 :]), tracker.extra_of(x))
    tracker.done.update(nodes)
    return True


def shuffle_of(node: ir.Node) -> tuple[tuple[ir.Node, ...], int, int] | None:
    """The three nodes of a channel shuffle that starts here, the axis, and the number of groups; or None."""
    chain = [node]
    for op_type in ("Transpose", "Reshape"):
        uses = tuple(chain[-1].outputs[0].uses())
        if len(uses) != 1 or not is_operator(uses[0].node, op_type) or chain[-1].outputs[0].is_graph_output():
            return None
        chain.append(uses[0].node)
    x, y = node.inputs[0], chain[-1].outputs[0]
    if not is_operator(node, "Reshape") or x is None or chain[2].inputs[0] is not chain[1].outputs[0]:
        return None
    old, split = shape_of(x), shape_of(node.outputs[0])
    order = chain[1].attributes.get_ints("perm") or []
    for axis in range(len(old)):
        swapped = [*range(axis), axis + 1, axis, *range(axis + 2, len(split))]
        rest = (*old[:axis], *old[axis + 1 :]) == (*split[:axis], *split[axis + 2 :])
        if len(split) == len(old) + 1 and rest and list(order) == swapped and shape_of(y) == old and old[axis] > 1:
            return tuple(chain), axis, split[axis]
    return None


def _without_source(tracker: Tracker) -> None:
    """Behind a selection from channels that cannot grow there is no new channel to take."""
    for selection in tracker.selections:
        if all(any(frozen.grows for frozen in run.segment.frozen) for run in resolved(selection.before)):
            tracker.freeze(selection.after, Reason.SHUFFLE, selection.nodes[-1])


def _groups(axes: dict[ir.Value, Axes]) -> tuple[Group, ...]:
    members: dict[Segment, list[Member]] = {}
    makers: dict[Segment, str] = {}
    for value, dimensions in axes.items():
        producer = value.producer()
        for axis, dimension in enumerate(dimensions):
            offset = 0
            for run in dimension or ():
                members.setdefault(run.segment, []).append(Member(str(value.name), axis, offset, run.repeat))
                makers.setdefault(run.segment, node_name(producer) if producer is not None else str(value.name))
                offset += run.entries
    return tuple(Group(segment, makers[segment], tuple(places)) for segment, places in members.items())


RULES: dict[str, Rule] = {
    "Conv": linear.convolution,
    "ConvTranspose": linear.transposed_convolution,
    "Gemm": linear.gemm,
    "MatMul": linear.matrix_product,
    "BatchNormalization": linear.batch_normalisation,
    "InstanceNormalization": linear.instance_normalisation,
    **dict.fromkeys(("LayerNormalization", "RMSNormalization", "GroupNormalization", "LRN"), linear.normalisation),
    **dict.fromkeys(("LpNormalization", "MeanVarianceNormalization"), linear.normalisation),
    **dict.fromkeys((*elementwise.KEEPS_ZERO, *elementwise.STAYS_FINITE), elementwise.of_one),
    **dict.fromkeys(("Log", "Reciprocal", "Acosh", "Atanh"), elementwise.unbounded),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "PRelu"), elementwise.of_several),
    "Sqrt": elementwise.square_root,
    "Clip": elementwise.clip,
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool"), shapes.window),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), shapes.window),
    **dict.fromkeys(("Resize", "Upsample"), shapes.resize),
    **dict.fromkeys(
        [f"Reduce{what}" for what in ("Mean", "Max", "Min", "Sum", "L1", "L2", "SumSquare", "LogSum", "Prod")],
        shapes.reduction,
    ),
    "ReduceLogSumExp": shapes.reduction,
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax", "ArgMax", "ArgMin", "CumSum", "TopK"), shapes.along_axis),
    "Concat": shapes.concatenation,
    "Split": shapes.split,
    "Slice": shapes.cut_out,
    "Gather": shapes.gather,
    "Transpose": shapes.transpose,
    "Expand": shapes.expand,
    "Tile": shapes.tile,
    "Pad": shapes.pad,
    "DepthToSpace": shapes.depth_to_space,
    "SpaceToDepth": shapes.space_to_depth,
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), shapes.reshape),
}
