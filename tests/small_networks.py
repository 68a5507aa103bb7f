"""Small networks with every kind of compute layer, as imported graphs beside the files they come from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import parser

from codesign.graph.graph import Graph
from codesign.importers.onnx_importer import load_onnx

CONVOLUTIONS = """
    a = Conv<pads = [2, 1, 1, 0], strides = [2, 1]>(x, wa, ba)
    b = Relu(a)
    c = Conv<group = 4, kernel_shape = [3, 3], pads = [1, 2, 1, 2], dilations = [1, 2]>(b, wc)
    d = Conv<group = 8, pads = [1, 1, 1, 1], strides = [2, 2]>(c, wd, bd)
    e = ConvTranspose<group = 2, strides = [2, 3], pads = [1, 0, 0, 1], output_padding = [1, 2]>(d, we, be)
    f = Conv(b, wf)
    g = GlobalAveragePool(f)
    h = GlobalAveragePool(e)
    y = Concat<axis = 1>(g, h)
"""
CONVOLUTION_WEIGHTS = {
    "wa": (8, 3, 3, 2),
    "ba": (8,),
    "wc": (8, 2, 3, 3),
    "wd": (8, 1, 3, 3),
    "bd": (8,),
    "wf": (5, 8, 1, 1),
    "we": (8, 3, 3, 2),
    "be": (6,),
}
PRODUCTS = """
    p = Gemm<transA = 1, transB = 1, alpha = 0.5, beta = 2.0>(x, wp, bp)
    r = Tanh(p)
    s = Reshape(r, shape)
    t = MatMul(s, wt)
    u = Transpose<perm = [0, 2, 1]>(t)
    v = MatMul(t, u)
    w = MatMul(stack, v)
    q = Einsum<equation = "abc,acd->dab">(w, t)
    y = Add(q, q)
"""
PRODUCT_WEIGHTS = {"wp": (12, 5), "bp": (12,), "wt": (4, 7), "stack": (2, 2, 3)}


def write_network(
    path: Path, nodes: str, shape: tuple[int, ...], weights: dict[str, tuple[int, ...]], y: str = "y", opset: int = 18
) -> Path:
    """An ONNX file from nodes in ONNX's text form: input x of a shape, random weights, and its outputs (commas)."""
    sizes = ", ".join(map(str, shape))
    outputs = ", ".join(f"float {name.strip()}" for name in y.split(","))
    text = f'<ir_version: 10, opset_import: ["" : {opset}]> small (float[{sizes}] x) => ({outputs}) {{ {nodes} }}'
    model = parser.parse_model(text)
    generator = np.random.default_rng(7)
    for name, extents in weights.items():
        array = generator.standard_normal(extents).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    if "shape" in nodes:
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([2, 3, 4]), "shape"))
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    for node in model.graph.node:
        node.name = f"node_{node.output[0]}"
    onnx.save(model, path)
    return path


def convolutions(folder: Path) -> Graph:
    """Conv with uneven pads and strides, grouped, depthwise and dilated, ConvTranspose with output padding."""
    return load_onnx(write_network(folder / "convolutions.onnx", CONVOLUTIONS, (2, 3, 11, 9), CONVOLUTION_WEIGHTS))


def products(folder: Path) -> Graph:
    """Gemm with everything, MatMul with constant weights, of two activations, with the constant first, and Einsum."""
    return load_onnx(write_network(folder / "products.onnx", PRODUCTS, (5, 2), PRODUCT_WEIGHTS))


def rows(folder: Path) -> Graph:
    """1-D convolutions."""
    nodes = "a = Conv<pads = [2, 1], strides = [2]>(x, wa, ba) y = ConvTranspose<strides = [2], pads = [1, 0]>(a, wb)"
    weights = {"wa": (6, 3, 5), "ba": (6,), "wb": (6, 2, 3)}
    return load_onnx(write_network(folder / "rows.onnx", nodes, (2, 3, 17), weights))


def input_of(graph: Graph, seed: int = 3) -> dict[str, np.ndarray]:
    """Random input data by name."""
    generator = np.random.default_rng(seed)
    return {str(v.name): generator.standard_normal(v.shape.numpy()).astype(np.float32) for v in graph.inputs if v.shape}
