"""model.onnx: valid, the same function in onnxruntime, and with its costs where Netron looks for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from codesign.artifacts.annotated_model import write_model
from codesign.graph.graph import Graph
from codesign.planning.plan import Plan
from codesign.vocabulary import OperationKind
from codesign.workload.layer import Layer
from codesign.workload.loop_nest import LoopNest
from tests.plans import elsewhere, mapping, on_array, plan_of, sample_plan

NEST = LoopNest(OperationKind.CONVOLUTION, (1, 1, 4, 3, 8, 8, 3, 3), pads=(1, 1, 1, 1), input_rows=8, input_columns=8)


def small_model() -> onnx.ModelProto:
    """Conv (named) -> Relu (unnamed) -> Reshape; weights are random, so nothing is symmetric."""
    random = np.random.default_rng(5)
    weights = random.normal(size=(4, 3, 3, 3)).astype(np.float32)
    bias = random.normal(size=4).astype(np.float32)
    nodes = [
        onnx.helper.make_node("Conv", ["x", "weights", "bias"], ["t0"], name="stem", pads=[1, 1, 1, 1]),
        onnx.helper.make_node("Relu", ["t0"], ["t1"]),
        onnx.helper.make_node("Reshape", ["t1", "shape"], ["y"], name="flat"),
    ]
    constants = {"weights": weights, "bias": bias, "shape": np.array([1, 256])}
    graph = onnx.helper.make_graph(
        nodes,
        "small",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (1, 3, 8, 8))],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (1, 256))],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


def small_plan() -> Plan:
    """The Conv on the array and the Relu (known by its output) fused into it; the Reshape is no layer."""
    found = mapping(c=3, k=4, outer=(), inner=())
    conv = on_array(
        Layer("stem", "Conv", NEST, ("x",), ("t0",), 112),
        found,
        compute=576,
        stall=24,
        fill=0,
        limited_by="dram.read_write",
        dram=(108, 192, 256),
    )
    relu_nest = LoopNest(OperationKind.ACTIVATION, (1, 4, 1, 1, 8, 8, 1, 1), operations=256)
    relu = Layer("renamed_by_the_importer", "Relu", relu_nest, ("t0",), ("t1",))
    return plan_of((conv, elsewhere(relu, "vector_unit", 0, (0, 0, 0), fused_into="stem")))


def run(model: onnx.ModelProto | Path) -> np.ndarray:
    """The output for one fixed input; graph optimisations off."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(6).normal(size=(1, 3, 8, 8)).astype(np.float32)
    return np.asarray(session.run(None, {"x": x})[0])


def metadata(model: onnx.ModelProto) -> list[dict[str, str]]:
    return [{entry.key: entry.value for entry in node.metadata_props} for node in model.graph.node]


def test_nodes_carry_what_they_cost(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    original = small_model()
    graph = Graph(ir.from_proto(original), "small", "ab" * 32)
    write_model(graph, small_plan(), path)
    onnx.checker.check_model(str(path), full_check=True)
    written = onnx.load(path)
    conv, relu, reshape = metadata(written)
    assert conv == {
        "codesign.cycles": "600",
        "codesign.utilization": f"{4 * 3 * 64 * 9 / (600 * 256):.4f}",
        "codesign.engine": "array",
        "codesign.limited_by": "dram.read_write",
    }
    assert relu["codesign.engine"] == "vector_unit" and relu["codesign.fused_into"] == "stem"
    assert reshape == {}
    assert {entry.key: entry.value for entry in written.metadata_props}["codesign.hardware"] == "tiny_npu"
    np.testing.assert_array_equal(run(path), run(original))
    assert all(not node.metadata_props for node in graph.nodes), "the graph itself was changed"
    assert not list(tmp_path.glob("*.data"))


def test_large_weights_go_to_a_file_beside_the_model(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    original = small_model()
    write_model(Graph(ir.from_proto(original), "small", ""), small_plan(), path, inline_limit_bytes=400)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    onnx.checker.check_model(str(path), full_check=True)
    np.testing.assert_array_equal(run(path), run(original))
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for entry in list(tmp_path.glob("model.onnx*")):
        entry.rename(moved / entry.name)
    np.testing.assert_array_equal(run(moved / "model.onnx"), run(original))


def test_weights_beside_the_original_are_brought_along(tmp_path: Path) -> None:
    """A model with external data, written into another folder, must not point back at the first one."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    external = small_model()
    onnx.save(external, source / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    write_model(Graph(ir.load(source / "m.onnx"), "m", ""), small_plan(), target / "model.onnx")
    (source / "w.bin").unlink()
    np.testing.assert_array_equal(run(target / "model.onnx"), run(small_model()))


def test_a_layer_of_another_plan_marks_nothing(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    write_model(Graph(ir.from_proto(small_model()), "small", ""), replace(sample_plan(), layers=()), path)
    assert metadata(onnx.load(path)) == [{}, {}, {}]


@pytest.mark.parametrize("name", ["ultraface_rfb320.onnx", "resnet8_cifar10.onnx"])
def test_a_trained_network_stays_the_same(tmp_path: Path, name: str) -> None:
    from codesign.importers.onnx_importer import load_onnx

    source = Path(__file__).resolve().parents[2] / "shared" / "models" / name
    if not source.exists():
        pytest.skip(f"../shared/models/{name} is not here")
    graph = load_onnx(source)
    write_model(graph, small_plan(), tmp_path / "model.onnx")
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    sessions = [onnxruntime.InferenceSession(str(path), options) for path in (source, tmp_path / "model.onnx")]
    wanted = sessions[1].get_inputs()[0]
    x = np.random.default_rng(7).normal(size=wanted.shape).astype(np.float32)
    results = [session.run(None, {wanted.name: x}) for session in sessions]
    for expected, found in zip(*results, strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * float(np.abs(expected).max()))
