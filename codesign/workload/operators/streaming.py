"""Nests of operators that stream: every input element read once, every output element written once."""

from __future__ import annotations

import onnx_ir as ir

from codesign.graph.graph import shape_of
from codesign.vocabulary import OperationKind
from codesign.workload.loop_nest import LoopNest
from codesign.workload.tensors import activations, elements, results, sizes_of


def streaming_nest(
    node: ir.Node, kind: OperationKind, operations: int = 0, *, shape: tuple[int, ...] | None = None
) -> LoopNest:
    """A node that reads all its activations and writes all its results. shape: the loops', else the first result's."""
    return LoopNest(
        kind,
        sizes_of(shape_of(node.outputs[0]) if shape is None else shape),
        input_elements=elements(*activations(node)),
        output_elements=elements(*results(node)),
        operations=operations,
    )
