"""Networks with smooth activations, softmax, normalisations over single pictures, and averages over odd windows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper

from tests.pass_models import batch_norm, normal, proto_of, statistics

node = helper.make_node


def silu(x: str, y: str) -> list[onnx.NodeProto]:
    """x sigmoid(x)."""
    return [node("Sigmoid", [x], [f"{y}_s"]), node("Mul", [x, f"{y}_s"], [y])]


def gelu_by_erf(x: str, y: str) -> list[onnx.NodeProto]:
    """As the TorchScript exporter writes it; reads `root_of_two`, `one`, `half`."""
    return [
        node("Div", [x, "root_of_two"], [f"{y}_d"]),
        node("Erf", [f"{y}_d"], [f"{y}_e"]),
        node("Add", [f"{y}_e", "one"], [f"{y}_a"]),
        node("Mul", [x, f"{y}_a"], [f"{y}_m"]),
        node("Mul", [f"{y}_m", "half"], [y]),
    ]


def numbers(**values: float) -> dict[str, np.ndarray]:
    """Single numbers by name."""
    return {name: np.array(value, np.float32) for name, value in values.items()}


def smooth_activations(random: np.random.Generator) -> onnx.ModelProto:
    """Conv -> SiLU -> squeeze-excite -> Conv -> GELU -> Conv -> Tanh -> Conv -> Sigmoid."""
    constants = {
        **{f"w{number}": normal(random, 4, 3 if number == 0 else 4, 1, 1) for number in range(5)},
        **numbers(root_of_two=2**0.5, one=1.0, half=0.5),
    }
    nodes = [
        node("Conv", ["x", "w0"], ["c0"]),
        *silu("c0", "a0"),
        node("GlobalAveragePool", ["a0"], ["p"]),
        node("Conv", ["p", "w1"], ["c1"]),
        node("Sigmoid", ["c1"], ["gate"]),
        node("Mul", ["a0", "gate"], ["g"]),
        node("Conv", ["g", "w2"], ["c2"]),
        *gelu_by_erf("c2", "a2"),
        node("Conv", ["a2", "w3"], ["c3"]),
        node("Tanh", ["c3"], ["a3"]),
        node("Conv", ["a3", "w4"], ["c4"]),
        node("Sigmoid", ["c4"], ["y"]),
    ]
    return proto_of(nodes, {"x": (1, 3, 8, 8)}, {"y": (1, 4, 8, 8)}, constants)


def normalised_tokens(random: np.random.Generator) -> onnx.ModelProto:
    """Conv -> BatchNormalization -> LayerNormalization of tokens -> x x' -> Softmax -> x -> LayerNormalization."""
    constants = {
        "w": normal(random, 6, 3, 2, 2),
        **{f"scale{number}": normal(random, 6) for number in range(2)},
        "shift0": normal(random, 6),
        "tokens": np.array([2, 6, 16], np.int64),
        **statistics(random, 6),
    }
    nodes = [
        node("Conv", ["x", "w"], ["c"], strides=[2, 2]),
        batch_norm("c", "b"),
        node("Reshape", ["b", "tokens"], ["r"]),
        node("Transpose", ["r"], ["t"], perm=[0, 2, 1]),
        node("LayerNormalization", ["t", "scale0", "shift0"], ["n"]),
        node("Transpose", ["n"], ["k"], perm=[0, 2, 1]),
        node("MatMul", ["n", "k"], ["q"]),
        node("Softmax", ["q"], ["s"], axis=-1),
        node("MatMul", ["s", "n"], ["m"]),
        node("LayerNormalization", ["m", "scale1"], ["y"], axis=2, epsilon=1e-3),
    ]
    return proto_of(nodes, {"x": (2, 3, 8, 8)}, {"y": (2, 16, 6)}, constants)


def group_norm(x: str, y: str, prefix: str) -> list[onnx.NodeProto]:
    """As the TorchScript exporter writes it: an InstanceNormalization over reshaped groups."""
    inner = [f"{prefix}_{name}" for name in ("ones", "zeros")]
    return [
        node("Reshape", [x, f"{prefix}_groups"], [f"{y}_r"]),
        node("InstanceNormalization", [f"{y}_r", *inner], [f"{y}_i"]),
        node("Reshape", [f"{y}_i", f"{prefix}_shape"], [f"{y}_b"]),
        node("Mul", [f"{y}_b", f"{prefix}_scale"], [f"{y}_m"]),
        node("Add", [f"{y}_m", f"{prefix}_shift"], [y]),
    ]


def norms(random: np.random.Generator) -> onnx.ModelProto:
    """Conv -> InstanceNormalization -> Conv -> BatchNormalization -> group normalisation -> LogSoftmax.

    The group normalisation stands there twice: as the TorchScript exporter writes it, and as one operator.
    """
    constants = {
        "w0": normal(random, 4, 3, 3, 3),
        "w1": normal(random, 4, 4, 1, 1),
        **{name: normal(random, 4) for name in ("scale", "shift", "scale2", "shift2")},
        "g_scale": normal(random, 4, 1, 1),
        "g_shift": normal(random, 4, 1, 1),
        "g_ones": np.ones(2, np.float32),
        "g_zeros": np.zeros(2, np.float32),
        "g_groups": np.array([2, 2, -1], np.int64),
        "g_shape": np.array([2, 4, 4, 4], np.int64),
        **statistics(random, 4),
    }
    nodes = [
        node("Conv", ["x", "w0"], ["c0"]),
        node("InstanceNormalization", ["c0", "scale", "shift"], ["n0"], epsilon=1e-3),
        node("Conv", ["n0", "w1"], ["c1"]),
        batch_norm("c1", "b1"),
        *group_norm("b1", "n1", "g"),
        node("GroupNormalization", ["n1", "scale2", "shift2"], ["n2"], num_groups=2),
        node("LogSoftmax", ["n2"], ["y"], axis=1),
    ]
    proto = proto_of(nodes, {"x": (2, 3, 6, 6)}, {"y": (2, 4, 4, 4)}, constants, opset=21)
    shape = helper.make_tensor_value_info("n2", onnx.TensorProto.FLOAT, (2, 4, 4, 4))  # not inferred by onnx
    proto.graph.value_info.append(shape)
    return proto


def odd_averages(random: np.random.Generator) -> onnx.ModelProto:
    """Conv -> 3x3 average -> 2x2 average -> global average of 25 -> Conv."""
    constants = {"w0": normal(random, 4, 3, 1, 1), "w1": normal(random, 5, 4, 1, 1)}

    def average(x: str, y: str, kernel: Sequence[int], strides: Sequence[int]) -> onnx.NodeProto:
        return node("AveragePool", [x], [y], kernel_shape=kernel, strides=strides)

    nodes = [
        node("Conv", ["x", "w0"], ["c"]),
        average("c", "a", [3, 3], [1, 1]),
        average("a", "b", [2, 2], [2, 2]),
        node("GlobalAveragePool", ["b"], ["g"]),
        node("Conv", ["g", "w1"], ["y"]),
    ]
    return proto_of(nodes, {"x": (2, 3, 12, 12)}, {"y": (2, 5, 1, 1)}, constants)


NETWORKS = {
    "smooth_activations": smooth_activations,
    "normalised_tokens": normalised_tokens,
    "norms": norms,
    "odd_averages": odd_averages,
}
