"""fold-channel-shuffle: what takes an order up, what passes it on, what stops it, and random networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import helper

from codesign.graph.graph import Graph, constant_of
from codesign.rewriting.channels import Order
from codesign.rewriting.graph_pass import Applied, Declined, Outcome, PassContext
from codesign.rewriting.pipeline import Pipeline
from codesign.rewriting.runner import run_pipeline
from passes.expand_grouped import ExpandGrouped
from passes.fold_channel_shuffle import FoldChannelShuffle
from tests.pass_models import batch_norm, difference, graph_of, normal, operators, proto_of, statistics
from tests.pass_networks import network
from tests.pass_networks.shuffles import shuffle_nodes


@dataclass
class Builder:
    """A network in the making; values are names, sizes known by `shapes`."""

    random: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def add(self, op: str, inputs: list[str], shape: tuple[int, ...], **attributes: object) -> str:
        """One node; answers its result."""
        name = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=f"node_{name}", **attributes))
        self.shapes[name] = shape
        return name

    def constant(self, array: np.ndarray) -> str:
        name = f"k{len(self.constants)}"
        self.constants[name] = array
        return name

    def weights(self, *shape: int) -> str:
        return self.constant(normal(self.random, *shape) / np.float32(np.sqrt(np.prod(shape[1:]))))

    def conv(self, x: str, outputs: int, group: int = 1, kernel: int = 1) -> str:
        batch, channels, *size = self.shapes[x]
        names = [
            x,
            self.weights(outputs, channels // group, kernel, kernel),
            self.constant(normal(self.random, outputs)),
        ]
        return self.add("Conv", names, (batch, outputs, *size), group=group, pads=[kernel // 2] * 4)

    def shuffle(self, x: str, groups: int) -> str:
        name = f"s{len(self.nodes)}"
        nodes, constants = shuffle_nodes(x, name, self.shapes[x], groups)  # type: ignore[arg-type]
        self.nodes += nodes
        self.constants.update(constants)
        self.shapes[name] = self.shapes[x]
        return name

    def gather(self, x: str, index: list[int]) -> str:
        batch, _, *size = self.shapes[x]
        return self.add("Gather", [x, self.constant(np.array(index))], (batch, len(index), *size), axis=1)

    def norm(self, x: str) -> str:
        prefix, name = f"n{len(self.nodes)}", f"normal_{len(self.nodes)}"
        self.constants.update(statistics(self.random, self.shapes[x][1], prefix))
        self.nodes.append(batch_norm(x, name, prefix))
        self.shapes[name] = self.shapes[x]
        return name

    def graph(self, outputs: list[str], inputs: dict[str, tuple[int, ...]]) -> Graph:
        return graph_of(proto_of(self.nodes, inputs, dict.fromkeys(outputs), self.constants))


def start(channels: int, size: int = 4, seed: int = 0) -> Builder:
    builder = Builder(np.random.default_rng(seed))
    builder.shapes["x"] = (1, channels, size, size)
    return builder


def folded(graph: Graph) -> tuple[Graph, list[Outcome]]:
    """The graph after the pass, checked by the runner and by execution, and what the pass said."""
    outcomes = FoldChannelShuffle().run(graph.copy(), PassContext())
    after, [record] = run_pipeline(graph, Pipeline("one", (FoldChannelShuffle(),)), PassContext())
    assert record.applied == sum(isinstance(outcome, Applied) for outcome in outcomes)
    assert difference(graph, after) < 1e-4
    return after, outcomes


def shuffles_left(graph: Graph) -> int:
    return sum(node.op_type in ("Gather", "Transpose") for node in graph.nodes)


def test_into_the_next_convolution() -> None:
    build = start(6)
    y = build.conv(build.add("Relu", [build.shuffle("x", 3)], (1, 6, 4, 4)), 5, kernel=3)
    after, outcomes = folded(build.graph([y], {"x": (1, 6, 4, 4)}))
    assert operators(after) == ["Relu", "Conv"]
    assert outcomes == [Applied("shuffle_s0", "forwards, into Conv node_conv_4")]


def test_into_the_convolution_before_where_the_next_has_groups() -> None:
    build = start(3)
    x = build.add("Relu", [build.norm(build.conv("x", 6))], (1, 6, 4, 4))
    y = build.conv(build.shuffle(x, 2), 6, group=2, kernel=3)
    after, outcomes = folded(build.graph([y], {"x": (1, 3, 4, 4)}))
    assert shuffles_left(after) == 0
    assert outcomes == [Applied("shuffle_s3", "backwards, into Conv node_conv_0")]


def test_whole_groups_and_channels_of_a_group() -> None:
    """Groups 2, 0, 1, each with its channels turned round: the groups' weights move, and the next takes that up."""
    build = start(6)
    y = build.conv(build.conv(build.gather("x", [5, 4, 1, 0, 3, 2]), 9, group=3), 4)
    after, outcomes = folded(build.graph([y], {"x": (1, 6, 4, 4)}))
    assert operators(after) == ["Conv", "Conv"]
    assert outcomes == [Applied("node_gather_0", "forwards, into Conv node_conv_1, Conv node_conv_2")]


