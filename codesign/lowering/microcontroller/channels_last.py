"""Integer steps over images with channels last, where kernels for small processors want them.

Every step's codes are kept in that order; whoever wants them as ONNX has them gets them turned round, and what nobody
wants is removed as dead code. Steps without a kernel of their own are computed as everywhere, with their indices turned
round instead of their data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import tvm
from tvm import relax

from codesign.lowering.c_source.names import identifier
from codesign.lowering.frontend import Convert, Expression, NetworkImporter
from codesign.lowering.integers.calls import integer_calls, step_expression
from codesign.lowering.microcontroller.blocks import CODE_BITS, Blocks
from codesign.lowering.microcontroller.convolution import KNOWN, convolution, layer_of
from codesign.lowering.microcontroller.depthwise import depthwise, depthwise_layer_of
from codesign.lowering.microcontroller.joining import join
from codesign.lowering.microcontroller.macs import macs_of_function
from codesign.lowering.microcontroller.pooling import largest_codes, pooling_window_of
from codesign.numerics.steps import Concatenate, IntegerNetwork, Move, Step

LAST = (0, 2, 3, 1)
FIRST = (0, 3, 1, 2)
_IMAGE = 4  # dimensions


def channels_last_calls(importer: NetworkImporter, network: IntegerNetwork, blocks: Blocks) -> dict[str, Convert]:
    """As `integer_calls`, with channels last between the steps. blocks: of convolutions and matrix products."""
    return integer_calls(importer, network, _Layouts(blocks).step_expression)


def lower_step(builder: Any, step: Step, inputs: list[Expression], blocks: Blocks | None = None) -> Expression:
    """One step alone, on tensors as ONNX has them, computed with channels last."""
    return _Layouts(blocks or Blocks()).step_expression(builder, step, inputs)


class _Layouts:
    """last: by the variable of a tensor as ONNX has it, the one that holds it with channels last."""

    def __init__(self, blocks: Blocks) -> None:
        self.blocks = blocks
        self.last: dict[Any, Expression] = {}

    def step_expression(self, builder: Any, step: Step, inputs: Sequence[Expression]) -> Expression:
        """One step on tensors as ONNX has them, computed with channels last."""
        operands = [self._with_channels_last(builder, x) for x in inputs]
        made = _kernel(builder, step, operands, self.blocks)
        if made is None:
            made = _generic(builder, step, operands)
        if len(step.output.shape) != _IMAGE or not isinstance(made, relax.Var):
            return made
        first = _turned(builder, made, FIRST)
        self.last[first] = made
        return first

    def _with_channels_last(self, builder: Any, x: Expression) -> Expression:
        if len(x.ty.shape) != _IMAGE:
            return x
        if isinstance(x, tvm.ir.GenericConst):
            return relax.const(np.ascontiguousarray(x.value.numpy().transpose(LAST)), str(x.ty.dtype))
        if x not in self.last:
            self.last[x] = _turned(builder, x, LAST)
        return self.last[x]


def _turned(builder: Any, x: Expression, axes: tuple[int, ...]) -> Expression:
    """Axes in another order; a view where at most one of those that move has more than one entry."""
    sizes = [int(size) for size in x.ty.shape]
    channels = sizes[1] if axes == LAST else sizes[3]
    if channels == 1 or prod(sizes[1:]) == channels:
        return builder.emit(relax.op.reshape(x, tuple(sizes[axis] for axis in axes)))
    return builder.emit(relax.op.permute_dims(x, list(axes)))


def _kernel(builder: Any, step: Step, inputs: list[Expression], blocks: Blocks) -> Expression | None:
    """The step by a function made for it, if there is one."""
    layer = layer_of(step)
    if layer is not None:
        layer = replace(layer, block=blocks.block(step.name, layer.block, KNOWN, CODE_BITS))
        function = convolution(layer)
        blocks.check(step.name, macs_of_function(function), layer.macs)
        return _call(builder, step, function, layer.constants(), inputs[0])
    channelwise = depthwise_layer_of(step)
    if channelwise is not None:
        return _call(builder, step, depthwise(channelwise), channelwise.constants(), inputs[0])
    pooled = pooling_window_of(step)
    if pooled is not None:
        return _call(builder, step, largest_codes(pooled, step.output.dtype), (), inputs[0])
    return None


def _call(builder: Any, step: Step, function: Any, constants: Sequence[np.ndarray], x: Expression) -> Expression:
    name = f"{type(step).__name__.lower()}_{'x'.join(str(size) for size in function.params[-1].shape)}"
    x_shape, y_shape = (
        tuple(int(size) for size in parameter.shape) for parameter in (function.params[0], function.params[-1])
    )
    operands = [builder.emit(relax.op.reshape(x, x_shape)), *(relax.const(a, str(a.dtype)) for a in constants)]
    made = relax.call_tir(builder.add_func(function, name), operands, relax.TensorType(y_shape, step.output.dtype))
    called = builder.emit(made, identifier(step.output.name))
    return builder.emit(relax.op.reshape(called, _sizes_last(step)))


def _sizes_last(step: Step) -> tuple[int, ...]:
    """The output's shape, of an image with channels last."""
    shape = step.output.shape
    return tuple(shape[axis] for axis in LAST) if len(shape) == _IMAGE else shape


