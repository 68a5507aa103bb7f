"""QuantizeLinear and DequantizeLinear read once: which values are codes, of which scale and zero point."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import onnx_ir as ir

from codesign.graph.graph import Graph, constant_of
from codesign.graph.operators import is_operator, optional_input

CODE_TYPES = frozenset({"int8", "uint8", "int16", "uint16"})


@dataclass(frozen=True)
class Scaling:
    """Of a tensor of codes as a whole: numbers = scale * (codes - zero_point). scale: a float32, exactly."""

    scale: float
    zero_point: int
    dtype: str

    @property
    def exact_scale(self) -> Fraction:
        """The scale as a fraction; every float is one."""
        return Fraction(self.scale)

    @property
    def lowest(self) -> int:
        """The smallest code."""
        return int(np.iinfo(self.dtype).min)

    @property
    def highest(self) -> int:
        """The largest code."""
        return int(np.iinfo(self.dtype).max)

    @property
    def largest_magnitude(self) -> int:
        """Of a code, zero point taken away."""
        return max(self.highest - self.zero_point, self.zero_point - self.lowest)

    def code_of(self, number: float) -> int:
        """The code a number is rounded and saturated to; infinities go to the ends."""
        if not np.isfinite(number):
            return self.highest if number > 0 else self.lowest
        code = int(np.rint(np.float32(number) / np.float32(self.scale))) + self.zero_point
        return min(max(code, self.lowest), self.highest)


@dataclass(frozen=True, eq=False)
class ConstantCodes:
    """A quantised constant. codes: as stored. scales, zero_points: [1], or one for each entry of `axis`."""

    codes: np.ndarray
    scales: np.ndarray
    zero_points: np.ndarray
    axis: int

    @property
    def centred(self) -> np.ndarray:
        """Codes with their zero points taken away, int64."""
        return np.asarray(self.codes.astype(np.int64) - self._along(self.zero_points.astype(np.int64)))

    @property
    def numbers(self) -> np.ndarray:
        """What they stand for, float32."""
        return np.asarray(self.centred.astype(np.float32) * self._along(self.scales), np.float32)

    def _along(self, values: np.ndarray) -> np.ndarray:
        if values.size == 1:
            return values.reshape(())
        return values.reshape([-1 if at == self.axis else 1 for at in range(self.codes.ndim)])


def scaling_of(node: ir.Node) -> Scaling | None:
    """Scale and zero point of a QuantizeLinear or DequantizeLinear of a whole activation; None for any other node."""
    if not is_operator(node, "QuantizeLinear", "DequantizeLinear"):
        return None
    codes = node.outputs[0] if node.op_type == "QuantizeLinear" else node.inputs[0]
    scale = constant_of(node.inputs[1])
    if codes is None or scale is None or scale.size != 1 or scale.dtype != np.float32:
        return None
    zero = optional_input(node, 2)
    zero_point = constant_of(zero)
    if zero is not None and (zero_point is None or zero_point.size != 1):
        return None
    dtype = _code_type(codes, zero_point)
    if dtype not in CODE_TYPES or not float(scale.reshape(())) > 0:
        return None
    return Scaling(float(scale.reshape(())), 0 if zero_point is None else int(zero_point.reshape(())), dtype)


def is_quantize(node: ir.Node | None) -> bool:
    """Whether a node makes codes of an activation."""
    if node is None or not is_operator(node, "QuantizeLinear") or node.inputs[0] is None:
        return False
    return node.inputs[0].const_value is None and scaling_of(node) is not None


def is_dequantize(node: ir.Node | None) -> bool:
    """Whether a node makes numbers of the codes of an activation."""
    if node is None or not is_operator(node, "DequantizeLinear") or node.inputs[0] is None:
        return False
    return constant_codes(node.outputs[0]) is None and scaling_of(node) is not None


def is_quantized(graph: Graph) -> bool:
    """Whether any activation of a graph is codes."""
    return any(is_quantize(node) or is_dequantize(node) for node in graph.nodes)


def constant_codes(value: ir.Value | None) -> ConstantCodes | None:
    """The quantised constant a value stands for, when a DequantizeLinear makes it of a constant; or None."""
    node = value.producer() if value is not None else None
    if node is None or not is_operator(node, "DequantizeLinear"):
        return None
    codes, scales = _stored_codes(node), constant_of(node.inputs[1])
    if codes is None or scales is None or scales.ndim > 1:
        return None
    given = constant_of(optional_input(node, 2))
    zero_points = np.zeros(scales.shape, np.int32) if given is None else given
    axis = node.attributes.get_int("axis", 1) % max(1, codes.ndim)
    return ConstantCodes(codes, scales.reshape(-1), zero_points.reshape(-1), axis)


def constant_numbers(value: ir.Value | None) -> np.ndarray | None:
    """The numbers of a constant, quantised or not; None when the value is no constant."""
    plain = constant_of(value)
    if plain is not None:
        return plain
    codes = constant_codes(value)
    return None if codes is None else codes.numbers


def _stored_codes(node: ir.Node) -> np.ndarray | None:
    """Codes that lie in the file, or that a QuantizeLinear with constant scales makes of numbers in the file."""
    stored = constant_of(node.inputs[0])
    if stored is not None:
        return stored
    source = node.inputs[0].producer() if node.inputs[0] is not None else None
    if source is None or not is_operator(source, "QuantizeLinear"):
        return None
    numbers, scales = constant_of(source.inputs[0]), constant_of(source.inputs[1])
    if numbers is None or scales is None or scales.ndim > 1:
        return None
    given = constant_of(optional_input(source, 2))
    zero_points = np.zeros(1, np.uint8) if given is None else given
    axis = source.attributes.get_int("axis", 1) % max(1, numbers.ndim)

    def along(values: np.ndarray) -> np.ndarray:
        return values.reshape([-1 if at == axis and values.size > 1 else 1 for at in range(numbers.ndim)])

    limits = np.iinfo(zero_points.dtype)
    codes = np.rint(numbers / along(scales)) + along(zero_points)
    return np.asarray(np.clip(codes, limits.min, limits.max), zero_points.dtype)


def _code_type(codes: ir.Value, zero_point: np.ndarray | None) -> str:
    if zero_point is not None:
        return str(zero_point.dtype)
    if codes.dtype is not None:
        return str(codes.dtype.numpy())
    return "uint8"
