"""fuse-residual-add: which operand's layer adds, what moves, what is declined, and that planning follows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from codesign.graph.graph import Graph, node_name
from codesign.graph.marks import ADDED_TO
from codesign.hardware.loading import load_profile
from codesign.mapping.objective import Objective
from codesign.planning.fusion import fuse
from codesign.planning.placement import Placer, as_units_run
from codesign.planning.plan import PlannedLayer
from codesign.rewriting.graph_pass import Applied, Declined, Outcome, PassContext
from codesign.rewriting.pipeline import resolve_pipeline
from codesign.workload.layers import layers_of

from .pass_models import RELATIVE_TOLERANCE, difference, graph_of, normal, proto_of
from .pass_networks import network

Nodes = list[onnx.NodeProto]
(PASS,) = resolve_pipeline("fuse-residual-add").passes


def conv(x: str, y: str, weights: str = "w") -> onnx.NodeProto:
    return helper.make_node("Conv", [x, weights], [y], name=f"make_{y}")


def pool(x: str, y: str) -> onnx.NodeProto:
    return helper.make_node("MaxPool", [x], [y], name=f"make_{y}", kernel_shape=[3, 3], pads=[1, 1, 1, 1])


def node(operator: str, inputs: list[str], y: str) -> onnx.NodeProto:
    return helper.make_node(operator, inputs, [y], name=f"make_{y}")


def model(nodes: Nodes, outputs: tuple[str, ...] = ("y",), more: Mapping[str, np.ndarray] | None = None) -> Graph:
    """Nodes from x [1, 4, 5, 5]; every convolution reads the same weights."""
    constants = {"w": normal(np.random.default_rng(0), 4, 4, 1, 1) / 2, **(more or {})}
    read = {name for made in nodes for name in made.input}
    used = {name: array for name, array in constants.items() if name in read}
    return graph_of(proto_of(nodes, {"x": (1, 4, 5, 5)}, dict.fromkeys(outputs), used))


def marked(graph: Graph) -> list[Outcome]:
    return PASS.run(graph, PassContext())


def order(graph: Graph) -> list[str]:
    return [str(made.outputs[0].name) for made in graph.nodes]


def test_a_layer_that_runs_last_anyway_stays() -> None:
    graph = model([conv("x", "a"), conv("a", "b"), node("Add", ["b", "a"], "y")])
    assert marked(graph) == [Applied("make_y", "added on the way out of make_b")]
    assert order(graph) == ["a", "b", "y"]
    assert graph.nodes[-1].metadata_props[ADDED_TO] == "make_b"
    assert marked(graph) == []


def test_a_layer_before_the_other_operand_runs_after_it() -> None:
    nodes = [conv("x", "a"), conv("a", "b"), node("Relu", ["b"], "c"), pool("a", "p"), node("Add", ["c", "p"], "y")]
    before = model(nodes)
    graph = before.copy()
    assert marked(graph) == [
        Applied("make_y", "added on the way out of make_b, which now runs after the other operands' layers")
    ]
    assert order(graph) == ["a", "p", "b", "c", "y"]
    assert marked(graph) == [] and difference(before, graph) == 0


def test_of_two_layers_the_later_adds() -> None:
    nodes = [conv("x", "a"), conv("x", "b"), node("Add", ["a", "b"], "y")]
    assert marked(model(nodes)) == [Applied("make_y", "added on the way out of make_b")]


def test_a_layer_that_runs_last_is_taken_before_a_later_one_that_would_move() -> None:
    nodes = [conv("x", "a"), conv("x", "b"), node("Relu", ["a"], "c"), node("Sum", ["b", "c"], "y")]
    graph = model(nodes)
    (outcome,) = marked(graph)
    assert outcome == Applied(
        "make_y", "added on the way out of make_b, which now runs after the other operands' layers"
    )
    assert order(graph) == ["a", "c", "b", "y"]


def test_a_gated_activation_on_the_way() -> None:
    nodes = [
        pool("x", "p"),
        conv("x", "a"),
        node("Sigmoid", ["a"], "s"),
        node("Mul", ["a", "s"], "m"),
        node("Add", ["m", "p"], "y"),
    ]
    assert marked(model(nodes)) == [Applied("make_y", "added on the way out of make_a")]


def test_a_sum_of_three() -> None:
    nodes = [conv("x", "a"), pool("x", "p"), node("Sum", ["p", "a", "x"], "y")]
    graph = model(nodes)
    assert "after the other operands' layers" in str(marked(graph))
    assert order(graph) == ["p", "a", "y"]


CASES: dict[str, tuple[Nodes, tuple[str, ...], str]] = {
    "other readers": (
        [conv("x", "a"), node("Relu", ["a"], "z"), node("Add", ["a", "x"], "y")],
        ("y", "z"),
        "a is used elsewhere too; x is an input of the network",
    ),
    "an output": (
        [conv("x", "a"), node("Add", ["x", "a"], "y")],
        ("y", "a"),
        "x is an input of the network; a is used elsewhere too",
    ),
    "poolings": (
        [pool("x", "p"), pool("p", "q"), node("Add", ["p", "q"], "y")],
        ("y",),
        "p is used elsewhere too; q comes from MaxPool make_q",
    ),
    "its own activation": (
        [conv("x", "a"), node("Relu", ["a"], "b"), node("Add", ["a", "b"], "y")],
        ("y",),
        "a is used elsewhere too; a is used elsewhere too",
    ),
    "broadcast": (
        [conv("x", "a"), node("GlobalAveragePool", ["x"], "p"), node("Add", ["a", "p"], "y")],
        ("y",),
        "it adds 1x4x5x5 and 1x4x1x1: nothing is broadcast on the way out of a layer",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_declined(case: str) -> None:
    nodes, outputs, reason = CASES[case]
    graph = model(nodes, outputs)
    made = order(graph)
    assert marked(graph) == [Declined("make_y", reason)]
    assert order(graph) == made


def test_a_bias_is_no_residual() -> None:
    bias = {"bias": np.ones((1, 4, 1, 1), np.float32)}
    assert marked(model([conv("x", "a"), node("Add", ["a", "bias"], "y")], more=bias)) == []


def test_a_bias_may_stand_between() -> None:
    bias = {"bias": np.ones((1, 4, 1, 1), np.float32)}
    nodes = [conv("x", "a"), node("Add", ["a", "bias"], "b"), node("Add", ["b", "x"], "y")]
    assert marked(model(nodes, more=bias)) == [Applied("make_y", "added on the way out of make_a")]


def test_a_mark_that_no_longer_holds_is_removed() -> None:
    graph = model([conv("x", "a"), node("Add", ["a", "x"], "y")])
    marked(graph)
    addition = graph.nodes[-1]
    addition.replace_input_with(0, graph.inputs[0])
    assert marked(graph) == [Applied("make_y", "no longer marked: it adds no two tensors")]
    graph = model([conv("x", "a"), node("Add", ["a", "x"], "y")])
    graph.nodes[-1].metadata_props[ADDED_TO] = "somebody"
    assert marked(graph) == [Applied("make_y", "added on the way out of make_a")]


# ---- planning follows, and it never costs more

MACHINE = load_profile("nvdla_small").profile


def planned(graph: Graph) -> list[PlannedLayer]:
    placer = Placer(MACHINE, Objective.LATENCY, "model.onnx")
    units = [unit for layer in layers_of(graph) for unit in as_units_run(layer, MACHINE)]
    outputs = frozenset(str(value.name) for value in graph.outputs)
    return fuse([placer.place(unit) for unit in units], outputs, MACHINE)


def cycles(layers: list[PlannedLayer]) -> int:
    return sum(layer.cost.cycles for layer in layers)


def test_the_planner_adds_where_the_mark_says() -> None:
    graph = network("residuals")
    before = {layer.layer.name: layer.fused_into for layer in planned(graph)}
    assert before["late"] and not before["early"]
    marked(graph)
    after = {layer.layer.name: layer.fused_into for layer in planned(graph)}
    assert (after["late"], after["early"]) == (before["late"], "moves")
    assert all(
        made.metadata_props[ADDED_TO] == after[node_name(made)]
        for made in graph.nodes
        if ADDED_TO in made.metadata_props
        if node_name(made) != "gated"
    )


@st.composite
def networks(draw: st.DrawFn) -> Graph:
    """Convolutions, poolings, activations and additions of what was made before, in any order."""
    made, nodes = ["x"], []
    for number in range(draw(st.integers(3, 9))):
        y, sources = f"v{number}", st.sampled_from(made[-4:])
        match draw(st.sampled_from(["Conv", "Conv", "MaxPool", "Relu", "Add", "Add"])):
            case "Conv":
                nodes.append(conv(draw(sources), y))
            case "MaxPool":
                nodes.append(pool(draw(sources), y))
            case "Relu":
                nodes.append(node("Relu", [draw(sources)], y))
            case _:
                nodes.append(node("Add", [draw(sources), draw(sources)], y))
        made.append(y)
    read = {name for each in nodes for name in each.input}
    return model(nodes, tuple(name for name in made[1:] if name not in read))


@settings(max_examples=40, deadline=None)
@given(before=networks())
def test_any_network_computes_the_same_and_costs_no_more(before: Graph) -> None:
    after = before.copy()
    outcomes = marked(after)
    assert marked(after) == [outcome for outcome in outcomes if isinstance(outcome, Declined)]
    assert difference(before, after) < RELATIVE_TOLERANCE
    assert sorted(order(after)) == sorted(order(before))
    apart, together = planned(before), planned(after)
    assert cycles(together) <= cycles(apart)
    heads = {layer.layer.name: layer.fused_into for layer in together}
    for made in after.nodes:
        if ADDED_TO in made.metadata_props:
            assert heads[node_name(made)] == made.metadata_props[ADDED_TO]
