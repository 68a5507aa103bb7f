"""Which nodes TVM cannot lower at all, found by trying every one of them."""

from __future__ import annotations

from codesign.errors import Problem
from codesign.graph.codes import is_quantized
from codesign.graph.graph import Graph
from codesign.lowering.frontend import NetworkImporter
from codesign.lowering.integers.calls import integer_calls, step_expression
from codesign.quantization.reading import integer_network


def unsupported_nodes(graph: Graph) -> list[Problem]:
    """One problem for every node that TVM's ONNX importer refuses, in the graph's order.

    Of a quantised graph, only nodes that stay in floating point are asked of it.
    """
    importer = NetworkImporter(graph)
    if is_quantized(graph):
        importer.own.update(integer_calls(importer, integer_network(graph), step_expression))
    importer.add_function("main", [str(value.name) for value in graph.outputs])
    return list(importer.problems.values())
