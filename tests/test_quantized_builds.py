"""Quantised networks compiled and verified, and models that arrive with operators on codes (QLinearConv and others)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from codesign.artifacts.verification import MODEL_FILE, verify
from codesign.compiler import compile, estimate
from codesign.graph.graph import node_name
from codesign.importers.model import load_model
from codesign.numerics.execution import run_network
from codesign.quantization.reading import integer_network
from tests.quantized_networks import Builder, make_network


def written(model: onnx.ModelProto, folder: Path) -> Path:
    """The model as a file."""
    path = folder / "given.onnx"
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(("name", "any_scale"), [("convolutions", False), ("heads", True), ("residual", True)])
def test_a_compiled_quantised_network_is_verified(name: str, any_scale: bool, tmp_path: Path) -> None:
    path = written(make_network(name, any_scale=any_scale), tmp_path)
    build = compile(path, hw="edge_npu", output=tmp_path / "build")
    report = verify(tmp_path / "build", None, None)
    assert report.ok, str(report)
    library = [difference for difference in report.differences if difference.artifact == "model.so"]
    strict = [difference for difference in library if difference.reference == "codesign.numerics"]
    assert len(strict) > 4 and all(difference.value == 0 and not difference.expected for difference in strict)
    assert build.plan.precision in (
        "int8 (quantised)",
        "uint8 (quantised, priced as int8)",
        "int8, uint8 (quantised, priced as int8)",
    )
    scheduled = [path.read_text() for path in (tmp_path / "build" / "tir").iterdir()]
    assert scheduled and all("float32" not in text for text in scheduled)


def test_a_network_that_takes_pixels_is_verified_without_the_original(tmp_path: Path) -> None:
    digits = Path(__file__).resolve().parents[1] / "examples" / "digits"
    passes = "default,quantize{image_mean='0',image_scale='0.0625'}"
    calibration = digits / "calibration.npz"
    build = compile(
        digits / "digits.onnx", hw="edge_npu", output=tmp_path / "build", passes=passes, calibration=calibration
    )
    report = verify(tmp_path / "build", None, None)
    assert report.ok, str(report)
    assert "the original takes other inputs and was not run" in report.notes
    assert build.plan.precision == "int8, uint8 (quantised, priced as int8)"


def test_a_changed_weight_is_seen_by_verify(tmp_path: Path) -> None:
    path = written(make_network("heads"), tmp_path)
    compile(path, hw="edge_npu", output=tmp_path / "build")
    model = onnx.load(tmp_path / "build" / MODEL_FILE)
    weights = next(item for item in model.graph.initializer if item.name.startswith("codes"))
    array = numpy_helper.to_array(weights).copy()
    array.reshape(-1)[: array.size // 2] ^= 64
    weights.CopyFrom(numpy_helper.from_array(array, weights.name))
    onnx.save(model, tmp_path / "build" / MODEL_FILE)
    assert not verify(tmp_path / "build", None, None).ok


def test_layers_are_what_stands_between_codes(tmp_path: Path) -> None:
    path = written(make_network("residual"), tmp_path)
    plan = estimate(path, hw="edge_npu")
    found = [(layer.layer.op, layer.engine) for layer in plan.layers]
    assert found[0] == ("QuantizeLinear", "vector_unit")
    assert [op for op, _ in found[1:-1]] == ["Conv", "Conv", "Add", "Sub", "Add"]
    assert found[1][1] == "array"
    assert plan.totals.params == 4 * 3 * 9 + 4 + 4 * 4 * 9 + 4 + 4 * 81


def test_a_layer_that_stays_float_runs_on_the_host(tmp_path: Path) -> None:
    b = Builder()
    weights = b.constant(b.generator.standard_normal((4, 3, 3, 3)).astype(np.float32))
    b.output(b.other("Conv", [b.input(1, 3, 6, 6), weights], -4))
    plan = estimate(written(b.model(), tmp_path), hw="edge_npu")
    found = [(layer.engine, layer.note) for layer in plan.layers if layer.layer.op == "Conv"]
    assert found == [("host", "stays in floating point: its weights are not quantised")]


def qlinear_model() -> onnx.ModelProto:
    """Every operator on codes with a rule, in a row; uint8, scales per channel."""
    generator = np.random.default_rng(3)
    initializers = []

    def constant(array: np.ndarray) -> str:
        initializers.append(numpy_helper.from_array(np.asarray(array), f"c{len(initializers)}"))
        return initializers[-1].name

    def codes(scale: float, zero: int) -> list[str]:
        return [constant(np.float32(scale)), constant(np.uint8(zero))]

    x, a, half = codes(0.031, 120), codes(0.07, 130), codes(0.0039, 0)
    weights = [
        constant(generator.integers(-127, 128, (6, 3, 3, 3)).astype(np.int8)),
        constant(generator.uniform(0.004, 0.009, 6).astype(np.float32)),
        constant(np.zeros(6, np.int8)),
    ]
    matrix = [
        constant(generator.integers(-127, 128, (6, 5)).astype(np.int8)),
        constant(generator.uniform(0.01, 0.02, 5).astype(np.float32)),
        constant(np.zeros(5, np.int8)),
    ]
    bias, offsets = (constant(generator.integers(-999, 999, size).astype(np.int32)) for size in (6, 5))
    shape = constant(np.array([1, 6]))
    inner = {"domain": "com.microsoft"}
    nodes = [
        helper.make_node("QuantizeLinear", ["input", *x], ["q"]),
        helper.make_node("QLinearConv", ["q", *x, *weights, *a, bias], ["conv"], pads=[1, 1, 1, 1]),
        helper.make_node("MaxPool", ["conv"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("QLinearSigmoid", ["pooled", *a, *half], ["gate"], **inner),
        helper.make_node("QLinearMul", ["pooled", *a, "gate", *half, *a], ["product"], **inner),
        helper.make_node("QLinearAdd", ["pooled", *a, "product", *a, *a], ["sum"], **inner),
        helper.make_node("QLinearLeakyRelu", ["sum", *a, *a], ["leaky"], alpha=0.1, **inner),
        helper.make_node("QLinearConcat", [*a, "leaky", *a, "sum", *a], ["both"], axis=2, **inner),
        helper.make_node("QLinearGlobalAveragePool", ["both", *a, *a], ["mean"], channels_last=0, **inner),
        helper.make_node("Reshape", ["mean", shape], ["flat"]),
        helper.make_node("QGemm", ["flat", *a, *matrix, offsets, *a], ["scores"], transB=0, **inner),
        helper.make_node(
            "QLinearMatMul", ["scores", *a, constant(np.eye(5, 5, 1, np.int8) * 9), *codes(0.05, 0), *a], ["turned"]
        ),
        helper.make_node("DequantizeLinear", ["turned", *a], ["output"]),
    ]
    # the zero point of int8 weights is int8
    nodes[-2].input[5] = constant(np.int8(0))
    graph = helper.make_graph(
        nodes,
        "qlinear",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 12, 12])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 5])],
        initializers,
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def test_operators_on_codes_become_integer_steps(tmp_path: Path) -> None:
    """onnxruntime's own kernels for these operators are the judge: they sum in integers and scale in float32."""
    model = qlinear_model()
    graph = load_model(written(model, tmp_path), {}, None)
    network = integer_network(graph)
    assert network.floating == ()
    inputs = {"input": np.random.default_rng(1).standard_normal((1, 3, 12, 12)).astype(np.float32)}
    ours = run_network(network, inputs)
    names = ["conv", "pooled", "gate", "product", "sum", "leaky", "both", "mean", "flat", "scores", "turned"]
    assert set(names) <= {str(output.name) for node in graph.nodes for output in node.outputs}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for name, codes in zip(names, session.run(names, inputs), strict=True):
        assert len(np.unique(codes)) >= min(4, codes.size)
        assert np.abs(codes.astype(int) - ours[name].astype(int)).max() <= 1, name
    assert (session.run(["conv"], inputs)[0] == ours["conv"]).mean() > 0.999


def test_spreading_keeps_names_and_numbers(tmp_path: Path) -> None:
    """The rewritten graph, run by onnxruntime as numbers, is within one code of the original's own operators."""
    model = qlinear_model()
    graph = load_model(written(model, tmp_path), {}, None)
    assert {node.op_type for node in graph.nodes if "Linear" in node.op_type} == {"QuantizeLinear", "DequantizeLinear"}
    assert len({node_name(node) for node in graph.nodes}) == len(graph.nodes)
    inputs = {"input": np.random.default_rng(2).standard_normal((1, 3, 12, 12)).astype(np.float32)}
    providers = ["CPUExecutionProvider"]
    theirs = onnxruntime.InferenceSession(model.SerializeToString(), providers=providers).run(None, inputs)[0]
    rewritten = ir.to_proto(graph.model).SerializeToString()
    ours = onnxruntime.InferenceSession(rewritten, providers=providers).run(None, inputs)[0]
    assert np.abs(theirs - ours).max() <= 0.0701
    assert np.abs(theirs).max() > 0.5
