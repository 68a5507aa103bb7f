"""The typed views against onnxruntime: a node rewritten with the view's numbers computes the same."""

from __future__ import annotations

from itertools import product

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from codesign.graph.operators import (
    BatchNormalization,
    Convolution,
    Gemm,
    MatMul,
    Pool,
    TransposedConvolution,
    view_of,
)
from codesign.vocabulary import OperationKind
from tests.importers.models import model, random, run, values


def first_node(proto: onnx.ModelProto) -> ir.Node:
    """The first node of a model with inferred shapes."""
    inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    return next(iter(ir.from_proto(inferred).graph))


def single(op: str, shape: list[int], weights: dict[str, np.ndarray], opset: int = 18, **attributes: object):  # type: ignore[no-untyped-def, type-arg]
    """One node over x and the weights, in order."""
    node = helper.make_node(op, ["x", *weights], ["y"], **attributes)
    return model([node], values({"x": shape}), values({"y": None}), weights, opset=opset)


@pytest.mark.parametrize(
    ("auto_pad", "stride", "dilation", "rank"),
    [
        case
        for case in product(("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"), (1, 2, 3), (1, 2), (1, 2))
        if not (case[2] == 2 and case[0].startswith("SAME"))  # onnxruntime refuses this pair
    ],
)
def test_convolution_with_every_padding(auto_pad: str, stride: int, dilation: int, rank: int) -> None:
    size, kernel = [9, 14][-rank:], [3, 4][-rank:]
    given = {"pads": [1, 2, 0, 3][:rank] + [2, 1, 1, 0][:rank]} if auto_pad == "NOTSET" else {"auto_pad": auto_pad}
    steps = {"strides": [stride] * rank, "dilations": [dilation] * rank, "group": 2}
    weights = {"w": random(0, 6, 2, *kernel), "b": random(1, 6)}
    proto = single("Conv", [2, 4, *size], weights, **given, **steps)
    view = Convolution.of(first_node(proto))
    assert view is not None and view.rank == rank and view.group == 2 and view.b is not None
    assert view.kernel == ((1, *kernel) if rank == 1 else tuple(kernel))
    x = random(2, 2, 4, *size)
    expected = run(proto, {"x": x})["y"]
    flat = {"w": weights["w"].reshape(6, 2, *view.kernel), "b": weights["b"]}
    written = {"strides": view.strides, "dilations": view.dilations, "pads": view.pads, "group": view.group}
    again = single("Conv", [2, 4, *view.input_size], flat, **written)
    found = run(again, {"x": x.reshape(2, 4, *view.input_size)})["y"]
    assert found.shape[2:] == view.output_size
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"strides": [2, 3], "pads": [1, 0, 2, 1], "output_padding": [1, 2]},
        {"strides": [2, 2], "output_shape": [11, 13]},
        {"strides": [2, 2], "output_shape": [9, 12], "auto_pad": "SAME_UPPER"},
        {"strides": [2, 3], "auto_pad": "SAME_UPPER"},
        {"strides": [2, 3], "auto_pad": "SAME_LOWER"},
        {"strides": [3, 3], "dilations": [2, 1], "group": 2},
    ],
)
def test_transposed_convolution(attributes: dict[str, object]) -> None:
    group = attributes.get("group", 1)
    proto = single("ConvTranspose", [1, 4, 5, 6], {"w": random(0, 4, 3, 3, 4)}, **attributes)
    view = TransposedConvolution.of(first_node(proto))
    assert view is not None and view.out_channels == 3 * int(str(group))
    x = {"x": random(1, 1, 4, 5, 6)}
    expected = run(proto, x)["y"]
    written = {"strides": view.strides, "dilations": view.dilations, "pads": view.pads, "group": view.group}
    again = single(
        "ConvTranspose", [1, 4, 5, 6], {"w": random(0, 4, 3, 3, 4)}, output_padding=view.output_padding, **written
    )
    np.testing.assert_allclose(run(again, x)["y"], expected, rtol=1e-5, atol=1e-5)
    assert view.output_size == expected.shape[2:]


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("auto_pad", ["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"])
def test_pool_with_every_padding(op: str, auto_pad: str) -> None:
    given = {"pads": [1, 0, 0, 1]} if auto_pad == "NOTSET" else {"auto_pad": auto_pad}
    proto = single(op, [1, 3, 8, 9], {}, kernel_shape=[3, 2], strides=[2, 2], **given)
    view = Pool.of(first_node(proto))
    assert view is not None and not view.is_global
    assert view.kind is (OperationKind.MAX_POOL if op == "MaxPool" else OperationKind.AVERAGE_POOL)
    x = {"x": random(1, 1, 3, 8, 9)}
    again = single(op, [1, 3, 8, 9], {}, kernel_shape=view.kernel, strides=view.strides, pads=view.pads)
    np.testing.assert_allclose(run(again, x)["y"], run(proto, x)["y"], rtol=1e-6)


