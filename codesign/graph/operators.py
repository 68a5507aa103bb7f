"""Typed views of the operators that do arithmetic: attributes read once, defaults and auto_pad resolved to numbers.

Every view has `of(node)`, which answers None for another operator, a 3-D window, or a form no part here understands.
Windows are always two-dimensional (rows, columns): a 1-D operator is a 2-D one of height 1; `rank` says which it was.
Pads stand in ONNX order: top, left, bottom, right. Shapes must be static (they are, after import).
Source: the operator definitions of the ONNX specification.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from codesign.graph.graph import constant_of, shape_of
from codesign.graph.windows import Pads, Pair, Window, convolution_window, pool_window, transposed_window
from codesign.vocabulary import OperationKind


def is_operator(node: ir.Node, *op_types: str) -> bool:
    """Whether the node is one of these operators of the standard ONNX domain."""
    return node.domain in ("", "ai.onnx") and node.op_type in op_types


def optional_input(node: ir.Node, index: int) -> ir.Value | None:
    """The input at `index`, or None when it is absent or left empty."""
    return node.inputs[index] if index < len(node.inputs) else None


@dataclass(frozen=True)
class _Windowed:
    """What everything that slides a window shares; sizes in elements, (rows, columns)."""

    node: ir.Node
    x: ir.Value
    window: Window

    @property
    def y(self) -> ir.Value:
        """The result."""
        return self.node.outputs[0]

    @property
    def rank(self) -> int:
        """Spatial dimensions of the node itself: 1 or 2."""
        return self.window.rank

    @property
    def kernel(self) -> Pair:
        """Window (rows, columns)."""
        return self.window.kernel

    @property
    def strides(self) -> Pair:
        """Strides (rows, columns)."""
        return self.window.strides

    @property
    def dilations(self) -> Pair:
        """Dilations (rows, columns)."""
        return self.window.dilations

    @property
    def pads(self) -> Pads:
        """Explicit pads: top, left, bottom, right."""
        return self.window.pads

    @property
    def batch(self) -> int:
        """Images at once."""
        return shape_of(self.x)[0]

    @property
    def in_channels(self) -> int:
        """Channels read, all groups together."""
        return shape_of(self.x)[1]

    @property
    def input_size(self) -> Pair:
        """Input feature map (rows, columns), without padding."""
        return _spatial(self.x)

    @property
    def output_size(self) -> Pair:
        """Output feature map (rows, columns)."""
        return _spatial(self.y)


@dataclass(frozen=True)
class Convolution(_Windowed):
    """Conv. w: [out_channels, in_channels / group, rows, columns] (rank 1: no rows). b: [out_channels] or None."""

    w: ir.Value
    b: ir.Value | None
    group: int

    @property
    def out_channels(self) -> int:
        """Channels written, all groups together."""
        return shape_of(self.w)[0]

    @classmethod
    def of(cls, node: ir.Node) -> Convolution | None:
        """The view, or None when the node is no 1-D or 2-D convolution."""
        if not is_operator(node, "Conv") or (inputs := _x_and_w(node)) is None:
            return None
        x, w = inputs
        window = convolution_window(node, shape_of(x)[2:], shape_of(w)[2:])
        return cls(node, x, window, w, optional_input(node, 2), node.attributes.get_int("group", 1))


@dataclass(frozen=True)
class TransposedConvolution(_Windowed):
    """ConvTranspose. w: [in_channels, out_channels / group, rows, columns]. b: [out_channels] or None.

    pads: taken away from the full output; output_padding: added at the bottom and right. output_shape and auto_pad
    are already resolved into the two.
    """

    w: ir.Value
    b: ir.Value | None
    group: int
    output_padding: Pair

    @property
    def out_channels(self) -> int:
        """Channels written, all groups together."""
        return shape_of(self.w)[1] * self.group

    @classmethod
    def of(cls, node: ir.Node) -> TransposedConvolution | None:
        """The view, or None when the node is no 1-D or 2-D transposed convolution."""
        if not is_operator(node, "ConvTranspose") or (inputs := _x_and_w(node)) is None:
            return None
        x, w = inputs
        window, extra = transposed_window(node, shape_of(x)[2:], shape_of(w)[2:])
        return cls(node, x, window, w, optional_input(node, 2), node.attributes.get_int("group", 1), extra)


@dataclass(frozen=True)
class Pool(_Windowed):
    """MaxPool, AveragePool, their global forms, and ReduceMean / ReduceMax over both spatial axes of a 4-D tensor.

    kind: MAX_POOL or AVERAGE_POOL. is_global: the window is the whole input. keeps_dimensions: false only for a
    reduction that drops the spatial axes (the result is [batch, channels]). count_include_pad: zero padding counts in
    an average's divisor.
    """

    kind: OperationKind
    ceil_mode: bool = False
    count_include_pad: bool = False
    is_global: bool = False
    keeps_dimensions: bool = True

    @property
    def output_size(self) -> Pair:
        """Output feature map (rows, columns)."""
        return _spatial(self.y) if self.keeps_dimensions else (1, 1)

    @classmethod
    def of(cls, node: ir.Node) -> Pool | None:
        """The view, or None when the node is no 1-D or 2-D pooling."""
        kind = _POOL_KINDS.get(node.op_type)
        if kind is None or not is_operator(node, node.op_type):
            return None
        x = node.inputs[0]
        if x is None or len(shape_of(x)) not in (3, 4):
            return None
        if node.op_type.startswith("Reduce"):
            return cls._of_reduction(node, x, kind)
        if node.op_type.startswith("Global"):
            return cls(node, x, Window.whole(shape_of(x)[2:]), kind, is_global=True)
        window = pool_window(node, shape_of(x)[2:])
        return cls(
            node,
            x,
            window,
            kind,
            ceil_mode=bool(node.attributes.get_int("ceil_mode", 0)),
            count_include_pad=bool(node.attributes.get_int("count_include_pad", 0)),
            is_global=window.kernel == _spatial(x) and not any(window.pads),
        )

    @classmethod
    def _of_reduction(cls, node: ir.Node, x: ir.Value, kind: OperationKind) -> Pool | None:
        shape = shape_of(x)
        if len(shape) != 4 or reduction_axes(node) != (2, 3):
            return None
        keeps = bool(node.attributes.get_int("keepdims", 1))
        return cls(node, x, Window.whole(shape[2:]), kind, is_global=True, keeps_dimensions=keeps)


@dataclass(frozen=True)
class Gemm:
    """Gemm: y = alpha x' w' + beta b, where ' is a transposition when transpose_x or transpose_w says so."""

    node: ir.Node
    x: ir.Value
    w: ir.Value
    b: ir.Value | None
    alpha: float
    beta: float
    transpose_x: bool
    transpose_w: bool

    @property
    def y(self) -> ir.Value:
        """The result, [rows, out_features]."""
        return self.node.outputs[0]

    @property
    def in_features(self) -> int:
        """Length of the sums."""
        return shape_of(self.w)[1 if self.transpose_w else 0]

    @property
    def out_features(self) -> int:
        """Columns of the result."""
        return shape_of(self.w)[0 if self.transpose_w else 1]

    @property
    def has_constant_weights(self) -> bool:
        """Whether w is known before the network runs (a dense layer)."""
        return self.w.const_value is not None

    @classmethod
    def of(cls, node: ir.Node) -> Gemm | None:
        """The view, or None for another operator."""
        if not is_operator(node, "Gemm") or node.inputs[0] is None or node.inputs[1] is None:
            return None
        read = node.attributes
        return cls(
            node,
            node.inputs[0],
            node.inputs[1],
            optional_input(node, 2),
            alpha=read.get_float("alpha", 1.0),
            beta=read.get_float("beta", 1.0),
            transpose_x=bool(read.get_int("transA", 0)),
            transpose_w=bool(read.get_int("transB", 0)),
        )


