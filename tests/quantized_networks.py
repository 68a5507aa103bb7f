"""Small quantised networks in QDQ form, written by hand: every kind of step, power-of-two scales or any."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 18


@dataclass
class Scales:
    """Where scales come from: powers of two and zero points 0, or any scale and zero point of uint8."""

    any_scale: bool
    generator: np.random.Generator

    @property
    def dtype(self) -> type:
        return np.uint8 if self.any_scale else np.int8

    def activation(self, power: int) -> tuple[np.float32, int]:
        """About 2^power."""
        if not self.any_scale:
            return np.float32(2.0**power), 0
        return np.float32(2.0**power * self.generator.uniform(0.6, 1.4)), int(self.generator.integers(90, 160))

    def weights(self, count: int, power: int) -> np.ndarray:
        """About 2^power, different from channel to channel."""
        powers = power + self.generator.integers(-1, 2, count).astype(np.float64)
        factors = self.generator.uniform(0.6, 1.4, count) if self.any_scale else np.ones(count)
        return (2.0**powers * factors).astype(np.float32)


@dataclass
class Builder:
    """Writes a QDQ model node by node; a name stands for a dequantised tensor."""

    seed: int = 0
    any_scale: bool = False
    nodes: list[Any] = field(default_factory=list)
    initializers: list[Any] = field(default_factory=list)
    inputs: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    scale_of: dict[str, tuple[np.float32, int]] = field(default_factory=dict)
    count: int = 0

    def __post_init__(self) -> None:
        self.generator = np.random.default_rng(self.seed)
        self.scales = Scales(self.any_scale, self.generator)

    def name(self, what: str) -> str:
        self.count += 1
        return f"{what}_{self.count}"

    def constant(self, array: np.ndarray, what: str = "constant") -> str:
        name = self.name(what)
        self.initializers.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, op: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any) -> list[str]:
        names = [self.name(op.lower()) for _ in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, self.name(f"n_{op}"), **attributes))
        return names

    def input(self, *shape: int, power: int = -5) -> str:
        name = self.name("input")
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return self.quantized(name, self.scales.activation(power))

    def quantized(self, name: str, scaling: tuple[np.float32, int]) -> str:
        scale, zero = self.constant(scaling[0], "scale"), self.constant(self.scales.dtype(scaling[1]), "zero")
        (codes,) = self.node("QuantizeLinear", [name, scale, zero])
        (numbers,) = self.node("DequantizeLinear", [codes, scale, zero])
        self.scale_of[numbers] = scaling
        return numbers

    def codes(self, array: np.ndarray, scales: np.ndarray, axis: int = 0, dtype: type = np.int8) -> str:
        """A quantised constant."""
        zero = self.constant(np.zeros(scales.shape, dtype), "zero")
        read = [self.constant(array.astype(dtype), "codes"), self.constant(scales, "scale"), zero]
        (name,) = self.node("DequantizeLinear", read, axis=axis)
        return name

    def weighted(self, op: str, x: str, shape: tuple[int, ...], axis: int, power: int, **attributes: Any) -> str:
        """A Conv, ConvTranspose, Gemm or MatMul with random weights and bias, its result in floating point."""
        group = attributes.get("group", 1) if op == "ConvTranspose" else 1
        weights = self.generator.integers(-127, 128, shape)
        scales = self.scales.weights(shape[axis], -8)
        read = [x, self.codes(weights, scales, axis)]
        if op != "MatMul":
            sums = np.tile(scales, group) * self.scale_of[x][0]
            bias = self.generator.integers(-3000, 3000, len(sums))
            read.append(self.codes(bias, sums.astype(np.float32), 0, np.int32))
        (y,) = self.node(op, read, **attributes)
        del power
        return y

    def conv(self, x: str, shape: tuple[int, ...], power: int, clamp: str = "", **attributes: Any) -> str:
        y = self.weighted("Conv", x, shape, 0, power, **attributes)
        return self.quantized(self.clamped(y, clamp), self.scales.activation(power))

    def clamped(self, y: str, clamp: str) -> str:
        if clamp == "Clip":
            low, high = self.constant(np.float32(0)), self.constant(np.float32(1.3))
            return self.node("Clip", [y, low, high])[0]
        return self.node(clamp, [y])[0] if clamp else y

    def same(self, op: str, x: str, *more: str, **attributes: Any) -> str:
        """An operator that moves codes: its result has the scale of its input."""
        (y,) = self.node(op, [x, *more], **attributes)
        return self.quantized(y, self.scale_of[x])

    def other(self, op: str, inputs: Sequence[str], power: int, **attributes: Any) -> str:
        """An operator whose result has a scale of its own."""
        (y,) = self.node(op, inputs, **attributes)
        return self.quantized(y, self.scales.activation(power))

    def output(self, x: str) -> None:
        self.outputs.append(helper.make_tensor_value_info(x, TensorProto.FLOAT, None))

    def model(self) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, "quantized", self.inputs, self.outputs, self.initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def convolutions(b: Builder) -> None:
    x = b.conv(b.input(1, 3, 17, 13), (8, 3, 3, 3), -2, "Relu", pads=[1, 1, 1, 1], strides=[2, 2])
    x = b.conv(x, (8, 1, 3, 3), -6, "Clip", pads=[1, 1, 1, 1], group=8)
    x = b.conv(x, (12, 4, 5, 3), -4, "", pads=[2, 0, 2, 1], group=2, dilations=[1, 2])
    x = b.conv(x, (6, 12, 1, 1), -4, "Relu")
    y = b.weighted("ConvTranspose", x, (6, 5, 3, 3), 1, 3, strides=[2, 2], pads=[1, 1, 0, 1], output_padding=[1, 0])
    x = b.quantized(y, b.scales.activation(-4))
    b.output(x)


def transposed_groups(b: Builder) -> None:
    y = b.weighted("ConvTranspose", b.input(1, 4, 5, 6), (4, 3, 2, 3), 1, 0, group=2, strides=[3, 2], dilations=[1, 2])
    x = b.quantized(y, b.scales.activation(-2))
    b.output(x)


def row(b: Builder) -> None:
    x = b.conv(b.input(1, 4, 31), (6, 4, 5), -2, "Relu", pads=[2, 2], strides=[2])
    x = b.same("MaxPool", x, kernel_shape=[3], strides=[2])
    b.output(x)


def residual(b: Builder) -> None:
    x = b.conv(b.input(1, 3, 9, 9), (4, 3, 3, 3), -4, pads=[1, 1, 1, 1])
    y = b.conv(x, (4, 4, 3, 3), 0, pads=[1, 1, 1, 1])
    (s,) = b.node("Add", [x, y])
    x = b.quantized(b.clamped(s, "Relu"), b.scales.activation(0))
    x = b.other("Sub", [x, y], 0)
    constant = b.codes(b.generator.integers(-90, 90, (4, 9, 9)), b.scales.weights(1, -3)[0])
    x = b.other("Add", [x, constant], 1)
    b.output(x)


def gates(b: Builder) -> None:
    x = b.conv(b.input(1, 3, 9, 7), (5, 3, 3, 3), -2)
    y = b.other("GlobalAveragePool", [x], -4)
    y = b.conv(y, (5, 5, 1, 1), -4)
    y = b.other("Sigmoid", [y], -8 if b.any_scale else -7)
    x = b.other("Mul", [x, y], -3)
    b.output(x)


def tables(b: Builder) -> None:
    x = b.conv(b.input(1, 3, 9, 7), (5, 3, 3, 3), -2)
    x = b.other("HardSwish", [x], -2)
    (s,) = b.node("Sigmoid", [x])
    x = b.quantized(b.node("Mul", [x, s])[0], b.scales.activation(-2))
    slopes = b.constant(b.generator.uniform(0.1, 0.9, (5, 1, 1)).astype(np.float32))
    x = b.other("PRelu", [x, slopes], -2)
    factors = b.constant(b.generator.uniform(0.5, 2, (1, 5, 1, 1)).astype(np.float32))
    x = b.other("Mul", [x, factors], -1)
    x = b.other("LeakyRelu", [x], -2, alpha=0.1)
    b.output(x)


def pools(b: Builder) -> None:
    x = b.conv(b.input(1, 3, 15, 12), (4, 3, 3, 3), -2)
    x = b.same("MaxPool", x, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1], ceil_mode=1)
    x = b.other("AveragePool", [x], -2, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    x = b.other("AveragePool", [x], -3, kernel_shape=[2, 2], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1)
    x = b.other("ReduceMean", [x, b.constant(np.array([2, 3]))], -5, keepdims=0)
    b.output(x)


def moves(b: Builder) -> None:
    x = b.conv(b.input(1, 3, 8, 6), (8, 3, 3, 3), -2, pads=[1, 1, 1, 1])
    x = b.same("Reshape", x, b.constant(np.array([1, 2, 4, 8, 6])))
    x = b.same("Transpose", x, perm=[0, 2, 1, 3, 4])
    x = b.same("Reshape", x, b.constant(np.array([1, 8, 8, 6])))
    first, second = b.node("Split", [x, b.constant(np.array([3, 5]))], 2, axis=1)
    first, second = b.quantized(first, b.scale_of[x]), b.quantized(second, b.scale_of[x])
    third = b.same("Slice", second, *(b.constant(np.array([n])) for n in (4, 0, 1, -2)))
    (y,) = b.node("Concat", [third, first], axis=1)
    y = b.quantized(y, b.scale_of[x])
    y = b.same("DepthToSpace", b.same("Gather", y, b.constant(np.array([0, 3, 1, 4])), axis=1), blocksize=2)
    y = b.same("Pad", y, b.constant(np.array([0, 0, 1, 2, 0, 0, 0, 3])))
    y = b.same("Pad", y, b.constant(np.array([0, 0, -1, 1, 0, 0, 2, -2])))  # cuts on one side, fills on the other
    sizes = [b.constant(np.zeros(0, np.float32)), b.constant(np.array([1, 1, 2, 2], np.float32))]
    y = b.same("Resize", y, *sizes, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    b.output(y)


def differently_scaled(b: Builder) -> None:
    x = b.input(1, 3, 8, 6)
    y, z = b.conv(x, (4, 3, 1, 1), -6), b.conv(x, (5, 3, 1, 1), -5)
    (c,) = b.node("Concat", [y, z], axis=1)
    x = b.quantized(c, b.scales.activation(-4))
    (m,) = b.node("MaxPool", [x], kernel_shape=[2, 2])
    x = b.quantized(m, b.scales.activation(-5))
    (t,) = b.node("Transpose", [x], perm=[0, 2, 3, 1])
    b.output(b.quantized(t, b.scales.activation(-4)))


def linear_resizes(b: Builder) -> None:
    x = b.conv(b.input(1, 3, 7, 8), (4, 3, 3, 3), -4)  # 5 x 6; neighbours' weights are halves and quarters
    empty = b.constant(np.zeros(0, np.float32))
    corners = [empty, empty, b.constant(np.array([1, 4, 9, 11]))]
    (y,) = b.node("Resize", [x, *corners], mode="linear", coordinate_transformation_mode="align_corners")
    x = b.quantized(y, b.scales.activation(-4))
    for mode, factors in {"half_pixel": [1, 1, 2, 2], "asymmetric": [1, 1, 1, 4]}.items():
        scale = b.constant(np.array(factors, np.float32))
        (y,) = b.node("Resize", [x, empty, scale], mode="linear", coordinate_transformation_mode=mode)
        x = b.quantized(y, b.scales.activation(-4))
    b.output(x)


def heads(b: Builder) -> None:
    x = b.conv(b.input(2, 3, 5, 6), (4, 3, 3, 3), -2)
    x = b.same("Flatten", x)
    y = b.weighted("Gemm", x, (10, 48), 0, 0, transB=1)
    x = b.quantized(b.clamped(y, "Relu"), b.scales.activation(-1))
    y = b.weighted("MatMul", x, (10, 7), 1, 0)
    b.output(b.quantized(y, b.scales.activation(1)))


def attention(b: Builder) -> None:
    x, y = b.input(1, 2, 6, 8), b.input(1, 2, 8, 5)
    z = b.other("MatMul", [x, y], -3)
    b.output(z)


def softmaxes(b: Builder) -> None:
    x = b.input(3, 5, 40, power=-4)
    scaling = (np.float32(2.0**-7), 0)
    for axis in (-1, 1):
        (y,) = b.node("Softmax", [x], axis=axis)
        b.output(b.quantized(y, scaling))


NETWORKS: dict[str, Callable[[Builder], None]] = {
    make.__name__: make
    for make in (
        convolutions,
        transposed_groups,
        row,
        residual,
        gates,
        tables,
        pools,
        moves,
        differently_scaled,
        linear_resizes,
        heads,
        attention,
        softmaxes,
    )
}
WITHIN_ONE_CODE = frozenset({"softmaxes"})


def make_network(name: str, *, any_scale: bool = False, seed: int = 0) -> onnx.ModelProto:
    """One of NETWORKS as a model."""
    builder = Builder(seed, any_scale)
    NETWORKS[name](builder)
    return builder.model()
