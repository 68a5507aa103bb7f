"""Integer steps where their islands stood: the quantiser's node is replaced by calls that read codes and make codes.

codes -> DequantizeLinear -> Conv -> Relu -> QuantizeLinear -> codes    -->    codes -> convolve -> codes
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tvm import relax

from codesign.lowering.frontend import Convert, Expression, NetworkImporter
from codesign.lowering.integers import elements, products
from codesign.numerics.steps import (
    AveragePool,
    Concatenate,
    Constant,
    Convolve,
    Dequantize,
    Fill,
    Floating,
    IntegerNetwork,
    Interpolate,
    Lookup,
    MaximumPool,
    Move,
    Multiply,
    MultiplyTensors,
    Product,
    Quantize,
    Softmax,
    Step,
    Sum,
)

Make = Callable[[Any, Step, list[Expression]], Expression]  # block builder, a step, its inputs -> its codes


def integer_calls(importer: NetworkImporter, network: IntegerNetwork, make: Make) -> dict[str, Convert]:
    """A lowering for every node of an integer step; those of floating steps are TVM's.

    The last node of a step makes its codes; the others make nothing anyone reads. make: step_expression, or what does
    better for some steps.
    """
    kept = {name for step in network.floating for name in step.nodes}
    calls: dict[str, Convert] = {}
    steps: list[Step] = []
    for step in network.steps:
        steps.append(step)
        if not step.nodes:  # a constant, or a table in front of the step that follows
            continue
        if not isinstance(step, Floating):
            calls.update({name: importer.nothing(name) for name in step.nodes[:-1] if name not in kept})
            calls[step.nodes[-1]] = _converter(importer, tuple(steps), make)
        steps = []
    return calls


def _converter(importer: NetworkImporter, steps: tuple[Step, ...], make: Make) -> Convert:
    def convert(builder: Any, inputs: Sequence[Expression]) -> Expression:
        del inputs  # floats; a step reads codes
        made: dict[str, Expression] = {}
        for step in steps:
            names = [tensor.name for tensor in step.inputs]
            read = [made[name] if name in made else importer.expression(name) for name in names]
            made[step.output.name] = make(builder, step, read)
        return made[steps[-1].output.name]

    return convert


def step_expression(builder: Any, step: Step, inputs: Sequence[Expression]) -> Expression:
    """The Relax expression of one step on expressions of its inputs, emitted into a block builder."""

    def emit(function: Any, *arrays: np.ndarray) -> Expression:
        name = type(step).__name__.lower()
        constants = [constant(array) for array in arrays]
        return builder.emit_te(
            lambda *tensors: function(step, *tensors), *inputs, *constants, primfunc_name_hint=f"integer_{name}"
        )

    match step:
        case Convolve():
            return emit(products.convolved, *products.constants_of(step))
        case Multiply():
            return emit(products.multiplied, *products.constants_of(step))
        case MultiplyTensors():
            return emit(products.tensors_multiplied)
        case Sum():
            return emit(elements.added)
        case Product():
            return emit(elements.multiplied_elements)
        case Constant():
            return constant(step.values)
        case Lookup():
            return emit(elements.looked_up, step.table)
        case MaximumPool():
            return emit(elements.largest)
        case AveragePool():
            return emit(elements.averaged, *elements.average_constants(step))
        case Concatenate():
            return builder.emit(relax.op.concat(list(inputs), step.axis))
        case Move():
            return _move(builder, step, inputs[0])
        case Fill():
            return emit(elements.filled)
        case Interpolate():
            return emit(elements.interpolated, step.rows.astype(np.int32), step.columns.astype(np.int32))
        case Softmax():
            return emit(elements.softmax, step.exponentials)
        case Quantize():
            return emit(elements.quantized)
        case Dequantize():
            return emit(elements.dequantized)
    raise TypeError(f"{step.name}: no lowering of {type(step).__name__}")


def constant(array: np.ndarray) -> Expression:
    """The array as it is; relax.const left to itself makes 32 bits of 64."""
    return relax.const(np.ascontiguousarray(array), str(array.dtype))


def _move(builder: Any, step: Move, x: Expression) -> Expression:
    if step.source is None:
        return builder.emit(relax.op.reshape(x, step.output.shape))
    flat = builder.emit(relax.op.reshape(x, (step.inputs[0].elements,)))
    affine = step.affine
    if affine is not None:
        result = builder.emit_te(lambda tensor: elements.moved(affine, tensor), flat, primfunc_name_hint="integer_move")
    else:
        source = constant(step.source.astype(np.int32))
        result = builder.emit_te(
            lambda tensor, places: elements.gathered(step.output.elements, tensor, places),
            flat,
            source,
            primfunc_name_hint="integer_gather",
        )
    return builder.emit(relax.op.reshape(result, step.output.shape))
