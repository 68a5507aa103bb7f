"""Calls a scheduled layer where its node stood: tensors are viewed, and constant weights laid out, as its function wants.

    Conv(x, w, b)  -->  reshape(call_tir(layer, reshape(x), reshape(w))) + b
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir
import tvm
from tvm import relax

from codesign.graph.graph import node_name, shape_of
from codesign.graph.operators import Convolution, Gemm, MatMul, TransposedConvolution, view_of
from codesign.lowering.schedule import ScheduledLayer
from codesign.vocabulary import Dimension, OperationKind

Expression = Any
Shape = tuple[int, ...]


def call_layer(node: ir.Node, layer: ScheduledLayer, function: Any) -> Callable[[Any, Sequence[Expression]], Expression]:
    """The lowering of a node by a scheduled layer. function: the GlobalVar of layer.function in the module.

    Raises RuntimeError (an internal error naming the layer) when node, nest and function do not describe the same work.
    """
    call = _Call(node, layer, function)
    match view_of(node):
        case Convolution() as view:
            call.require(_same_window(view, layer), "strides, dilations or pads of node and loop nest differ")
            return lambda builder, inputs: _convolution(call, builder, inputs)
        case TransposedConvolution():
            return lambda builder, inputs: _convolution(call, builder, inputs)
        case Gemm() as view:
            return lambda builder, inputs: _gemm(call, view, builder, inputs)
        case MatMul():
            return lambda builder, inputs: _matmul(call, builder, inputs)
        case _:
            raise RuntimeError(f"internal error: layer {node_name(node)}: {node.op_type} has no border to a schedule")


class _Call:
    """One node, its layer, and the checks and views every kind needs. Laid-out constants are made once."""

    def __init__(self, node: ir.Node, layer: ScheduledLayer, function: Any) -> None:
        self.layer = layer
        self.function = function
        self._name = node_name(node)
        self._output_shape = shape_of(node.outputs[0])
        buffers = list(layer.function.params)  # in this TVM a parameter is its buffer
        self.require(len(buffers) == 3, f"its function has {len(buffers)} parameters, not 3")
        self.shapes: list[Shape] = [tuple(int(size) for size in buffer.shape) for buffer in buffers]
        self._dtypes = [str(buffer.dtype) for buffer in buffers]
        self._laid_out: dict[tuple[str, int], tuple[Expression, Expression]] = {}

    def require(self, condition: bool, problem: str) -> None:
        if not condition:
            raise RuntimeError(f"internal error: layer {self._name}: {problem}")

    def run(self, builder: Any, x: Expression, weights: Expression) -> Expression:
        """Both operands viewed as the function's buffers, the function called, the result in the node's shape."""
        operands = []
        for operand, shape, dtype in zip((x, weights), self.shapes, self._dtypes, strict=False):
            has, found = sizes_of(operand), str(operand.ty.dtype)
            self.require(prod(has) == prod(shape), f"an operand is {has}, its function takes {shape}")
            self.require(found == dtype, f"an operand is {found}, its function takes {dtype}")
            operands.append(self.view(builder, operand, shape))
        self.require(
            prod(self._output_shape) == prod(self.shapes[2]),
            f"its function makes {self.shapes[2]}, the node {self._output_shape}",
        )
        out_type = relax.TensorType(self.shapes[2], self._dtypes[2])
        result = builder.emit(relax.call_tir(self.function, operands, out_type))
        return self.view(builder, result, self._output_shape)

    def view(self, builder: Any, value: Expression, shape: Shape) -> Expression:
        """The same elements in another shape; costs nothing."""
        if sizes_of(value) == shape:
            return value
        if is_constant(value):
            return self._once("view" + str(shape), value, lambda array: array.reshape(shape))
        return builder.emit(relax.op.reshape(value, shape))

    def transposed(self, builder: Any, value: Expression) -> Expression:
        """A matrix with its last two axes swapped; of a constant, once and in advance."""
        rank = len(sizes_of(value))
        axes = [*range(rank - 2), rank - 1, rank - 2]
        if is_constant(value):
            return self._once("transposed", value, lambda array: array.transpose(axes))
        return builder.emit(relax.op.permute_dims(value, axes))

    def scaled(self, builder: Any, value: Expression, factor: float) -> Expression:
        if factor == 1.0:
            return value
        if is_constant(value):
            return self._once(f"times{factor}", value, lambda array: (array * factor).astype(array.dtype))
        return builder.emit(relax.op.multiply(value, relax.const(np.asarray(factor, str(value.ty.dtype)))))

    def _once(self, what: str, value: Expression, change: Callable[[np.ndarray], np.ndarray]) -> Expression:
        # The original is kept beside the result: as long as it lives, its id is its own.
        key = (what, id(value))
        if key not in self._laid_out:
            self._laid_out[key] = (value, relax.const(np.ascontiguousarray(change(value.value.numpy()))))
        return self._laid_out[key][1]


def sizes_of(value: Expression) -> Shape:
    """Static shape of a Relax expression."""
    return tuple(int(size) for size in value.ty.shape)


def is_constant(value: Expression) -> bool:
    """Whether the expression is a tensor known now."""
    return isinstance(value, tvm.ir.GenericConst)


def _same_window(view: Convolution, layer: ScheduledLayer) -> bool:
    nest = layer.nest
    node = (view.strides, view.dilations, view.pads, view.group, view.kernel)
    kernel = (nest.size(Dimension.FY), nest.size(Dimension.FX))
    return node == (nest.stride, nest.dilation, nest.pads, nest.size(Dimension.G), kernel)


def _convolution(call: _Call, builder: Any, inputs: Sequence[Expression]) -> Expression:
    result = call.run(builder, inputs[0], inputs[1])
    if len(inputs) < 3 or inputs[2] is None:
        return result
    shape = (1, -1, *(1 for _ in sizes_of(result)[2:]))
    bias_shape = tuple(prod(sizes_of(inputs[2])) if size == -1 else size for size in shape)
    return relax.op.add(result, call.view(builder, inputs[2], bias_shape))


def _gemm(call: _Call, view: Gemm, builder: Any, inputs: Sequence[Expression]) -> Expression:
    x = call.transposed(builder, inputs[0]) if view.transpose_x else inputs[0]
    weights = call.transposed(builder, inputs[1]) if view.transpose_w else inputs[1]
    call.require(sizes_of(x)[1] == sizes_of(weights)[0], "its operands do not fit")
    product = call.scaled(builder, call.run(builder, x, weights), view.alpha)
    if len(inputs) < 3 or inputs[2] is None or view.beta == 0:
        return product
    return relax.op.add(product, call.scaled(builder, inputs[2], view.beta))


def _matmul(call: _Call, builder: Any, inputs: Sequence[Expression]) -> Expression:
    """Either every matrix pair is one group, or one matrix is shared and all rows are one batch."""
    x, weights = inputs[0], inputs[1]
    if len(sizes_of(x)) == 1:
        x = call.view(builder, x, (1, *sizes_of(x)))
    if len(sizes_of(weights)) == 1:
        weights = call.view(builder, weights, (*sizes_of(weights), 1))
    outer = np.broadcast_shapes(sizes_of(x)[:-2], sizes_of(weights)[:-2])
    groups, columns, channels = call.shapes[0]
    call.require(call.layer.nest.kind in (OperationKind.MATMUL, OperationKind.DENSE), "its loops are no matrix product")
    rows, shared = sizes_of(x)[-2:]
    outputs = sizes_of(weights)[-1]
    one_by_one = (groups, columns, channels) == (prod(outer), rows, shared)
    if not one_by_one:
        call.require(
            (groups, columns, channels) == (1, prod(outer) * rows, shared) and prod(sizes_of(weights)[:-2]) == 1,
            f"{sizes_of(x)} times {sizes_of(weights)} is not a product of {call.shapes[0]} and {call.shapes[1]}",
        )
        x = _broadcast(builder, x, (*outer, rows, shared))
    else:
        x = _broadcast(builder, x, (*outer, rows, shared))
        weights = _broadcast(builder, weights, (*outer, shared, outputs))
    call.require(call.shapes[1] == (groups, channels, outputs), f"its function takes weights {call.shapes[1]}")
    return call.run(builder, x, weights)


def _broadcast(builder: Any, value: Expression, shape: Shape) -> Expression:
    if prod(sizes_of(value)) == prod(shape):
        return value
    return builder.emit(relax.op.broadcast_to(value, relax.ShapeExpr(shape)))