@dataclass(frozen=True)
class MatMul:
    """MatMul with numpy's rules: leading dimensions broadcast, the last two are matrices, vectors are allowed."""

    node: ir.Node
    x: ir.Value
    w: ir.Value

    @property
    def y(self) -> ir.Value:
        """The result."""
        return self.node.outputs[0]

    @property
    def has_constant_weights(self) -> bool:
        """Whether w is known before the network runs (a dense layer; else both sides are activations)."""
        return self.w.const_value is not None

    @classmethod
    def of(cls, node: ir.Node) -> MatMul | None:
        """The view, or None for another operator."""
        if not is_operator(node, "MatMul") or node.inputs[0] is None or node.inputs[1] is None:
            return None
        return cls(node, node.inputs[0], node.inputs[1])


@dataclass(frozen=True)
class BatchNormalization:
    """BatchNormalization at inference: y = scale (x - mean) / sqrt(variance + epsilon) + shift, each [channels].

    A node in training mode computes another function and has no view.
    """

    node: ir.Node
    x: ir.Value
    scale: ir.Value
    shift: ir.Value
    mean: ir.Value
    variance: ir.Value
    epsilon: float

    @property
    def y(self) -> ir.Value:
        """The result."""
        return self.node.outputs[0]

    @classmethod
    def of(cls, node: ir.Node) -> BatchNormalization | None:
        """The view, or None for another operator or training mode."""
        if not is_operator(node, "BatchNormalization") or node.attributes.get_int("training_mode", 0) != 0:
            return None
        values = [value for value in node.inputs if value is not None]
        if len(values) != 5:
            return None
        x, scale, shift, mean, variance = values
        return cls(node, x, scale, shift, mean, variance, node.attributes.get_float("epsilon", 1e-5))


