"""What would help a layer most: change one thing, search the best schedule again, compare.

Compared is the objective per MAC, so that a layer that does more work in the same cycles counts as better. A change is
worth telling when it gains half a percent of the objective, or of the off-chip traffic at no loss.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from codesign.errors import CodesignError, DoesNotFitError, Problem, did_you_mean
from codesign.hardware.profile import HardwareProfile
from codesign.mapping.layer_cost import LayerCost
from codesign.mapping.layer_form import nest_on
from codesign.mapping.losses import LossKind
from codesign.mapping.mapper import map_layer
from codesign.mapping.objective import AnyObjective
from codesign.mapping.streaming import HOST, VECTOR_UNIT, host_cost, vector_cost
from codesign.planning.changes import (
    Change,
    ChangeKind,
    engine_changes,
    host_changes,
    layer_changes,
    memory_changes,
    unroll_changes,
    vector_unit_changes,
)
from codesign.planning.plan import Plan, PlannedLayer
from codesign.vocabulary import DIMENSIONS
from codesign.workload.layer import Layer
from codesign.workload.loop_nest import LoopNest

LEAST_GAIN = 0.005
MOST_OF_THE_GAIN = 0.9


@dataclass(frozen=True)
class Figures:
    """What a layer costs, in one line. proven: no schedule is better."""

    macs: int
    cycles: int
    energy_pj: float
    off_chip_bytes: int
    proven: bool

    def per_mac(self, objective: AnyObjective) -> float:
        """The objective of one MAC; a layer without MACs counts as one."""
        work = self.macs or 1
        return objective.of(self.cycles / work, self.energy_pj / work)


@dataclass(frozen=True)
class Outcome:
    """A change and what the layer costs before and after it."""

    change: Change
    before: Figures
    after: Figures

    def gain(self, objective: AnyObjective) -> float:
        """Share of the objective per MAC that is saved; negative where the change makes it worse."""
        return 1 - self.after.per_mac(objective) / self.before.per_mac(objective)

    @property
    def off_chip_gain(self) -> float:
        """Share of the off-chip bytes per MAC that is saved."""
        before = self.before.off_chip_bytes / (self.before.macs or 1)
        return 1 - self.after.off_chip_bytes / (self.after.macs or 1) / before if before else 0.0

    @property
    def proven(self) -> bool:
        """Both schedules are proven best; otherwise the true difference may be another."""
        return self.before.proven and self.after.proven


@dataclass(frozen=True)
class ExplainedLayer:
    """A layer with the changes that help it, the most helpful first. tried: how many were searched."""

    planned: PlannedLayer
    before: Figures
    outcomes: tuple[Outcome, ...]
    tried: int


@dataclass
class Explainer:
    """Explains layers on one machine; loops explained before are not searched again.

    nests: the loops of every layer by its name, as the network has them (a planned layer has them as its engine does).
    """

    profile: HardwareProfile
    objective: AnyObjective
    nests: Mapping[str, LoopNest]
    known: dict[tuple[tuple[LoopNest, ...], str], tuple[tuple[Outcome, ...], int]] = field(default_factory=dict)

    def explain(self, planned: PlannedLayer) -> ExplainedLayer:
        """What would help one planned layer; nothing for what takes no cycles of its own."""
        before = figures_of(planned.layer.nest, planned.cost, self.profile)
        if not planned.cost.cycles or planned.fused_into:
            return ExplainedLayer(planned, before, (), 0)
        nests = self.nests[planned.layer.name], *(part.nest for part in planned.layer.members)
        key = nests, planned.engine
        if key not in self.known:
            outcomes = list(self._outcomes(planned))
            self.known[key] = self._best_first(outcomes), len(outcomes)
        return ExplainedLayer(planned, before, *self.known[key])

    def _outcomes(self, planned: PlannedLayer) -> Iterator[Outcome]:
        nest, engine = self.nests[planned.layer.name], planned.engine
        if engine in (HOST, VECTOR_UNIT):
            found = host_changes if engine == HOST else vector_unit_changes
            yield from self._tried(planned, found(nest, self.profile))
            return
        yield from self._tried(planned, layer_changes(nest, self.profile, engine))
        yield from self._tried(planned, engine_changes(nest, self.profile, engine))
        for axis in idle_axes(planned):
            more = tuple(dimension for dimension in DIMENSIONS if planned.layer.nest.size(dimension) > 1)
            yield from self._tried(planned, unroll_changes(nest, self.profile, engine, axis, more))
        for larger in memory_changes(nest, self.profile, engine):
            yield from self._smallest_useful(planned, larger)

    def _tried(self, planned: PlannedLayer, changes: Iterable[Change]) -> Iterator[Outcome]:
        before = figures_of(planned.layer.nest, planned.cost, self.profile)
        for change in changes:
            try:
                cost = self._priced(planned.layer, planned.engine, change)
            except DoesNotFitError:
                continue
            yield Outcome(change, before, figures_of(change.nest, cost, change.profile))

    def _priced(self, layer: Layer, engine: str, change: Change) -> LayerCost:
        if engine == HOST:
            return host_cost(layer, change.profile)
        if engine == VECTOR_UNIT:
            return vector_cost(layer, change.profile)
        nest = nest_on(change.profile.engines[engine], change.nest)
        return map_layer(nest, change.profile, engine, self.objective)

    def _smallest_useful(self, planned: PlannedLayer, larger: tuple[Change, ...]) -> Iterator[Outcome]:
        """Of ever larger memories the smallest that has most of the largest one's gain."""
        for most in self._tried(planned, larger[-1:]):
            wanted = MOST_OF_THE_GAIN * self._worth(most)
            if not self._helps(most):
                yield most
                return
            smaller = (outcome for outcome in self._tried(planned, larger[:-1]) if self._worth(outcome) >= wanted)
            yield next(smaller, most)

    def _worth(self, outcome: Outcome) -> float:
        """Gain of the objective, or of the traffic where the objective gains nothing."""
        gain = outcome.gain(self.objective)
        return gain if gain >= LEAST_GAIN else outcome.off_chip_gain

    def _helps(self, outcome: Outcome) -> bool:
        gain = outcome.gain(self.objective)
        return gain >= LEAST_GAIN or (gain >= 0 and outcome.off_chip_gain >= LEAST_GAIN)

    def _best_first(self, outcomes: list[Outcome]) -> tuple[Outcome, ...]:
        """Those that help; of an axis that may unroll more, the best dimension alone."""
        helpful = [outcome for outcome in outcomes if self._helps(outcome)]
        helpful.sort(key=lambda one: (-round(one.gain(self.objective), 4), -round(one.off_chip_gain, 4)))
        unrolled = {one.change.where: one for one in reversed(helpful) if one.change.kind is ChangeKind.UNROLLS}
        return tuple(one for one in helpful if unrolled.get(one.change.where, one) is one)


def idle_axes(planned: PlannedLayer) -> tuple[str, ...]:
    """Axes of which a layer leaves half the lanes or more idle in every cycle."""
    return tuple(
        loss.where
        for loss in planned.losses
        if loss.kind is LossKind.IDLE_LANES and 2 * loss.used <= loss.available and " " not in loss.where
    )


def figures_of(nest: LoopNest, cost: LayerCost, profile: HardwareProfile) -> Figures:
    """The figures compared."""
    off_chip = sum(part.read_bytes + part.write_bytes for part in cost.traffic if part.memory == profile.off_chip)
    return Figures(nest.macs, cost.cycles, cost.energy_pj, off_chip, cost.proven)


def layers_named(plan: Plan, names: Sequence[str]) -> list[PlannedLayer]:
    """The layers of these names, in the order given. Raises CodesignError naming all that the network lacks."""
    known = {planned.layer.name: planned for planned in plan.layers}
    lacking = [name for name in names if name not in known]
    if lacking:
        raise CodesignError.of(
            Problem("--layer", f"the network has no layer {name}", did_you_mean(name, known)) for name in lacking
        )
    return [known[name] for name in names]
