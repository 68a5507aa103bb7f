"""Convolutions of every kind as loops, transposed ones as convolutions over an input spread out with zeros."""

from __future__ import annotations

from math import prod

import onnx_ir as ir

from codesign.graph.graph import shape_of
from codesign.graph.operators import Convolution, TransposedConvolution
from codesign.graph.windows import convolution_window
from codesign.vocabulary import OperationKind
from codesign.workload.loop_nest import LoopNest
from codesign.workload.operators.entry import Entries, Entry, at
from codesign.workload.operators.host import host_nest
from codesign.workload.tensors import elements


def convolution(node: ir.Node) -> LoopNest:
    """Conv, ConvInteger. A 3-D one is host work."""
    return _convolution(node, 1)


def quantized_convolution(node: ir.Node) -> LoopNest:
    """QLinearConv: the same loops; its weights are the fourth input."""
    return _convolution(node, 3)


def transposed_convolution(node: ir.Node) -> LoopNest:
    """ConvTranspose: stride 1 over the input with `stride - 1` zeros between elements, pads dilation (F - 1) - pad.

    The bottom and right pads are what the output's size leaves, output padding included. A 3-D one is host work.
    """
    view = TransposedConvolution.of(node)
    if view is None:
        x, w = _operands(node, 1)
        return host_nest(node, 2 * elements(x) * prod(shape_of(w)[1:]))
    top, left, bottom, right = (_transposed_pads(view, axis) for axis in (0, 1, 2, 3))
    return LoopNest(
        OperationKind.TRANSPOSED_CONVOLUTION,
        (
            *(view.batch, view.group, view.out_channels // view.group, view.in_channels // view.group),
            *(*view.output_size, *view.kernel),
        ),
        dilation=view.dilations,
        pads=(top, left, bottom, right),
        input_rows=view.input_size[0],
        input_columns=view.input_size[1],
        input_dilation=view.strides,
    )


def _transposed_pads(view: TransposedConvolution, side: int) -> int:
    """Pad of one side (top, left, bottom, right); negative where the full output is cut deeper than the kernel."""
    axis = side % 2
    reach = view.dilations[axis] * (view.kernel[axis] - 1)
    begin = reach - view.pads[axis]
    if side < 2:
        return begin
    spread = (view.input_size[axis] - 1) * view.strides[axis] + 1
    return view.output_size[axis] + reach - spread - begin


def _convolution(node: ir.Node, weights_at: int) -> LoopNest:
    x, w = _operands(node, weights_at)
    sizes, kernel = shape_of(x)[2:], shape_of(w)[2:]
    if len(sizes) not in (1, 2):
        return host_nest(node, 2 * elements(node.outputs[0]) * prod(shape_of(w)[1:]))
    window = convolution_window(node, sizes, kernel)
    view = Convolution(node, x, window, w, None, node.attributes.get_int("group", 1))
    channels = view.in_channels // view.group
    return LoopNest(
        _kind(view.group, channels),
        (view.batch, view.group, view.out_channels // view.group, channels, *view.output_size, *view.kernel),
        stride=view.strides,
        dilation=view.dilations,
        pads=view.pads,
        input_rows=view.input_size[0],
        input_columns=view.input_size[1],
    )


def _kind(groups: int, channels: int) -> OperationKind:
    if groups == 1:
        return OperationKind.CONVOLUTION
    return OperationKind.DEPTHWISE_CONVOLUTION if channels == 1 else OperationKind.GROUPED_CONVOLUTION


def _operands(node: ir.Node, weights_at: int) -> tuple[ir.Value, ir.Value]:
    x, w = node.inputs[0], node.inputs[weights_at]
    assert x is not None and w is not None
    return x, w


ENTRIES: Entries = {
    "Conv": Entry(convolution, at(1, 2)),
    "ConvInteger": Entry(convolution, at(1)),
    "QLinearConv": Entry(quantized_convolution, at(3, 8)),
    "ConvTranspose": Entry(transposed_convolution, at(1, 2)),
}