def _generic(builder: Any, step: Step, inputs: list[Expression]) -> Expression:
    """The step as it is computed everywhere, its indices turned round."""
    match step:
        case Concatenate() if len(step.output.shape) == _IMAGE:
            return join(builder, inputs, LAST.index(step.axis % _IMAGE), step.output.name)
        case Concatenate():
            return join(builder, inputs, step.axis % len(step.output.shape), step.output.name)
        case Move():
            return step_expression(builder, _turned_move(step), inputs)
        case _:
            return step_expression(_TurningBuilder(builder, step), step, inputs)


def _turned_move(step: Move) -> Move:
    """The same move between tensors with channels last."""
    before, after = step.inputs[0], step.output
    source = np.arange(before.elements) if step.source is None else np.asarray(step.source)
    if len(before.shape) == _IMAGE:
        places = np.empty(before.elements, np.int64)
        places[np.arange(before.elements).reshape(before.shape).transpose(LAST).reshape(-1)] = np.arange(
            before.elements
        )
        source = places[source]
    if len(after.shape) == _IMAGE:
        source = source.reshape(after.shape).transpose(LAST).reshape(-1)
    still = len(source) == before.elements and bool((source == np.arange(len(source))).all())
    tensor = replace(after, shape=_sizes_last(step))
    return replace(step, output=tensor, source=None if still else source)


class _TurningBuilder:
    """A block builder whose tensor expressions see images as ONNX has them while data has channels last."""

    def __init__(self, builder: Any, step: Step) -> None:
        self._builder = builder
        self._step = step

    def emit(self, value: Expression) -> Expression:
        return self._builder.emit(value)

    def emit_te(self, function: Callable[..., Any], *operands: Expression, primfunc_name_hint: str) -> Expression:
        images = {at for at, tensor in enumerate(self._step.inputs) if len(tensor.shape) == _IMAGE}

        def turned(*tensors: Any) -> Any:
            from tvm import te

            read = [_seen_first(tensor) if at in images else tensor for at, tensor in enumerate(tensors)]
            made = function(*read)
            if len(self._step.output.shape) != _IMAGE:
                return made
            return te.compute(_sizes_last(self._step), lambda b, y, x, c: made[b, c, y, x], name="channels_last")

        return self._builder.emit_te(turned, *operands, primfunc_name_hint=primfunc_name_hint)


def _seen_first(tensor: Any) -> Any:
    from tvm import te

    batch, rows, columns, channels = tensor.shape
    return te.compute((batch, channels, rows, columns), lambda b, c, y, x: tensor[b, y, x, c], name="channels_first")
