"""Loops of everything with MACs: executed as written they compute what onnxruntime computes, and they count as ones do.

A network of ones without padding adds one for every multiply-accumulate: the sum of its results is the MAC count.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.graph.graph import Graph
from codesign.vocabulary import Dimension, Operand, OperationKind
from codesign.workload.layers import layers_of
from codesign.workload.loop_nest import LoopNest
from tests.workload_nodes import Array, Node

RANDOM = np.random.default_rng(7)


def ones(*shape: int) -> Array:
    return np.ones(shape, np.float32)


def noise(*shape: int) -> Array:
    return RANDOM.standard_normal(shape).astype(np.float32)


def execute(nest: LoopNest, inputs: Array, weights: Array) -> Array:
    """The loops of LoopNest's docstring: inputs [B, G, C, IY, IX], weights [G, K, C, FY, FX] -> [B, G, K, OY, OX]."""
    batch, groups, outputs, channels, rows, columns, taps_down, taps_across = nest.sizes
    result = np.zeros((batch, groups, outputs, rows, columns))
    for oy in range(rows):
        for ox in range(columns):
            for fy in range(taps_down):
                for fx in range(taps_across):
                    y = oy * nest.stride[0] + fy * nest.dilation[0] - nest.pads[0]
                    x = ox * nest.stride[1] + fx * nest.dilation[1] - nest.pads[1]
                    (iy, off_y), (ix, off_x) = divmod(y, nest.input_dilation[0]), divmod(x, nest.input_dilation[1])
                    if off_y or off_x or not (0 <= iy < nest.input_rows and 0 <= ix < nest.input_columns):
                        continue
                    result[..., oy, ox] += np.einsum("bgc,gkc->bgk", inputs[..., iy, ix], weights[..., fy, fx])
    return result


def execute_convolution(node: Node, nest: LoopNest) -> Array:
    """Executes a (transposed) convolution's nest on the node's own arrays, in the node's own layout."""
    x, w = node.inputs[0], node.inputs[1]
    assert x is not None and w is not None
    batch, groups, outputs, channels, _, _, taps_down, taps_across = nest.sizes
    inputs = x.reshape(batch, groups, channels, nest.input_rows, nest.input_columns)
    if node.op == "ConvTranspose":
        stored = w.reshape(groups, channels, outputs, taps_down, taps_across)
        weights = stored.transpose(0, 2, 1, 3, 4)[..., ::-1, ::-1]
    else:
        weights = w.reshape(groups, outputs, channels, taps_down, taps_across)
    return execute(nest, inputs, weights)


def check(node: Node) -> LoopNest:
    """Sizes are those of the tensors, and the executed loops agree with onnxruntime. Returns the nest."""
    (result,) = node.run()
    nest = node.layer([result]).nest
    assert node.inputs[0] is not None and node.inputs[1] is not None
    assert nest.elements(Operand.INPUTS) == node.inputs[0].size
    assert nest.elements(Operand.WEIGHTS) == node.inputs[1].size
    assert nest.elements(Operand.OUTPUTS) == result.size
    np.testing.assert_allclose(execute_convolution(node, nest).reshape(result.shape), result, rtol=1e-4, atol=1e-4)
    return nest


@st.composite
def windows(draw: st.DrawFn) -> dict[str, Any]:
    """Batch, groups, channels and, for both axes, a size, kernel, stride and dilation that fit without padding."""
    axes = []
    for _ in range(2):
        kernel, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 3))
        reach = dilation * (kernel - 1) + 1
        axes.append((reach + draw(st.integers(0, 5)), kernel, draw(st.integers(1, 3)), dilation))
    sizes, kernels, strides, dilations = zip(*axes, strict=True)
    counts = dict(
        zip(("batch", "groups", "channels", "outputs"), draw(st.tuples(*4 * [st.integers(1, 3)])), strict=True)
    )
    return counts | {"sizes": sizes, "kernels": kernels, "strides": strides, "dilations": dilations}


