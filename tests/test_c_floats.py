"""Float kernels for small processors against onnxruntime: on this machine, and counted on a Cortex-M4."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.emulated import emulate, missing_tools
from codesign.graph.graph import Graph
from codesign.importers.onnx_importer import load_onnx
from codesign.lowering.microcontroller.blocks import Block
from codesign.lowering.microcontroller.convolution import Window
from codesign.lowering.microcontroller.float_convolution import FloatLayer
from tests.c_builds import SANITIZED, build, program_of, run, write_c
from tests.small_networks import write_network

# Every node's output is one of the network's, so that none goes unchecked, but those whose activation goes with them.
NODES = """
    a0 = Conv<pads = [1, 1, 1, 1]>(x, wa, ba)
    a = Relu(a0)
    b0 = Conv<pads = [0, 2, 1, 0], strides = [2, 3], dilations = [2, 1]>(a, wb)
    b = LeakyRelu<alpha = 0.2>(b0)
    c0 = Conv<group = 2, pads = [1, 0, 1, 0]>(a, wc, bc)
    c = HardSwish(c0)
    d0 = Conv<group = 6, pads = [1, 1, 1, 1]>(a, wd, bd)
    d1 = Add(a, d0)
    d = Relu(d1)
    e = Conv<group = 6, pads = [2, 0, 1, 3], strides = [2, 1], dilations = [1, 2]>(d, we)
    f = Conv(d, wf, bf)
    g0 = Conv<pads = [1, 1, 1, 1]>(d, wg)
    g = Add(g0, d)
    h0 = Conv(g, wf)
    h = Add(h0, f)
    i = Conv<strides = [3, 2]>(g, wh)
    j = Conv<group = 6>(g, wj)
    k = Conv<pads = [0, 5, 0, 5]>(g, wk)
"""
WEIGHTS = {
    "wa": (6, 3, 3, 3),
    "ba": (6,),
    "wb": (5, 6, 2, 3),
    "wc": (10, 3, 3, 1),
    "bc": (10,),
    "wd": (6, 1, 3, 3),
    "bd": (6,),
    "we": (6, 1, 3, 2),
    "wf": (7, 6, 1, 1),
    "bf": (7,),
    "wg": (6, 6, 3, 3),
    "wh": (4, 6, 1, 1),
    "wj": (6, 1, 5, 5),
    "wk": (3, 6, 1, 11),
}
OUTPUTS = "b, c, e, g, h, i, j, k"
PRODUCTS = """
    a = GlobalAveragePool(x)
    b = Flatten(a)
    c0 = Gemm<transB = 1>(b, wc, bc)
    c = Clip(c0, low, high)
    y = Gemm(c, wd)
"""


@pytest.fixture(scope="module", params=[1, 2])
def layers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """Convolutions of every kind over one image and over two."""
    folder = tmp_path_factory.mktemp("floats")
    return load_onnx(write_network(folder / "n.onnx", NODES, (request.param, 3, 9, 7), WEIGHTS, OUTPUTS))


def products(folder: Path) -> Graph:
    nodes = "low = Constant<value_float = -0.5>() high = Constant<value_float = 6.0>() " + PRODUCTS
    weights = {"wc": (11, 5), "bc": (11,), "wd": (11, 3)}
    return load_onnx(write_network(folder / "n.onnx", nodes, (1, 5, 4, 4), weights))


def test_convolutions_agree_with_onnxruntime(layers: Graph, tmp_path: Path) -> None:
    kernels = [name for name in program_of(layers).kernels if "conv" in name]
    assert len(kernels) == 11
    assert all("float_convolution" in name for name in kernels)
    assert_agrees(write_c(layers, tmp_path))


def test_convolutions_of_rows_agree_with_onnxruntime(tmp_path: Path) -> None:
    nodes = "a = Conv<pads = [2, 1], strides = [2]>(x, w, b) y = Conv<group = 6, pads = [1, 1]>(a, v)"
    weights = {"w": (6, 3, 4), "b": (6,), "v": (6, 1, 3)}
    assert_agrees(write_c(load_onnx(write_network(tmp_path / "n.onnx", nodes, (1, 3, 17), weights)), tmp_path / "out"))


def test_dense_layers_agree_with_onnxruntime(tmp_path: Path) -> None:
    graph = products(tmp_path)
    kernels = program_of(graph).kernels
    assert sum("float_gemm" in name for name in kernels) == 2
    assert not any("clip" in name or "maximum" in name for name in kernels)
    assert_agrees(write_c(graph, tmp_path / "out"))


def assert_agrees(folder: Path) -> None:
    """Every output to a share of 1e-5 of its largest value, nothing undefined on the way."""
    done = run(build(folder, *SANITIZED))
    assert done.code == 0, done.text
    found = re.findall(r"largest difference (\S+) of (\S+)\n", done.text)
    assert found
    for difference, largest in found:
        assert float(difference) < 1e-5 * float(largest)


def test_a_residual_is_added_where_it_lies(tmp_path: Path) -> None:
    nodes = "a = Relu(x) b = Conv<pads = [1, 1, 1, 1]>(a, w) c = Add(b, a) y = GlobalAveragePool(c)"
    graph = load_onnx(write_network(tmp_path / "n.onnx", nodes, (1, 4, 8, 8), {"w": (4, 4, 3, 3)}))
    program = program_of(graph)
    step = next(step for step in program.steps if "convolution" in getattr(step, "kernel", ""))
    assert len(program.overwrites(step)) == 1  # but the convolution reads it as well
    header = (write_c(graph, tmp_path / "out") / "model.h").read_text()
    arena = re.search(r"ARENA_BYTES (\d+)", header)
    assert arena
    assert int(arena[1]) >= 2 * 4 * 4 * 64
    assert_agrees(tmp_path / "out" / "c")


def test_weights_are_packed_with_idle_channels() -> None:
    window = Window(4, 4, 2, 4, 4, 3, (1, 1), (1, 1), (1, 1), (1, 0, 0, 0))
    layer = FloatLayer(window, 1, 2, (), Block(4, 4))
    weights = np.arange(12, dtype=np.float32).reshape(6, 2, 1, 1)
    packed = layer.packed_weights(weights)
    assert packed[1, 0].tolist() == [[6, 8, 10, 0], [7, 9, 11, 0]]
    assert layer.packed_bias(np.arange(6)).tolist() == [[0, 1, 2, 0], [3, 4, 5, 0]]
    assert layer.macs == 2 * 4 * 16 * 2
    assert replace(layer, block=Block(3, 2)).macs == 2 * 4 * 18 * 2


@pytest.mark.skipif(bool(missing_tools()), reason=f"not installed: {', '.join(missing_tools())}")
@pytest.mark.parametrize(("group", "most"), [(1, 2.5), (16, 3.0)])
def test_instructions_per_product(group: int, most: float, tmp_path: Path) -> None:
    nodes = f"a = Conv<group = {group}, pads = [1, 1, 1, 1]>(x, w) b = Relu(a) y = GlobalAveragePool(b)"
    graph = load_onnx(write_network(tmp_path / "n.onnx", nodes, (1, 16, 16, 16), {"w": (16, 16 // group, 3, 3)}))
    done = emulate(write_c(graph, tmp_path / "out"))
    assert done.ok, done.output
    sums = 16 * 16 * 16
    assert done.instructions - 8 * sums < most * sums * 9 * 16 // group