def test_an_order_within_groups_ends_there() -> None:
    build = start(6)
    y = build.conv(build.gather("x", [1, 0, 3, 2, 5, 4]), 9, group=3)
    after, outcomes = folded(build.graph([y], {"x": (1, 6, 4, 4)}))
    assert operators(after) == ["Conv"]
    assert outcomes == [Applied("node_gather_0", "forwards, into Conv node_conv_1")]


def test_a_gate_and_a_flattened_classifier_agree() -> None:
    after, outcomes = folded(network("shuffle_gate"))
    assert shuffles_left(after) == 0
    assert outcomes == [
        Applied("shuffle_s", "forwards, into Conv Conv_1, Conv Conv_11, Conv Conv_13, Gemm Gemm_17")
    ] or [outcome.where for outcome in outcomes] == ["shuffle_s"]


def test_shufflenet_v1_and_v2_fold_where_nothing_crosses() -> None:
    after, outcomes = folded(network("shuffle_groups"))
    assert shuffles_left(after) == 1
    assert outcomes == [
        Applied("shuffle_s2", "forwards, into Conv Conv_11"),
        Declined(
            "shuffle_s1",
            "forwards: a group of Conv Conv_7 would get channels of several groups of 4; "
            "backwards: a group of Conv Conv_0 would get channels of several groups of 4",
        ),
    ]
    after, outcomes = folded(network("shuffle_parts"))
    assert shuffles_left(after) == 1
    assert outcomes == [
        Applied("shuffle_s2", "forwards, into Conv Conv_13, Conv Conv_14"),
        Declined(
            "shuffle_s1",
            "forwards: Split Split_7 would get channels of one part among those of another; "
            "backwards: Concat Concat_3 would get channels of one part among those of another",
        ),
    ]


def test_expanded_groups_open_the_way() -> None:
    before = network("shuffle_groups")
    after, records = run_pipeline(before, Pipeline("two", (ExpandGrouped(), FoldChannelShuffle())), PassContext())
    assert [record.applied for record in records] == [2, 2]
    assert shuffles_left(after) == 0
    assert difference(before, after) < 1e-4


def test_picked_channels_are_computed_alone() -> None:
    after, outcomes = folded(network("picked_channels"))
    assert operators(after) == ["Conv", "BatchNormalization", "Relu", "Conv", "ConvTranspose"]
    weights = constant_of(after.nodes[0].inputs[1])
    assert weights is not None and weights.shape == (6, 3, 1, 1)
    assert outcomes == [
        Applied("Slice_0", "forwards, into Conv Conv_1"),
        Applied("Gather_3", "backwards, into Conv Conv_1"),
    ]


def _two_orders(build: Builder) -> list[str]:
    return [build.conv(build.add("Add", ["x", build.shuffle("x", 2)], (1, 4, 4, 4)), 3)]


def _an_output(build: Builder) -> list[str]:
    return [build.shuffle("x", 2)]


