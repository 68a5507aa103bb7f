"""Prices of graphs for passes that decide by cost: what a plan would add up to, with every layer searched once."""

from __future__ import annotations

from dataclasses import dataclass, field

from codesign.errors import DoesNotFitError
from codesign.graph.graph import Graph
from codesign.hardware.profile import HardwareProfile
from codesign.mapping.cache import Search
from codesign.mapping.objective import AnyObjective
from codesign.planning.fusion import fuse
from codesign.planning.placement import FirstWith, Placer, as_units_run
from codesign.planning.plan import PlannedLayer
from codesign.planning.planner import off_chip_bytes
from codesign.rewriting.graph_pass import Price
from codesign.workload.layer import Layer
from codesign.workload.layers import layers_of, parameters_of


@dataclass(frozen=True)
class PlanningOracle:
    """Prices graphs on one machine for one objective, as passes ask it to (CostOracle).

    Layers alike are searched and costed once over all graphs it is asked about. Mapping files have no say: they name
    layers of the finished network. search: how a mapping is found.
    """

    profile: HardwareProfile
    objective: AnyObjective
    search: Search
    _first_with: FirstWith = field(default_factory=dict, init=False, repr=False)

    def price(self, graph: Graph) -> Price:
        """What a plan of this graph would say. Raises DoesNotFitError naming every layer that fits no engine."""
        layers = self._planned(graph, layers_of(graph))
        cycles = sum(planned.cost.cycles for planned in layers)
        energy_pj = sum(planned.cost.energy_pj for planned in layers)
        return Price(
            score=self.objective.of(cycles, energy_pj),
            cycles=cycles,
            energy_pj=energy_pj,
            dram_bytes=off_chip_bytes(layers, self.profile),
            macs=sum(planned.layer.nest.macs for planned in layers),
            parameters=parameters_of(graph),
        )

    def _planned(self, graph: Graph, layers: tuple[Layer, ...]) -> list[PlannedLayer]:
        where = str(graph.source or graph.name)
        placer = Placer(self.profile, self.objective, where, search=self.search, first_with=self._first_with)
        placed = [placer.place(unit) for layer in layers for unit in as_units_run(layer, self.profile)]
        if placer.problems:
            raise DoesNotFitError.of(placer.problems)
        return fuse(placed, frozenset(str(value.name) for value in graph.outputs), self.profile)
