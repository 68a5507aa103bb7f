"""Reductions: operations per element read, and per result."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from codesign.graph.operators import Pool
from codesign.vocabulary import OperationKind
from codesign.workload.loop_nest import LoopNest
from codesign.workload.operators.entry import Entries, Entry
from codesign.workload.operators.pooling import pool_nest
from codesign.workload.operators.streaming import streaming_nest
from codesign.workload.tensors import activations, elements


def reduction(each: int, at_end: int = 0) -> Callable[[ir.Node], LoopNest]:
    """`each` operations for every element read, `at_end` for every result.

    Means and maxima over the whole feature map of a 4-D tensor are global pools.
    """

    def nest(node: ir.Node) -> LoopNest:
        view = Pool.of(node)
        if view is not None:
            return pool_nest(view)
        operations = each * elements(*activations(node)) + at_end * elements(node.outputs[0])
        return streaming_nest(node, OperationKind.REDUCTION, operations)

    return nest


ENTRIES: Entries = {
    **{name: Entry(reduction(1)) for name in ("ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd")},
    **{name: Entry(reduction(1)) for name in ("ArgMax", "ArgMin", "CumSum", "CumProd")},
    "ReduceMean": Entry(reduction(1, 1)),
    "ReduceL1": Entry(reduction(2)),
    "ReduceL2": Entry(reduction(2, 1)),
    "ReduceSumSquare": Entry(reduction(2)),
    "ReduceLogSum": Entry(reduction(1, 1)),
    "ReduceLogSumExp": Entry(reduction(4, 2)),  # maximum, subtract, exp, sum; log, add
}
