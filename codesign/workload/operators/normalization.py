"""Softmax and normalisations: operations per element; what happens once a row, channel or group is left out."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from codesign.graph.graph import constant_of
from codesign.graph.operators import BatchNormalization, optional_input
from codesign.vocabulary import OperationKind
from codesign.workload.loop_nest import LoopNest
from codesign.workload.operators.elementwise import per_element
from codesign.workload.operators.entry import Entries, Entry, at
from codesign.workload.operators.streaming import streaming_nest
from codesign.workload.tensors import elements


def batch_normalization(node: ir.Node) -> LoopNest | None:
    """BatchNormalization at inference: one multiplication, one addition. In training mode it is host work."""
    if BatchNormalization.of(node) is None:
        return None
    return streaming_nest(node, OperationKind.NORMALIZATION, 2 * elements(node.outputs[0]))


def over_statistics(count: int) -> Callable[[ir.Node], LoopNest]:
    """`count` operations with scale and shift; one less without a shift."""

    def nest(node: ir.Node) -> LoopNest:
        each = count if optional_input(node, 2) is not None else count - 1
        return streaming_nest(node, OperationKind.NORMALIZATION, each * elements(node.outputs[0]))

    return nest


def local_response(node: ir.Node) -> LoopNest:
    """LRN: x / (bias + alpha / size sum(x x)) ^ beta: square, size - 1 additions, multiply, add, power (3), divide."""
    each = node.attributes.get_int("size", 1) + 6
    return streaming_nest(node, OperationKind.NORMALIZATION, each * elements(node.outputs[0]))


def learned_by_instance(node: ir.Node) -> tuple[ir.Value, ...]:
    """Scale and shift, unless they are exactly 1 and 0: exporters write so for a group normalisation's inner part."""
    values = at(1, 2)(node)
    numbers = [constant_of(value) for value in values]
    neutral = all(
        number is not None and (number == wanted).all() for number, wanted in zip(numbers, (1, 0), strict=False)
    )
    return () if neutral else values


_SOFTMAX = OperationKind.SOFTMAX
_NORMALIZATION = OperationKind.NORMALIZATION
ENTRIES: Entries = {
    "Softmax": Entry(per_element(_SOFTMAX, 5)),  # maximum, subtract, exp, sum, divide
    "LogSoftmax": Entry(per_element(_SOFTMAX, 5)),  # maximum, subtract, exp, sum, subtract
    "Hardmax": Entry(per_element(_SOFTMAX, 2)),  # maximum, compare
    # Mean and variance are statistics, not parameters: PyTorch keeps them as buffers and does not count them.
    "BatchNormalization": Entry(batch_normalization, at(1, 2)),
    # sum; subtract, square, sum; multiply by 1 / deviation; scale; shift
    "LayerNormalization": Entry(over_statistics(7), at(1, 2)),
    "InstanceNormalization": Entry(over_statistics(7), learned_by_instance),
    "GroupNormalization": Entry(over_statistics(7), at(1, 2)),
    "RMSNormalization": Entry(per_element(_NORMALIZATION, 4), at(1)),  # square, sum, multiply, scale
    "MeanVarianceNormalization": Entry(per_element(_NORMALIZATION, 5)),  # sum; subtract, square, sum; divide
    "LpNormalization": Entry(per_element(_NORMALIZATION, 3)),  # square (or absolute value), sum, divide
    "LRN": Entry(local_response),
}
