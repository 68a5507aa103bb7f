"""Placement: which unit runs a layer, at what cost. Array engines first, then the vector unit, then the host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from codesign.errors import CodesignError, DoesNotFitError, Problem
from codesign.hardware.profile import HardwareProfile
from codesign.mapping.cache import Search
from codesign.mapping.layer_cost import LayerCost
from codesign.mapping.layer_form import nest_on, not_run, runs
from codesign.mapping.mapper import found_cost, search
from codesign.mapping.objective import AnyObjective
from codesign.mapping.streaming import HOST, VECTOR_UNIT, VIEW, host_cost, vector_cost, view_cost
from codesign.planning.constraints import Constraint
from codesign.planning.given import Given, given_cost
from codesign.planning.instructions import Instruction
from codesign.planning.plan import PlannedLayer
from codesign.vocabulary import OperationKind
from codesign.workload.layer import Layer
from codesign.workload.loop_nest import LoopNest

_NAMES_SHOWN = 3

FirstWith = dict[tuple[tuple[LoopNest, ...], Instruction | None], PlannedLayer]


@dataclass
class Placer:
    """Places layers one by one; a nest that was mapped before is not mapped again.

    A placed layer's nest is what its engine sees of it (nest_on): the loops its mapping is one of.

    where: what problems point at, the model's file. instructions: by the names of the layers that have one, legal
    mappings that are taken unsearched, and constraints on the search. refused: layers that fit no engine, by what is
    wrong and the hint.
    """

    profile: HardwareProfile
    objective: AnyObjective
    where: str
    instructions: Mapping[str, Instruction] = field(default_factory=dict)
    search: Search = search
    first_with: FirstWith = field(default_factory=dict)
    refused: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    @property
    def problems(self) -> list[Problem]:
        """All layers that fit no engine, those with the same problem together."""
        return [Problem(f"{self.where}: {_nodes(names)}", what, hint) for (what, hint), names in self.refused.items()]

    def place(self, layer: Layer) -> PlannedLayer:
        """The layer on the best unit that runs it."""
        kind = layer.nest.kind
        if kind is OperationKind.VIEW:
            return PlannedLayer(layer, VIEW, view_cost())
        engines = [name for name, engine in self.profile.engines.items() if runs(engine, layer.nest)]
        if engines and layer.nest.has_macs:
            return self._on_engine(layer, engines)
        unit = self.profile.vector_unit
        if unit is not None and (layer.members or unit.runs(kind, layer.op)):
            return PlannedLayer(layer, VECTOR_UNIT, vector_cost(layer, self.profile))
        named = kind is OperationKind.HOST or (unit is not None and kind in unit.operations)
        what = layer.op if named else not_run(layer.nest, self.profile.engines.values())
        return PlannedLayer(layer, HOST, host_cost(layer, self.profile), note=f"no engine runs {what}")

    def _on_engine(self, layer: Layer, engines: list[str]) -> PlannedLayer:
        told = self.instructions.get(layer.name)
        seen = tuple(self._seen(layer, engine).nest for engine in engines)
        known = self.first_with.get((seen, told))
        if known is not None:
            return replace(known, layer=self._seen(layer, known.engine), repeats_of=known.layer.name)
        planned = self._as_given(layer, told) if isinstance(told, Given) else self._searched(layer, engines, told)
        if planned is None:
            return PlannedLayer(layer, HOST, host_cost(layer, self.profile))
        self.first_with[seen, told] = planned
        return planned

    def _seen(self, layer: Layer, engine: str) -> Layer:
        return replace(layer, nest=nest_on(self.profile.engines[engine], layer.nest))

    def _as_given(self, layer: Layer, given: Given) -> PlannedLayer:
        seen = self._seen(layer, given.mapping.engine)
        cost = given_cost(seen.nest, given.mapping, self.profile)
        return PlannedLayer(seen, given.mapping.engine, cost, given=given.where)

    def _searched(self, layer: Layer, engines: list[str], constraint: Constraint | None) -> PlannedLayer | None:
        """On the best engine the constraint allows; None where none has room for it.

        The search sees the machine as the constraint leaves it; the price is that of the whole machine.
        """
        seen_machine = constraint.narrowed(self.profile) if constraint is not None else self.profile
        costs: list[tuple[str, LayerCost]] = []
        refused: list[Problem] = []
        for engine in engines:
            if constraint is not None and not constraint.allows(engine, self.profile):
                continue
            nest = self._seen(layer, engine).nest
            try:
                found = self.search(nest, seen_machine, engine, self.objective)
            except DoesNotFitError as error:
                refused.extend(error.problems)
            else:
                costs.append((engine, found_cost(nest, self.profile, found)))
        where = constraint.where if constraint is not None else ""
        if not costs:
            self._refuse(layer, refused, f"under the constraint at {where}, " if where else "")
            return None
        engine, cost = min(costs, key=lambda item: self._value(item[1]))
        return PlannedLayer(self._seen(layer, engine), engine, cost, constrained=where)

    def _refuse(self, layer: Layer, refused: list[Problem], under: str) -> None:
        for part in refused:
            names = self.refused.setdefault((f"{under}{part.where}: {part.problem}", part.hint), [])
            if layer.name not in names:
                names.append(layer.name)

    def _value(self, cost: LayerCost) -> tuple[float, float]:
        first, second = self.objective.values(np.asarray(float(cost.cycles)), np.asarray(cost.energy_pj))
        return float(first), float(second)


def as_units_run(layer: Layer, profile: HardwareProfile) -> tuple[Layer, ...]:
    """A layer of several nodes as one where the vector unit does all of them in one go, else the nodes one by one.

    It does where it runs every one of them, or the one operator that computes the same. A unit that does element-wise
    work on the way out, but no activations, takes them one by one as well: as one they could cost more there.
    """
    unit = profile.vector_unit
    if unit is None or not layer.members:
        return layer.members or (layer,)
    known = layer.op in unit.operators.get(OperationKind.ACTIVATION, ())
    runs_all = known or all(unit.runs(part.nest.kind, part.op) for part in layer.members)
    way_out = unit.on_the_way_out
    better_apart = OperationKind.ELEMENTWISE in way_out and OperationKind.ACTIVATION not in way_out
    return (layer,) if runs_all and not better_apart else layer.members


def _nodes(names: list[str]) -> str:
    """`node a`, `nodes a, b, c and 5 more`."""
    shown, more = names[:_NAMES_SHOWN], len(names) - _NAMES_SHOWN
    return f"node{'s' if len(names) > 1 else ''} {', '.join(shown)}{f' and {more} more' if more > 0 else ''}"


def refuse_host(layers: list[PlannedLayer], where: str) -> None:
    """Raise CodesignError naming every layer on the host (`--no-host`)."""
    problems = [
        Problem(f"{where}: node {planned.layer.name}", f"{planned.layer.op} would run on the host: {planned.note}")
        for planned in layers
        if planned.engine == HOST
    ]
    if problems:
        last = replace(problems[-1], hint="leave out --no-host to run this there")
        raise CodesignError.of([*problems[:-1], last])