def convolution(case: dict[str, Any], make: Any, **attributes: Any) -> Node:
    groups, channels, outputs = case["groups"], case["channels"], case["outputs"]
    x = make(case["batch"], groups * channels, *case["sizes"])
    w = make(groups * outputs, channels, *case["kernels"])
    named = {"group": groups, "strides": case["strides"], "dilations": case["dilations"]} | attributes
    return Node("Conv", (x, w), (1,), named)


def transposed(case: dict[str, Any], make: Any, **attributes: Any) -> Node:
    groups, channels, outputs = case["groups"], case["channels"], case["outputs"]
    x = make(case["batch"], groups * channels, *case["sizes"])
    w = make(groups * channels, outputs, *case["kernels"])
    named = {"group": groups, "strides": case["strides"], "dilations": case["dilations"]} | attributes
    return Node("ConvTranspose", (x, w), (1,), named)


@settings(max_examples=40, deadline=None)
@given(windows())
def test_macs_of_a_convolution_are_the_sum_over_ones(case: dict[str, Any]) -> None:
    node = convolution(case, ones)
    (result,) = node.run()
    nest = node.layer([result]).nest
    assert nest.macs == nest.loop_macs == int(result.sum())


@settings(max_examples=40, deadline=None)
@given(windows())
def test_macs_of_a_transposed_convolution_are_the_sum_over_ones(case: dict[str, Any]) -> None:
    node = transposed(case, ones)
    (result,) = node.run()
    assert node.layer([result]).nest.macs == int(result.sum())


@settings(max_examples=40, deadline=None)
@given(windows(), st.lists(st.integers(0, 3), min_size=4, max_size=4))
def test_a_padded_convolution_executes_as_written(case: dict[str, Any], pads: list[int]) -> None:
    nest = check(convolution(case, noise, pads=pads))
    assert nest.pads == tuple(pads)


@settings(max_examples=40, deadline=None)
@given(windows(), st.lists(st.integers(0, 1), min_size=4, max_size=4), st.tuples(st.integers(0, 2), st.integers(0, 2)))
def test_a_transposed_convolution_executes_as_written(
    case: dict[str, Any], pads: list[int], extra: tuple[int, int]
) -> None:
    extra = (min(extra[0], case["strides"][0] - 1), min(extra[1], case["strides"][1] - 1))  # what onnxruntime allows
    sizes = zip(case["sizes"], case["strides"], case["kernels"], case["dilations"], pads[:2], pads[2:], strict=True)
    if any((i - 1) * s + d * (f - 1) + 1 - a - b < 1 for i, s, f, d, a, b in sizes):
        pads = [0, 0, 0, 0]
    nest = check(transposed(case, noise, pads=pads, output_padding=extra))
    assert nest.stride == (1, 1) and nest.input_dilation == case["strides"]


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("sizes", [(7, 8), (5, 6)])
def test_automatic_pads_are_resolved(mode: str, sizes: tuple[int, int]) -> None:
    check(Node("Conv", (noise(2, 3, *sizes), noise(4, 3, 3, 4)), (1,), {"auto_pad": mode, "strides": [2, 3]}))


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
def test_automatic_pads_of_a_transposed_convolution(mode: str) -> None:
    attributes = {"auto_pad": mode, "strides": [2, 3]}
    check(Node("ConvTranspose", (noise(2, 3, 4, 5), noise(3, 2, 3, 4)), (1,), attributes))


def test_a_stated_output_shape_of_a_transposed_convolution() -> None:
    attributes = {"output_shape": [10, 9], "strides": [2, 2]}
    nest = check(Node("ConvTranspose", (noise(1, 3, 4, 5), noise(3, 2, 3, 3)), (1,), attributes))
    assert nest.size(Dimension.OY) == 10


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_one_dimension_is_a_row(op: str) -> None:
    nest = check(Node(op, (noise(2, 4, 9), noise(4, 2, 3)), (1,), {"group": 2, "pads": [1, 2], "strides": [2]}))
    assert nest.size(Dimension.OY) == nest.size(Dimension.FY) == nest.input_rows == 1
    assert nest.input_columns == 9


