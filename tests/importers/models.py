"""Builds small ONNX files and runs models with onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from codesign.graph.graph import Graph

Arrays = dict[str, np.ndarray[Any, Any]]
SHARED = Path(__file__).parents[2].parent / "shared" / "models"


def values(shapes: Mapping[str, Sequence[int | str] | None], element: int = TensorProto.FLOAT) -> list[Any]:
    """Tensor descriptions; None is a tensor without a shape."""
    return [helper.make_tensor_value_info(name, element, shape) for name, shape in shapes.items()]


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    weights: Mapping[str, np.ndarray[Any, Any]] | None = None,
    opset: int = 18,
    ir_version: int = 8,
    **graph: Any,
) -> onnx.ModelProto:
    """A complete model in memory."""
    initializers = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    body = helper.make_graph(list(nodes), "net", list(inputs), list(outputs), initializers, **graph)
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def save(proto: onnx.ModelProto, folder: Path, name: str = "net.onnx") -> Path:
    """Write the message as it is."""
    path = folder / name
    path.write_bytes(proto.SerializeToString())
    return path


def random(seed: int, *shape: int) -> np.ndarray[Any, Any]:
    """Standard normal float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def run(proto: onnx.ModelProto | Path, feeds: Arrays) -> Arrays:
    """All outputs by name, computed by onnxruntime without graph optimisations."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = str(proto) if isinstance(proto, Path) else proto.SerializeToString()
    session = onnxruntime.InferenceSession(source, options)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def run_graph(graph: Graph, feeds: Arrays) -> Arrays:
    """The graph's outputs; with a host tail also the tail's, fed from the cut."""
    proto = ir.to_proto(graph.model)
    onnx.checker.check_model(proto, full_check=True)
    found = run(proto, feeds)
    if graph.host_tail is not None:
        tail = ir.to_proto(graph.host_tail.model)
        onnx.checker.check_model(tail)
        known = found | feeds
        found |= run(tail, {value.name: known[value.name] for value in tail.graph.input})
    return found


def relative_difference(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    """max|a-b| / max|b|."""
    assert a.shape == b.shape
    return float(np.abs(a - b).max() / np.abs(b).max())
