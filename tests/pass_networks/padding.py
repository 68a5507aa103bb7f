"""Pads in front of convolutions: foldable ones, and every kind that is not."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from tests.pass_models import normal, proto_of


def padding(random: np.random.Generator) -> onnx.ModelProto:
    """Two Pads in a row on top of the convolution's own pads, one by axes and read twice, and those that must stay."""
    constants = {
        "w1": normal(random, 4, 3, 3, 3),
        "w2": normal(random, 4, 1, 5, 5),
        "w3": normal(random, 4, 4, 3, 3),
        "w4": normal(random, 4, 6, 3, 3),
        "behind": np.array([0, 0, 0, 0, 0, 0, 1, 2], np.int64),
        "front": np.array([0, 0, 2, 1, 0, 0, 0, 0], np.int64),
        "around": np.array([1, 2, 2, 1], np.int64),
        "cut": np.array([0, 0, -1, 0, 0, 0, 1, 1], np.int64),
        "more_channels": np.array([0, 1, 0, 0, 0, 1, 1, 1], np.int64),
        "last_two": np.array([-1, 2], np.int64),
        "zero": np.float32(0),
        "one": np.float32(1),
    }
    nodes = [
        helper.make_node("Pad", ["x", "behind"], ["p1"], name="first"),
        helper.make_node("Pad", ["p1", "front", "zero"], ["p2"], name="second"),
        helper.make_node("Conv", ["p2", "w1"], ["c1"], strides=[2, 2], pads=[1, 0, 0, 1], name="stem"),
        helper.make_node("Pad", ["c1", "around", "", "last_two"], ["p3"], name="shared"),
        helper.make_node("Conv", ["p3", "w2"], ["c2"], group=4, name="depthwise"),
        helper.make_node("Relu", ["p3"], ["r"], name="other_reader"),
        helper.make_node("ReduceMean", ["r"], ["m"], name="mean"),
        helper.make_node("Pad", ["c2", "behind"], ["p4"], mode="reflect", name="reflected"),
        helper.make_node("Conv", ["p4", "w3"], ["c3"], name="after_reflected"),
        helper.make_node("Pad", ["c3", "behind", "one"], ["p5"], name="ones"),
        helper.make_node("Conv", ["p5", "w3"], ["c4"], name="after_ones"),
        helper.make_node("Pad", ["c4", "cut"], ["p6"], name="cutting"),
        helper.make_node("Conv", ["p6", "w3"], ["c5"], pads=[1, 1, 1, 1], name="after_cutting"),
        helper.make_node("Pad", ["c5", "more_channels"], ["p7"], name="channels"),
        helper.make_node("Conv", ["p7", "w4"], ["c6"], pads=[1, 1, 1, 1], name="after_channels"),
        helper.make_node("Add", ["c6", "m"], ["y"], name="sum"),
    ]
    return proto_of(nodes, {"x": (1, 3, 16, 17)}, {"y": None}, constants, opset=18)


NETWORKS = {"padding": padding}
