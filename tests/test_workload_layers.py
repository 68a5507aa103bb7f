"""Graphs as layers: order, names, parameters, the host's tail, and two trained networks counted by other means."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from math import prod
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from codesign.graph.graph import Graph
from codesign.importers.onnx_importer import import_proto, load_onnx
from codesign.vocabulary import Operand, OperationKind
from codesign.workload.layers import layers_of, parameters_of
from tests.workload_nodes import Array

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT.parent / "shared" / "models"


def network(
    nodes: list[onnx.NodeProto], x: tuple[int, ...], weights: dict[str, Array], outputs: list[str] | None = None
) -> onnx.ModelProto:
    """Nodes from `x` to the last one's first output (or to `outputs`)."""
    return helper.make_model(
        helper.make_graph(
            nodes,
            "network",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
            [onnx.ValueInfoProto(name=name) for name in outputs or [nodes[-1].output[0]]],
            [numpy_helper.from_array(value, name) for name, value in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )


def graph_of(*arguments: object) -> Graph:
    return import_proto(onnx.shape_inference.infer_shapes(network(*arguments)), name="network", sha256="")  # type: ignore[arg-type]


def noise(*shape: int) -> Array:
    return np.random.default_rng(3).uniform(0.5, 1.5, shape).astype(np.float32)


def test_one_layer_a_node_in_order_under_names_users_know() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["features"], name="conv_1"),
        helper.make_node("Relu", ["features"], ["active"]),
        helper.make_node("Add", ["active", "features"], ["sum"], name="join"),
    ]
    layers = layers_of(graph_of(nodes, (1, 3, 6, 6), {"w": noise(4, 3, 3, 3), "b": noise(4)}))
    assert [layer.name for layer in layers] == ["conv_1", "active", "join"]
    assert [layer.op for layer in layers] == ["Conv", "Relu", "Add"]
    assert [layer.inputs for layer in layers] == [("x",), ("features",), ("active", "features")]
    assert [layer.outputs for layer in layers] == [("features",), ("active",), ("sum",)]
    assert [layer.parameters for layer in layers] == [4 * 3 * 9 + 4, 0, 0]


def test_a_shared_weight_counts_once_in_the_network_and_in_every_layer() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["a", "w"], ["b"], pads=[1, 1, 1, 1]),
    ]
    graph = graph_of(nodes, (1, 3, 6, 6), {"w": noise(3, 3, 3, 3)})
    assert parameters_of(graph) == 81
    assert [layer.parameters for layer in layers_of(graph)] == [81, 81]


def test_statistics_numbers_and_sizes_are_no_parameters() -> None:
    nodes = [
        helper.make_node("BatchNormalization", ["x", "scale", "shift", "mean", "variance"], ["a"]),
        helper.make_node("Div", ["a", "root"], ["b"]),
        helper.make_node("Clip", ["b", "root"], ["c"]),
        helper.make_node("Mul", ["c", "layer_scale"], ["d"]),
        helper.make_node("PRelu", ["d", "slope"], ["e"]),
        helper.make_node("Resize", ["e", "", "scales"], ["f"]),
        helper.make_node("InstanceNormalization", ["f", "ones", "zeros"], ["g"]),
        helper.make_node("InstanceNormalization", ["g", "scale", "shift"], ["h"]),
    ]
    vectors = {name: noise(3) for name in ("scale", "shift", "mean", "variance")}
    numbers = {"root": np.float32(8).reshape(()), "scales": np.array([1, 1, 2, 2], np.float32)}
    neutral = {"ones": np.ones(3, np.float32), "zeros": np.zeros(3, np.float32)}
    learned = {"layer_scale": noise(3, 1, 1), "slope": noise(1)}
    graph = graph_of(nodes, (1, 3, 4, 4), vectors | numbers | neutral | learned)
    assert [layer.parameters for layer in layers_of(graph)] == [6, 0, 0, 3, 1, 0, 0, 6]
    assert parameters_of(graph) == 6 + 3 + 1  # the last normalisation shares scale and shift with the first


