"""Which nodes TVM cannot lower at all, found by trying every one of them."""

from __future__ import annotations

from codesign.errors import Problem
from codesign.graph.graph import Graph
from codesign.lowering.frontend import NetworkImporter


def unsupported_nodes(graph: Graph) -> list[Problem]:
    """One problem for every node that TVM's ONNX importer refuses, in the graph's order."""
    importer = NetworkImporter(graph)
    importer.add_function("main", [str(value.name) for value in graph.outputs])
    return list(importer.problems.values())
