"""What each ONNX operator is in PyTorch: one function per operator that grows the torch.fx graph.

A form that PyTorch computes otherwise is refused (UnsupportedError), never approximated. The functions get a Builder
and a node and answer the torch.fx node of the result, or a list for several results.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx_ir as ir

from codesign.graph.operators import reduction_axes
from codesign.training import torch_layers as layers
from codesign.training import torch_moves as moves
from codesign.training.builder import Builder, UnsupportedError, x_of

Conversion = Callable[[Builder, ir.Node], Any]


# ---- element by element


def _unary(name: str) -> Conversion:
    """torch.NAME(x)."""
    return lambda b, node: b.call(getattr(b.torch, name), b.x(node))


def _activation(name: str, **attributes: tuple[str, float]) -> Conversion:
    """torch.nn.functional.NAME(x, ...). attributes: torch's argument = (ONNX's attribute, its default)."""

    def convert(b: Builder, node: ir.Node) -> Any:
        options = {ours: node.attributes.get_float(name, default) for ours, (name, default) in attributes.items()}
        return b.call(getattr(b.functional, name), b.x(node), **options)

    return convert


def _binary(name: str, *, trained: bool = False) -> Conversion:
    """torch.NAME(a, b); NAME may be a Python operator's tensor method, which takes numbers on either side."""

    def convert(b: Builder, node: ir.Node) -> Any:
        left, right = b.operand(node, 0, trained=trained), b.operand(node, 1, trained=trained)
        if isinstance(left, float):
            left = b.constant(node, x_of(node))  # torch's functions want a tensor first
        return b.call(getattr(b.torch, name), left, right)

    return convert


def _divide(b: Builder, node: ir.Node) -> Any:
    """Integers are divided towards zero."""
    is_float = x_of(node).dtype is None or not _is_integer(x_of(node))
    if is_float:
        return _binary("div", trained=True)(b, node)
    return b.call(b.torch.div, b.operand(node, 0), b.operand(node, 1), rounding_mode="trunc")


