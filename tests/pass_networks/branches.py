"""Blocks of several branches, with live normalisations, as training leaves them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper

from tests.pass_models import batch_norm, normal, proto_of, statistics


@dataclass
class Block:
    """Collects nodes and constants; every method answers the name of its result."""

    random: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, operator: str, *inputs: str, to: str = "", **attributes: Any) -> str:
        """A node."""
        result = to or f"t{len(self.nodes)}"
        name = "" if operator == "Constant" else f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [result], name=name, **attributes))
        return result

    def constant(self, array: np.ndarray) -> str:
        """An initializer."""
        name = f"c{len(self.constants)}"
        self.constants[name] = array
        return name

    def conv(self, x: str, *shape: int, bias: bool = False, **attributes: Any) -> str:
        """A convolution with weights of a shape, scaled to keep the size of what it reads."""
        scale = np.float32(np.prod(shape[1:]) ** -0.5)
        more = [self.constant(normal(self.random, shape[0]))] if bias else []
        return self.add("Conv", x, self.constant(normal(self.random, *shape) * scale), *more, **attributes)

    def norm(self, x: str, channels: int) -> str:
        """A normalisation."""
        prefix = f"n{len(self.nodes)}"
        self.constants |= statistics(self.random, channels, prefix)
        self.nodes.append(batch_norm(x, f"t{len(self.nodes)}", prefix))
        return self.nodes[-1].output[0]

    def conv_norm(self, x: str, *shape: int, **attributes: Any) -> str:
        """A convolution and its normalisation."""
        return self.norm(self.conv(x, *shape, **attributes), shape[0])

    def total(self, *terms: str, to: str = "") -> str:
        """Additions one after another."""
        result = terms[0]
        for term in terms[1:]:
            result = self.add("Add", result, term, to=to if term is terms[-1] else "")
        return result

    def proto(self, inputs: dict[str, tuple[int, ...]], *outputs: str, opset: int = 17) -> onnx.ModelProto:
        """The model."""
        return proto_of(self.nodes, inputs, dict.fromkeys(outputs), self.constants, opset)


def repvgg(random: np.random.Generator) -> onnx.ModelProto:
    """A strided stem of 3x3 and 1x1, a block with an identity, and one in two groups."""
    block = Block(random)
    x = block.total(
        block.conv_norm("x", 6, 3, 3, 3, strides=[2, 2], pads=[1] * 4), block.conv_norm("x", 6, 3, 1, 1, strides=[2, 2])
    )
    x = block.add("Relu", x)
    for group in (1, 2):
        wide = block.conv_norm(x, 6, 6 // group, 3, 3, pads=[1] * 4, group=group)
        point = block.conv_norm(x, 6, 6 // group, 1, 1, group=group)
        x = block.add("Relu", block.total(block.norm(x, 6), wide, point), to="" if group == 1 else "y")
    return block.proto({"x": (1, 3, 11, 12)}, "y")


def mobileone(random: np.random.Generator) -> onnx.ModelProto:
    """Three depthwise 3x3, a 1x1 that scales, the identity; then four pointwise ones and the identity."""
    block = Block(random)
    wide = [block.conv_norm("x", 4, 1, 3, 3, pads=[1] * 4, group=4) for _ in range(3)]
    scale = block.conv_norm("x", 4, 1, 1, 1, group=4)
    x = block.add("Relu", block.total(scale, *wide, block.norm("x", 4)))
    points = [block.conv_norm(x, 4, 4, 1, 1) for _ in range(4)]
    block.add("Relu", block.total(*points, block.norm(x, 4)), to="y")
    return block.proto({"x": (1, 4, 8, 8)}, "y")


def acnet(random: np.random.Generator) -> onnx.ModelProto:
    """3x3, 1x3 and 3x1, added by one Sum."""
    block = Block(random)
    square = block.conv_norm("x", 5, 3, 3, 3, pads=[1] * 4)
    row = block.conv_norm("x", 5, 3, 1, 3, pads=[0, 1, 0, 1])
    column = block.conv_norm("x", 5, 3, 3, 1, pads=[1, 0, 1, 0])
    block.add("Sum", square, row, column, to="y")
    return block.proto({"x": (1, 3, 9, 7)}, "y")


def diverse(random: np.random.Generator) -> onnx.ModelProto:
    """A Diverse Branch Block: 3x3, 1x1, 1x1 - average, 1x1 - 3x3, the border overwritten with what the 1x1 adds."""
    block = Block(random)
    square = block.conv_norm("x", 4, 3, 3, 3, pads=[1] * 4, strides=[2, 2])
    point = block.conv_norm("x", 4, 3, 1, 1, strides=[2, 2])
    framed = framed_point(block, "x", 3, 4)
    average = block.norm(block.add("AveragePool", framed, kernel_shape=[3, 3], strides=[2, 2]), 4)
    sequence = block.conv_norm(framed_point(block, "x", 3, 3, transposed=True), 4, 3, 3, 3, strides=[2, 2])
    block.add("Relu", block.total(square, point, average, sequence), to="y")
    return block.proto({"x": (1, 3, 8, 8)}, "y")


def framed_point(block: Block, x: str, inputs: int, outputs: int, size: int = 8, transposed: bool = False) -> str:
    """A 1x1 convolution of size x size, padded with its bias: with zeros first, then overwritten.

    As exporters write an assignment to slices: ScatterND with an index for every element, or with rows first.
    """
    point = block.conv(x, outputs, inputs, 1, 1, bias=True)
    bias = block.constants[block.nodes[-1].input[2]]
    padded = block.add("Pad", point, block.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1])))
    side = size + 2
    if transposed:
        return _overwritten_rows(block, padded, bias, side)
    ids = np.stack(np.meshgrid([0], range(outputs), range(side), range(side), indexing="ij"), axis=-1)
    for where in (np.s_[:, :, :1], np.s_[:, :, -1:], np.s_[..., :1, :], np.s_[..., -1:, :]):
        updates = np.broadcast_to(bias.reshape(1, -1, 1, 1), ids[where].shape[:-1])
        padded = block.add("ScatterND", padded, block.constant(ids[where]), block.constant(updates.copy()))
    return padded


def _overwritten_rows(block: Block, padded: str, bias: np.ndarray, side: int) -> str:
    edges = block.constant(np.array([[0], [side - 1]]))
    rows = block.constant(np.broadcast_to(bias.reshape(1, -1, 1, 1), (2, len(bias), 1, side)).copy())
    columns = block.constant(np.broadcast_to(bias.reshape(1, -1, 1, 1), (2, len(bias), side, 1)).copy())
    padded = block.add("Transpose", padded, perm=[2, 1, 0, 3])
    padded = block.add("ScatterND", padded, edges, rows)
    padded = block.add("Transpose", padded, perm=[3, 1, 0, 2])
    padded = block.add("ScatterND", padded, edges, columns)
    return block.add("Transpose", padded, perm=[3, 1, 2, 0])


NETWORKS = {"repvgg": repvgg, "mobileone": mobileone, "acnet": acnet, "diverse": diverse}