def test_the_tail_of_a_detector_is_host_work_at_its_bounds() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["boxes"], name="decode"),
        helper.make_node("ReduceMax", ["boxes", "last"], ["best"], name="best", keepdims=0),
        helper.make_node("Unsqueeze", ["best", "one"], ["scores"], name="scores"),
        helper.make_node("NonMaxSuppression", ["boxes", "scores", "most"], ["picked"], name="suppress"),
        helper.make_node("Cast", ["picked"], ["result"], name="result", to=TensorProto.FLOAT),
    ]
    constants = {"last": np.array([2]), "one": np.array([1]), "most": np.array([5])}
    graph = graph_of(nodes, (1, 40, 4), constants, ["result"])
    assert graph.host_tail is not None
    layers = layers_of(graph)
    assert [layer.name for layer in layers] == ["decode", "best", "scores", "suppress", "result"]
    suppress, result = layers[-2:]
    bounds = {bound.name: bound for bound in graph.host_tail.bounds}
    assert suppress.nest.kind is result.nest.kind is OperationKind.HOST
    assert suppress.inputs == ("boxes", "scores")
    assert suppress.nest.elements(Operand.INPUTS) == (160 + 40) * 4
    assert suppress.nest.elements(Operand.OUTPUTS) == bounds["picked"].elements * 8 >= 5 * 3 * 8
    assert result.nest.elements(Operand.INPUTS) == suppress.nest.elements(Operand.OUTPUTS)
    assert suppress.nest.operations >= 160
    assert result.nest.operations >= bounds["result"].elements


def test_the_host_is_charged_for_what_a_tail_touches() -> None:
    """One row of 3 x 160 indices is picked: it alone is read. A new shape moves nothing, a size needs no data."""
    nodes = [
        helper.make_node("NonZero", ["x"], ["where"], name="where"),
        helper.make_node("Unsqueeze", ["where", "one"], ["rows"], name="rows"),
        helper.make_node("Shape", ["rows"], ["sizes"], name="sizes"),
        helper.make_node("Gather", ["rows", "one"], ["row"], name="row"),
    ]
    layers = layers_of(graph_of(nodes, (1, 40, 4), {"one": np.array([1])}, ["sizes", "row"]))
    touched = {
        layer.name: (layer.nest.input_elements, layer.nest.output_elements, layer.nest.operations) for layer in layers
    }
    assert touched == {
        "where": (160 * 4, 3 * 160 * 8, 3 * 160),
        "rows": (0, 0, 1),
        "sizes": (0, 3 * 8, 3),
        "row": (160 * 8, 160 * 8, 160),
    }
    assert {layer.nest.kind for layer in layers} == {OperationKind.HOST}


def shared(name: str) -> Path:
    path = MODELS / name
    if not path.exists():
        pytest.skip(f"{path.name} is not in ../shared/models")
    return path


@pytest.mark.parametrize("name", ["resnet8_cifar10.onnx", "ultraface_rfb320.onnx"])
def test_a_trained_network_counted_from_its_file(name: str) -> None:
    """onnx's own shape inference and the file's initializers give the same MACs and parameters."""
    path = shared(name)
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    initializers = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    shapes = initializers | {
        value.name: tuple(size.dim_value for size in value.type.tensor_type.shape.dim)
        for value in (*model.graph.value_info, *model.graph.output, *model.graph.input)
        if value.name not in initializers
    }
    macs = 0
    learned: dict[str, tuple[int, ...]] = {}
    for node in model.graph.node:
        if node.op_type == "Conv":
            macs += prod(shapes[node.output[0]]) * prod(shapes[node.input[1]][1:])
        if node.op_type in ("Gemm", "MatMul"):
            macs += prod(shapes[node.input[1]])
        places = {"Conv": (1, 2), "Gemm": (1, 2), "MatMul": (1,), "BatchNormalization": (1, 2)}.get(node.op_type, ())
        learned |= {node.input[place]: shapes[node.input[place]] for place in places if place < len(node.input)}
    graph = load_onnx(path)
    layers = layers_of(graph)
    beside = sum(layer.parameters for layer in layers if layer.nest.kind is OperationKind.ELEMENTWISE)
    assert sum(layer.nest.macs for layer in layers) == macs > 10**7
    assert parameters_of(graph) - beside == sum(prod(shape) for shape in learned.values())
    assert not [layer.name for layer in layers if layer.nest.kind is OperationKind.HOST]