def _is_integer(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.is_integer()


def _fold(name: str) -> Conversion:
    """Any number of operands, two at a time."""

    def convert(b: Builder, node: ir.Node) -> Any:
        operands = [_tensor_operand(b, node, index) for index in range(len(node.inputs))]
        found = operands[0]
        for operand in operands[1:]:
            found = b.call(getattr(b.torch, name), found, operand)
        return found

    return convert


def _tensor_operand(b: Builder, node: ir.Node, index: int) -> Any:
    """An operand that must be a tensor, a single number too."""
    value = node.inputs[index]
    assert value is not None
    return b.known[value] if value in b.known else b.constant(node, value)


def _mean_of_operands(b: Builder, node: ir.Node) -> Any:
    return b.call(b.torch.div, _fold("add")(b, node), len(node.inputs))


def _where(b: Builder, node: ir.Node) -> Any:
    return b.call(b.torch.where, *(_tensor_operand(b, node, index) for index in range(3)))


def _clip(b: Builder, node: ir.Node) -> Any:
    return b.call(b.torch.clamp, b.x(node), b.operand(node, 1), b.operand(node, 2))


def _hard_sigmoid(b: Builder, node: ir.Node) -> Any:
    """max(0, min(1, alpha x + beta)); torch's own has alpha = 1/6 and beta = 1/2."""
    alpha, beta = node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return b.call(b.functional.hardsigmoid, b.x(node))
    return b.call(b.torch.clamp, b.call(b.torch.add, b.call(b.torch.mul, b.x(node), alpha), beta), 0.0, 1.0)


def _gelu(b: Builder, node: ir.Node) -> Any:
    return b.call(b.functional.gelu, b.x(node), approximate=node.attributes.get_string("approximate", "none"))


def _selu(b: Builder, node: ir.Node) -> Any:
    """torch's constants are fixed; ONNX's are attributes, by default the same."""
    alpha, gamma = node.attributes.get_float("alpha", 1.67326), node.attributes.get_float("gamma", 1.0507)
    if abs(alpha - 1.67326) > 1e-4 or abs(gamma - 1.0507) > 1e-4:
        raise UnsupportedError(f"with alpha {alpha:g} and gamma {gamma:g}")
    return b.call(b.torch.selu, b.x(node))


def _swish(b: Builder, node: ir.Node) -> Any:
    x, alpha = b.x(node), node.attributes.get_float("alpha", 1.0)
    return b.call(b.torch.mul, x, b.call(b.torch.sigmoid, x if alpha == 1 else b.call(b.torch.mul, x, alpha)))


def _cast(b: Builder, node: ir.Node) -> Any:
    kind = ir.DataType(node.attributes["to"].as_int())
    torch_type = getattr(b.torch, {"FLOAT": "float32", "DOUBLE": "float64"}.get(kind.name, kind.name.lower()), None)
    if torch_type is None:
        raise UnsupportedError(f"to {kind}")
    return b.method("to", b.x(node), torch_type)


# ---- products, sums over axes


def _matmul(b: Builder, node: ir.Node) -> Any:
    return b.call(b.torch.matmul, *(_product_operand(b, node, index) for index in (0, 1)))


def _product_operand(b: Builder, node: ir.Node, index: int) -> Any:
    """A matrix of one element is a matrix still, and a weight."""
    value = node.inputs[index]
    assert value is not None
    return b.known[value] if value in b.known else b.weight(node, value)


def _reduce(name: str) -> Conversion:
    """torch.NAME(x, axes, keepdim)."""

    def convert(b: Builder, node: ir.Node) -> Any:
        axes = reduction_axes(node)
        if axes is None:
            raise UnsupportedError("over axes that are computed")
        if not axes:
            return b.x(node)
        return b.call(getattr(b.torch, name), b.x(node), axes, bool(node.attributes.get_int("keepdims", 1)))

    return convert


def _norm(order: int) -> Conversion:
    """The sum of absolute values, or the root of the sum of squares."""

    def convert(b: Builder, node: ir.Node) -> Any:
        axes = reduction_axes(node)
        if not axes:
            raise UnsupportedError("over axes that are computed or absent")
        keep = bool(node.attributes.get_int("keepdims", 1))
        return b.call(b.torch.linalg.vector_norm, b.x(node), order, axes, keep)

    return convert


def _along_axis(name: str) -> Conversion:
    """torch.NAME(x, axis)."""
    return lambda b, node: b.call(getattr(b.torch, name), b.x(node), node.attributes.get_int("axis", -1))


def _identity(b: Builder, node: ir.Node) -> Any:
    """Identity, and Dropout as ONNX has it at inference."""
    if sum(bool(value.uses()) for value in node.outputs[1:]):
        raise UnsupportedError("with a mask")
    return b.x(node)


_SAME_NAME = "Abs Ceil Cos Erf Exp Floor Log Neg Reciprocal Relu Round Sigmoid Sign Sin Sqrt Tanh"

CONVERSIONS: dict[str, Conversion] = {
    **{op: _unary(op.lower()) for op in _SAME_NAME.split()},
    "Not": _unary("logical_not"),
    "Softplus": _activation("softplus"),
    "Softsign": _activation("softsign"),
    "HardSwish": _activation("hardswish"),
    "Mish": _activation("mish"),
    "Elu": _activation("elu", alpha=("alpha", 1.0)),
    "Celu": _activation("celu", alpha=("alpha", 1.0)),
    "LeakyRelu": _activation("leaky_relu", negative_slope=("alpha", 0.01)),
    "Selu": _selu,
    "HardSigmoid": _hard_sigmoid,
    "Gelu": _gelu,
    "Swish": _swish,
    "PRelu": layers.prelu,
    "Clip": _clip,
    "Cast": _cast,
    "Identity": _identity,
    "Dropout": _identity,
    "Add": _binary("add", trained=True),
    "Sub": _binary("sub", trained=True),
    "Mul": _binary("mul", trained=True),
    "Div": _divide,
    "Pow": _binary("pow"),
    "And": _binary("logical_and"),
    "Or": _binary("logical_or"),
    "Xor": _binary("logical_xor"),
    "Equal": _binary("eq"),
    "Greater": _binary("gt"),
    "GreaterOrEqual": _binary("ge"),
    "Less": _binary("lt"),
    "LessOrEqual": _binary("le"),
    "Max": _fold("maximum"),
    "Min": _fold("minimum"),
    "Sum": _fold("add"),
    "Mean": _mean_of_operands,
    "Where": _where,
    "Conv": layers.convolution,
    "ConvTranspose": layers.transposed_convolution,
    "Gemm": layers.gemm,
    "MatMul": _matmul,
    "BatchNormalization": layers.batch_norm,
    "InstanceNormalization": layers.instance_norm,
    "LayerNormalization": layers.layer_norm,
    "GroupNormalization": layers.group_norm,
    "LRN": layers.local_response_norm,
    "MaxPool": layers.pool,
    "AveragePool": layers.pool,
    "GlobalMaxPool": layers.global_pool,
    "GlobalAveragePool": layers.global_pool,
    "ReduceMean": _reduce("mean"),
    "ReduceSum": _reduce("sum"),
    "ReduceMax": _reduce("amax"),
    "ReduceMin": _reduce("amin"),
    "ReduceL1": _norm(1),
    "ReduceL2": _norm(2),
    "Softmax": _along_axis("softmax"),
    "LogSoftmax": _along_axis("log_softmax"),
    "Reshape": moves.reshape,
    "Flatten": moves.reshape,
    "Squeeze": moves.reshape,
    "Unsqueeze": moves.reshape,
    "Expand": moves.expand,
    "Transpose": moves.transpose,
    "Concat": moves.concat,
    "Split": moves.split,
    "Slice": moves.slice_of,
    "Gather": moves.gather,
    "Tile": moves.tile,
    "Pad": moves.pad,
    "DepthToSpace": moves.pixel_shuffle,
    "SpaceToDepth": moves.space_to_depth,
    "Resize": moves.resize,
}
