"""Operators on codes written as quantisers around operators on numbers, which is what the standard defines them to be.

    QLinearConv(x, w) -> y                  -->    DequantizeLinear(x), (w) -> Conv -> QuantizeLinear -> y
    y = MaxPool(x), x and y codes           -->    DequantizeLinear(x) -> MaxPool -> QuantizeLinear -> y

Sources: the operator definitions of ONNX (QLinearConv, QLinearMatMul) and of onnxruntime's domain com.microsoft.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from codesign.graph.graph import constant_of

_DOMAINS = ("", "ai.onnx", "com.microsoft")
_MOVES = frozenset(
    ("MaxPool", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split", "Gather", "Identity")
) | frozenset(("DepthToSpace", "SpaceToDepth", "Resize", "Expand", "Tile"))
_CODES = frozenset((ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16))
# Attributes of the operators on codes that those on numbers do not have.
_FOREIGN = frozenset(("channels_last", "opset"))


@dataclass(frozen=True)
class _Codes:
    """Codes with their scale and zero point as values of the graph."""

    scale: ir.Value
    zero_point: ir.Value | None


def spread_quantized_operators(model: ir.Model) -> None:
    """Rewrite, in place, every operator on codes whose scales are constant; others stay as they are."""
    spreading = _Spreading(model.graph)
    for node in list(model.graph):
        spreading.visit(node)


@dataclass
class _Spreading:
    graph: ir.Graph
    known: dict[ir.Value, _Codes] = field(default_factory=dict)
    count: int = 0

    def visit(self, node: ir.Node) -> None:
        if node.domain not in _DOMAINS:
            return
        rule = _RULES.get(node.op_type)
        if node.op_type == "QuantizeLinear":
            self.known[node.outputs[0]] = _Codes(_present(node, 1), _given(node, 2))
        elif rule is not None and not node.attributes.get_int("channels_last", 0):
            rule(self, node)
        elif node.op_type in _MOVES and node.inputs and node.inputs[0] in self.known:
            codes = self.known[node.inputs[0]]
            reads = [self.numbers(node, node.inputs[0], codes), *node.inputs[1:]]
            self.replace(node, node.op_type, reads, codes)

    def numbers(self, node: ir.Node, value: ir.Value | None, codes: _Codes, axis: int | None = None) -> ir.Value:
        """DequantizeLinear of a value, in front of a node."""
        scale = codes.scale if axis is not None else self.scalar(codes.scale)
        zero = codes.zero_point if axis is not None or codes.zero_point is None else self.scalar(codes.zero_point)
        attributes = {} if axis is None else {"axis": axis}
        made = ir.node("DequantizeLinear", [value, scale, zero], attributes, name=self.name(node, "dequantize"))
        made.outputs[0].name = self.name(node, "numbers")
        self.graph.insert_before(node, made)
        return made.outputs[0]

    def replace(self, node: ir.Node, op_type: str, reads: Sequence[ir.Value | None], codes: _Codes) -> None:
        """The operator on numbers and a QuantizeLinear behind each of its results, in the place of a node."""
        attributes = {name: value for name, value in node.attributes.items() if name not in _FOREIGN}
        added = ir.Node("", op_type, reads, attributes.values(), num_outputs=len(node.outputs), name=node.name)
        self.graph.insert_before(node, added)
        scale, zero = self.scalar(codes.scale), codes.zero_point
        for old, result in zip(node.outputs, added.outputs, strict=True):
            result.name = self.name(node, "result")
            inputs = [result, scale, None if zero is None else self.scalar(zero)]
            quantizer = ir.node("QuantizeLinear", inputs, name=self.name(node, "quantize"))
            self.graph.insert_before(node, quantizer)
            made = quantizer.outputs[0]
            made.type, made.shape = old.type, old.shape
            name, old.name = old.name, self.name(node, "replaced")
            made.name = name
            old.replace_all_uses_with(made, replace_graph_outputs=True)
            self.known[made] = codes
        self.graph.remove(node, safe=True)

    def scalar(self, value: ir.Value) -> ir.Value:
        """A constant of one element without dimensions."""
        array = constant_of(value)
        if array is None or array.ndim == 0 or array.size != 1:
            return value
        return self.constant(array.reshape(()), str(value.name))

    def constant(self, array: np.ndarray, name: str) -> ir.Value:
        """A new initializer."""
        self.count += 1
        label = f"{name}.{self.count}"
        value = ir.Value(name=label, const_value=ir.tensor(array, name=label))
        value.shape, value.dtype = ir.Shape(array.shape), ir.DataType.from_numpy(array.dtype)
        self.graph.register_initializer(value)
        return value

    def name(self, node: ir.Node, role: str) -> str:
        self.count += 1
        return f"{node.name or node.outputs[0].name}.{role}.{self.count}"


def _given(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _present(node: ir.Node, index: int) -> ir.Value:
    value = _given(node, index)
    assert value is not None  # the checker saw the required inputs
    return value


def _codes_at(node: ir.Node, index: int) -> _Codes:
    return _Codes(_present(node, index), _given(node, index + 1))


def _axis(codes: _Codes, axis: int) -> int | None:
    scale = constant_of(codes.scale)
    return None if scale is None or scale.size == 1 else axis


def _product(spread: _Spreading, node: ir.Node, op_type: str, axis: int, bias: int, target: int) -> None:
    """x, its scale and zero point, w, its scale and zero point: a convolution or a matrix product."""
    x, w = _codes_at(node, 1), _codes_at(node, 4)
    reads: list[ir.Value | None] = [
        spread.numbers(node, node.inputs[0], x),
        spread.numbers(node, node.inputs[3], w, _axis(w, axis)),
    ]
    offset = _given(node, bias) if bias else None
    scales = (constant_of(x.scale), constant_of(w.scale))
    if offset is not None:
        if scales[0] is None or scales[1] is None:
            return
        units = (scales[0].reshape(()) * scales[1].reshape(-1)).astype(np.float32)
        unit = spread.constant(units if units.size > 1 else units.reshape(()), "bias_scale")
        reads.append(spread.numbers(node, offset, _Codes(unit, None), 0 if units.size > 1 else None))
    spread.replace(node, op_type, reads, _codes_at(node, target))


def _convolution(spread: _Spreading, node: ir.Node) -> None:
    _product(spread, node, "Conv", 0, 8, 6)


def _matrix_product(spread: _Spreading, node: ir.Node) -> None:
    shape = _present(node, 3).shape
    _product(spread, node, "MatMul", 1 if shape is None else len(shape) - 1, 0, 6)


def _gemm(spread: _Spreading, node: ir.Node) -> None:
    if _given(node, 7) is not None:  # without a scale the result is a float
        _product(spread, node, "Gemm", 0 if node.attributes.get_int("transB", 0) else 1, 6, 7)


def _of_two(op_type: str) -> Callable[[_Spreading, ir.Node], None]:
    def rule(spread: _Spreading, node: ir.Node) -> None:
        reads = [spread.numbers(node, node.inputs[at], _codes_at(node, at + 1)) for at in (0, 3)]
        spread.replace(node, op_type, reads, _codes_at(node, 6))

    return rule


def _of_one(op_type: str) -> Callable[[_Spreading, ir.Node], None]:
    def rule(spread: _Spreading, node: ir.Node) -> None:
        spread.replace(node, op_type, [spread.numbers(node, node.inputs[0], _codes_at(node, 1))], _codes_at(node, 3))

    return rule


def _concatenation(spread: _Spreading, node: ir.Node) -> None:
    reads = [spread.numbers(node, node.inputs[at], _codes_at(node, at + 1)) for at in range(2, len(node.inputs), 3)]
    spread.replace(node, "Concat", reads, _codes_at(node, 0))


_RULES: Mapping[str, Callable[[_Spreading, ir.Node], None]] = {
    "QLinearConv": _convolution,
    "QLinearMatMul": _matrix_product,
    "QGemm": _gemm,
    "QLinearAdd": _of_two("Add"),
    "QLinearMul": _of_two("Mul"),
    "QLinearSigmoid": _of_one("Sigmoid"),
    "QLinearLeakyRelu": _of_one("LeakyRelu"),
    "QLinearAveragePool": _of_one("AveragePool"),
    "QLinearGlobalAveragePool": _of_one("GlobalAveragePool"),
    "QLinearSoftmax": _of_one("Softmax"),
    "QLinearConcat": _concatenation,
}