@pytest.mark.parametrize(
    ("groups", "channels", "outputs", "kind"),
    [
        (1, 4, 6, OperationKind.CONVOLUTION),
        (1, 1, 6, OperationKind.CONVOLUTION),
        (2, 2, 6, OperationKind.GROUPED_CONVOLUTION),
        (4, 1, 4, OperationKind.DEPTHWISE_CONVOLUTION),
        (4, 1, 8, OperationKind.DEPTHWISE_CONVOLUTION),
    ],
)
def test_groups_decide_the_kind(groups: int, channels: int, outputs: int, kind: OperationKind) -> None:
    node = Node("Conv", (noise(1, groups * channels, 5, 5), noise(outputs, channels, 3, 3)), (1,), {"group": groups})
    nest = check(node)
    assert nest.kind is kind
    assert nest.sizes == (1, groups, outputs // groups, channels, 3, 3, 3, 3)


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_three_dimensions_are_host_work_of_two_operations_a_mac(op: str) -> None:
    node = Node(op, (ones(1, 2, 4, 5, 6), ones(2, 2, 2, 3, 2)), (1,))
    (result,) = node.run()
    nest = node.layer([result]).nest
    assert nest.kind is OperationKind.HOST
    assert nest.operations == 2 * int(result.sum())


def test_a_wrong_pad_would_not_pass() -> None:
    node = Node("Conv", (noise(1, 2, 5, 5), noise(3, 2, 3, 3)), (1,), {"pads": [1, 1, 1, 1]})
    (result,) = node.run()
    nest = node.layer([result]).nest
    shifted = replace(nest, pads=(0, 1, 2, 1))
    assert not np.allclose(execute_convolution(node, shifted).reshape(result.shape), result, atol=1e-3)


PRODUCTS = [
    (Node("Gemm", (ones(3, 4), ones(4, 5)), (1,)), OperationKind.DENSE, (1, 1, 5, 4, 1, 3, 1, 1)),
    (Node("Gemm", (ones(4, 3), ones(5, 4), ones(5)), (1, 2), {"transA": 1, "transB": 1}), OperationKind.DENSE, None),
    (Node("Gemm", (ones(4, 3), ones(4, 5)), (), {"transA": 1}), OperationKind.MATMUL, (1, 1, 5, 4, 1, 3, 1, 1)),
    (Node("MatMul", (ones(2, 3, 7, 4), ones(4, 5)), (1,)), OperationKind.DENSE, (1, 1, 5, 4, 1, 42, 1, 1)),
    (Node("MatMul", (ones(2, 3, 7, 4), ones(1, 1, 4, 5)), (1,)), OperationKind.DENSE, (1, 1, 5, 4, 1, 42, 1, 1)),
    (Node("MatMul", (ones(2, 3, 7, 4), ones(2, 3, 4, 5))), OperationKind.MATMUL, (1, 6, 5, 4, 1, 7, 1, 1)),
    (Node("MatMul", (ones(2, 1, 7, 4), ones(3, 4, 5))), OperationKind.MATMUL, (1, 6, 5, 4, 1, 7, 1, 1)),
    (Node("MatMul", (ones(7, 4), ones(2, 4, 5)), (0,)), OperationKind.MATMUL, (1, 2, 5, 4, 1, 7, 1, 1)),
    (Node("MatMul", (ones(3, 7, 4), ones(3, 4, 5)), (1,)), OperationKind.MATMUL, (1, 3, 5, 4, 1, 7, 1, 1)),
    (Node("MatMul", (ones(4), ones(4, 5)), (1,)), OperationKind.DENSE, (1, 1, 5, 4, 1, 1, 1, 1)),
    (Node("MatMul", (ones(3, 4), ones(4))), OperationKind.MATMUL, (1, 1, 1, 4, 1, 3, 1, 1)),
    (
        Node("Einsum", (ones(2, 3, 4, 5), ones(2, 3, 6, 5)), (), {"equation": "bhqd,bhkd->bhqk"}),
        OperationKind.MATMUL,
        (1, 6, 6, 5, 1, 4, 1, 1),
    ),
    (
        Node("Einsum", (ones(2, 3, 4), ones(4, 5, 6)), (1,), {"equation": "bmc,cij"}),
        OperationKind.DENSE,
        (1, 1, 30, 4, 1, 6, 1, 1),
    ),
]


@pytest.mark.parametrize(("node", "kind", "sizes"), PRODUCTS)
def test_macs_of_a_matrix_product_are_the_sum_over_ones(
    node: Node, kind: OperationKind, sizes: tuple[int, ...] | None
) -> None:
    (result,) = node.run()
    nest = node.layer([result]).nest
    bias = node.op == "Gemm" and len(node.inputs) == 3
    assert nest.kind is kind
    assert nest.macs == int(result.sum()) - (result.size if bias else 0)
    assert sizes is None or nest.sizes == sizes
    assert nest.elements(Operand.OUTPUTS) == result.size
    assert (nest.input_rows, nest.input_columns) == (1, nest.size(Dimension.OX))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_batches_of_matrices_broadcast(data: st.DataObject) -> None:
    whole = data.draw(st.lists(st.integers(1, 3), max_size=3))
    first, second = ([data.draw(st.sampled_from((1, size))) for size in whole] for _ in range(2))
    rows, summed, columns = data.draw(st.tuples(*3 * [st.integers(1, 4)]))
    node = Node("MatMul", (ones(*first, rows, summed), ones(*second, summed, columns)))
    (result,) = node.run()
    nest = node.layer([result]).nest
    assert nest.macs == int(result.sum())
    assert nest.elements(Operand.OUTPUTS) == result.size


@pytest.mark.parametrize(
    ("equation", "shapes", "operations"),
    [
        ("ij,kl->i", ((3, 4), (5, 6)), 2 * 3 * 4 * 5 * 6),
        ("ii->i", ((3, 3),), 9),
        ("ij,jk,kl->il", ((2, 3), (3, 4), (4, 5)), 2 * 2 * 3 * 4 * 5),
    ],
)
def test_any_other_einsum_is_host_work(equation: str, shapes: tuple[tuple[int, ...], ...], operations: int) -> None:
    node = Node("Einsum", tuple(ones(*shape) for shape in shapes), (), {"equation": equation})
    nest = node.layer().nest
    assert nest.kind is OperationKind.HOST
    assert nest.operations == operations


def test_quantized_weights_make_a_dense_layer() -> None:
    weights = ir.val("w", ir.DataType.INT8, (5, 4), const_value=ir.tensor(np.ones((5, 4), np.int8), name="w"))
    scale = ir.val("s", ir.DataType.FLOAT, (), const_value=ir.tensor(np.float32(0.5), name="s"))
    x = ir.val("x", ir.DataType.FLOAT, (3, 4))
    real = ir.node("DequantizeLinear", [weights, scale], name="dequantize")
    turned = ir.node("Transpose", [real.outputs[0]], {"perm": [1, 0]}, name="turn")
    product = ir.node("MatMul", [x, turned.outputs[0]], name="product")
    for node, shape in ((real, (5, 4)), (turned, (4, 5)), (product, (3, 5))):
        node.outputs[0].name = f"{node.name}_result"
        node.outputs[0].shape, node.outputs[0].type = ir.Shape(shape), ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph([x], product.outputs, nodes=[real, turned, product], initializers=[weights, scale])
    first, second, third = layers_of(Graph(ir.Model(graph, ir_version=10), "quantized", ""))
    assert first.nest.kind is second.nest.kind is OperationKind.VIEW
    assert (first.parameters, second.parameters, third.parameters) == (20, 0, 0)
    assert third.nest.kind is OperationKind.DENSE
    assert third.inputs == ("x",)
