"""Concatenations as functions the C program recognises: who makes an operand can then write it into the result at once.

a, b -> y:   y[row, 0 : 16] = a[row];  y[row, 16 : 48] = b[row]        along the channels, channels last
             y[0, 0 : 1600] = a[0];    y[0, 1600 : 4800] = b[0]        along the channels, channels first
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from math import prod
from typing import Any

from codesign.lowering.c_source.names import identifier
from codesign.lowering.c_source.program import JOINED
from codesign.lowering.microcontroller.building import Expression, FunctionBuilder


def join(builder: Any, operands: Sequence[Expression], axis: int, name: str) -> Expression:
    """Operands one behind the other along an axis, emitted into a block builder. name: what the result is called."""
    from tvm import relax

    shapes = [[int(size) for size in operand.ty.shape] for operand in operands]
    dtype, shape = str(operands[0].ty.dtype), list(shapes[0])
    shape[axis] = sum(extents[axis] for extents in shapes)
    if prod(shape) == 0 or any(prod(extents) == 0 for extents in shapes):
        return builder.emit(relax.op.concat(list(operands), axis))
    rows = prod(shape[:axis])
    widths = tuple(prod(extents[axis:]) for extents in shapes)
    function = builder.add_func(_function(rows, widths, dtype), "join")
    flat = [builder.emit(relax.op.reshape(x, (rows, width))) for x, width in zip(operands, widths, strict=True)]
    call = relax.call_tir(function, flat, relax.TensorType((rows, sum(widths)), dtype))
    made = builder.emit(call, identifier(name))
    return builder.emit(relax.op.reshape(made, tuple(shape)))


@cache
def _function(rows: int, widths: tuple[int, ...], dtype: str) -> Any:
    """A PrimFunc of operands [rows, width] and their rows side by side."""
    code = FunctionBuilder()
    with code.function(attributes={JOINED: 1}):
        operands = [code.parameter(f"x{number}", (rows, width), dtype) for number, width in enumerate(widths)]
        y = code.parameter("y", (rows, sum(widths)), dtype)
        with code.root():
            for x, width, end in zip(operands, widths, accumulate(widths), strict=True):
                with code.loop("row", rows) as row, code.loop("at", width) as at:
                    code.store(y, [row, at + (end - width)], x[row, at])
    return code.built()