Operator = Convolution | TransposedConvolution | Pool | Gemm | MatMul | BatchNormalization
_VIEWS = (Convolution, TransposedConvolution, Pool, Gemm, MatMul, BatchNormalization)
_POOL_KINDS = {
    "MaxPool": OperationKind.MAX_POOL,
    "GlobalMaxPool": OperationKind.MAX_POOL,
    "ReduceMax": OperationKind.MAX_POOL,
    "AveragePool": OperationKind.AVERAGE_POOL,
    "GlobalAveragePool": OperationKind.AVERAGE_POOL,
    "ReduceMean": OperationKind.AVERAGE_POOL,
}


def view_of(node: ir.Node) -> Operator | None:
    """The node's typed view, or None when it has none."""
    for view in _VIEWS:
        found: Operator | None = view.of(node)
        if found is not None:
            return found
    return None


def reduction_axes(node: ir.Node) -> tuple[int, ...] | None:
    """A reduction's axes, sorted and not negative, from its attribute or its constant second input.

    An absent list means all axes (none with noop_with_empty_axes). None when the axes are not constant.
    """
    assert node.inputs[0] is not None
    rank = len(shape_of(node.inputs[0]))
    axes = node.attributes.get_ints("axes")
    given = optional_input(node, 1)
    if axes is None and given is not None:
        constant = constant_of(given)
        if constant is None:
            return None
        axes = [int(axis) for axis in constant.reshape(-1)]
    if not axes:
        return () if node.attributes.get_int("noop_with_empty_axes", 0) else tuple(range(rank))
    return tuple(sorted(axis % rank for axis in axes))


def _x_and_w(node: ir.Node) -> tuple[ir.Value, ir.Value] | None:
    """Data and weights of a convolution with one or two spatial dimensions."""
    x, w = node.inputs[0], node.inputs[1]
    if x is None or w is None or len(shape_of(x)) not in (3, 4):
        return None
    return x, w


def _spatial(value: ir.Value) -> Pair:
    sizes = shape_of(value)[2:]
    return (1, sizes[0]) if len(sizes) == 1 else (sizes[0], sizes[1])
