"""Networks with channel shuffles and groups: as ShuffleNet, CondenseNet and DiCENet have them, and ones that fold."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from tests.pass_models import batch_norm, normal, proto_of, statistics


def shuffle_nodes(
    x: str, y: str, shape: tuple[int, int, int, int], groups: int
) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """Reshape-Transpose-Reshape, and the two targets."""
    batch, channels, rows, columns = shape
    constants = {
        f"{y}_cut": np.array([batch, groups, channels // groups, rows, columns], np.int64),
        f"{y}_joined": np.array([batch, channels, rows, columns], np.int64),
    }
    nodes = [
        helper.make_node("Reshape", [x, f"{y}_cut"], [f"{y}_1"]),
        helper.make_node("Transpose", [f"{y}_1"], [f"{y}_2"], perm=[0, 2, 1, 3, 4]),
        helper.make_node("Reshape", [f"{y}_2", f"{y}_joined"], [y], name=f"shuffle_{y}"),
    ]
    return nodes, constants


def shuffle_gate(random: np.random.Generator) -> onnx.ModelProto:
    """Conv, BatchNormalization -> shuffle -> BatchNormalization -> PRelu -> depthwise Conv -> gate -> Conv and Gemm."""
    shuffle, targets = shuffle_nodes("c1", "s", (1, 12, 6, 6), 3)
    constants = {
        **targets,
        **statistics(random, 12),
        **statistics(random, 12, "first"),
        "w1": normal(random, 12, 3, 3, 3),
        "slope": normal(random, 12, 1, 1),
        "w2": normal(random, 12, 1, 3, 3),
        "b2": normal(random, 12),
        "down": normal(random, 4, 12, 1, 1),
        "up": normal(random, 12, 4, 1, 1),
        "b_up": normal(random, 12),
        "w3": normal(random, 5, 12, 1, 1),
        "w4": normal(random, 7, 12 * 36),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c0"], pads=[1, 1, 1, 1]),
        batch_norm("c0", "c1", "first"),
        *shuffle,
        batch_norm("s", "n"),
        helper.make_node("PRelu", ["n", "slope"], ["p"]),
        helper.make_node("Conv", ["p", "w2", "b2"], ["d"], group=12, pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["d"], ["g"]),
        helper.make_node("Conv", ["g", "down"], ["g1"]),
        helper.make_node("Relu", ["g1"], ["g2"]),
        helper.make_node("Conv", ["g2", "up", "b_up"], ["g3"]),
        helper.make_node("Sigmoid", ["g3"], ["g4"]),
        helper.make_node("Mul", ["d", "g4"], ["m"]),
        helper.make_node("Conv", ["m", "w3"], ["y"]),
        helper.make_node("Flatten", ["m"], ["f"]),
        helper.make_node("Gemm", ["f", "w4"], ["z"], transB=1),
    ]
    return proto_of(nodes, {"x": (1, 3, 6, 6)}, {"y": (1, 5, 6, 6), "z": (1, 7)}, constants)


def shuffle_groups(random: np.random.Generator) -> onnx.ModelProto:
    """ShuffleNetV1's unit: the shuffle crosses the groups on both sides; a dense Conv takes the second one up."""
    first, targets = shuffle_nodes("r1", "s1", (1, 12, 4, 4), 3)
    second, more = shuffle_nodes("c3", "s2", (1, 12, 4, 4), 2)
    constants = {
        **targets,
        **more,
        "w1": normal(random, 12, 2, 1, 1),
        "w2": normal(random, 12, 1, 3, 3),
        "w3": normal(random, 12, 4, 1, 1),
        "b3": normal(random, 12),
        "w4": normal(random, 8, 12, 1, 1),
        **statistics(random, 12),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], group=3),
        helper.make_node("Relu", ["c1"], ["r1"]),
        *first,
        helper.make_node("Conv", ["s1", "w2"], ["c2"], group=12, pads=[1, 1, 1, 1]),
        batch_norm("c2", "n2"),
        helper.make_node("Conv", ["n2", "w3", "b3"], ["c3"], group=3),
        *second,
        helper.make_node("Conv", ["s2", "w4"], ["y"]),
    ]
    return proto_of(nodes, {"x": (1, 6, 4, 4)}, {"y": (1, 8, 4, 4)}, constants)


def shuffle_parts(random: np.random.Generator) -> onnx.ModelProto:
    """ShuffleNetV2: half of the shuffled channels goes on; the last shuffle is read by dense operators alone."""
    first, targets = shuffle_nodes("k1", "s1", (1, 8, 4, 4), 2)
    second, more = shuffle_nodes("k2", "s2", (1, 8, 4, 4), 2)
    constants = {
        **targets,
        **more,
        "w1": normal(random, 4, 3, 1, 1),
        "w2": normal(random, 4, 3, 3, 3),
        "w3": normal(random, 4, 4, 1, 1),
        "w4": normal(random, 8, 1, 3, 3),
        "w5": normal(random, 6, 8, 1, 1),
        **statistics(random, 4),
        "halves": np.array([4, 4], np.int64),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a1"]),
        batch_norm("a1", "a"),
        helper.make_node("Conv", ["x", "w2"], ["b"], pads=[1, 1, 1, 1]),
        helper.make_node("Concat", ["a", "b"], ["k1"], axis=1),
        *first,
        helper.make_node("Split", ["s1", "halves"], ["h1", "h2"], axis=1),
        helper.make_node("Conv", ["h2", "w3"], ["c"]),
        helper.make_node("Concat", ["h1", "c"], ["k2"], axis=1),
        *second,
        helper.make_node("Conv", ["s2", "w4"], ["d"], group=8, strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["d", "w5"], ["y"]),
    ]
    return proto_of(nodes, {"x": (1, 3, 4, 4)}, {"y": (1, 6, 2, 2)}, constants)


def picked_channels(random: np.random.Generator) -> onnx.ModelProto:
    """Conv -> BatchNormalization -> Gather of some channels (CondenseNet's index) -> grouped Conv; the input is turned
    from BGR to RGB, and a ConvTranspose in groups follows."""
    constants = {
        "w1": normal(random, 9, 3, 1, 1),
        "w2": normal(random, 8, 3, 3, 3),
        "w3": normal(random, 8, 2, 2, 2),
        "index": np.array([7, 0, 3, 2, 8, 5], np.int64),
        "begin": np.array([-1], np.int64),
        "end": np.array([-9999], np.int64),
        "axis": np.array([1], np.int64),
        **statistics(random, 9),
    }
    nodes = [
        helper.make_node("Slice", ["x", "begin", "end", "axis", "begin"], ["rgb"]),
        helper.make_node("Conv", ["rgb", "w1"], ["c1"]),
        batch_norm("c1", "n1"),
        helper.make_node("Gather", ["n1", "index"], ["p"], axis=1),
        helper.make_node("Relu", ["p"], ["r"]),
        helper.make_node("Conv", ["r", "w2"], ["c2"], group=2, pads=[1, 1, 1, 1]),
        helper.make_node("ConvTranspose", ["c2", "w3"], ["y"], group=4, strides=[2, 2]),
    ]
    return proto_of(nodes, {"x": (1, 3, 4, 4)}, {"y": (1, 8, 8, 8)}, constants)


NETWORKS = {
    "shuffle_gate": shuffle_gate,
    "shuffle_groups": shuffle_groups,
    "shuffle_parts": shuffle_parts,
    "picked_channels": picked_channels,
}
