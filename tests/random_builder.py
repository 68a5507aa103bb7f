"""Builds a random network node by node: tensors of known shape, Gaussian weights that keep the numbers near one."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod, sqrt
from typing import Any

import numpy as np
import onnx
from onnx import helper

from tests.pass_models import proto_of, statistics

CHANNELS = 24  # no tensor has more
Padding = tuple[int, int, int, int]  # top, left, bottom, right


@dataclass(frozen=True)
class Tensor:
    """An image tensor; shape: batch, channels, rows, columns."""

    name: str
    shape: tuple[int, int, int, int]

    @property
    def channels(self) -> int:
        """Size of axis 1."""
        return self.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.shape[2], self.shape[3]


class Builder:
    """A network in the making. live: the image tensors a step may read, newest first."""

    def __init__(self, shape: tuple[int, int, int, int], opset: int, seed: int) -> None:
        self.opset = opset
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self.input = Tensor("x", shape)
        self.live = [self.input]

    def find(self, index: int) -> Tensor:
        """A live tensor, 0 the newest."""
        return self.live[index % len(self.live)]

    def publish(self, *tensors: Tensor) -> None:
        """Let later steps read these."""
        self.live[:0] = tensors

    def node(self, operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> list[str]:
        """Add a node, answer the names of its outputs."""
        name = f"{operator}_{len(self.nodes)}"
        names = [f"{name}.{number}" for number in range(outputs)]
        self.nodes.append(helper.make_node(operator, list(inputs), names, name=name, **attributes))
        return names

    def image(
        self, operator: str, *inputs: Tensor | str, shape: tuple[int, int, int, int], **attributes: Any
    ) -> Tensor:
        """Add a node with one result, an image tensor."""
        names = [value.name if isinstance(value, Tensor) else value for value in inputs]
        return Tensor(self.node(operator, *names, **attributes)[0], shape)

    def same(self, operator: str, x: Tensor, *others: Tensor | str, **attributes: Any) -> Tensor:
        """Add a node whose result has the shape of x."""
        return self.image(operator, x, *others, shape=x.shape, **attributes)

    def constant(self, array: np.ndarray | list[int]) -> str:
        """A stored tensor; integers become int64, all else float32."""
        values = np.asarray(array)
        name = f"c{len(self.constants)}"
        self.constants[name] = values.astype(np.int64 if values.dtype.kind == "i" else np.float32)
        return name

    def gaussian(self, *shape: int, deviation: float = 1.0) -> str:
        """A stored tensor of Gaussian numbers."""
        return self.constant(self.random.standard_normal(shape) * deviation)

    def weights(self, *shape: int) -> str:
        """Stored weights [out, in, ...] of the deviation that keeps the size of what goes through (He et al. 2015)."""
        return self.gaussian(*shape, deviation=sqrt(2 / prod(shape[1:])))

    def conv(
        self,
        x: Tensor,
        channels: int,
        kernel: tuple[int, int] = (1, 1),
        *,
        stride: int = 1,
        group: int = 1,
        pads: Padding | None = None,
        bias: bool = False,
        weights: str = "",
    ) -> Tensor:
        """A convolution; pads: None keeps the size (at stride 1). A window larger than its input is cut down to it."""
        pads = ((kernel[0] - 1) // 2, (kernel[1] - 1) // 2) * 2 if pads is None else pads
        padded = tuple(x.size[axis] + pads[axis] + pads[axis + 2] for axis in (0, 1))
        kernel = (min(kernel[0], padded[0]), min(kernel[1], padded[1]))
        rows, columns = ((padded[axis] - kernel[axis]) // stride + 1 for axis in (0, 1))
        terms = [weights or self.weights(channels, x.channels // group, *kernel)]
        terms += [self.gaussian(channels)] if bias else []
        shape = (x.shape[0], channels, rows, columns)
        return self.image("Conv", x, *terms, shape=shape, group=group, strides=[stride] * 2, pads=list(pads))

    def norm(self, x: Tensor) -> Tensor:
        """A BatchNormalization far from the identity."""
        terms = statistics(self.random, x.channels)
        return self.same("BatchNormalization", x, *map(self.constant, terms.values()))

    def reduced(self, operator: str, x: Tensor, axes: list[int]) -> Tensor:
        """A reduction that keeps its axes, which are an input from opset 18 on."""
        shape = tuple(1 if axis in axes else size for axis, size in enumerate(x.shape))
        assert len(shape) == 4
        if self.opset >= 18:
            return self.image(operator, x, self.constant(axes), shape=shape)
        return self.image(operator, x, shape=shape, axes=axes)

    def reshape(self, name: str, *target: int) -> str:
        """Any tensor in another shape."""
        return self.node("Reshape", name, self.constant(list(target)))[0]

    def activation(self, x: Tensor, kind: str) -> Tensor:
        """An element-wise function by its ONNX name, or none, or one that is written as several nodes."""
        match kind:
            case "":
                return x
            case "SiLU":
                return self.same("Mul", x, self.same("Sigmoid", x))
            case "GELU":
                bent = self.same("Erf", self.same("Div", x, self.constant(np.array(sqrt(2.0)))))
                product = self.same("Mul", x, self.same("Add", bent, self.constant(np.array(1.0))))
                return self.same("Mul", product, self.constant(np.array(0.5)))
            case "Clip":
                return self.same("Clip", x, self.constant(np.array(0.0)), self.constant(np.array(6.0)))
            case "PRelu":
                return self.same("PRelu", x, self.gaussian(x.channels, 1, 1, deviation=0.5))
            case "HardSwish" if self.opset < 14:
                return self.same("Mul", x, self.same("HardSigmoid", x, alpha=1 / 6))
            case "HardSigmoid":
                return self.same("HardSigmoid", x, alpha=1 / 6)
            case _:
                return self.same(kind, x)

    def proto(self, outputs: dict[str, tuple[int, ...]]) -> onnx.ModelProto:
        """The model."""
        return proto_of(self.nodes, {"x": self.input.shape}, outputs, self.constants, self.opset)
