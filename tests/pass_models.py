"""What small networks are made of, and onnxruntime as the judge of every rewrite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx import helper

from codesign.graph.graph import Graph, shape_of
from codesign.importers.onnx_importer import import_proto

Arrays = Mapping[str, np.ndarray]
Shape = Sequence[int | str]
RELATIVE_TOLERANCE = 1e-4


def proto_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Shape],
    outputs: Mapping[str, Shape | None],
    constants: Arrays,
    opset: int = 17,
) -> onnx.ModelProto:
    """A float32 model."""
    for number, node in enumerate(nodes):
        node.name = node.name or f"{node.op_type}_{number}"
    graph = helper.make_graph(
        list(nodes),
        "network",
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def graph_of(proto: onnx.ModelProto) -> Graph:
    """The imported graph."""
    return import_proto(proto, name="network", sha256="0" * 64)


def statistics(random: np.random.Generator, channels: int, prefix: str = "bn") -> dict[str, np.ndarray]:
    """BatchNormalization inputs far from the identity, some scales negative."""
    scale = random.uniform(0.5, 2.0, channels) * random.choice([-1.0, 1.0], channels)
    return {
        f"{prefix}_scale": scale.astype(np.float32),
        f"{prefix}_shift": random.uniform(-2, 2, channels).astype(np.float32),
        f"{prefix}_mean": random.uniform(-2, 2, channels).astype(np.float32),
        f"{prefix}_variance": random.uniform(0.2, 4.0, channels).astype(np.float32),
    }


def batch_norm(x: str, y: str, prefix: str = "bn", **attributes: Any) -> onnx.NodeProto:
    """A BatchNormalization node that reads `statistics`."""
    terms = [f"{prefix}_{term}" for term in ("scale", "shift", "mean", "variance")]
    return helper.make_node("BatchNormalization", [x, *terms], [y], name=f"norm_{y}", **attributes)


def normal(random: np.random.Generator, *shape: int) -> np.ndarray:
    """Gaussian float32 data."""
    return random.standard_normal(shape).astype(np.float32)


def run(model: ir.Model | onnx.ModelProto, feeds: Arrays) -> dict[str, np.ndarray]:
    """Outputs by name, from onnxruntime with its own rewrites off."""
    proto = ir.to_proto(model) if isinstance(model, ir.Model) else model
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feeds)), strict=True))


def feeds_for(graph: Graph, seed: int = 0) -> dict[str, np.ndarray]:
    """Gaussian data for every input."""
    random = np.random.default_rng(seed)
    return {str(value.name): normal(random, *shape_of(value)) for value in graph.inputs}


def difference(before: Graph, after: Graph, seed: int = 0) -> float:
    """The largest relative difference max|a - b| / max|b| over the outputs, which must have the same names."""
    feeds = feeds_for(before, seed)
    expected, found = run(before.model, feeds), run(after.model, feeds)
    return distance(found, expected)


def distance(found: Arrays, expected: Arrays) -> float:
    """The largest relative difference max|a - b| / max|b| of an output; both have the same names."""
    assert list(found) == list(expected)
    return max(float(np.abs(found[name] - value).max() / np.abs(value).max()) for name, value in expected.items())


def operators(graph: Graph) -> list[str]:
    """Operator types in order."""
    return [node.op_type for node in graph.nodes]
