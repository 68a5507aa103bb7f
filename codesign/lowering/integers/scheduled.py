"""Layers of codes that run under a schedule: sums by the scheduled function, bias and requantisation behind it.

codes -> convolve -> codes    -->    codes -> layer (int8 x int8 -> int32) -> + bias, shift, saturate -> codes
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from tvm import relax

from codesign.graph.codes import constant_codes
from codesign.lowering.borders import call_layer
from codesign.lowering.frontend import Expression
from codesign.lowering.integers.requantizing import Requantizer
from codesign.lowering.schedule import ScheduledLayer
from codesign.numerics.steps import Convolve, IntegerNetwork, Multiply, MultiplyTensors, Step

Scheduled = Convolve | Multiply | MultiplyTensors


def operand_types(network: IntegerNetwork) -> dict[str, str]:
    """By layer name, the type a scheduled function takes both operands in; layers no function computes are left out.

    int8 where both are, int16 where a zero point is taken away or an operand is wider; sums have 32 bits.
    """
    types = ((step.name, _operand_type(step)) for step in network.steps if isinstance(step, Scheduled))
    return {name: dtype for name, dtype in types if dtype is not None}


def _operand_type(step: Scheduled) -> str | None:
    if step.sum_bits != 32 or any(tensor.dtype == "uint16" for tensor in step.inputs):
        return None
    constant = () if isinstance(step, MultiplyTensors) else (str(step.weights.dtype),)
    plain = all(tensor.dtype == "int8" and tensor.zero_point == 0 for tensor in step.inputs)
    if plain and all(dtype == "int8" for dtype in constant):
        return "int8"
    centred_fits = all(tensor.dtype != "int16" or tensor.zero_point == 0 for tensor in step.inputs)
    return "int16" if centred_fits else None


def scheduled_step(
    builder: Any, step: Scheduled, node: ir.Node, layer: ScheduledLayer, function: Any, inputs: list[Expression]
) -> Expression:
    """The codes of a step whose sums a scheduled function makes. node: the operator that does the work."""
    dtype = str(layer.function.params[0].dtype)
    operands = [
        _as_operand(builder, tensor.zero_point, value, dtype) for tensor, value in zip(step.inputs, inputs, strict=True)
    ]
    if not isinstance(step, MultiplyTensors):
        codes = constant_codes(node.inputs[1])
        assert codes is not None
        operands.append(relax.const(np.ascontiguousarray(codes.centred.astype(dtype)), dtype))
    sums = builder.normalize(call_layer(node, layer, function)(builder, operands))
    return _requantized(builder, step, sums)


def _as_operand(builder: Any, zero_point: int, value: Expression, dtype: str) -> Expression:
    from tvm import te, tirx

    if str(value.ty.dtype) == dtype and zero_point == 0:
        return value
    zero = tirx.const(zero_point, dtype)
    return builder.emit_te(
        lambda x: te.compute(x.shape, lambda *i: x[i].astype(dtype) - zero, name="centred"),
        value,
        primfunc_name_hint="integer_centre",
    )


def _requantized(builder: Any, step: Step, sums: Expression) -> Expression:
    from tvm import te

    assert isinstance(step, Scheduled)
    requantizer = Requantizer(step.requantization, step.output.dtype)
    axis = 1 if isinstance(step, Convolve) else len(step.output.shape) - 1
    bias = () if isinstance(step, MultiplyTensors) else (step.bias,)
    arrays = [relax.const(np.ascontiguousarray(array), str(array.dtype)) for array in (*bias, *requantizer.constants)]

    def codes(total: Expression, *tensors: Expression) -> Expression:
        def code(*i: Expression) -> Expression:
            added = total[i] + tensors[0][i[axis]] if bias else total[i]
            return requantizer.codes(added, tensors[len(bias) :], i[axis])

        return te.compute(step.output.shape, code, name="codes")

    return builder.emit_te(codes, sums, *arrays, primfunc_name_hint="integer_requantize")
