"""How large a network is, counted on what codesign imports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from codesign.graph.graph import Graph
from codesign.networks.architecture import Architecture
from codesign.networks.export import graph_of
from codesign.workload.layer import Layer
from codesign.workload.layers import layers_of, parameters_of


@dataclass(frozen=True)
class Counts:
    """parameters: learned values. statistics: running means and variances of BatchNormalization, which some count too.

    macs: multiply-accumulates of convolutions, dense layers and matrix products for one image; no bias, no
    normalisation, no activation.
    """

    parameters: int
    statistics: int
    macs: int


def count(found: Architecture) -> Counts:
    """Counts of a network with its own image. Raises CodesignError when PyTorch cannot export it."""
    return counts_of(graph_of(found))


def counts_of(graph: Graph, layers: Sequence[Layer] | None = None) -> Counts:
    """Counts of an imported network. layers: its layers, when somebody has them already."""
    statistics = {
        value: int(value.const_value.size)
        for node in graph.nodes
        if node.op_type == "BatchNormalization"
        for value in node.inputs[3:5]
        if value is not None and value.const_value is not None
    }
    found = layers_of(graph) if layers is None else layers
    return Counts(parameters_of(graph), sum(statistics.values()), sum(layer.nest.macs for layer in found))