def _one_group(build: Builder) -> list[str]:
    return [build.shuffle("x", 1)]


def _a_mixing_reshape(build: Builder) -> list[str]:
    target = build.constant(np.array([1, 2, 32]))
    return [build.add("Softmax", [build.add("Reshape", [build.shuffle("x", 2), target], (1, 2, 32))], (1, 2, 32))]


def _repeated(build: Builder) -> list[str]:
    return [build.conv(build.gather(build.conv("x", 3), [0, 1, 2, 0]), 3)]


def _left_out(build: Builder) -> list[str]:
    made = build.conv("x", 4)
    return [build.conv(build.gather(made, [0, 2]), 3), build.conv(made, 2)]


def _unknown(build: Builder) -> list[str]:
    return [build.conv(build.add("LRN", [build.shuffle("x", 2)], (1, 4, 4, 4), size=3), 2)]


def _slice_of_some(build: Builder) -> list[str]:
    bounds = [build.constant(np.array([number])) for number in (0, 2, 1)]
    return [build.conv(build.add("Slice", [build.shuffle("x", 2), *bounds], (1, 2, 4, 4)), 2)]


def _along_the_channels(build: Builder) -> list[str]:
    turned = build.add("Transpose", [build.shuffle("x", 2)], (1, 4, 4, 4), perm=[0, 2, 1, 3])
    return [build.conv(turned, 2, kernel=3)]


def _as_weights(build: Builder) -> list[str]:
    weights = build.add("Transpose", [build.shuffle("x", 2)], (4, 1, 4, 4), perm=[1, 0, 2, 3])
    return [build.add("Conv", [build.constant(normal(build.random, 1, 1, 5, 5)), weights], (1, 4, 2, 2))]


DECLINED: dict[str, tuple[Callable[[Builder], list[str]], str, str]] = {
    "two orders": (
        _two_orders,
        "Add node_add_3 needs x in the old order and in the new one",
        "x is an input of the graph",
    ),
    "output": (_an_output, "s0 is an output of the graph", "x is an input of the graph"),
    "nothing moves": (_one_group, "s0 is an output of the graph", "x is an input of the graph"),
    "mixing": (
        _a_mixing_reshape,
        "Reshape node_reshape_3 mixes the channels with other dimensions",
        "x is an input of the graph",
    ),
    "repeated": (
        _repeated,
        "it leaves channels out or repeats them, which only weights before it can take up",
        "it repeats channels: 4 of 3 would be computed",
    ),
    "left out": (
        _left_out,
        "it leaves channels out or repeats them, which only weights before it can take up",
        "Conv node_conv_3 needs all channels, and some are left out or repeated",
    ),
    "unknown": (_unknown, "LRN node_lrn_3 is not known to keep channels apart", "x is an input of the graph"),
    "slice": (
        _slice_of_some,
        "Slice node_slice_3 takes channels 0 to 1, and would get others",
        "x is an input of the graph",
    ),
    "window": (
        _along_the_channels,
        "Conv node_conv_4 works along axis 2, on which the channels lie there",
        "x is an input of the graph",
    ),
    "weights": (
        _as_weights,
        "Conv node_conv_4 reads the channels as something else than its data",
        "x is an input of the graph",
    ),
}


@pytest.mark.parametrize("case", DECLINED)
def test_a_reason_for_every_place_left(case: str) -> None:
    make, forwards, backwards = DECLINED[case]
    build = start(4)
    graph = build.graph(make(build), {"x": (1, 4, 4, 4)})
    after, [outcome] = folded(graph)
    assert isinstance(outcome, Declined)
    assert outcome.reason == f"forwards: {forwards}; backwards: {backwards}"
    assert ir.to_proto(after.model) == ir.to_proto(graph.model), "a declined place is left untouched"


