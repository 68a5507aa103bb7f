"""Element-wise operators and activations: operations counted per element of the result.

One operation each: add, subtract, multiply, divide, compare, select (its comparison included), minimum, maximum, round,
a bit operation, and an elementary function that has no formula of these (exp, log, sqrt, sine, erf, ...). All else is
counted by the formula of the ONNX specification, which stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from codesign.graph.graph import constant_of
from codesign.graph.operators import optional_input
from codesign.vocabulary import OperationKind
from codesign.workload.loop_nest import LoopNest
from codesign.workload.operators.entry import Entries, Entry, at, none_learned, vectors
from codesign.workload.operators.streaming import streaming_nest
from codesign.workload.tensors import elements

_OF_TWO = (
    *("Add", "Sub", "Mul", "Div", "And", "Or", "Xor", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor"),
    *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
)
_ONE_OPERATION = (
    *("Relu", "Abs", "Neg", "Sign", "Ceil", "Floor", "Round", "Not", "BitwiseNot", "IsNaN", "IsInf", "Reciprocal"),
    *("Exp", "Log", "Sqrt", "Erf", "Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "ThresholdedRelu"),
)
_BY_FORMULA = {
    "LeakyRelu": 2,  # multiply, select
    "Sigmoid": 4,  # 1 / (1 + exp(-x)): negate, exp, add, divide
    "Tanh": 5,  # (e - 1) / (e + 1), e = exp(2 x): multiply, exp, subtract, add, divide
    "HardSigmoid": 4,  # max(0, min(1, alpha x + beta)): multiply, add, minimum, maximum
    "HardSwish": 5,  # x HardSigmoid(x)
    "Swish": 6,  # x Sigmoid(alpha x)
    "Elu": 4,  # alpha (exp(x) - 1) below 0: exp, subtract, multiply, select
    "Celu": 5,  # max(0, x) + min(0, alpha (exp(x / alpha) - 1)): Elu and divide
    "Selu": 5,  # gamma Elu(x)
    "Softplus": 3,  # log(exp(x) + 1)
    "Softsign": 3,  # x / (1 + |x|)
    "Mish": 9,  # x tanh(softplus(x)): 3 + 5 + 1
    "Shrink": 4,  # x + bias, x - bias, two selects
    "Sinh": 4,  # (e - 1/e) / 2, e = exp(x)
    "Cosh": 4,
    "Asinh": 5,  # log(x + sqrt(x x + 1))
    "Acosh": 5,
    "Atanh": 5,  # log((1 + x) / (1 - x)) / 2
    "QuantizeLinear": 5,  # divide, round, add, minimum, maximum
    "DequantizeLinear": 2,  # subtract, multiply
    "DynamicQuantizeLinear": 7,  # minimum and maximum of all, then QuantizeLinear
}


def per_element(kind: OperationKind, count: int) -> Callable[[ir.Node], LoopNest]:
    """`count` operations for every element of the first result."""

    def nest(node: ir.Node) -> LoopNest:
        return streaming_nest(node, kind, count * elements(node.outputs[0]))

    return nest


def of_many(node: ir.Node) -> LoopNest:
    """Max, Min, Sum, Mean of n tensors: n - 1 operations (Mean divides as well). One tensor alone passes through."""
    count = len([value for value in node.inputs if value is not None])
    if count == 1:
        return streaming_nest(node, OperationKind.VIEW)
    each = count if node.op_type == "Mean" else count - 1
    return streaming_nest(node, OperationKind.ELEMENTWISE, each * elements(node.outputs[0]))


def power(node: ir.Node) -> LoopNest:
    """Pow: a whole constant exponent up to 16 by squaring, a root as one, any other as exp(y log(x)) = 3."""
    exponent = constant_of(optional_input(node, 1))
    each = 3
    if exponent is not None and exponent.size == 1:
        each = _multiplications(abs(float(exponent.reshape(-1)[0]))) + int(exponent.reshape(-1)[0] < 0)
    return streaming_nest(node, OperationKind.ELEMENTWISE, each * elements(node.outputs[0]))


def _multiplications(exponent: float) -> int:
    if exponent == 0.5:
        return 1
    if not exponent.is_integer() or exponent > 16:
        return 3
    whole = int(exponent)
    return max(1, whole.bit_length() - 1 + whole.bit_count() - 1)


def clip(node: ir.Node) -> LoopNest:
    """Clip: one comparison for every bound given."""
    bounds = sum(optional_input(node, place) is not None for place in (1, 2))
    return streaming_nest(node, OperationKind.ACTIVATION, max(1, bounds) * elements(node.outputs[0]))


def gelu(node: ir.Node) -> LoopNest:
    """Gelu: x / 2 (1 + erf(x / sqrt(2))) = 5; by tanh: x / 2 (1 + tanh(a (x + b x x x))) = 5 + 5 + 3."""
    each = 13 if node.attributes.get_string("approximate", "none") == "tanh" else 5
    return streaming_nest(node, OperationKind.ACTIVATION, each * elements(node.outputs[0]))


_ELEMENTWISE = OperationKind.ELEMENTWISE
_ACTIVATION = OperationKind.ACTIVATION
ENTRIES: Entries = {
    **{name: Entry(per_element(_ELEMENTWISE, 1), vectors) for name in _OF_TWO},
    **{name: Entry(of_many, vectors) for name in ("Max", "Min", "Sum", "Mean")},
    "Where": Entry(per_element(_ELEMENTWISE, 1), vectors),
    "Mod": Entry(per_element(_ELEMENTWISE, 4)),  # x - y floor(x / y)
    "Pow": Entry(power, vectors),
    **{name: Entry(per_element(_ACTIVATION, 1)) for name in _ONE_OPERATION},
    **{
        name: Entry(per_element(_ACTIVATION, count), at(0) if name == "DequantizeLinear" else none_learned)
        for name, count in _BY_FORMULA.items()
    },
    "PRelu": Entry(per_element(_ACTIVATION, 2), at(1)),  # multiply, select
    "Clip": Entry(clip),
    "Gelu": Entry(gelu),
}