def run_evidence(folder: Path) -> subprocess.CompletedProcess[str]:
    names = {"--reference": "reference.csv", "--output": "counts.md", "--cache": "cache.jsonl"}
    options = [part for flag, name in names.items() for part in (flag, str(folder / name))]
    script = str(ROOT / "benchmarks" / "evidence_counts.py")
    return subprocess.run(
        [sys.executable, script, str(folder), *options],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PYTHONPATH": "."},
    )


def write_reference(folder: Path, macs: int, parameters: int = 108) -> None:
    with (folder / "reference.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["name", "impl", "macs_measured", "params_measured"])
        writer.writeheader()
        writer.writerow({"name": "tiny", "impl": "own", "macs_measured": macs, "params_measured": parameters})


def test_the_evidence_script_resumes_and_reports_differences(tmp_path: Path) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv")
    model = network([node], (1, 3, 6, 6), {"w": noise(4, 3, 3, 3)})
    onnx.save(onnx.shape_inference.infer_shapes(model), tmp_path / "tiny.onnx")
    write_reference(tmp_path, macs=4 * 4 * 4 * 27)
    first = run_evidence(tmp_path)
    assert first.returncode == 0, first.stderr
    assert first.stdout == "1 networks, 1 files; not accounted for: nothing\n"
    assert "| tiny | own | tiny.onnx | 1,728 | 1,728 | 108 | 108 | equal |" in (tmp_path / "counts.md").read_text()
    assert first.stderr == "counted tiny.onnx\n"
    assert len([json.loads(line) for line in (tmp_path / "cache.jsonl").read_text().splitlines()]) == 1
    write_reference(tmp_path, macs=1000)
    second = run_evidence(tmp_path)
    assert second.stderr == ""
    assert second.returncode == 1
    assert "| equal; MACs differ by +728 |" in (tmp_path / "counts.md").read_text()


def test_the_evidence_script_accounts_for_a_folded_batch_normalization_but_not_for_a_lost_weight(
    tmp_path: Path,
) -> None:
    conv = helper.make_node("Conv", ["x", "w"], ["a"], name="conv")
    norm = helper.make_node("BatchNormalization", ["a", "scale", "shift", "mean", "variance"], ["y"])
    folded = helper.make_node("Conv", ["x", "w", "b"], ["y"], name="conv")
    vectors = {name: noise(4) for name in ("scale", "shift", "mean", "variance")}
    files = {
        "kept": network([conv, norm], (1, 3, 6, 6), {"w": noise(4, 3, 3, 3), **vectors}),
        "folded": network([folded], (1, 3, 6, 6), {"w": noise(4, 3, 3, 3), "b": noise(4)}),
        "lost": network([folded], (1, 3, 6, 6), {"w": noise(4, 3, 2, 3), "b": noise(4)}),
    }
    for name, model in files.items():
        (tmp_path / name).mkdir()
        onnx.save(onnx.shape_inference.infer_shapes(model), tmp_path / name / "tiny.onnx")
    write_reference(tmp_path, macs=1728, parameters=108 + 8)
    done = run_evidence(tmp_path)
    assert done.returncode == 1
    assert done.stdout == "1 networks, 3 files; not accounted for: lost/tiny.onnx\n"
    lines = (tmp_path / "counts.md").read_text().splitlines()
    verdicts = {line.split(" | ")[2]: line.split(" | ")[-1] for line in lines if line.startswith("| tiny")}
    assert verdicts["kept/tiny.onnx"] == "equal |"
    assert verdicts["folded/tiny.onnx"] == "exporter: BatchNormalization folded -8, biases made +4 |"
    assert verdicts["lost/tiny.onnx"] == "parameters differ by -40; MACs differ by -288 |"