def test_values_in_a_new_order_get_new_names() -> None:
    build = start(3)
    made = build.conv("x", 4)
    y = build.conv(build.shuffle(build.add("Relu", [made], (1, 4, 4, 4)), 2), 4, group=2)
    before = build.graph([y], {"x": (1, 3, 4, 4)})
    after, _ = folded(before)
    names = {value.name for node in after.nodes for value in node.outputs}
    assert names == {f"{made}.reordered", "s2", y}


def test_the_order_of_a_shuffle_by_hand() -> None:
    """ShuffleNet: 2 groups of 3 channels 0 1 2 | 3 4 5 become 0 3 1 4 2 5."""
    order = Order.of(1, np.arange(6).reshape(2, 3).T.reshape(-1), 6)
    assert order.index == (0, 3, 1, 4, 2, 5)
    assert order.inverted().index == (0, 2, 4, 1, 3, 5)
    flat = order.reshaped((1, 6, 2), (1, 12))
    assert flat is not None and flat.index[:6] == (0, 1, 6, 7, 2, 3)
    assert flat.reshaped((1, 12), (1, 6, 2)) == order
    assert order.reshaped((1, 6, 2), (1, 3, 4)) is None


def _grown(build: Builder, draw: Callable[[int], int], steps: int) -> list[str]:
    """A random network of 12 channels: shuffles between all that passes orders on, takes them up or stops them."""
    values = ["x"]
    for _ in range(steps):
        x = values[-1 - draw(min(2, len(values)))]
        shape = build.shapes[x]
        match draw(14):
            case 0 | 1 | 2:
                values.append(build.shuffle(x, (2, 3, 4, 6)[draw(4)]))
            case 3:
                values.append(build.gather(x, [int(place) for place in build.random.permutation(12)]))
            case 4:
                values.append(build.conv(x, 12, kernel=(1, 3)[draw(2)]))
            case 5:
                values.append(build.conv(x, 12, group=(2, 3, 4, 6)[draw(4)]))
            case 6:
                values.append(build.conv(x, 12, group=12, kernel=3))
            case 7:
                values.append(build.norm(x))
            case 8:
                values.append(build.add(("Relu", "Sigmoid", "HardSwish")[draw(3)], [x], shape))
            case 9:
                same = [value for value in values if build.shapes[value] == shape]
                values.append(build.add(("Add", "Mul")[draw(2)], [x, same[draw(len(same))]], shape))
            case 10:
                gate = build.conv(build.add("GlobalAveragePool", [x], (1, 12, 1, 1)), 12)
                values.append(build.add("Mul", [x, build.add("Sigmoid", [gate], (1, 12, 1, 1))], shape))
            case 11:
                wide = build.add("Concat", [x, values[draw(len(values))]], (1, 24, *shape[2:]), axis=1)
                values.append(build.conv(wide, 12, group=(1, 2)[draw(2)]))
            case 12:
                sizes = build.constant(np.array([6, 6]))
                halves = [f"half_{len(build.nodes)}_{side}" for side in "ab"]
                build.nodes.append(helper.make_node("Split", [x, sizes], halves, axis=1))
                values.append(build.add("Concat", halves[:: 1 - 2 * draw(2)], shape, axis=1))
            case 13:
                values.append(build.add("PRelu", [x, build.constant(normal(build.random, 12, 1, 1))], shape))
    flat = build.add("Flatten", [values[-1]], (1, 12 * 9))
    return [
        build.add("Gemm", [flat, build.weights(12 * 9, 5)], (1, 5)),
        build.conv(values[-1 - draw(min(3, len(values)))], 4),
    ]


@given(data=st.data(), seed=st.integers(0, 2**16))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_random_networks_compute_the_same(data: st.DataObject, seed: int) -> None:
    build = start(12, size=3, seed=seed)
    outputs = _grown(build, lambda count: data.draw(st.integers(0, count - 1)), steps=8)
    graph = build.graph(outputs, {"x": (1, 12, 3, 3)})
    after, outcomes = folded(graph)
    again, _ = folded(after)
    assert ir.to_proto(again.model) == ir.to_proto(after.model)
    shuffled = sum(isinstance(outcome, Declined) for outcome in outcomes)
    assert shuffled <= shuffles_left(after)
