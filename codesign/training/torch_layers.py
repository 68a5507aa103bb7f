"""Layers that become modules of torch.nn with their own weights, and pools.

Weights stay in ONNX's layout, except that torch.nn names them: weight, bias, running_mean, running_var.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from codesign.graph import operators
from codesign.graph.graph import shape_of
from codesign.graph.windows import Window
from codesign.training.builder import Builder, UnsupportedError, x_of
from codesign.vocabulary import OperationKind


def convolution(b: Builder, node: ir.Node) -> Any:
    view = operators.Convolution.of(node)
    if view is None:
        raise UnsupportedError("in three dimensions")
    kind = b.torch.nn.Conv1d if view.rank == 1 else b.torch.nn.Conv2d
    padding, x = _padding(b, b.x(node), view.window, 0.0)
    module = kind(
        view.in_channels,
        view.out_channels,
        _sizes(view.kernel, view.rank),
        stride=_sizes(view.strides, view.rank),
        padding=padding,
        dilation=_sizes(view.dilations, view.rank),
        groups=view.group,
        bias=view.b is not None,
        device="meta",  # the weights come from the graph: none are drawn
    )
    return b.layer(node, _with_weights(b, module, view.w, view.b), x)


def transposed_convolution(b: Builder, node: ir.Node) -> Any:
    view = operators.TransposedConvolution.of(node)
    if view is None:
        raise UnsupportedError("in three dimensions")
    rank = view.rank
    begin, end = _sizes(view.pads[:2], rank), _sizes(view.pads[2:], rank)
    strides, dilations = _sizes(view.strides, rank), _sizes(view.dilations, rank)
    # What is cut off more at the end than at the beginning is negative output padding; torch.nn takes positive only.
    extra = [
        more + before - after for more, before, after in zip(_sizes(view.output_padding, rank), begin, end, strict=True)
    ]
    if any(not 0 <= more < max(step) for more, *step in zip(extra, strides, dilations, strict=True)):
        raise UnsupportedError(f"with pads {list(view.pads)}")
    module = (b.torch.nn.ConvTranspose1d if rank == 1 else b.torch.nn.ConvTranspose2d)(
        view.in_channels,
        view.out_channels,
        _sizes(view.kernel, rank),
        stride=strides,
        padding=begin,
        output_padding=tuple(extra),
        groups=view.group,
        bias=view.b is not None,
        dilation=dilations,
        device="meta",
    )
    return b.layer(node, _with_weights(b, module, view.w, view.b), b.x(node))


def gemm(b: Builder, node: ir.Node) -> Any:
    """torch.nn.Linear where it stores the same matrix, else the product written out."""
    view = operators.Gemm.of(node)
    assert view is not None
    plain = (view.alpha, view.beta, view.transpose_x, view.transpose_w) == (1.0, 1.0, False, True)
    constant = view.has_constant_weights and (view.b is None or view.b.const_value is not None)
    if plain and constant and (view.b is None or shape_of(view.b) == (view.out_features,)):
        module = b.torch.nn.Linear(view.in_features, view.out_features, bias=view.b is not None, device="meta")
        return b.layer(node, _with_weights(b, module, view.w, view.b), b.x(node))
    x, w = b.x(node), b.operand(node, 1, trained=True)
    x = b.method("t", x) if view.transpose_x else x
    y = b.call(b.torch.matmul, x, b.method("t", w) if view.transpose_w else w)
    y = y if view.alpha == 1 else b.call(b.torch.mul, y, view.alpha)
    if view.b is None:
        return y
    return b.call(b.torch.add, y, b.operand(node, 2, trained=True), **({} if view.beta == 1 else {"alpha": view.beta}))


def batch_norm(b: Builder, node: ir.Node) -> Any:
    """ONNX's momentum is what is kept of the running statistics, torch's what is taken of the new ones."""
    view = operators.BatchNormalization.of(node)
    if view is None:
        raise UnsupportedError("in training mode")
    rank = len(shape_of(view.x))
    kinds = {2: b.torch.nn.BatchNorm1d, 3: b.torch.nn.BatchNorm1d, 4: b.torch.nn.BatchNorm2d, 5: b.torch.nn.BatchNorm3d}
    if rank not in kinds:
        raise UnsupportedError(f"of {rank} dimensions")
    momentum = round(1 - node.attributes.get_float("momentum", 0.9), 6)
    module = kinds[rank](shape_of(view.scale)[0], view.epsilon, momentum)
    module.weight, module.bias = b.parameter(view.scale), b.parameter(view.shift)
    module.running_mean, module.running_var = b.tensor(view.mean), b.tensor(view.variance)
    return b.layer(node, module, b.x(node))


def instance_norm(b: Builder, node: ir.Node) -> Any:
    rank = len(shape_of(x_of(node)))
    kinds = {3: b.torch.nn.InstanceNorm1d, 4: b.torch.nn.InstanceNorm2d, 5: b.torch.nn.InstanceNorm3d}
    scale, shift = node.inputs[1:3]
    if rank not in kinds or scale is None or shift is None:
        raise UnsupportedError(f"of {rank} dimensions")
    module = kinds[rank](shape_of(scale)[0], node.attributes.get_float("epsilon", 1e-5), affine=True, device="meta")
    return b.layer(node, _with_weights(b, module, scale, shift), b.x(node))


def layer_norm(b: Builder, node: ir.Node) -> Any:
    shape = shape_of(x_of(node))
    normalised = shape[node.attributes.get_int("axis", -1) % len(shape) :]
    scale, shift = node.inputs[1], operators.optional_input(node, 2)
    if scale is None or shape_of(scale) != normalised or (shift is not None and shape_of(shift) != normalised):
        raise UnsupportedError("with a scale that is broadcast")
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    module = b.torch.nn.LayerNorm(normalised, epsilon, bias=shift is not None, device="meta")
    return b.layer(node, _with_weights(b, module, scale, shift), b.x(node))


def group_norm(b: Builder, node: ir.Node) -> Any:
    """Scale and shift per channel, as since opset 21; before, they stood per group."""
    channels, (scale, shift) = shape_of(x_of(node))[1], node.inputs[1:3]
    if scale is None or shift is None or shape_of(scale) != (channels,):
        raise UnsupportedError("with a scale per group")
    groups = node.attributes["num_groups"].as_int()
    module = b.torch.nn.GroupNorm(groups, channels, node.attributes.get_float("epsilon", 1e-5), device="meta")
    return b.layer(node, _with_weights(b, module, scale, shift), b.x(node))


def prelu(b: Builder, node: ir.Node) -> Any:
    """One slope or one per channel is what torch's own form takes; any other one multiplies the negative part."""
    x, slope = x_of(node), node.inputs[1]
    assert slope is not None
    if slope.const_value is None:
        raise UnsupportedError("with slopes that are computed")
    weight, shape = b.weight(node, slope), shape_of(x)
    per_channel = len(shape) > 1 and shape_of(slope) == (shape[1], *(1,) * (len(shape) - 2))
    if per_channel or math.prod(shape_of(slope)) == 1:
        return b.call(b.functional.prelu, b.x(node), b.call(b.torch.flatten, weight))
    negative = b.call(b.torch.clamp_max, b.x(node), 0)
    return b.call(b.torch.add, b.call(b.torch.relu, b.x(node)), b.call(b.torch.mul, negative, weight))


