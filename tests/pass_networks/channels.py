"""Networks whose layers must agree on their channels: residual additions, gates, concatenations, shuffles, heads."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from tests.pass_models import batch_norm, normal, proto_of, statistics


def residual(random: np.random.Generator) -> onnx.ModelProto:
    """Inverted residual of 6 channels, 10 inside, with squeeze-excite and a live normalisation; a classifier of 5."""
    constants = {
        "w1": normal(random, 6, 3, 3, 3),
        "w2": normal(random, 10, 6, 1, 1),
        "w3": normal(random, 10, 1, 3, 3),
        "b3": normal(random, 10),
        "w4": normal(random, 3, 10, 1, 1),
        "w5": normal(random, 10, 3, 1, 1),
        "w6": normal(random, 6, 10, 1, 1),
        "w7": normal(random, 5, 6),
        "b7": normal(random, 5),
        **statistics(random, 6, "n1"),
        **statistics(random, 10, "n2"),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], pads=[1, 1, 1, 1], strides=[2, 2]),
        batch_norm("c1", "a1", "n1"),
        helper.make_node("Conv", ["a1", "w2"], ["c2"]),
        batch_norm("c2", "a2", "n2"),
        helper.make_node("HardSwish", ["a2"], ["r2"]),
        helper.make_node("Conv", ["r2", "w3", "b3"], ["c3"], group=10, pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["c3"], ["p3"]),
        helper.make_node("Conv", ["p3", "w4"], ["c4"]),
        helper.make_node("Relu", ["c4"], ["r4"]),
        helper.make_node("Conv", ["r4", "w5"], ["c5"]),
        helper.make_node("Sigmoid", ["c5"], ["gate"]),
        helper.make_node("Mul", ["c3", "gate"], ["m"]),
        helper.make_node("Conv", ["m", "w6"], ["c6"]),
        helper.make_node("Add", ["c6", "a1"], ["s"]),
        helper.make_node("GlobalAveragePool", ["s"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w7", "b7"], ["y"], transB=1),
    ]
    return proto_of(nodes, {"x": (2, 3, 12, 12)}, {"y": (2, 5)}, constants)


def shuffled(random: np.random.Generator) -> onnx.ModelProto:
    """Two branches of 5 concatenated, shuffled and split again; a convolution in groups on the way out."""
    constants = {
        "w1": normal(random, 5, 3, 3, 3),
        "w2": normal(random, 5, 3, 3, 3),
        "w3": normal(random, 5, 5, 1, 1),
        "w4": normal(random, 6, 5, 3, 3),
        "w5": normal(random, 4, 16, 1, 1),
        "b3": normal(random, 5),
        "to_groups": np.array([1, 2, 5, 8, 8], np.int64),
        "from_groups": np.array([1, -1, 8, 8], np.int64),
        "halves": np.array([5, 5], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["x", "w2"], ["c2"], pads=[1, 1, 1, 1]),
        helper.make_node("Concat", ["c1", "c2"], ["both"], axis=1),
        helper.make_node("Reshape", ["both", "to_groups"], ["g"]),
        helper.make_node("Transpose", ["g"], ["t"], perm=[0, 2, 1, 3, 4]),
        helper.make_node("Reshape", ["t", "from_groups"], ["mixed"]),
        helper.make_node("Split", ["mixed", "halves"], ["left", "right"], axis=1),
        helper.make_node("Conv", ["right", "w3", "b3"], ["c3"]),
        helper.make_node("Relu", ["c3"], ["r3"]),
        helper.make_node("Concat", ["left", "r3"], ["again"], axis=1),
        helper.make_node("Conv", ["again", "w4"], ["c4"], group=2, pads=[1, 1, 1, 1]),
        helper.make_node("Concat", ["again", "c4"], ["all"], axis=1),
        helper.make_node("Conv", ["all", "w5"], ["y"]),
    ]
    return proto_of(nodes, {"x": (1, 3, 8, 8)}, {"y": (1, 4, 8, 8)}, constants)


def whole_shuffle(random: np.random.Generator) -> onnx.ModelProto:
    """Two branches of 3 concatenated and shuffled, read by one convolution."""
    constants = {
        "w1": normal(random, 3, 3, 1, 1),
        "w2": normal(random, 3, 3, 3, 3),
        "w3": normal(random, 4, 6, 1, 1),
        "to_groups": np.array([1, 2, 3, 4, 4], np.int64),
        "from_groups": np.array([1, 6, 4, 4], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"]),
        helper.make_node("Conv", ["x", "w2"], ["c2"], pads=[1, 1, 1, 1]),
        helper.make_node("Concat", ["c1", "c2"], ["both"], axis=1),
        helper.make_node("Reshape", ["both", "to_groups"], ["g"]),
        helper.make_node("Transpose", ["g"], ["t"], perm=[0, 2, 1, 3, 4]),
        helper.make_node("Reshape", ["t", "from_groups"], ["mixed"]),
        helper.make_node("Conv", ["mixed", "w3"], ["y"]),
    ]
    return proto_of(nodes, {"x": (1, 3, 4, 4)}, {"y": (1, 4, 4, 4)}, constants)


def attention(random: np.random.Generator) -> onnx.ModelProto:
    """Two heads of 3 between dense layers, on tokens made of pixels; a layer normalisation on 6 channels after it."""
    constants = {
        "w1": normal(random, 6, 3, 2, 2),
        "wq": normal(random, 6, 6),
        "wk": normal(random, 6, 6),
        "wv": normal(random, 6, 6),
        "wo": normal(random, 6, 6),
        "w2": normal(random, 6, 7),
        "b2": normal(random, 7),
        "w3": normal(random, 7, 4),
        "scale": np.array(0.5, np.float32),
        "ln_scale": normal(random, 6),
        "ln_shift": normal(random, 6),
        "tokens": np.array([1, 6, 16], np.int64),
        "heads": np.array([1, 16, 2, 3], np.int64),
        "joined": np.array([1, 16, 6], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], strides=[2, 2]),
        helper.make_node("Reshape", ["c1", "tokens"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["t"], perm=[0, 2, 1]),
    ]
    for name, order in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        nodes += [
            helper.make_node("MatMul", ["t", f"w{name}"], [f"{name}1"]),
            helper.make_node("Reshape", [f"{name}1", "heads"], [f"{name}2"]),
            helper.make_node("Transpose", [f"{name}2"], [name], perm=order),
        ]
    nodes += [
        helper.make_node("MatMul", ["q", "k"], ["scores"]),
        helper.make_node("Mul", ["scores", "scale"], ["scaled"]),
        helper.make_node("Softmax", ["scaled"], ["shares"], axis=-1),
        helper.make_node("MatMul", ["shares", "v"], ["mixed"]),
        helper.make_node("Transpose", ["mixed"], ["back"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["back", "joined"], ["beside"]),
        helper.make_node("MatMul", ["beside", "wo"], ["out"]),
        helper.make_node("Add", ["out", "t"], ["sum"]),
        helper.make_node("LayerNormalization", ["sum", "ln_scale", "ln_shift"], ["n"], axis=-1),
        helper.make_node("MatMul", ["n", "w2"], ["m2"]),
        helper.make_node("Add", ["m2", "b2"], ["h"]),
        helper.make_node("Tanh", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w3"], ["y"]),
    ]
    return proto_of(nodes, {"x": (1, 3, 8, 8)}, {"y": (1, 16, 4)}, constants)


NETWORKS = {"residual": residual, "shuffled": shuffled, "whole_shuffle": whole_shuffle, "attention": attention}
