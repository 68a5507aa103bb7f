"""Calls a scheduled layer where its node stood: tensors viewed, constant weights laid out, as its function wants them.

Convolutions:
    Conv(x, w, b)  -->  reshape(call_tir(layer, reshape(x), reshape(w))) + b

On an engine that sees them as matrix products:
    Conv(x, w, b)  -->  reshape(permute(call_tir(layer, im2col(x), reshape(w)))) + b
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
from codesign.lowering.computation import input_matrix
from codesign.lowering.frontend import Convert, Expression
from codesign.lowering.schedule import ScheduledLayer
from codesign.vocabulary import Dimension, OperationKind
from codesign.workload.layers import nest_of
from codesign.workload.loop_nest import LoopNest

Shape = tuple[int, ...]


def call_layer(node: ir.Node, layer: ScheduledLayer, function: Any) -> Convert:
    """The lowering of a node by a scheduled layer. function: the GlobalVar of layer.function in the module.

    Raises RuntimeError (an internal error naming the layer) when node, nest and function do not describe the same work.
    """
    call = _Call(node, layer, function)
    match view_of(node):
        case Convolution() as view:
            nest = nest_of(node)
            if layer.nest != nest and layer.nest == nest.as_matrix_product():
                return lambda builder, inputs: _matrix_convolution(call, nest, builder, inputs)
            call.require(_same_window(view, layer), "strides, dilations or pads of node and loop nest differ")
            return lambda builder, inputs: _convolution(call, builder, inputs)
        case TransposedConvolution():
            return lambda builder, inputs: _convolution(call, builder, inputs)
        case Gemm() as view:
            return lambda builder, inputs: _gemm(call, view, builder, inputs)
        case MatMul():
            return lambda builder, inputs: _matmul(call, builder, inputs)
        case None if node.op_type == "Einsum":
            equation = node.attributes["equation"].as_string()
            return lambda builder, inputs: _einsum(call, equation, builder, inputs)
        case _:
            raise RuntimeError(f"internal error: layer {node_name(node)}: {node.op_type} has no border to a schedule")


class _Call:
    """One node, its layer, and the checks and views every kind needs. Laid-out constants are made once."""

    def __init__(self, node: ir.Node, layer: ScheduledLayer, function: Any) -> None:
        self.layer = layer
        self.function = function
        self._name = node_name(node)
        self.output_shape = shape_of(node.outputs[0])
        buffers = list(layer.function.params)  # in this TVM a parameter is its buffer
        self.require(len(buffers) == 3, f"its function has {len(buffers)} parameters, not 3")
        self.shapes: list[Shape] = [tuple(int(size) for size in buffer.shape) for buffer in buffers]
        self._output_dtype = str(buffers[2].dtype)
        self._laid_out: dict[tuple[str, int], tuple[Expression, Expression]] = {}

    def require(self, condition: bool, problem: str) -> None:
        if not condition:
            raise RuntimeError(f"internal error: layer {self._name}: {problem}")

    def run(self, builder: Any, x: Expression, weights: Expression, shape: Shape | None = None) -> Expression:
        """Both operands viewed as the function's buffers, the function called, the result in the node's shape (or the
        given one, of as many elements)."""
        operands = []
        for operand, buffer in zip((x, weights), self.shapes[:2], strict=True):
            has = sizes_of(operand)
            self.require(prod(has) == prod(buffer), f"an operand is {has}, its function takes {buffer}")
            operands.append(self.view(builder, operand, buffer))
        self.require(
            prod(self.output_shape) == prod(self.shapes[2]),
            f"its function makes {self.shapes[2]}, the node {self.output_shape}",
        )
        out_type = relax.TensorType(self.shapes[2], self._output_dtype)
        result = builder.emit(relax.call_tir(self.function, operands, out_type))
        return self.view(builder, result, self.output_shape if shape is None else shape)

    def view(self, builder: Any, value: Expression, shape: Shape) -> Expression:
        """The same elements in another shape; costs nothing."""
        if sizes_of(value) == shape:
            return value
        if is_constant(value):
            return self._once("view" + str(shape), value, lambda array: array.reshape(shape))
        return builder.emit(relax.op.reshape(value, shape))

    def transposed(self, builder: Any, value: Expression) -> Expression:
        """A matrix with its axes swapped."""
        return self.permuted(builder, value, (1, 0))

    def permuted(self, builder: Any, value: Expression, axes: Sequence[int]) -> Expression:
        """Axes in another order; of a constant, once and in advance."""
        if list(axes) == sorted(axes):
            return value
        if is_constant(value):
            return self._once(f"axes{axes}", value, lambda array: array.transpose(axes))
        return builder.emit(relax.op.permute_dims(value, list(axes)))

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
    return _biased(call, builder, call.run(builder, inputs[0], inputs[1]), inputs)


def _matrix_convolution(call: _Call, nest: LoopNest, builder: Any, inputs: Sequence[Expression]) -> Expression:
    """The product [1, G, K, 1, B*OY*OX] of weights and im2col matrix, put back into [B, G*K, OY, OX]."""
    batch, groups, outputs, channels, rows, columns, _, _ = nest.sizes
    image = call.view(builder, inputs[0], (batch, groups, channels, nest.input_rows, nest.input_columns))
    matrix = builder.emit_te(lambda tensor: input_matrix(nest, tensor), image)
    product = call.run(builder, matrix, inputs[1], (groups, outputs, batch, rows, columns))
    result = call.permuted(builder, product, (2, 0, 1, 3, 4)) if batch > 1 else product
    return _biased(call, builder, call.view(builder, result, call.output_shape), inputs)


def _biased(call: _Call, builder: Any, result: Expression, inputs: Sequence[Expression]) -> Expression:
    if len(inputs) < 3 or inputs[2] is None:
        return result
    bias_shape = (1, prod(sizes_of(inputs[2])), *(1 for _ in sizes_of(result)[2:]))
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


def _einsum(call: _Call, equation: str, builder: Any, inputs: Sequence[Expression]) -> Expression:
    """Two operands whose labels fall into batch, rows, columns and sums: a stack of matrix products."""
    left, arrow, result = equation.replace(" ", "").partition("->")
    first, second = left.split(",")
    if not arrow:
        result = "".join(sorted(set(first) ^ set(second)))
    batch = [label for label in result if label in first and label in second]
    rows = [label for label in result if label in first and label not in second]
    columns = [label for label in result if label not in first]
    summed = [label for label in first if label not in result]
    size = dict(zip(first + second, sizes_of(inputs[0]) + sizes_of(inputs[1]), strict=True))
    x = call.permuted(builder, inputs[0], [first.index(label) for label in batch + rows + summed])
    weights = call.permuted(builder, inputs[1], [second.index(label) for label in batch + summed + columns])
    made = batch + rows + columns
    product = call.run(builder, x, weights, tuple(size[label] for label in made))
    return call.permuted(builder, product, [made.index(label) for label in result])


def _broadcast(builder: Any, value: Expression, shape: Shape) -> Expression:
    if prod(sizes_of(value)) == prod(shape):
        return value
    return builder.emit(relax.op.broadcast_to(value, relax.ShapeExpr(shape)))
