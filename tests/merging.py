"""What the tests of merge-branches share: the pass, run and judged."""

from __future__ import annotations

from math import prod

import onnx

from codesign.graph.graph import Graph, shape_of
from codesign.rewriting.graph_pass import PassContext
from codesign.rewriting.pipeline import resolve_pipeline
from codesign.rewriting.record import DeclinedRecord
from codesign.rewriting.runner import run_pipeline
from tests.pass_models import RELATIVE_TOLERANCE, difference, graph_of

MERGE = resolve_pipeline("merge-branches")


def merged(proto: onnx.ModelProto) -> tuple[Graph, tuple[DeclinedRecord, ...]]:
    """The graph after the pass, which must compute the same and cost no more; and what it declined."""
    before = graph_of(proto)
    after, [record] = run_pipeline(before, MERGE, PassContext())
    assert difference(before, after) < RELATIVE_TOLERANCE
    assert macs(after) <= macs(before) and parameters(after) <= parameters(before)
    _, [again] = run_pipeline(after, MERGE, PassContext())
    assert again.applied == 0
    return after, record.declined


def macs(graph: Graph) -> int:
    """Of all convolutions."""
    found = [(node.inputs[1], node.outputs[0]) for node in graph.nodes if node.op_type == "Conv"]
    return sum(prod(shape_of(weights)) * prod(shape_of(result)[2:]) for weights, result in found if weights is not None)


def parameters(graph: Graph) -> int:
    """Floating-point constants."""
    tensors = [value.const_value for value in graph.model.graph.initializers.values() if value.const_value]
    return sum(tensor.size for tensor in tensors if tensor.dtype.is_floating_point())
