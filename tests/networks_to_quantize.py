"""Small float networks to quantise, data to calibrate them on, and what a quantised one is read with."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir
from onnx import parser

from codesign.graph.graph import Graph
from codesign.graph.samples import Samples
from codesign.rewriting.graph_pass import PassContext
from codesign.rewriting.pipeline import resolve_pipeline
from codesign.rewriting.record import PassRecord, QuantizationRecord
from codesign.rewriting.runner import run_pipeline
from tests.pass_models import graph_of

MIXED = """
    a0 = Conv<pads = [1, 1, 1, 1]>(x, w0, b0)
    a = Relu(a0)
    b = Conv<group = 8, pads = [1, 1, 1, 1]>(a, w1)
    s = Sigmoid(b)
    c = Mul(b, s)
    d0 = Conv(c, w2, b2)
    d = Add(d0, a)
    e = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(d)
    f = AveragePool<kernel_shape = [2, 2], strides = [2, 2]>(d)
    g = Concat<axis = 1>(e, f)
    h = GlobalAveragePool(g)
    i = Flatten(h)
    j = Gemm<transB = 1>(i, w3, b3)
    y = Softmax(j)
"""
MIXED_WEIGHTS = {"w0": (8, 3, 3, 3), "b0": (8,), "w1": (8, 1, 3, 3), "w2": (8, 8, 1, 1), "b2": (8,)}
MIXED_WEIGHTS |= {"w3": (5, 16), "b3": (5,)}


def network(
    nodes: str,
    weights: Mapping[str, tuple[int, ...] | np.ndarray],
    shape: tuple[int, ...] = (1, 3, 8, 8),
    y: str = "y",
    opset: int = 18,
) -> Graph:
    """A graph with the input x; weights are given, or random where only a shape is; those nobody reads are left out."""
    sizes = ", ".join(map(str, shape))
    outputs = ", ".join(f"float {name.strip()}" for name in y.split(","))
    text = f'<ir_version: 10, opset_import: ["" : {opset}]> small (float[{sizes}] x) => ({outputs}) {{ {nodes} }}'
    model = parser.parse_model(text)
    random = np.random.default_rng(7)
    read = {name for node in model.graph.node for name in node.input}
    for name, given in weights.items():
        if name not in read:
            continue
        array = random.standard_normal(given) / 2 if isinstance(given, tuple) else given
        dtype = np.int64 if np.asarray(array).dtype.kind == "i" else np.float32
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array, dtype), name))
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    for node in model.graph.node:
        node.name = f"node_{node.output[0]}"
    return graph_of(model)


def mixed() -> Graph:
    """Every kind of integer layer but Resize."""
    return network(MIXED, MIXED_WEIGHTS)


def data(graph: Graph, count: int = 4, seed: int = 5) -> Samples:
    """Gaussian samples, given ones."""
    random = np.random.default_rng(seed)
    shapes = {str(value.name): value.shape.numpy() for value in graph.inputs if value.shape is not None}
    runs = tuple(
        {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()} for _ in range(count)
    )
    return Samples(f"data.npz, {count} samples", given=True, runs=runs)


def quantized(
    graph: Graph, options: str = "", samples: Samples | None = None
) -> tuple[Graph, PassRecord, QuantizationRecord]:
    """The graph after `quantize` through the runner with its check, and what it did."""
    passes = f"quantize{{{options}}}" if options else "quantize"
    context = PassContext(calibration=data(graph) if samples is None else samples)
    after, [record] = run_pipeline(graph, resolve_pipeline(passes), context)
    assert record.quantization is not None
    return after, record, record.quantization


def showing(graph: Graph, *names: str) -> ir.Model:
    """The model with more outputs."""
    model = graph.model.clone()
    values = {value.name: value for node in model.graph for value in node.outputs}
    model.graph.outputs.extend(values[name] for name in names)
    return model


def constant(graph: Graph, name: str) -> np.ndarray:
    """An initializer by name."""
    found = graph.model.graph.initializers[name].const_value
    assert found is not None
    return found.numpy()
