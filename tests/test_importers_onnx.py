"""What an import does to good models: the same function, static shapes, folded constants, names kept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from codesign.errors import CodesignError
from codesign.graph.graph import shape_of
from codesign.importers.model import load_model
from codesign.importers.onnx_importer import load_onnx
from tests.importers.models import SHARED, model, random, relative_difference, run, run_graph, save, values


def shape_chain(symbolic: bool = True) -> onnx.ModelProto:
    """Conv, BatchNormalization, then Flatten written as Shape, Gather, Concat, Reshape, Dropout and Identity."""
    nodes = [
        helper.make_node("Conv", ["image", "w"], ["c"], name="stem/conv", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "s", "t", "m", "v"], ["n"], name="stem/bn"),
        helper.make_node("Shape", ["n"], ["shape"]),
        helper.make_node("Constant", [], ["zero"], value_int=0),
        helper.make_node("Gather", ["shape", "zero"], ["batch"]),
        helper.make_node("Constant", [], ["axis"], value_ints=[0]),
        helper.make_node("Unsqueeze", ["batch", "axis"], ["batch1"]),
        helper.make_node("Constant", [], ["rest"], value_ints=[-1]),
        helper.make_node("Concat", ["batch1", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["n", "target"], ["flat"]),
        helper.make_node("Dropout", ["flat"], ["dropped"]),
        helper.make_node("Identity", ["dropped"], ["same"]),
        helper.make_node("Relu", ["same"], ["y"]),
        helper.make_node("Exp", ["c"], ["unused"]),
    ]
    batch_norm = {"s": random(1, 4), "t": random(2, 4), "m": random(3, 4), "v": np.abs(random(4, 4)) + 1}
    size: list[int | str] = ["batch", 3, "height", 6] if symbolic else [2, 3, 5, 6]
    return model(nodes, values({"image": size}), values({"y": None}), {"w": random(0, 4, 3, 3, 3), **batch_norm})


def test_shape_arithmetic_and_dead_nodes_go_live_batch_norm_stays(tmp_path: Path) -> None:
    path = save(shape_chain(), tmp_path)
    graph = load_onnx(path, {"image": (2, 3, 5, 6)})
    assert [node.op_type for node in graph.nodes] == ["Conv", "BatchNormalization", "Reshape", "Relu"]
    assert [node.name for node in graph.nodes] == ["stem/conv", "stem/bn", "flat", "y"]
    assert shape_of(graph.outputs[0]) == (2, 120)
    assert all(shape_of(value) for node in graph.nodes for value in node.outputs)
    used = {value.name for node in graph.nodes for value in node.inputs if value is not None}
    assert set(graph.model.graph.initializers) == used - {"image", "c", "n", "flat", "same", "dropped"}
    x = {"image": random(9, 2, 3, 5, 6)}
    np.testing.assert_allclose(run_graph(graph, x)["y"], run(path, x)["y"], rtol=1e-6)


def test_names_do_not_depend_on_the_run(tmp_path: Path) -> None:
    path = save(shape_chain(), tmp_path)
    first, second = (load_onnx(path, {"image": (1, 3, 8, 6)}) for _ in range(2))
    assert [node.name for node in first.nodes] == [node.name for node in second.nodes]
    assert first.sha256 == second.sha256


def test_duplicate_and_missing_node_names_become_unique(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="act"),
        helper.make_node("Neg", ["a"], ["b"], name="act"),
        helper.make_node("Abs", ["b"], ["y"]),
    ]
    graph = load_onnx(save(model(nodes, values({"x": [2]}), values({"y": [2]})), tmp_path))
    assert [node.name for node in graph.nodes] == ["act", "act_2", "y"]


def test_ir_4_weights_listed_as_inputs_are_no_inputs(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    inputs = values({"x": [1, 3, 4, 4], "w": [2, 3, 1, 1]})
    proto = model(nodes, inputs, values({"y": None}), {"w": random(0, 2, 3, 1, 1)}, opset=9, ir_version=3)
    graph = load_onnx(save(proto, tmp_path))
    assert [value.name for value in graph.inputs] == ["x"]
    assert list(graph.model.graph.initializers) == ["w"]


@pytest.mark.parametrize("opset", [9, 10, 11, 12, 13, 17])
def test_older_opsets_are_converted(opset: int, tmp_path: Path) -> None:
    """Softmax flattens to two dimensions before opset 13: a conversion that only renumbers changes the result."""
    nodes = [
        helper.make_node("Softmax", ["x"], ["s"], axis=1, name="soft"),
        helper.make_node("ReduceMean", ["s"], ["y"], axes=[2], name="mean"),
    ]
    proto = model(nodes, values({"x": [2, 3, 4]}), values({"y": None}), opset=opset)
    path = save(proto, tmp_path)
    graph = load_onnx(path)
    assert graph.model.graph.opset_imports[""] == 18
    assert {"soft", "mean"} & {node.name for node in graph.nodes}
    x = {"x": random(0, 2, 3, 4)}
    np.testing.assert_allclose(run_graph(graph, x)["y"], run(path, x)["y"], rtol=1e-6)


def test_newer_opsets_are_kept(tmp_path: Path) -> None:
    proto = model(
        [helper.make_node("Relu", ["x"], ["y"])], values({"x": [2]}), values({"y": [2]}), opset=21, ir_version=10
    )
    assert load_onnx(save(proto, tmp_path)).model.graph.opset_imports[""] == 21


def test_unsorted_nodes_are_sorted(tmp_path: Path) -> None:
    nodes = [helper.make_node("Neg", ["a"], ["y"], name="second"), helper.make_node("Abs", ["x"], ["a"], name="first")]
    graph = load_onnx(save(model(nodes, values({"x": [2]}), values({"y": [2]})), tmp_path))
    assert [node.name for node in graph.nodes] == ["first", "second"]


def test_outputs_keep_names_and_order_even_through_identity(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Identity", ["r"], ["second"]),
        helper.make_node("Neg", ["r"], ["first"]),
    ]
    path = save(model(nodes, values({"x": [3]}), values({"first": [3], "second": [3]})), tmp_path)
    graph = load_onnx(path)
    assert [value.name for value in graph.outputs] == ["first", "second"]
    x = {"x": random(0, 3)}
    expected = run(path, x)
    for name, found in run_graph(graph, x).items():
        np.testing.assert_array_equal(found, expected[name])


def test_stale_shapes_in_the_file_yield_to_the_given_input(tmp_path: Path) -> None:
    proto = shape_chain()
    proto.graph.value_info.extend(values({"c": [1, 4, 99, 99]}))
    assert shape_of(load_onnx(save(proto, tmp_path), {"image": (1, 3, 5, 6)}).nodes[0].outputs[0]) == (1, 4, 5, 6)


def test_parts_of_a_split_into_many_have_shapes(tmp_path: Path) -> None:
    """The folder of onnxscript reads no list of more than 20 numbers; PyTorch writes such a split as a sequence."""
    sizes = [1 + number % 3 for number in range(24)]
    nodes = [helper.make_node("SplitToSequence", ["x", "sizes"], ["parts"], axis=1)]
    for number in range(24):
        nodes.append(helper.make_node("Constant", [], [f"at{number}"], value_int=number))
        nodes.append(helper.make_node("SequenceAt", ["parts", f"at{number}"], [f"y{number}"]))
    outputs = values({f"y{number}": None for number in range(24)})
    constants = {"sizes": np.array(sizes, np.int64)}
    graph = load_onnx(save(model(nodes, values({"x": [2, 48, 3]}), outputs, constants), tmp_path))
    (split,) = graph.nodes
    assert split.op_type == "Split"
    assert [shape_of(value) for value in graph.outputs] == [(2, size, 3) for size in sizes]


def test_a_long_chain_of_splits_into_many_has_shapes(tmp_path: Path) -> None:
    """More of them than the import has rounds: ShiftNet is such a chain."""
    nodes, sizes = [], [1 + number % 3 for number in range(24)]
    for link in range(12):
        parts = [f"p{link}_{number}" for number in range(24)]
        nodes.append(helper.make_node("Split", [f"x{link}", "sizes"], parts, axis=1))
        nodes.append(helper.make_node("Concat", parts[::-1], [f"x{link + 1}"], axis=1))
    constants = {"sizes": np.array(sizes, np.int64)}
    path = save(model(nodes, values({"x0": [2, 48, 3]}), values({"x12": None}), constants), tmp_path)
    graph = load_onnx(path)
    assert [shape_of(node.outputs[0]) for node in graph.nodes] == [(2, 1, 3), (2, 48, 3)] * 12
    x = {"x0": random(0, 2, 48, 3)}
    np.testing.assert_array_equal(run_graph(graph, x)["x12"], run(path, x)["x12"])


def test_one_symbol_set_through_one_input_holds_for_all(tmp_path: Path) -> None:
    proto = model(
        [helper.make_node("Add", ["a", "b"], ["y"])], values({"a": ["n", 2], "b": ["n", 2]}), values({"y": None})
    )
    graph = load_onnx(save(proto, tmp_path), {"a": (5, 2)})
    assert [shape_of(value) for value in (*graph.inputs, *graph.outputs)] == [(5, 2)] * 3


def test_custom_operator_with_a_stated_shape_stays(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Swirl", ["x"], ["s"], domain="com.acme", name="swirl"),
        helper.make_node("Relu", ["s"], ["y"]),
    ]
    proto = model(nodes, values({"x": [1, 4]}), values({"y": None}), value_info=values({"s": [1, 8]}))
    proto.opset_import.append(helper.make_opsetid("com.acme", 1))
    graph = load_onnx(save(proto, tmp_path))
    assert [node.op_type for node in graph.nodes] == ["Swirl", "Relu"]
    assert shape_of(graph.outputs[0]) == (1, 8)


def test_folding_never_makes_what_a_few_bytes_ask_for(tmp_path: Path) -> None:
    """2^40 zeros from one 8-byte constant: the node is left alone instead of evaluated."""
    nodes = [
        helper.make_node("ConstantOfShape", ["n"], ["huge"], name="huge"),
        helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    proto = model(nodes, values({"x": [2]}), values({"y": None}), {"n": np.array([2**40], np.int64)})
    assert "huge" in [node.name for node in load_onnx(save(proto, tmp_path)).nodes]


def test_small_constants_are_folded_whatever_makes_them(tmp_path: Path) -> None:
    """The control of the test above."""
    nodes = [
        helper.make_node("ConstantOfShape", ["n"], ["zeros"], name="zeros"),
        helper.make_node("Add", ["x", "zeros"], ["y"]),
    ]
    proto = model(nodes, values({"x": [3]}), values({"y": None}), {"n": np.array([3], np.int64)})
    assert [node.op_type for node in load_onnx(save(proto, tmp_path)).nodes] == ["Add"]


def test_quantisation_nodes_are_not_folded(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "scale"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    weights = {"q": np.arange(6, dtype=np.int8).reshape(2, 3), "scale": np.array(0.5, np.float32)}
    graph = load_onnx(save(model(nodes, values({"x": [1, 2]}), values({"y": None}), weights), tmp_path))
    assert [node.op_type for node in graph.nodes] == ["DequantizeLinear", "MatMul"]


def test_external_data_beside_the_model(tmp_path: Path) -> None:
    w = random(0, 64, 64)
    proto = model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], values({"x": [1, 64]}), values({"y": None}), {"w": w}
    )
    path = tmp_path / "net.onnx"
    onnx.save_model(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    x = {"x": random(1, 1, 64)}
    np.testing.assert_allclose(run_graph(load_onnx(path), x)["y"], x["x"] @ w, rtol=1e-4, atol=1e-5)


def test_functions_of_the_model_are_inlined(tmp_path: Path) -> None:
    body = helper.make_function(
        "local", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 18)]
    )
    proto = model([helper.make_node("Twice", ["x"], ["y"], domain="local")], values({"x": [2]}), values({"y": [2]}))
    proto.functions.append(body)
    proto.opset_import.append(helper.make_opsetid("local", 1))
    assert [node.op_type for node in load_onnx(save(proto, tmp_path)).nodes] == ["Add"]


@pytest.mark.parametrize(
    ("file", "scale"), [("ultraface_rfb320.onnx", 1.0), ("resnet8_cifar10.onnx", 80.0)], ids=["ultraface", "resnet8"]
)
def test_trained_models_equal_onnxruntime(file: str, scale: float) -> None:
    path = SHARED / file
    if not path.exists():
        pytest.skip(f"{path.name} is not beside the repository")
    graph = load_model(path)
    assert not [node for node in graph.nodes if node.op_type in ("Shape", "Gather", "Constant", "Identity")]
    name = graph.inputs[0].name or ""
    x = {name: np.abs(random(0, *shape_of(graph.inputs[0]))) * np.float32(scale)}
    expected = run(path, x)
    found = run_graph(graph, x)
    assert list(found) == list(expected)
    assert max(relative_difference(found[key], expected[key]) for key in expected) < 1e-5


def test_importing_loads_neither_tvm_nor_torch_nor_onnxruntime() -> None:
    code = "import sys, codesign.importers.model; print(sorted({'tvm', 'torch', 'onnxruntime'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_integer_inputs_keep_their_type(tmp_path: Path) -> None:
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)]
    proto = model(nodes, values({"x": [2, 2]}, TensorProto.UINT8), values({"y": None}))
    graph = load_onnx(save(proto, tmp_path))
    assert graph.inputs[0].dtype is not None and graph.inputs[0].dtype.name == "UINT8"


def test_a_wrong_model_is_noticed_by_the_comparison(tmp_path: Path) -> None:
    """Negative control of every comparison here: one changed weight shows."""
    path = save(shape_chain(symbolic=False), tmp_path)
    graph = load_onnx(path)
    other = shape_chain(symbolic=False)
    changed = onnx.numpy_helper.to_array(other.graph.initializer[0]).copy()
    changed[0, 0, 1, 1] += 0.5
    other.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(changed, "w"))
    x = {"image": random(9, 2, 3, 5, 6)}
    assert relative_difference(run_graph(graph, x)["y"], run(other, x)["y"]) > 1e-3


def test_load_model_refuses_shapes_for_a_module() -> None:
    with pytest.raises(CodesignError) as caught:
        load_model(object(), {"x": (1,)})
    assert str(caught.value) == "module: takes its shapes from the example inputs, not from --input-shape"
