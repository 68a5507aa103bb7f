"""expand-grouped: both forms, what machines make of it, and where it is declined."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from codesign.graph.graph import Graph
from codesign.graph.operators import Convolution
from codesign.hardware.loading import load_profile
from codesign.hardware.profile import HardwareProfile
from codesign.rewriting.graph_pass import Applied, Declined, Outcome, PassContext
from codesign.rewriting.lanes import ConvolutionSizes, least_cycles
from codesign.vocabulary import OperationKind
from passes.expand_grouped import ExpandGrouped
from tests.pass_models import difference, graph_of, normal, operators, proto_of


def grouped(groups: int, inputs: int, outputs: int, *, kernel: int = 3, bias: bool = True, size: int = 5) -> Graph:
    """One convolution; channels are those of a group."""
    random = np.random.default_rng(3)
    constants = {"w": normal(random, groups * outputs, inputs, kernel, kernel), "b": normal(random, groups * outputs)}
    pads = [kernel // 2] * 4
    names = ["x", "w", "b"] if bias else ["x", "w"]
    nodes = [helper.make_node("Conv", names, ["y"], group=groups, pads=pads, strides=[2, 1])]
    constants = {name: array for name, array in constants.items() if name in names}
    return graph_of(proto_of(nodes, {"x": (2, groups * inputs, size, size)}, {"y": None}, constants))


def expanded(graph: Graph, step: ExpandGrouped, profile: HardwareProfile | None = None) -> tuple[Graph, list[Outcome]]:
    after = graph.copy()
    outcomes = step.run(after, PassContext(profile))
    assert difference(graph, after) < 1e-5
    return after, outcomes


def view(graph: Graph) -> Convolution:
    found = Convolution.of(graph.nodes[0])
    assert found is not None
    return found


@given(
    groups=st.integers(2, 6),
    inputs=st.integers(1, 4),
    outputs=st.integers(1, 4),
    kernel=st.sampled_from([1, 3]),
    bias=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_both_forms_compute_the_same(groups: int, inputs: int, outputs: int, kernel: int, bias: bool) -> None:
    graph = grouped(groups, inputs, outputs, kernel=kernel, bias=bias)
    dense, [outcome] = expanded(graph, ExpandGrouped(depthwise=True))
    assert isinstance(outcome, Applied)
    assert operators(dense) == ["Conv"] and view(dense).group == 1
    split, _ = expanded(graph, ExpandGrouped(into="split", depthwise=True))
    assert operators(split) == ["Split", *["Conv"] * groups, "Concat"]


def test_what_it_says() -> None:
    graph = grouped(4, 2, 3)
    assert expanded(graph, ExpandGrouped())[1] == [
        Applied("Conv_0", "4 groups become one dense convolution, 6,480 MACs become 25,920 MACs")
    ]
    split = expanded(graph, ExpandGrouped(into="split"))[1]
    assert split == [Applied("Conv_0", "4 convolutions, 6,480 MACs as before")]


@pytest.mark.parametrize(
    ("graph", "step", "reason"),
    [
        (grouped(8, 1, 1), ExpandGrouped(), "it is depthwise; depthwise=true expands it too"),
        (
            grouped(65, 1, 1),
            ExpandGrouped(depthwise=True),
            "it is depthwise with 65 channels: 65 times the MACs; always=true expands it",
        ),
    ],
)
def test_a_depthwise_convolution_stays_unless_asked_for(graph: Graph, step: ExpandGrouped, reason: str) -> None:
    assert expanded(graph, step)[1] == [Declined("Conv_0", reason)]
    assert isinstance(expanded(graph, ExpandGrouped(depthwise=True, always=True))[1][0], Applied)


def test_weights_that_are_not_constant() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], group=2),
        helper.make_node("Conv", ["x", "k", "b"], ["c"], group=2),
        helper.make_node("ConvTranspose", ["x", "k"], ["d"], group=2),
        helper.make_node("Conv", ["x", "k2"], ["e"]),
    ]
    inputs = {"x": (1, 4, 3, 3), "w": (4, 2, 1, 1), "b": (4,)}
    constants = {"k": np.ones((4, 2, 1, 1), np.float32), "k2": np.ones((4, 4, 1, 1), np.float32)}
    graph = graph_of(proto_of(nodes, inputs, dict.fromkeys("acde"), constants))
    assert ExpandGrouped(always=True).run(graph, PassContext()) == [
        Declined("Conv_0", "its weights are not constant"),
        Declined("Conv_1", "its bias is not constant"),
        Declined("ConvTranspose_2", "a transposed convolution with groups"),
    ]


def test_shared_weights_stay_with_the_other_reader() -> None:
    random = np.random.default_rng(0)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], group=2),
        helper.make_node("Conv", ["a", "w"], ["b"], group=2),
        helper.make_node("Conv", ["b", "w"], ["y"], group=2, name="dense"),
    ]
    graph = graph_of(proto_of(nodes, {"x": (1, 4, 3, 3)}, {"y": None}, {"w": normal(random, 4, 2, 1, 1)}))
    assert len(expanded(graph, ExpandGrouped())[1]) == 3
    assert len(expanded(graph, ExpandGrouped(into="split"))[1]) == 3


def test_a_machine_decides_how_many_groups_become_one() -> None:
    """16x16 lanes over C and K, one group at a time: 4 groups of 4 channels fill them."""
    graph = grouped(32, 4, 4, size=16)
    profile = load_profile("gemmini16").profile
    after, [outcome] = expanded(graph, ExpandGrouped(), profile)
    assert isinstance(outcome, Applied), outcome
    assert view(after).group == 8
    assert outcome.detail == "32 groups become 8 groups, 1,179,648 MACs become 4,718,592 MACs"
    assert isinstance(expanded(after, ExpandGrouped(), profile)[1][0], Declined)
    everything, _ = expanded(graph, ExpandGrouped(always=True), profile)
    assert view(everything).group == 1


def test_a_machine_that_runs_groups_at_full_use() -> None:
    graph = grouped(4, 32, 32, size=9)
    [outcome] = expanded(graph, ExpandGrouped(), load_profile("edge_npu").profile)[1]
    reason = "edge_npu takes at least 8,640 cycles for its groups, and 13,248 with 2 at a time"
    assert outcome == Declined("Conv_0", reason)
    [outcome] = expanded(graph, ExpandGrouped(into="split"), load_profile("edge_npu").profile)[1]
    assert outcome == Declined("Conv_0", "edge_npu runs groups; a convolution for each is no faster")


def test_a_machine_that_runs_no_groups() -> None:
    profile = load_profile("max78000").profile
    graph = grouped(4, 2, 2)
    assert view(expanded(graph, ExpandGrouped(), profile)[0]).group == 1
    assert isinstance(expanded(graph, ExpandGrouped(into="split"), profile)[1][0], Applied)


def test_a_machine_that_runs_no_convolution_at_all() -> None:
    profile = load_profile("max78000").profile
    engine = profile.engines["processors"].model_copy(update={"operations": (OperationKind.DENSE,)})
    without = profile.model_copy(update={"engines": {"processors": engine}})
    [outcome] = expanded(grouped(4, 2, 2), ExpandGrouped(), without)[1]
    assert outcome == Declined("Conv_0", "no engine of max78000 runs it, with groups or without")


def test_least_cycles_by_hand() -> None:
    """max78000: 64 channels x 3 x 3 taps a cycle; 100 pixels of 8 outputs of 2 inputs keep 18 lanes busy."""
    sizes = ConvolutionSizes(1, 1, 8, 2, (10, 10), (10, 10), (3, 3))
    profile = load_profile("max78000").profile
    assert sizes.macs == 100 * 8 * 2 * 9
    assert least_cycles(sizes, profile) == sizes.macs / 18
    assert least_cycles(ConvolutionSizes(1, 2, 4, 1, (10, 10), (10, 10), (3, 3)), profile) == float("inf")
