"""Networks with live, non-degenerate normalisations and with averages."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from tests.pass_models import batch_norm, normal, proto_of, statistics


def conv_norm(random: np.random.Generator) -> onnx.ModelProto:
    """Conv without bias -> BatchNormalization -> Relu -> depthwise Conv with bias -> BatchNormalization."""
    constants = {
        "w1": normal(random, 8, 3, 3, 3),
        "w2": normal(random, 8, 1, 3, 3),
        "b2": normal(random, 8),
        **statistics(random, 8, "n1"),
        **statistics(random, 8, "n2"),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], pads=[1, 1, 1, 1], strides=[2, 2]),
        batch_norm("c1", "a1", "n1"),
        helper.make_node("Relu", ["a1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], group=8, pads=[1, 1, 1, 1]),
        batch_norm("c2", "y", "n2", epsilon=1e-3),
    ]
    return proto_of(nodes, {"x": (2, 3, 12, 12)}, {"y": (2, 8, 6, 6)}, constants)


def classifier(random: np.random.Generator) -> onnx.ModelProto:
    """Conv -> BatchNormalization -> 2x2 average -> global average of 16 -> Reshape -> MatMul -> BatchNormalization."""
    constants = {
        "w1": normal(random, 4, 3, 1, 1),
        "w2": normal(random, 4, 5),
        "flat": np.array([1, -1], np.int64),
        **statistics(random, 4, "n1"),
        **statistics(random, 5, "n2"),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"]),
        batch_norm("c1", "a1", "n1"),
        helper.make_node("AveragePool", ["a1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["p1"], ["p2"]),
        helper.make_node("Reshape", ["p2", "flat"], ["f"]),
        helper.make_node("MatMul", ["f", "w2"], ["m"]),
        batch_norm("m", "y", "n2"),
    ]
    return proto_of(nodes, {"x": (1, 3, 8, 8)}, {"y": (1, 5)}, constants)


def transposed(random: np.random.Generator) -> onnx.ModelProto:
    """Grouped ConvTranspose with bias -> BatchNormalization -> ReduceMean over 8x16."""
    constants = {"w": normal(random, 4, 3, 2, 2), "b": normal(random, 6), **statistics(random, 6)}
    nodes = [
        helper.make_node("ConvTranspose", ["x", "w", "b"], ["c"], group=2, strides=[2, 2]),
        batch_norm("c", "a"),
        helper.make_node("ReduceMean", ["a"], ["y"], axes=[2, 3], keepdims=0),
    ]
    return proto_of(nodes, {"x": (1, 4, 4, 8)}, {"y": (1, 6)}, constants)


NETWORKS = {"conv_norm": conv_norm, "classifier": classifier, "transposed": transposed}
