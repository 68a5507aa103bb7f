"""remove-no-ops: every kind of operator without effect, and those that only look like one."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from codesign.graph.graph import Graph
from codesign.rewriting.graph_pass import Applied, Declined, Outcome, PassContext
from codesign.rewriting.pipeline import Pipeline
from codesign.rewriting.runner import run_pipeline
from passes.remove_no_ops import RemoveNoOps
from tests.pass_models import Arrays, difference, graph_of, operators, proto_of
from tests.pass_networks import network

SHAPE = (2, 4, 6, 6)
Node = tuple[str, tuple[str, ...], dict[str, Any]]


def between(nodes: list[Node], constants: Arrays, shape: tuple[int, ...] = SHAPE) -> Graph:
    """x -> Neg -> the nodes, each on the result before it ("@") and constants -> Neg -> y. An import folds some."""
    made, value = [helper.make_node("Neg", ["x"], ["v0"])], "v0"
    for number, (op, inputs, attributes) in enumerate(nodes, 1):
        names = [value if name == "@" else name for name in inputs]
        made.append(helper.make_node(op, names, [f"v{number}"], name=f"{op}_{number}", **attributes))
        value = f"v{number}"
    made.append(helper.make_node("Neg", [value], ["y"]))
    proto = proto_of(made, {"x": shape}, {"y": None}, constants, opset=18)
    return Graph(ir.from_proto(onnx.shape_inference.infer_shapes(proto, data_prop=True)), "network", "0" * 64)


def removed(graph: Graph) -> tuple[Graph, list[Outcome]]:
    """The graph after the pass, which must compute the same, and what the pass said."""
    after = graph.copy()
    outcomes = RemoveNoOps().run(after, PassContext())
    checked, [record] = run_pipeline(graph, Pipeline("one", (RemoveNoOps(),)), PassContext())
    assert record.applied == sum(isinstance(outcome, Applied) for outcome in outcomes)
    assert operators(checked) == operators(after)
    assert difference(graph, after) < 1e-6
    return after, outcomes


def i64(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


NOTHING: dict[str, tuple[list[Node], dict[str, np.ndarray]]] = {
    "Identity leaves its input as it is": ([("Identity", ("@",), {})], {}),
    "Reshape leaves its input as it is": ([("Reshape", ("@", "t"), {})], {"t": i64(2, 4, 6, -1)}),
    "Expand leaves its input as it is": ([("Expand", ("@", "t"), {})], {"t": i64(4, 1, 6)}),
    "Tile leaves its input as it is": ([("Tile", ("@", "t"), {})], {"t": i64(1, 1, 1, 1)}),
    "DepthToSpace leaves its input as it is": ([("DepthToSpace", ("@",), {"blocksize": 1})], {}),
    "Split leaves its input as it is": ([("Split", ("@", "t"), {"axis": 1})], {"t": i64(4)}),
    "Concat of one tensor": ([("Concat", ("@",), {"axis": 1})], {}),
    "Sum of one tensor": ([("Sum", ("@",), {})], {}),
    "Cast to the type it has already": ([("Cast", ("@",), {"to": onnx.TensorProto.FLOAT})], {}),
    "Slice takes all of its input": ([("Slice", ("@", "b", "e", "a"), {})], {"b": i64(0), "e": i64(99), "a": i64(1)}),
    "Pad adds nothing": ([("Pad", ("@", "t"), {})], {"t": np.zeros(8, np.int64)}),
    "Transpose changes no order": ([("Transpose", ("@",), {"perm": [0, 1, 2, 3]})], {}),
    "Dropout does nothing at inference": ([("Dropout", ("@",), {})], {}),
    "Resize to the size it has already": ([("Resize", ("@", "", "", "t"), {"mode": "linear"})], {"t": i64(*SHAPE)}),
    "MaxPool over single elements": ([("MaxPool", ("@",), {"kernel_shape": [1, 1]})], {}),
    "AveragePool over single elements": ([("AveragePool", ("@",), {"kernel_shape": [1, 1]})], {}),
    "Clip without bounds": ([("Clip", ("@",), {})], {}),
    "Mul by 1": ([("Mul", ("t", "@"), {})], {"t": np.ones((4, 1, 1), np.float32)}),
    "Div by 1": ([("Div", ("@", "t"), {})], {"t": np.ones(1, np.float32)}),
    "Pow by 1": ([("Pow", ("@", "t"), {})], {"t": np.ones(1, np.float32)}),
    "Add of 0": ([("Add", ("@", "t"), {})], {"t": np.zeros(1, np.float32)}),
    "Sub of 0": ([("Sub", ("@", "t"), {})], {"t": np.zeros((4, 6, 6), np.float32)}),
}


@pytest.mark.parametrize("why", NOTHING)
def test_an_operator_without_effect_goes(why: str) -> None:
    graph = between(*NOTHING[why])
    after, outcomes = removed(graph)
    assert operators(after) == ["Neg", "Neg"]
    assert [outcome.detail for outcome in outcomes if isinstance(outcome, Applied)] == [why]


LOOKALIKES: dict[str, tuple[list[Node], dict[str, np.ndarray]]] = {
    "backwards": (
        [("Slice", ("@", "b", "e", "a", "b"), {})],
        {"b": i64(-1), "e": i64(-99), "a": i64(2)},
    ),
    "moved": ([("Pad", ("@", "t"), {})], {"t": i64(0, 0, 1, 0, 0, 0, -1, 0)}),
    "turned": ([("Transpose", ("@",), {"perm": [0, 1, 3, 2]})], {}),
    "one in most places": ([("Mul", ("@", "t"), {})], {"t": np.array([1, 1, 1, 2], np.float32).reshape(4, 1, 1)}),
    "from the other side": ([("Sub", ("t", "@"), {})], {"t": np.zeros(1, np.float32)}),
    "broadcast": ([("Add", ("@", "t"), {})], {"t": np.zeros((3, 1, 1, 1, 1), np.float32)}),
    "strided": ([("MaxPool", ("@",), {"kernel_shape": [1, 1], "strides": [2, 2]})], {}),
    "window": ([("MaxPool", ("@",), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]})], {}),
    "shifted samples": (
        [("Resize", ("@", "", "t"), {"mode": "linear"})],
        {"t": np.array([1, 1, 1.1, 1.1], np.float32)},
    ),
    "signed": ([("Relu", ("@",), {})], {}),
    "narrow": ([("Clip", ("@", "low", "high"), {})], {"low": np.float32(-1), "high": np.float32(1)}),
    "negative slope first": ([("LeakyRelu", ("@",), {"alpha": 0.1}), ("Relu", ("@",), {})], {}),
    "Relu before a Clip that lets negative numbers pass": (
        [("Relu", ("@",), {}), ("Clip", ("@", "low"), {}), ("Neg", ("@",), {})],
        {"low": np.float32(0.5)},
    ),
}


@pytest.mark.parametrize("case", LOOKALIKES)
def test_what_only_looks_like_a_no_op_stays(case: str) -> None:
    graph = between(*LOOKALIKES[case])
    after, outcomes = removed(graph)
    kept = 1 if case.startswith("Relu before") else 0  # this Clip raises negative numbers after all: the Relu goes
    assert len(graph.nodes) - len(after.nodes) == kept == len(outcomes)


@pytest.mark.parametrize(
    ("nodes", "constants", "left", "why"),
    [
        (
            [("Transpose", ("@",), {"perm": [0, 2, 3, 1]}), ("Transpose", ("@",), {"perm": [0, 3, 1, 2]})],
            {},
            [],
            ["Transpose back to the order before Transpose Transpose_1", "nothing reads it"],
        ),
        (
            [("Transpose", ("@",), {"perm": [0, 2, 3, 1]}), ("Transpose", ("@",), {"perm": [0, 1, 3, 2]})],
            {},
            ["Transpose"],
            ["does the work of Transpose Transpose_1 too"],
        ),
        (
            [("Unsqueeze", ("@", "a"), {}), ("Squeeze", ("@", "a"), {})],
            {"a": i64(1)},
            [],
            ["Squeeze back to the shape before Unsqueeze Unsqueeze_1", "nothing reads it"],
        ),
        (
            [("Reshape", ("@", "t"), {}), ("Flatten", ("@",), {"axis": 2})],
            {"t": i64(2, 2, 2, -1)},
            ["Reshape"],
            ["does the work of Reshape Reshape_1 too"],
        ),
        ([("Relu", ("@",), {}), ("Relu", ("@",), {})], {}, ["Relu"], ["Relu before Relu Relu_2"]),
        (
            [("Relu", ("@",), {}), ("Clip", ("@", "low", "high"), {})],
            {"low": np.float32(0), "high": np.float32(6)},
            ["Clip"],
            ["Relu before Clip Clip_2"],
        ),
        (
            [("Sigmoid", ("@",), {}), ("MaxPool", ("@",), {"kernel_shape": [2, 2]}), ("Relu", ("@",), {})],
            {},
            ["Sigmoid", "MaxPool"],
            ["Relu of numbers that are not negative"],
        ),
        (
            [("Sigmoid", ("@",), {}), ("Clip", ("@", "low", "high"), {})],
            {"low": np.float32(0), "high": np.float32(1)},
            ["Sigmoid"],
            ["Clip of numbers that lie within its bounds"],
        ),
    ],
)
def test_two_operators_in_a_row(
    nodes: list[Node], constants: dict[str, np.ndarray], left: list[str], why: list[str]
) -> None:
    after, outcomes = removed(between(nodes, constants))
    assert operators(after) == ["Neg", *left, "Neg"]
    assert [outcome.detail for outcome in outcomes if isinstance(outcome, Applied)] == why


def test_a_merged_reshape_keeps_the_batch_open() -> None:
    nodes: list[Node] = [("Reshape", ("@", "t"), {}), ("Reshape", ("@", "u"), {})]
    after, _ = removed(between(nodes, {"t": i64(2, 2, 72), "u": i64(2, 144)}))
    target = after.nodes[1].inputs[1]
    assert target is not None and target.const_value is not None
    assert target.const_value.numpy().tolist() == [0, 144]


def test_parts_put_together_again() -> None:
    nodes = [
        helper.make_node("Split", ["x", "sizes"], ["a", "b"], axis=1),
        helper.make_node("Concat", ["a", "b"], ["c"], axis=1),
        helper.make_node("Concat", ["b", "a"], ["d"], axis=1),
        helper.make_node("Neg", ["c"], ["y"]),
        helper.make_node("Neg", ["d"], ["z"]),
    ]
    graph = graph_of(proto_of(nodes, {"x": (1, 4, 2)}, {"y": None, "z": None}, {"sizes": i64(1, 3)}))
    after, outcomes = removed(graph)
    assert operators(after) == ["Split", "Concat", "Neg", "Neg"]
    assert outcomes == [Applied("Concat_1", "Concat of all parts of Split Split_0")]


def test_the_same_computed_twice_by_value_of_its_constants() -> None:
    nodes = [
        helper.make_node("Mul", ["x", "half"], ["a"]),
        helper.make_node("Mul", ["x", "half_too"], ["b"]),
        helper.make_node("Mul", ["x", "third"], ["c"]),
        helper.make_node("Elu", ["a"], ["d"]),
        helper.make_node("Elu", ["b"], ["e"]),
        helper.make_node("Elu", ["b"], ["f"], alpha=0.5),
        helper.make_node("Sum", ["c", "d", "e", "f"], ["y"]),
    ]
    constants = {"half": np.float32(0.5), "half_too": np.float32(0.5), "third": np.float32(0.3)}
    after, outcomes = removed(graph_of(proto_of(nodes, {"x": (3, 4)}, {"y": None}, constants)))
    assert operators(after) == ["Mul", "Mul", "Elu", "Elu", "Sum"]
    assert outcomes == [
        Applied("Mul_1", "Mul Mul_0 computes the same"),
        Applied("Elu_4", "Elu Elu_3 computes the same"),
    ]


def test_outputs_keep_their_names() -> None:
    """An operator between input and output stays, so does one of two outputs; one behind an operator may go."""
    nodes = [
        helper.make_node("Identity", ["x"], ["same"]),
        helper.make_node("Neg", ["x"], ["a"]),
        helper.make_node("Clip", ["a"], ["y"]),
        helper.make_node("Clip", ["y"], ["z"]),
        helper.make_node("Exp", ["x"], ["e1"]),
        helper.make_node("Exp", ["x"], ["e2"]),
    ]
    graph = graph_of(proto_of(nodes, {"x": (3,)}, dict.fromkeys(("same", "y", "z", "e1", "e2")), {}))
    after, outcomes = removed(graph)
    assert [value.name for value in after.outputs] == ["same", "y", "z", "e1", "e2"]
    declined = [outcome for outcome in outcomes if isinstance(outcome, Declined)]
    assert declined == [
        Declined(
            "Identity_0",
            "Identity leaves its input as it is, but it makes the output same of x, which is no operator's result",
        ),
        Declined("Clip_3", "Clip without bounds, but z and y are both outputs of the graph"),
        Declined("Exp_5", "Exp Exp_4 computes the same; e2 is an output"),
    ]


def test_a_relu_whose_result_is_an_output_stays() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Clip", ["y", "low"], ["z"])]
    graph = graph_of(proto_of(nodes, {"x": (3,)}, {"y": None, "z": None}, {"low": np.float32(0.25)}))
    assert removed(graph)[1] == []


def test_everything_at_once() -> None:
    after, _ = removed(network("no_ops"))
    assert operators(after) == [
        *("Conv", "BatchNormalization", "Clip", "MaxPool", "Mul", "Conv", "Add", "GlobalAveragePool", "Flatten")
    ]