def local_response_norm(b: Builder, node: ir.Node) -> Any:
    read, size = node.attributes, node.attributes["size"].as_int()
    if size % 2 == 0:
        raise UnsupportedError(f"over {size} channels (an even number)")
    alpha, beta, bias = read.get_float("alpha", 1e-4), read.get_float("beta", 0.75), read.get_float("bias", 1.0)
    return b.call(b.functional.local_response_norm, b.x(node), size, alpha, beta, bias)


def pool(b: Builder, node: ir.Node) -> Any:
    """MaxPool and AveragePool."""
    view = operators.Pool.of(node)
    if view is None or len(node.outputs) > 1:
        raise UnsupportedError("in three dimensions" if view is None else "with indices")
    is_max = view.kind is OperationKind.MAX_POOL
    rank, window = view.rank, view.window
    padding, x = _pool_padding(b, view)
    options: dict[str, Any] = {"stride": _sizes(window.strides, rank), "padding": padding, "ceil_mode": view.ceil_mode}
    if is_max:
        options["dilation"] = _sizes(window.dilations, rank)
    elif window.dilations != (1, 1):
        raise UnsupportedError(f"with dilations {list(window.dilations)}")
    else:
        options["count_include_pad"] = view.count_include_pad
    _check_pool_size(view, padding)
    name = f"{'max' if is_max else 'avg'}_pool{rank}d"
    return b.call(getattr(b.functional, name), x, _sizes(window.kernel, rank), **options)


