"""fuse-activation: what is recognised, what is declined, and that the mark holds only where the nodes do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from codesign.graph.graph import Graph
from codesign.graph.marks import ACTIVATION, marked_groups
from codesign.rewriting.graph_pass import Applied, Declined, Outcome, PassContext
from codesign.rewriting.pipeline import resolve_pipeline
from codesign.workload.layers import layers_of
from codesign.workload.operators.table import OPERATORS

from .pass_models import graph_of, normal, proto_of, run
from .pass_networks import network
from .pass_networks.markers import WRITTEN, numbers, written

Nodes = list[onnx.NodeProto]
(PASS,) = resolve_pipeline("fuse-activation").passes


def model(nodes: Nodes, outputs: tuple[str, ...] = ("y",), more: Mapping[str, np.ndarray] | None = None) -> Graph:
    """The nodes from t to y behind a 1x1 convolution; numbers by name are constants."""
    constants = {"weights": normal(np.random.default_rng(0), 4, 3, 1, 1), **numbers(), **(more or {})}
    first = helper.make_node("Conv", ["x", "weights"], ["t"], name="conv")
    read = {name for node in (first, *nodes) for name in node.input}
    used = {name: array for name, array in constants.items() if name in read}
    return graph_of(proto_of([first, *nodes], {"x": (1, 3, 5, 5)}, dict.fromkeys(outputs), used))


def marked(graph: Graph) -> list[Outcome]:
    return PASS.run(graph, PassContext())


@pytest.mark.parametrize("spelling", WRITTEN)
def test_a_spelling_is_one_activation(spelling: str) -> None:
    graph = model(written(spelling, "t", "y", "n"))
    (outcome,) = marked(graph)
    operator = spelling.split()[0]
    operators = ", ".join(node.op_type for node in graph.nodes[1:])
    assert outcome == Applied(graph.nodes[-1].name or "", f"{operator} of conv, written as {operators}")
    (group,) = marked_groups(graph)
    assert (group.operator, group.nodes) == (operator, tuple(graph.nodes[1:]))
    conv, activation = layers_of(graph)
    assert conv.op == "Conv" and activation.op == operator
    assert activation.inputs == ("t",) and activation.outputs == ("y",)
    assert operator in OPERATORS


@pytest.mark.parametrize("spelling", WRITTEN)
def test_the_operator_it_is_named_after_computes_the_same(spelling: str) -> None:
    """onnxruntime on the nodes, against the operator of that name where onnxruntime has it."""
    operator, attributes = spelling.split()[0], ATTRIBUTES.get(spelling, {})
    bounds = ["zero", "six"] if operator == "Clip" else []
    if operator == "Swish":  # onnxruntime has it as an operator of its own, with a slope
        one = helper.make_node("QuickGelu", ["x"], ["y"], domain="com.microsoft", **attributes)
    else:
        one = helper.make_node(operator, ["x", *bounds], ["y"], **attributes)
    line = {"x": np.linspace(-9, 9, 64, dtype=np.float32).reshape(1, 4, 4, 4)}
    apart = run(_alone(written(spelling, "x", "y", "n")), line)
    assert np.abs(apart["y"] - run(_alone([one]), line)["y"]).max() < 1e-5


ATTRIBUTES: dict[str, dict[str, Any]] = {
    "Swish": {"alpha": 1.0},
    "Swish of slope 1.702": {"alpha": 1.702},
    "Gelu by tanh": {"approximate": "tanh"},
    "HardSigmoid": {"alpha": 1 / 6, "beta": 0.5},
}


def _alone(nodes: Nodes) -> onnx.ModelProto:
    read = {name for node in nodes for name in node.input}
    used = {name: array for name, array in numbers().items() if name in read}
    proto = proto_of(nodes, {"x": (1, 4, 4, 4)}, {"y": (1, 4, 4, 4)}, used, opset=20)
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return proto


def test_operations_are_those_of_the_nodes() -> None:
    graph = model(written("HardSwish", "t", "y", "n"))
    apart = layers_of(graph)[1:]
    marked(graph)
    _, group = layers_of(graph)
    assert group.members == apart
    assert group.nest.operations == sum(layer.nest.operations for layer in apart) == 5 * 4 * 5 * 5
    assert (group.nest.input_elements, group.nest.output_elements) == (4 * 5 * 5, 4 * 5 * 5)
    assert sum(layer.nest.input_elements for layer in apart) == 5 * 4 * 5 * 5


def test_the_longest_known_function_wins() -> None:
    """The Add, Clip, Div of a hard swish alone are a hard sigmoid; a scale behind it is none of it."""
    nodes = [*written("HardSwish", "t", "s", "n"), helper.make_node("Mul", ["s", "half"], ["y"], name="scale")]
    graph = model(nodes)
    assert [outcome.detail for outcome in marked(graph) if isinstance(outcome, Applied)] == [
        "HardSwish of conv, written as Add, Clip, Div, Mul"
    ]
    assert [layer.op for layer in layers_of(graph)] == ["Conv", "HardSwish", "Mul"]


def test_a_single_activation_is_marked_too() -> None:
    slopes = {"slopes": np.full((4, 1, 1), 0.2, np.float32)}
    graph = model(
        [
            helper.make_node("Relu", ["t"], ["a"], name="relu"),
            helper.make_node("PRelu", ["a", "slopes"], ["y"], name="prelu"),
        ],
        more=slopes,
    )
    before = layers_of(graph)
    assert marked(graph) == [
        Applied("relu", "Relu of conv"),
        Applied("prelu", "PRelu of relu"),
    ]
    assert layers_of(graph) == before


def test_a_gate_of_another_tensor_is_no_activation_of_one() -> None:
    """Squeeze and excite: Mul(x, Sigmoid(pooled)) reads two tensors; the sigmoid is an activation of its own."""
    graph = model(
        [
            helper.make_node("GlobalAveragePool", ["t"], ["p"], name="pool"),
            helper.make_node("Sigmoid", ["p"], ["s"], name="sigmoid"),
            helper.make_node("Mul", ["t", "s"], ["y"], name="gate"),
        ]
    )
    assert marked(graph) == [Applied("sigmoid", "Sigmoid of pool")]


def test_inner_results_used_elsewhere_are_told() -> None:
    nodes = [*written("Swish", "t", "y", "n"), helper.make_node("Neg", ["n_s"], ["z"], name="other")]
    graph = model(nodes, ("y", "z"))
    assert marked(graph) == [
        Applied("n_n_s_Sigmoid", "Sigmoid of conv"),
        Declined("n_y_Mul", "Sigmoid, Mul compute Swish, but the result of Sigmoid is used elsewhere too"),
    ]


def test_an_inner_result_that_is_an_output_is_told() -> None:
    graph = model(written("Mish", "t", "y", "n"), ("y", "n_t"))
    assert Declined(
        "n_y_Mul", "Softplus, Tanh, Mul compute Mish, but the result of Tanh is used elsewhere too"
    ) in marked(graph)


def test_an_unknown_function_is_told_once() -> None:
    graph = model(
        [
            helper.make_node("Exp", ["t"], ["e"], name="exp"),
            helper.make_node("Mul", ["e", "half"], ["m"], name="scale"),
            helper.make_node("Add", ["m", "one"], ["y"], name="shift"),
        ]
    )
    reason = "Exp, Mul, Add compute no activation known here; each of them stays a pass over the data"
    assert marked(graph) == [Declined("shift", reason)]


def test_a_scale_and_shift_is_no_candidate() -> None:
    graph = model(
        [
            helper.make_node("Mul", ["t", "half"], ["m"], name="scale"),
            helper.make_node("Add", ["m", "one"], ["y"], name="shift"),
        ]
    )
    assert marked(graph) == []


def test_a_vector_constant_is_no_part_of_an_activation() -> None:
    """x Sigmoid(b x) with a slope for every channel is another function on every channel."""
    slopes = {"slopes": np.linspace(1, 2, 4, dtype=np.float32).reshape(4, 1, 1)}
    graph = model(
        [
            helper.make_node("Mul", ["t", "slopes"], ["a"], name="slope"),
            helper.make_node("Sigmoid", ["a"], ["s"], name="sigmoid"),
            helper.make_node("Mul", ["t", "s"], ["y"], name="gate"),
        ],
        more=slopes,
    )
    assert marked(graph) == [Applied("sigmoid", "Sigmoid of slope")]


# ---- marks are believed where they hold


def test_a_mark_that_no_longer_holds_is_not_believed_and_then_removed() -> None:
    graph = model(written("Swish", "t", "y", "n"))
    marked(graph)
    multiplication = graph.nodes[-1]
    multiplication.replace_input_with(0, graph.inputs[0])  # of another tensor now (and another shape)
    multiplication.replace_input_with(1, graph.inputs[0])
    assert marked_groups(graph) == ()
    assert [layer.op for layer in layers_of(graph)] == ["Conv", "Sigmoid", "Mul"]
    assert Applied("n_y_Mul", "no longer marked: it is part of no activation") in marked(graph)
    assert ACTIVATION not in multiplication.metadata_props


def test_a_result_somebody_else_came_to_read_ends_the_group() -> None:
    graph = model(written("Swish", "t", "y", "n"))
    marked(graph)
    sigmoid, multiplication = graph.nodes[1:]
    extra = ir.Node("", "Neg", [sigmoid.outputs[0]], name="extra")
    extra.outputs[0].shape = multiplication.outputs[0].shape
    graph.model.graph.insert_after(sigmoid, extra)
    assert marked_groups(graph) == ()


def test_marks_survive_the_file() -> None:
    graph = model(written("Gelu", "t", "y", "n"))
    marked(graph)
    again = graph_of(ir.to_proto(graph.model))
    assert [layer.op for layer in layers_of(again)] == ["Conv", "Gelu"]


def test_all_spellings_in_one_network() -> None:
    graph = network("exported_activations")
    outcomes = marked(graph)
    assert len(outcomes) == len(WRITTEN) and all(isinstance(outcome, Applied) for outcome in outcomes)
    ops = [layer.op for layer in layers_of(graph)]
    assert [op for op in ops if op not in ("Conv", "BatchNormalization")] == [name.split()[0] for name in WRITTEN]


# ---- any chain of element-wise operators

STEPS = ("Relu", "Sigmoid", "Tanh", "Neg", "Add", "Mul", "square", "gate")


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.sampled_from(STEPS), min_size=1, max_size=6), tapped=st.integers(0, 6))
def test_groups_of_any_chain_are_one_tensor_in_and_one_out(steps: list[str], tapped: int) -> None:
    """Marked groups are disjoint, read one tensor, show one; layers chain up; operations are all there."""
    nodes, values = [], ["t"]
    for number, step in enumerate(steps):
        x, y = values[-1], f"v{number}"
        match step:
            case "Add" | "Mul":
                inputs, operator = [x, "half"], step
            case "square":
                inputs, operator = [x, x], "Mul"
            case "gate":
                inputs, operator = [values[max(0, len(values) - 2)], x], "Mul"
            case _:
                inputs, operator = [x], step
        nodes.append(helper.make_node(operator, inputs, [y], name=f"node{number}"))
        values.append(y)
    outputs = tuple(dict.fromkeys([values[-1], values[min(tapped, len(values) - 1)]]))
    graph = model(nodes, tuple(name for name in outputs if name != "t") or (values[-1],))
    apart = layers_of(graph)
    marked(graph)
    groups = marked_groups(graph)
    members = [node for group in groups for node in group.nodes]
    assert len(members) == len(set(members))
    together = layers_of(graph)
    assert sum(layer.nest.operations for layer in together) == sum(layer.nest.operations for layer in apart)
    made = {name for layer in together for name in layer.outputs} | {"x"}
    assert all(set(layer.inputs) <= made for layer in together)
    assert {str(value.name) for value in graph.outputs} <= made
    assert not any(isinstance(outcome, Applied) for outcome in marked(graph))