def test_every_form_of_global_pooling() -> None:
    axes = {"axes": np.array([-1, 2], np.int64)}
    shape = [2, 3, 5, 7]
    for proto, keeps in (
        (single("GlobalAveragePool", shape, {}), True),
        (single("ReduceMean", shape, axes, keepdims=1), True),
        (single("ReduceMean", shape, axes, keepdims=0), False),
        (single("ReduceMean", shape, {}, opset=13, axes=[2, 3], keepdims=0), False),
        (single("AveragePool", shape, {}, kernel_shape=[5, 7]), True),
    ):
        view = Pool.of(first_node(proto))
        assert view is not None and view.is_global and view.keeps_dimensions is keeps
        assert view.kind is OperationKind.AVERAGE_POOL
        assert view.kernel == view.input_size == (5, 7) and view.output_size == (1, 1)


def test_what_has_no_view() -> None:
    """Negative controls: other axes, other domains, three dimensions, training mode."""
    four = {name: np.abs(random(index, 3)) + 1 for index, name in enumerate("stmv")}
    for proto in (
        single("ReduceMean", [2, 3, 5, 7], {"axes": np.array([1], np.int64)}),
        single("ReduceMean", [2, 3, 5], {"axes": np.array([2], np.int64)}),
        single("Conv", [1, 2, 4, 4, 4], {"w": random(0, 2, 2, 1, 1, 1)}),
        single("MaxPool", [1, 2, 4, 4, 4], {}, kernel_shape=[2, 2, 2]),
        single("BatchNormalization", [2, 3, 4, 4], four, training_mode=1),
        single("Relu", [2], {}),
    ):
        assert view_of(first_node(proto)) is None
    custom = first_node(single("Gemm", [2, 3], {"w": random(0, 3, 4)}))
    assert view_of(custom) is not None
    custom.domain = "com.acme"
    assert view_of(custom) is None


def test_gemm_matmul_and_batch_norm() -> None:
    gemm = Gemm.of(first_node(single("Gemm", [2, 3], {"w": random(0, 4, 3), "b": random(1, 4)}, transB=1, alpha=0.5)))
    assert gemm is not None and gemm.b is not None
    assert (gemm.in_features, gemm.out_features, gemm.alpha, gemm.beta) == (3, 4, 0.5, 1.0)
    assert (gemm.transpose_x, gemm.transpose_w, gemm.has_constant_weights) == (False, True, True)
    plain = Gemm.of(first_node(single("Gemm", [2, 3], {"w": random(0, 3, 4)})))
    assert plain is not None and (plain.in_features, plain.out_features, plain.b) == (3, 4, None)
    matmul = MatMul.of(first_node(single("MatMul", [2, 3], {"w": random(0, 3, 4)})))
    assert matmul is not None and matmul.has_constant_weights
    four = {name: np.abs(random(index, 3)) + 1 for index, name in enumerate("stmv")}
    norm = BatchNormalization.of(first_node(single("BatchNormalization", [2, 3, 4, 4], four, epsilon=0.125)))
    assert norm is not None and norm.epsilon == 0.125
    assert [norm.scale.name, norm.shift.name, norm.mean.name, norm.variance.name] == list("stmv")
