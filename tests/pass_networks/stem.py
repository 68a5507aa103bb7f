"""Networks with a strided first convolution on few channels, and with scales and shifts around linear operators."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from tests.pass_models import batch_norm, normal, proto_of, statistics


def odd_stem(random: np.random.Generator) -> onnx.ModelProto:
    """Normalised colours of odd size -> padded 5x5 stride 2 -> BatchNormalization -> Relu -> Conv -> LayerScale."""
    constants = {
        "mean": random.uniform(0.2, 0.6, (3, 1, 1)).astype(np.float32),
        "std": random.uniform(0.2, 0.3, (3, 1, 1)).astype(np.float32),
        "w1": normal(random, 8, 3, 5, 5),
        "w2": normal(random, 8, 8, 3, 3),
        "gamma": normal(random, 8, 1, 1),
        "shift": normal(random, 1, 8, 1, 1),
        **statistics(random, 8),
    }
    nodes = [
        helper.make_node("Sub", ["x", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "std"], ["normalised"]),
        helper.make_node("Conv", ["normalised", "w1"], ["c1"], pads=[1, 2, 1, 2], strides=[2, 2]),
        batch_norm("c1", "a1"),
        helper.make_node("Relu", ["a1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], pads=[1, 1, 1, 1]),
        helper.make_node("Mul", ["c2", "gamma"], ["m2"]),
        helper.make_node("Add", ["shift", "m2"], ["s2"]),
        helper.make_node("Add", ["s2", "r1"], ["y"]),
    ]
    return proto_of(nodes, {"x": (2, 3, 19, 21)}, {"y": None}, constants)


def grey_stem(random: np.random.Generator) -> onnx.ModelProto:
    """AlexNet's 11x11 stride 4 padding 2 on grey values -> BatchNormalization -> Neg -> 1x1 Conv."""
    constants = {"w1": normal(random, 6, 1, 11, 11), "w2": normal(random, 4, 6, 1, 1), **statistics(random, 6)}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], pads=[2, 2, 2, 2], strides=[4, 4]),
        batch_norm("c1", "a1"),
        helper.make_node("Relu", ["a1"], ["r1"]),
        helper.make_node("Neg", ["r1"], ["n1"]),
        helper.make_node("Conv", ["n1", "w2"], ["y"]),
    ]
    return proto_of(nodes, {"x": (1, 1, 31, 34)}, {"y": None}, constants)


def patches(random: np.random.Generator) -> onnx.ModelProto:
    """4x4 stride 4 patches -> BatchNormalization -> tokens -> attention with scaled queries and keys -> LayerScale."""
    constants = {
        "patch": normal(random, 12, 3, 4, 4) / 4,
        "qkv": normal(random, 12, 36) / 4,
        "qkv_bias": normal(random, 36) / 4,
        "out": normal(random, 12, 12),
        "gamma": normal(random, 12),
        "half": np.array(0.8, np.float32),
        "flat": np.array([1, 12, 9], np.int64),
        "heads": np.array([1, 9, 3, 2, 6], np.int64),
        "joined": np.array([1, 9, 12], np.int64),
        "first": np.array([0], np.int64),
        "thirds": np.array([1, 1, 1], np.int64),
        **statistics(random, 12),
    }
    nodes = [
        helper.make_node("Conv", ["x", "patch"], ["c"], strides=[4, 4]),
        batch_norm("c", "a"),
        helper.make_node("Reshape", ["a", "flat"], ["f"]),
        helper.make_node("Transpose", ["f"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["t", "qkv"], ["m"]),
        helper.make_node("Add", ["qkv_bias", "m"], ["mb"]),
        helper.make_node("Reshape", ["mb", "heads"], ["h"]),
        helper.make_node("Transpose", ["h"], ["p"], perm=[2, 0, 3, 1, 4]),
        helper.make_node("Split", ["p", "thirds"], ["q1", "k1", "v1"], axis=0),
        *(helper.make_node("Squeeze", [f"{name}1", "first"], [name]) for name in "qkv"),
        helper.make_node("Mul", ["q", "half"], ["qs"]),
        helper.make_node("Transpose", ["k"], ["kt"], perm=[0, 1, 3, 2]),
        helper.make_node("Mul", ["kt", "half"], ["ks"]),
        helper.make_node("MatMul", ["qs", "ks"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["weights"], axis=-1),
        helper.make_node("MatMul", ["weights", "v"], ["o"]),
        helper.make_node("Transpose", ["o"], ["ot"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["ot", "joined"], ["oj"]),
        helper.make_node("MatMul", ["oj", "out"], ["om"]),
        helper.make_node("Mul", ["om", "gamma"], ["og"]),
        helper.make_node("Add", ["t", "og"], ["y"]),
    ]
    return proto_of(nodes, {"x": (1, 3, 12, 12)}, {"y": None}, constants)


NETWORKS = {"odd_stem": odd_stem, "grey_stem": grey_stem, "patches": patches}
