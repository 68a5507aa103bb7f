"""The host tail: front and tail together equal onnxruntime on the original, and no tensor exceeds its bound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from codesign.graph.graph import Graph
from codesign.importers.onnx_importer import load_onnx
from tests.importers.models import Arrays, model, random, run, run_graph, save, values

IMAGE = {"image": random(7, 1, 3, 6, 6)}


def stem(
    *tail: onnx.NodeProto, output: str = "y", element: int = TensorProto.FLOAT, **weights: object
) -> onnx.ModelProto:
    """A convolution [1, 4, 6, 6] -> `c`, then the tail."""
    nodes = [helper.make_node("Conv", ["image", "w"], ["c"], name="stem", pads=[1, 1, 1, 1]), *tail]
    outputs = values({output: None}, element)
    known = {"w": random(0, 4, 3, 3, 3), **weights}
    return model(nodes, values({"image": [1, 3, 6, 6]}), outputs, known)  # type: ignore[arg-type]


def integers(*numbers: int) -> np.ndarray:  # type: ignore[type-arg]
    return np.array(numbers, np.int64)


def node(op: str, inputs: list[str], outputs: list[str], **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs, outputs, name=f"{op}_{outputs[0]}", **attributes)


def non_zero() -> onnx.ModelProto:
    """At most all 144 elements; then at most 20 of them, by shape arithmetic on a size that depends on data."""
    return stem(
        node("Relu", ["c"], ["r"]),
        node("NonZero", ["r"], ["where"]),
        node("Shape", ["where"], ["shape"]),
        node("Gather", ["shape", "one"], ["count"]),
        node("Min", ["count", "twenty"], ["k"]),
        node("Slice", ["where", "zero", "k", "one"], ["y"]),
        element=TensorProto.INT64,
        one=integers(1),
        twenty=integers(20),
        zero=integers(0),
    )


def top_k_of_data() -> onnx.ModelProto:
    """As many as are positive: k is only known from data, the axis bounds it."""
    return stem(
        node("Reshape", ["c", "flat"], ["f"]),
        node("Greater", ["f", "nought"], ["positive"]),
        node("Cast", ["positive"], ["as_int"], to=TensorProto.INT64),
        node("ReduceSum", ["as_int"], ["k"], keepdims=1),
        node("TopK", ["f", "k"], ["y", "index"]),
        flat=integers(-1),
        nought=np.array(0, np.float32),
    )


def suppression() -> onnx.ModelProto:
    """36 boxes, 2 classes, at most 3 boxes a class; a TopK of 10 candidates comes before and goes along."""
    return stem(
        node("Reshape", ["c", "by_box"], ["boxes"]),
        node("Transpose", ["boxes"], ["boxes_last"], perm=[0, 2, 1]),
        node("ReduceSum", ["boxes_last", "last"], ["score"], keepdims=0),
        node("TopK", ["score", "ten"], ["best", "index"]),
        node("Gather", ["boxes_last", "index"], ["picked"], axis=1),
        node("Squeeze", ["picked", "second"], ["candidates"]),
        node("Unsqueeze", ["best", "second"], ["scores1"]),
        node("Concat", ["scores1", "scores1"], ["scores"], axis=1),
        node("NonMaxSuppression", ["candidates", "scores", "three", "threshold"], ["y"]),
        element=TensorProto.INT64,
        by_box=integers(1, 4, 36),
        last=integers(2),
        ten=integers(10),
        second=integers(1),
        three=integers(3),
        threshold=np.array(0.5, np.float32),
    )


def unique() -> onnx.ModelProto:
    return stem(
        node("Round", ["c"], ["r"]),
        node("Unique", ["r"], ["u"]),
        node("Mul", ["u", "u"], ["y"]),
    )


CASES = {
    "non_zero": (non_zero, {"where": 4 * 144, "y": 4 * 20}),
    "top_k_of_data": (top_k_of_data, {"y": 144, "index": 144}),
    "unique": (unique, {"u": 144, "y": 144}),
}


@pytest.mark.parametrize("case", CASES)
def test_front_and_tail_equal_the_original_within_bounds(case: str, tmp_path: Path) -> None:
    build, expected = CASES[case]
    path = save(build(), tmp_path)
    graph = load_onnx(path)
    assert graph.host_tail is not None
    bounds = {bound.name: bound.elements for bound in graph.host_tail.bounds}
    assert {name: bounds[name] for name in expected} == expected
    np.testing.assert_allclose(run_graph(graph, IMAGE)["y"], run(path, IMAGE)["y"], rtol=1e-6)
    assert_within_bounds(graph, IMAGE)
    assert all(value.shape is not None and value.shape.is_static() for n in graph.nodes for value in n.outputs)


def assert_within_bounds(graph: Graph, feeds: Arrays) -> None:
    """Every tensor of the tail, run by onnxruntime, against its stated bound and element size."""
    assert graph.host_tail is not None
    proto = ir.to_proto(graph.host_tail.model)
    cut = run(ir.to_proto(graph.model), feeds) | feeds
    bounds = {bound.name: bound for bound in graph.host_tail.bounds}
    made = [name for n in proto.graph.node for name in n.output if name]
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made)
    for name, found in run(proto, {value.name: cut[value.name] for value in proto.graph.input}).items():
        assert found.size <= bounds[name].elements
        assert found.itemsize == bounds[name].element_bytes


def test_suppression_takes_its_candidates_along(tmp_path: Path) -> None:
    proto = suppression()
    gather = next(n for n in proto.graph.node if n.op_type == "Gather")
    gather.input[1] = "row"
    squeeze = node("Squeeze", ["index", "nought"], ["row"])
    proto.graph.initializer.append(onnx.numpy_helper.from_array(integers(0), "nought"))
    proto.graph.node.insert(list(proto.graph.node).index(gather), squeeze)
    squeezed = next(n for n in proto.graph.node if n.output[0] == "candidates")
    squeezed.CopyFrom(node("Identity", ["picked"], ["candidates"]))
    path = save(proto, tmp_path)
    graph = load_onnx(path)
    assert graph.host_tail is not None
    operators = [operator for _, operator in graph.host_tail.nodes]
    assert "TopK" in operators and "Conv" not in operators and "ReduceSum" not in operators
    assert [value.name for value in graph.outputs] == ["score", "boxes_last"]
    bounds = {bound.name: bound.elements for bound in graph.host_tail.bounds}
    assert bounds["y"] == 2 * 3 * 3
    np.testing.assert_array_equal(run_graph(graph, IMAGE)["y"], run(path, IMAGE)["y"])
    assert_within_bounds(graph, IMAGE)


def test_static_top_k_is_not_cut(tmp_path: Path) -> None:
    """Negative control: the same operators with sizes that do not depend on data stay."""
    proto = stem(node("TopK", ["c", "two"], ["y", "index"]), two=integers(2))
    graph = load_onnx(save(proto, tmp_path))
    assert graph.host_tail is None
    assert [n.op_type for n in graph.nodes] == ["Conv", "TopK"]


def test_branches_of_an_if_read_from_outside(tmp_path: Path) -> None:
    """The larger branch bounds the result; what the branches capture is cut too."""
    then = helper.make_graph([helper.make_node("Neg", ["c"], ["n"])], "then", [], values({"n": [1, 4, 6, 6]}))
    small = helper.make_node("ReduceSum", ["r"], ["s"], keepdims=1)
    other = helper.make_graph([small], "else", [], values({"s": [1, 1, 1, 1]}))
    proto = stem(
        node("Relu", ["c"], ["r"]),
        node("ReduceMax", ["c"], ["most"], keepdims=0),
        node("Greater", ["most", "limit"], ["large"]),
        node("If", ["large"], ["y"], then_branch=then, else_branch=other),
        limit=np.array(1e9, np.float32),
    )
    path = save(proto, tmp_path)
    graph = load_onnx(path)
    assert graph.host_tail is not None
    assert {value.name for value in graph.outputs} >= {"c", "r"}
    assert {bound.name: bound.elements for bound in graph.host_tail.bounds}["y"] == 144
    np.testing.assert_allclose(run_graph(graph, IMAGE)["y"], run(path, IMAGE)["y"], rtol=1e-5)


def test_outputs_before_the_cut_stay_with_the_graph(tmp_path: Path) -> None:
    proto = stem(node("Relu", ["c"], ["r"]), node("NonZero", ["r"], ["y"]), element=TensorProto.INT64)
    proto.graph.output.extend(values({"c": None}))
    graph = load_onnx(save(proto, tmp_path))
    assert graph.host_tail is not None
    assert [value.name for value in graph.outputs] == ["c", "r"]
    assert [value.name for value in graph.host_tail.model.graph.outputs] == ["y"]