def _pool_padding(b: Builder, view: operators.Pool) -> tuple[Sequence[int], Any]:
    """Pads as torch's pools take them, or as a Pad before the pool where that means the same."""
    x, is_max = b.x(view.node), view.kind is OperationKind.MAX_POOL
    begin, kernel = view.pads[:2], view.kernel
    half = all(2 * pad <= size for pad, size in zip(begin, kernel, strict=True))
    if begin == view.pads[2:] and half:
        return _sizes(begin, view.rank), x
    if view.ceil_mode or not (is_max or view.count_include_pad):
        raise UnsupportedError(f"with pads {list(view.pads)}")
    _, x = _padding(b, x, view.window, -math.inf if is_max else 0.0, always=True)
    return (0,) * view.rank, x


def _check_pool_size(view: operators.Pool, padding: Sequence[int]) -> None:
    """torch leaves out a last window that would start in the padding; ONNX did not always."""
    if not view.ceil_mode:
        return
    window, rank = view.window, view.rank
    kernels, strides, dilations, sizes, outputs = (
        _sizes(pair, rank)
        for pair in (window.kernel, window.strides, window.dilations, view.input_size, view.output_size)
    )
    for kernel, stride, dilation, size, output, pad in zip(
        kernels, strides, dilations, sizes, outputs, padding, strict=True
    ):
        found = -(-(size + 2 * pad - dilation * (kernel - 1) - 1) // stride) + 1
        found -= (found - 1) * stride >= size + pad
        if found != output:
            raise UnsupportedError(f"whose last window starts in the padding ({output} results, PyTorch makes {found})")


def global_pool(b: Builder, node: ir.Node) -> Any:
    axes = tuple(range(2, len(shape_of(x_of(node)))))
    reduce = b.torch.amax if node.op_type == "GlobalMaxPool" else b.torch.mean
    return b.call(reduce, b.x(node), axes, True)


def _padding(b: Builder, x: Any, window: Window, value: float, *, always: bool = False) -> tuple[Sequence[int], Any]:
    """Pads the same on both sides belong to the layer; others stand before it."""
    top, left, bottom, right = window.pads
    if (top, left) == (bottom, right) and not always:
        return _sizes((top, left), window.rank), x
    pads = [left, right, top, bottom][: 2 * window.rank]
    return (0,) * window.rank, b.call(b.functional.pad, x, pads, value=value)


def _sizes(pair: Sequence[int], rank: int) -> tuple[int, ...]:
    """A pair (rows, columns) as a module of `rank` spatial dimensions takes it."""
    return tuple(pair[2 - rank :])


def _with_weights(b: Builder, module: Any, weight: ir.Value, bias: ir.Value | None) -> Any:
    module.weight = b.parameter(weight)
    if bias is not None:
        module.bias = b.parameter(bias)
    return module
