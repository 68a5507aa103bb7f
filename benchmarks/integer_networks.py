"""The float networks the evidence on integers is made of: where each lies, what it is fed, how it is quantised."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from network_weights import enliven
from onnx import TensorProto, helper, numpy_helper

from codesign.artifacts.arrays import read_arrays
from codesign.graph.graph import Graph, shape_of
from codesign.graph.samples import Samples, given
from codesign.importers.onnx_importer import import_proto
from codesign.rewriting.graph_pass import PassContext
from codesign.rewriting.pipeline import resolve_pipeline
from codesign.rewriting.runner import run_pipeline

ROOT = Path(__file__).resolve().parents[1]
SHARED_MODELS = ROOT.parent / "shared" / "models"
CALIBRATED, TRIED = 4, 2
GAIN, GATE_DEVIATION = 1.0, 1.5


@dataclass(frozen=True)
class Source:
    """file: stem of an ONNX file, or where in the project it lies. trained: its weights are what they are; others are
    drawn. passes: before quantising. options: of quantize.
    tried: inputs compared."""

    file: str
    trained: bool = False
    passes: str = "default"
    options: str = ""
    tried: int = TRIED


NETWORKS = {
    "digits": Source("examples/digits/digits.onnx", trained=True),
    "ResNet8": Source("resnet8_cifar10", trained=True),
    "DS-CNN": Source("ds_cnn"),
    "MobileNetV1 0.25": Source("mobilenetv1_0.25"),
    "MobileNetV2": Source("mobilenetv2_1.0"),
    "ResNet-18": Source("resnet18"),
    "SqueezeNet": Source("squeezenet1_1"),
    "ShuffleNetV2": Source("shufflenetv2_x1.0"),
    "EfficientNet-B0, hard activations": Source("efficientnet_b0", passes="hard-activations,default"),
    "face detector": Source("ultraface_rfb320", trained=True, options="outputs=float", tried=8),
}


@dataclass(frozen=True)
class Quantized:
    """A quantised network and inputs it was not calibrated on."""

    graph: Graph
    inputs: tuple[dict[str, np.ndarray], ...]


def quantized(source: Source, models: Path) -> Quantized | None:
    """The network, quantised on data of its own or else on random images; None without a file."""
    graph = imported(source, models)
    if graph is None:
        return None
    arrays = _real_data(source, graph)
    samples = given(graph, arrays if arrays is not None else _random(graph), "data")
    context = PassContext(calibration=Samples("data", True, samples.runs[:CALIBRATED]))
    pipeline = resolve_pipeline(f"{source.passes},quantize{{{source.options}}}")
    after, _ = run_pipeline(graph, pipeline, context)
    return Quantized(after, tuple(samples.runs[CALIBRATED : CALIBRATED + source.tried]))


def imported(source: Source, models: Path) -> Graph | None:
    """The network as it was, in floating point; None without a file."""
    model = _model(source, models)
    if model is None:
        return None
    if not source.trained:
        enliven(model, GAIN)
        spread_gates(model)
    return import_proto(model, name=source.file.rpartition("/")[2], sha256="")


def floating(source: Source, models: Path) -> Graph | None:
    """The network in floating point after its exact passes; None without a file."""
    graph = imported(source, models)
    return None if graph is None else run_pipeline(graph, resolve_pipeline(source.passes), PassContext())[0]


def _model(source: Source, models: Path) -> onnx.ModelProto | None:
    if source.file in BUILT:
        return BUILT[source.file]()
    if source.file.endswith(".onnx"):
        return onnx.load(ROOT / source.file)
    places = (models, SHARED_MODELS)
    found = (path for folder in places for path in sorted(folder.rglob(f"{source.file}.onnx")))
    path = next(found, None)
    return None if path is None else onnx.load(path)


def _real_data(source: Source, graph: Graph) -> dict[str, np.ndarray] | None:
    name, shape = str(graph.inputs[0].name), shape_of(graph.inputs[0])
    if source.file.startswith("examples/digits"):
        arrays = read_arrays(ROOT / "examples/digits/calibration.npz")
        return {name: arrays[name]}
    frames = SHARED_MODELS / "ultraface_frames.npz"
    if source.file == "ultraface_rfb320" and frames.is_file():
        images = next(iter(read_arrays(frames).values())).astype(np.float32)
        if images.shape[1:] != shape[1:]:
            images = images.transpose(0, 3, 1, 2)
        return {name: (images - 127) / 128}
    return None


def _random(graph: Graph) -> dict[str, np.ndarray]:
    """Images with large and small structures: noise, and its averages over blocks."""
    generator = np.random.default_rng(5)
    return {str(value.name): _images(generator, shape_of(value)) for value in graph.inputs}


def _images(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    count, channels, rows, columns = (CALIBRATED + TRIED, *shape[1:])
    total = np.zeros((count, channels, rows, columns))
    for block in (1, 4, 16):
        small = generator.standard_normal((count, channels, -(-rows // block), -(-columns // block)))
        total += small.repeat(block, 2).repeat(block, 3)[:, :, :rows, :columns]
    return (total / np.sqrt(3)).astype(np.float32)


def spread_gates(model: onnx.ModelProto) -> None:
    """Give the layers in front of gates (a Sigmoid alone reads them) wide biases: untrained gates all say one half."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    generator = np.random.default_rng(6)
    for node in model.graph.node:
        reading = readers.get(node.output[0], [])
        is_gate = node.op_type == "Conv" and len(node.input) == 3 and [one.op_type for one in reading] == ["Sigmoid"]
        if is_gate and node.input[2] in stored:
            bias = stored[node.input[2]]
            wide = generator.normal(0, GATE_DEVIATION, tuple(bias.dims)).astype(np.float32)
            bias.CopyFrom(numpy_helper.from_array(wide, bias.name))


