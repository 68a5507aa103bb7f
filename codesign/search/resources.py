"""What a candidate needs: its size, and what it costs on the machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from codesign.errors import CodesignError
from codesign.graph.graph import Graph
from codesign.importers.torch_importer import load_torch
from codesign.networks.catalogue import generator
from codesign.planning.plan import Plan
from codesign.search.candidate import Candidate
from codesign.workload.layers import layers_of, parameters_of

Price = Callable[[Graph], Plan]


@dataclass(frozen=True)
class Resources:
    """Of one inference.

    parameters: learned values and the running mean and variance of every BatchNormalization, as the EfficientNet-eLite
    paper counts them. macs: of the network as written, before any pass. sram_bytes: the memory plan's arena for all
    activations. dram_bytes: read from and written into the outermost memory.
    """

    parameters: int
    macs: int
    cycles: int
    energy_uj: float
    sram_bytes: int
    dram_bytes: int
    latency_ms: float
    utilization: float


# The resources candidates can be grouped by, as `--axes` names them.
AXES: Mapping[str, Callable[[Resources], float]] = {
    "parameters": lambda resources: resources.parameters,
    "macs": lambda resources: resources.macs,
    "cycles": lambda resources: resources.cycles,
    "energy": lambda resources: resources.energy_uj,
    "sram": lambda resources: resources.sram_bytes,
    "dram": lambda resources: resources.dram_bytes,
}


def resources_of(candidate: Candidate, classes: int, price: Price) -> Resources:
    """Build a candidate with random weights, import it and price it.

    classes: how many it tells apart. price: the plan of a graph on the machine. Raises CodesignError for arguments the
    generator refuses, and DoesNotFitError when the machine cannot run the candidate.
    """
    graph = graph_of(candidate, classes)
    plan = price(graph)
    if plan.memory is None:
        raise CodesignError(candidate.name, "its plan has no memory plan")
    return Resources(
        parameters=parameters_of(graph) + statistics_of(graph),
        macs=sum(layer.nest.macs for layer in layers_of(graph)),
        cycles=plan.totals.cycles,
        energy_uj=plan.totals.energy_uj,
        sram_bytes=plan.memory.arena_bytes,
        dram_bytes=plan.totals.dram_bytes,
        latency_ms=plan.totals.latency_ms,
        utilization=plan.totals.utilization,
    )


def graph_of(candidate: Candidate, classes: int) -> Graph:
    """A candidate with random weights as a graph. Raises CodesignError for arguments the generator refuses."""
    import torch

    make = generator(candidate.generator)
    try:
        module = make(**dict(candidate.arguments), classes=classes, channels=candidate.image[0])
    except (TypeError, ValueError, RuntimeError) as error:
        hint = "leave the combination out: list the others under candidates"
        raise CodesignError(candidate.name, f"{candidate.generator} cannot make it: {error}", hint) from error
    return load_torch(module, (torch.zeros(1, *candidate.image),), candidate.name)


def statistics_of(graph: Graph) -> int:
    """Running means and variances: what BatchNormalization keeps besides its parameters."""
    found = {value for node in graph.nodes if node.op_type == "BatchNormalization" for value in node.inputs[3:5]}
    return sum(int(value.const_value.size) for value in found if value is not None and value.const_value is not None)
