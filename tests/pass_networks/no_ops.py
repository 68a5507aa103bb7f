"""A network full of operators without effect."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from tests.pass_models import batch_norm, normal, proto_of, statistics


def no_ops(random: np.random.Generator) -> onnx.ModelProto:
    """Slices and Pads of nothing, pairs that cancel, Relus twice, the same twice, a branch nobody reads."""
    constants = {
        "w1": normal(random, 4, 3, 3, 3),
        "w2": normal(random, 4, 4, 1, 1),
        "one": np.float32(1),
        "zeros": np.zeros((4, 1, 1), np.float32),
        "none": np.array([0], np.int64),
        "four": np.array([4], np.int64),
        "axis": np.array([1], np.int64),
        "no_pads": np.zeros(8, np.int64),
        "low": np.float32(0),
        "high": np.float32(6),
        "flat": np.array([1, -1], np.int64),
        "axes": np.array([2, 3], np.int64),
        "half": np.array(0.5, np.float32),
        "half_again": np.array(0.5, np.float32),
        **statistics(random, 4),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], pads=[1, 1, 1, 1]),
        batch_norm("c1", "n1"),
        helper.make_node("Relu", ["n1"], ["r1"]),
        helper.make_node("Clip", ["r1", "low", "high"], ["r2"]),
        helper.make_node("Slice", ["r2", "none", "four", "axis"], ["s"]),
        helper.make_node("Pad", ["s", "no_pads"], ["p"]),
        helper.make_node("Mul", ["p", "one"], ["m"]),
        helper.make_node("Add", ["zeros", "m"], ["a"]),
        helper.make_node("Transpose", ["a"], ["t1"], perm=[0, 2, 3, 1]),
        helper.make_node("Transpose", ["t1"], ["t2"], perm=[0, 3, 1, 2]),
        helper.make_node("MaxPool", ["t2"], ["q"], kernel_shape=[1, 1]),
        helper.make_node("MaxPool", ["q"], ["q2"], kernel_shape=[2, 2]),
        helper.make_node("Relu", ["q2"], ["r3"]),
        helper.make_node("Mul", ["r3", "half"], ["h1"]),
        helper.make_node("Mul", ["r3", "half_again"], ["h2"]),
        helper.make_node("Conv", ["h1", "w2"], ["c2"]),
        helper.make_node("Add", ["c2", "h2"], ["e"]),
        helper.make_node("Exp", ["e"], ["dead"]),
        helper.make_node("Identity", ["dead"], ["dead_too"]),
        helper.make_node("GlobalAveragePool", ["e"], ["g"]),
        helper.make_node("Reshape", ["g", "flat"], ["f1"]),
        helper.make_node("Unsqueeze", ["f1", "axes"], ["f2"]),
        helper.make_node("Flatten", ["f2"], ["y"]),
    ]
    return proto_of(nodes, {"x": (1, 3, 8, 8)}, {"y": (1, 4)}, constants)


NETWORKS = {"no_ops": no_ops}