Layers = Iterator[tuple[tuple[int, ...], int, dict[str, list[int]]]]  # weights' shape, groups, attributes of each


def ds_cnn() -> onnx.ModelProto:
    """Keyword spotting of MLPerf Tiny (a 10x4 kernel over 49 frames of 10 coefficients), with random weights.

    Structure: mlcommons/tiny, benchmark/training/keyword_spotting/keras_model.py.
    """
    return _separable("ds_cnn", _ds_cnn_layers(), (1, 49, 10), 64, 12)


def mobilenet_v1_quarter() -> onnx.ModelProto:
    """MobileNetV1, a quarter as wide, on 96 x 96 pixels, as MLPerf Tiny detects persons, with random weights.

    Structure: Howard et al., MobileNets, arXiv:1704.04861, table 1.
    """
    return _separable("mobilenet_v1_quarter", _mobilenet_layers(), (3, 96, 96), 256, 2)


def _ds_cnn_layers() -> Layers:
    yield (64, 1, 10, 4), 1, {"strides": [2, 2], "pads": [4, 1, 5, 1]}
    for _ in range(4):
        yield (64, 1, 3, 3), 64, {"pads": [1, 1, 1, 1]}
        yield (64, 64, 1, 1), 1, {}


def _mobilenet_layers() -> Layers:
    yield (8, 3, 3, 3), 1, {"strides": [2, 2], "pads": [0, 0, 1, 1]}
    width = 8
    for wanted, stride in ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *[(128, 1)] * 5, (256, 2), (256, 1)):
        pads = [1, 1, 1, 1] if stride == 1 else [0, 0, 1, 1]
        yield (width, 1, 3, 3), width, {"strides": [stride, stride], "pads": pads}
        yield (wanted, width, 1, 1), 1, {}
        width = wanted


def _separable(name: str, layers: Layers, image: tuple[int, ...], channels: int, classes: int) -> onnx.ModelProto:
    """Convolutions, each with a Relu, their mean and a dense layer. channels: of the last convolution."""
    generator = np.random.default_rng(1)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    x = "input"
    for number, (shape, group, attributes) in enumerate(layers):
        w, b, y = f"w{number}", f"b{number}", f"x{number}"
        weights.append(numpy_helper.from_array(generator.standard_normal(shape).astype(np.float32), w))
        weights.append(numpy_helper.from_array(np.zeros(shape[0], np.float32), b))
        nodes.append(helper.make_node("Conv", [x, w, b], [f"{y}_sum"], f"conv{number}", group=group, **attributes))
        nodes.append(helper.make_node("Relu", [f"{y}_sum"], [y], f"relu{number}"))
        x = y
    dense = generator.standard_normal((classes, channels)).astype(np.float32)
    weights.append(numpy_helper.from_array(dense, "w"))
    weights.append(numpy_helper.from_array(np.zeros(classes, np.float32), "b"))
    nodes.append(helper.make_node("GlobalAveragePool", [x], ["mean"], "mean"))
    nodes.append(helper.make_node("Flatten", ["mean"], ["flat"], "flat"))
    nodes.append(helper.make_node("Gemm", ["flat", "w", "b"], ["output"], "dense", transB=1))
    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, *image])
    scores = helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, classes])
    graph = helper.make_graph(nodes, name, [given], [scores], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


BUILT: Mapping[str, Callable[[], onnx.ModelProto]] = {"ds_cnn": ds_cnn, "mobilenet_v1_quarter": mobilenet_v1_quarter}
