"""What each ONNX operator is in PyTorch: one function per operator that grows the torch.fx graph.

A form that PyTorch computes otherwise is refused (UnsupportedError), never approximated. The functions get a Builder
and a node and answer the torch.fx node of the result, or a list for several results.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import getitem
from typing import Any

import onnx_ir as ir

from codesign.graph.graph import shape_of
from codesign.graph.operators import reduction_axes
from codesign.training import torch_layers as layers
from codesign.training.builder import Builder, UnsupportedError, integers, x_of

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


# ---- moving


def _target(b: Builder, node: ir.Node) -> list[int]:
    """The shape of the node's result; -1 along the batch, which takes what there is."""
    target = list(shape_of(node.outputs[0]))
    axis = b.axis(node.outputs[0])
    if axis is not None:
        target[axis] = -1
    return target


def _reshape(b: Builder, node: ir.Node) -> Any:
    """Reshape, Flatten, Squeeze and Unsqueeze: the shape is known."""
    return b.method("reshape", b.x(node), _target(b, node))


def _expand(b: Builder, node: ir.Node) -> Any:
    return b.method("expand", b.operand(node, 0, trained=True), _target(b, node))


def _transpose(b: Builder, node: ir.Node) -> Any:
    order = node.attributes.get_ints("perm") or list(reversed(range(len(shape_of(x_of(node))))))
    return b.method("permute", b.x(node), tuple(order))


def _concat(b: Builder, node: ir.Node) -> Any:
    """Constants among the parts (a class token) are repeated for every sample."""
    axis = b.axis(node.outputs[0])
    parts = [b.operand(node, index, trained=True) for index in range(len(node.inputs))]
    if axis is not None:
        sample = next(part for part, value in zip(parts, node.inputs, strict=True) if value in b.batch.axes)
        count = b.method("size", sample, axis)
        for index, value in enumerate(node.inputs):
            if value is not None and value not in b.batch.axes:
                sizes = [count if at == axis else -1 for at in range(len(shape_of(value)))]
                parts[index] = b.method("expand", parts[index], sizes)
    return b.call(b.torch.cat, parts, node.attributes["axis"].as_int())


def _split(b: Builder, node: ir.Node) -> list[Any]:
    axis = node.attributes.get_int("axis", 0)
    sizes = [shape_of(value)[axis] for value in node.outputs]
    parts = b.call(b.torch.split, b.x(node), sizes, axis)
    return [b.call(getitem, parts, index) for index in range(len(sizes))]


def _slice(b: Builder, node: ir.Node) -> Any:
    """Python's slices; torch has none that step back, so those turn the axis round."""
    shape = shape_of(x_of(node))
    starts, ends, axes, steps = (integers(node, index) for index in (1, 2, 3, 4))
    assert starts is not None and ends is not None
    cuts: list[slice] = [slice(None)] * len(shape)
    turned = []
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis = (axes[number] if axes is not None else number) % len(shape)
        picked = range(shape[axis])[start : end : steps[number] if steps is not None else 1]
        if not picked:
            raise UnsupportedError("that is empty")
        low, high = min(picked), max(picked)
        if len(picked) < shape[axis]:
            cuts[axis] = slice(low, high + 1, abs(picked.step))
        turned += [axis] if picked.step < 0 else []
    x = b.x(node) if cuts == [slice(None)] * len(shape) else b.call(getitem, b.x(node), tuple(cuts))
    return b.call(b.torch.flip, x, turned) if turned else x


def _gather(b: Builder, node: ir.Node) -> Any:
    """One index picks and drops the axis; several are picked in a row and get their shape back."""
    indices = node.inputs[1]
    assert indices is not None
    axis = node.attributes.get_int("axis", 0) % len(shape_of(x_of(node)))
    x, numbers = b.operand(node, 0, trained=True), integers(node, 1)
    assert numbers is not None
    length = shape_of(x_of(node))[axis]
    if not shape_of(indices):
        return b.call(b.torch.select, x, axis, numbers[0] % length)
    picks = b.buffer(node, "indices", b.torch.tensor([number % length for number in numbers]))
    picked = b.call(b.torch.index_select, x, axis, picks)
    return picked if len(shape_of(indices)) == 1 else b.method("reshape", picked, _target(b, node))


def _tile(b: Builder, node: ir.Node) -> Any:
    return b.method("repeat", b.operand(node, 0, trained=True), integers(node, 1))


_PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def _pad(b: Builder, node: ir.Node) -> Any:
    rank = len(shape_of(x_of(node)))
    pads, axes = integers(node, 1), integers(node, 3)
    assert pads is not None
    axes = list(range(rank)) if axes is None else [axis % rank for axis in axes]
    both = {axis: (pads[at], pads[at + len(axes)]) for at, axis in enumerate(axes)}
    first = min((axis for axis, pair in both.items() if pair != (0, 0)), default=rank)
    mode = _PAD_MODES[node.attributes.get_string("mode", "constant")]
    if first == rank:
        return b.x(node)
    if mode != "constant" and (first < 2 or rank - 2 > 2):
        raise UnsupportedError(f"in mode {mode} of axis {first}")
    if mode != "constant":
        first = 2  # torch wants all spatial axes in these modes
    flat = [pad for axis in reversed(range(first, rank)) for pad in both.get(axis, (0, 0))]
    value = b.operand(node, 2) if mode == "constant" else None
    if isinstance(value, b.torch.fx.Node):
        raise UnsupportedError("with a computed value")
    return b.call(b.functional.pad, b.x(node), flat, mode, value)


def _pixel_shuffle(b: Builder, node: ir.Node) -> Any:
    """CRD is torch's order; DCR, ONNX's default, is written as reshape, transpose, reshape."""
    block, (_, channels, rows, columns) = node.attributes["blocksize"].as_int(), shape_of(x_of(node))
    if node.attributes.get_string("mode", "DCR") == "CRD":
        return b.call(b.functional.pixel_shuffle, b.x(node), block)
    batch = -1 if b.axis(node.outputs[0]) == 0 else shape_of(x_of(node))[0]
    depth = channels // block**2
    x = b.method("reshape", b.x(node), [batch, block, block, depth, rows, columns])
    return b.method("reshape", b.method("permute", x, (0, 3, 4, 1, 5, 2)), _target(b, node))


def _space_to_depth(b: Builder, node: ir.Node) -> Any:
    """The block's place is the slow index of the new channels; torch's pixel_unshuffle has it the fast one."""
    block, (samples, channels, rows, columns) = node.attributes["blocksize"].as_int(), shape_of(x_of(node))
    batch = -1 if b.axis(node.outputs[0]) == 0 else samples
    shape = [batch, channels, rows // block, block, columns // block, block]
    x = b.method("permute", b.method("reshape", b.x(node), shape), (0, 3, 5, 1, 2, 4))
    return b.method("reshape", x, _target(b, node))


def _resize(b: Builder, node: ir.Node) -> Any:
    """torch.nn.functional.interpolate, where it samples the same points."""
    before, after = shape_of(x_of(node)), shape_of(node.outputs[0])
    read = node.attributes
    mode, place = read.get_string("mode", "nearest"), read.get_string("coordinate_transformation_mode", "half_pixel")
    if len(before) != 4 or before[:2] != after[:2] or read.get_int("antialias", 0) != 0 or not _is_exact_scale(node):
        raise UnsupportedError("other than over rows and columns")
    whole = all(new % old == 0 for old, new in zip(before[2:], after[2:], strict=True))
    floor = place == "asymmetric" and read.get_string("nearest_mode", "round_prefer_floor") == "floor"
    match mode, place:
        case "nearest", ("asymmetric" | "half_pixel") if floor or (whole and place == "half_pixel"):
            options: dict[str, Any] = {"mode": "nearest"}
        case "linear", ("half_pixel" | "pytorch_half_pixel") if min(after[2:]) > 1:
            options = {"mode": "bilinear", "align_corners": False}
        case "linear", "align_corners" if min(after[2:]) > 1:
            options = {"mode": "bilinear", "align_corners": True}
        case "cubic", ("half_pixel" | "align_corners") if _is_torch_cubic(node) and min(after[2:]) > 1:
            options = {"mode": "bicubic", "align_corners": place == "align_corners"}
        case _:
            raise UnsupportedError(f"in mode {mode} with {place} coordinates")
    return b.call(b.functional.interpolate, b.x(node), list(after[2:]), **options)


def _is_exact_scale(node: ir.Node) -> bool:
    """Whether the scale is the quotient of the sizes, as torch takes it: not so when a product was rounded."""
    scales = node.inputs[2] if len(node.inputs) > 2 else None
    if scales is None or scales.const_value is None or scales.const_value.size == 0:
        return True
    before, after = shape_of(x_of(node)), shape_of(node.outputs[0])
    given = [float(scale) for scale in scales.const_value.numpy()]
    axes = node.attributes.get_ints("axes") or range(len(before))
    return all(abs(before[axis] * scale - after[axis]) < 1e-4 for axis, scale in zip(axes, given, strict=True))


def _is_torch_cubic(node: ir.Node) -> bool:
    read = node.attributes
    return abs(read.get_float("cubic_coeff_a", -0.75) + 0.75) < 1e-6 and not read.get_int("exclude_outside", 0)


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
    "Reshape": _reshape,
    "Flatten": _reshape,
    "Squeeze": _reshape,
    "Unsqueeze": _reshape,
    "Expand": _expand,
    "Transpose": _transpose,
    "Concat": _concat,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Tile": _tile,
    "Pad": _pad,
    "DepthToSpace": _pixel_shuffle,
    "SpaceToDepth": _space_to_depth,
    "Resize": _resize,
}
