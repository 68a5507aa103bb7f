"""The mapper: the best mapping of one layer on one engine, with proof.

A mapping is a chain of growing tiles with cuts on it (codesign.mapping.cuts); what a cut costs depends on its tile
alone. Chains are built from the lanes outwards, all those with the same cuts placed side by side (codesign.mapping
.sweep). A chain is dropped when

* no completion can beat the best mapping known, nor match it and beat its tie-breaker: tables hold, for every tile and
  every set of placed cuts, the least that completing a chain adds to several weighted sums of cycles, energy and bytes
  (codesign.mapping.bounds), at most as much where they tell fewer tiles apart (codesign.mapping.merging); or
* another chain with the same cuts at the same tile costs and takes no more in any respect: whatever completes the one
  completes the other.

Both keep at least one optimal chain, so when nothing had to be dropped for lack of room the best mapping found is
optimal in the declared space of codesign.mapping.space: that is the proof. A dive first finds a good mapping. Choices
of lanes are explored from the one with the lowest floor on; most are out by their floor or by small tables alone.

Why growing only `Cut.grows` before a cut loses nothing: a loop the cut gains nothing from can move above it. Its
elements move as often as before, its tile only shrinks, and the chain stays legal. (The whole layer alone may take less
memory than a part of it, as it is never refilled; it is always tried.)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import ceil, prod
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from codesign.errors import DoesNotFitError
from codesign.hardware.profile import HardwareProfile
from codesign.hardware.sections import Buffering
from codesign.mapping.bounds import Tables
from codesign.mapping.cost import layer_cost
from codesign.mapping.counts import counts_of
from codesign.mapping.cuts import Cut
from codesign.mapping.fitting import problems_of_fit
from codesign.mapping.grid import IMAGE, KERNEL
from codesign.mapping.layer_cost import LayerCost
from codesign.mapping.layer_space import EngineLayer, LayerSpace
from codesign.mapping.lines import Lines
from codesign.mapping.mapping import Mapping, Residence, SpatialLoop, TemporalLoop
from codesign.mapping.meter import Meter
from codesign.mapping.objective import AnyObjective, Objective
from codesign.mapping.space import SpatialChoice, loop_extent, spatial_choices, steps_of, tile_bytes
from codesign.mapping.sweep import TOLERANCE, Best, Sweep
from codesign.mapping.tuning import quick_lines, tuned_tables, useful
from codesign.mapping.weighing import weighing
from codesign.mapping.window import windows_of
from codesign.vocabulary import DIMENSIONS, OPERANDS, OUTPUTS, REDUCTION, Dimension
from codesign.workload.loop_nest import LoopNest

LABEL_LIMIT = 100_000
_TRANSPOSED = {
    Dimension.OY: Dimension.OX,
    Dimension.OX: Dimension.OY,
    Dimension.FY: Dimension.FX,
    Dimension.FX: Dimension.FY,
}
VERY_NEAR = 1.001  # times the bound; so near the bounds lead on, where many mappings are about as fast
NARROW = 5_000  # chains side by side, before as many as the limit allows
COARSE = 64  # with lines that were not tuned
AT_A_GLANCE = 0  # the bound alone
NEAR = 1.2  # times the bound; further away a better mapping is looked for on the coarse grid first
SMALL_GRID = 2_000  # tiles up to which tables cost little
TUNING_GRID = 4_000  # tiles up to which many lines may be tried on tables that tell them apart
MOST_ENTRIES = 2**25  # of the tables of one line; beyond, tile sizes are divisors alone, and nothing is proven


@dataclass(frozen=True)
class Found:
    """The outcome of a search: the best mapping, the bound on the objective, and how many cuts were priced."""

    mapping: Mapping
    objective_value: float
    bound_value: float
    bound_cycles: float
    evaluations: int

    @property
    def proven(self) -> bool:
        """No mapping of the declared space is better."""
        return self.bound_value >= self.objective_value * (1 - TOLERANCE)

    @property
    def gap(self) -> float:
        """(found - bound) / bound of the objective, 0 when proven."""
        return 0.0 if self.proven else self.objective_value / self.bound_value - 1


def search(
    nest: LoopNest,
    profile: HardwareProfile,
    engine: str,
    objective: AnyObjective,
    limit: int = LABEL_LIMIT,
    *,
    perfect: bool = False,
) -> Found:
    """The best mapping of a nest with MACs on an engine.

    limit: chains kept side by side; beyond it the worst are dropped, and the mapping is not proven. perfect: tile
    sizes are divisors alone. Raises DoesNotFitError when nothing fits.
    """
    choices = _unlike(spatial_choices(nest, profile.engines[engine]), nest)
    layer = EngineLayer(nest, Meter(profile, engine))
    spaces = [LayerSpace(layer, choice, perfect) for choice in choices]
    state = _Search(objective, limit, Best())
    state.explore(spaces)
    best = state.best
    if best.space is None:
        raise DoesNotFitError.of(problems_of_fit(nest, profile, engine))
    roof = min(space.floor[0] for space in spaces)
    bound = min(state.bound, best.first)
    bound_cycles = max(roof, bound) if objective is Objective.LATENCY else roof
    return Found(_mapping(best), best.first, bound, bound_cycles, state.evaluations)


def _unlike(choices: Iterable[SpatialChoice], nest: LoopNest) -> list[SpatialChoice]:
    """Choices of lanes without those that only swap rows and columns, where the layer is the same both ways."""
    rows, columns = windows_of(nest)
    if rows != columns:
        return list(choices)
    kept: dict[frozenset[SpatialLoop], SpatialChoice] = {}
    for choice in choices:
        if frozenset(map(_swapped, choice.loops)) not in kept:
            kept[frozenset(choice.loops)] = choice
    return list(kept.values())


def _swapped(loop: SpatialLoop) -> SpatialLoop:
    other = _TRANSPOSED.get(loop.dimension)
    return loop if other is None else SpatialLoop(loop.axis, other, loop.extent)


class _Way(NamedTuple):
    """One way to search a choice of lanes. width: labels kept per stage. dive: whether to look for a mapping first.

    near: how many times the bound the best mapping may be for a sweep to be worth it. proves: whether it covers all
    tiles.
    """

    sweep: Sweep
    width: int
    dive: bool = False
    near: float = np.inf
    proves: bool = True


@dataclass
class _Search:
    """All choices of lanes one after the other, against the best mapping so far.

    bound: the least bound of anything dropped for lack of room. lines: those that bound the first choice well.
    """

    objective: AnyObjective
    limit: int
    best: Best
    bound: float = np.inf
    evaluations: int = 0
    lines: Lines | None = None

    def floor(self, space: LayerSpace) -> tuple[float, float]:
        """Objective and tie-breaker no mapping of a choice of lanes goes below."""
        return self.objective.values(*space.floor)

    def explore(self, spaces: list[LayerSpace]) -> None:
        """All choices of lanes, the most promising first."""
        ranked = sorted(((self.floor(space), space) for space in spaces), key=itemgetter(0))
        for floor, space in ranked:
            if not self._hopeless(*floor):
                self._explore(space)

    def _explore(self, space: LayerSpace) -> None:
        """Improve the best mapping with one choice of lanes, or show that it cannot be improved."""
        ways = self._ways(space)
        way = next(ways)
        done, lost = self._sweep(way)
        while not done and (better := next(ways, None)):
            way = better
            done, lost = self._sweep(way)
        while self.best.space is None and np.isfinite(lost):  # every chain kept so far came to a dead end
            self.limit *= 2
            done, lost = self._sweep(way._replace(width=self.limit))
        self.bound = min(self.bound, lost)

    def _hopeless(self, first: float, second: float) -> bool:
        """True when values at least so large cannot beat the best."""
        if first > self.best.first * (1 + TOLERANCE):
            return True
        return first >= self.best.first * (1 - TOLERANCE) and second >= self.best.second * (1 - TOLERANCE)

    def _ways(self, space: LayerSpace) -> Iterator[_Way]:
        """From the cheapest to the best.

        Lines that bound well are looked for once a layer, on a coarser grid where the space is large; there the tables
        do not tell parts of the kernel apart. The first lines bound latency as well as any. Where it is too large for
        tables it stays the coarser grid, and nothing is proven beyond the floor.
        """
        merged = (KERNEL,) if space.grid.count > SMALL_GRID else ()
        if len(space.stairs.stages) * space.grid.count > MOST_ENTRIES:
            self.bound = min(self.bound, self.floor(space)[0])
            space = space.coarse
        if self.lines is None:
            self.lines = quick_lines(space, self.objective)
            tables = Tables(weighing(space, self.lines).merged(merged))
            self.lines = self.lines.only(useful(self.lines, tables.root()))
            sweep = self._over(tables)
            yield _Way(sweep, COARSE, dive=True, near=NEAR if merged else np.inf)
            if merged and self.best.first > NEAR * self.floor(space)[0]:
                coarse = Tables(weighing(space.coarse, tables.lines))
                yield _Way(self._over(coarse), COARSE, dive=True, proves=False)
                yield _Way(sweep, NARROW)
            if self.objective is not Objective.LATENCY:
                grid = space.coarse if merged else space
                groups = (KERNEL, IMAGE) if grid.grid.count > TUNING_GRID else merged
                tuned = tuned_tables(grid, groups)
                self.lines = tuned.lines
                sweep = self._over(Tables(weighing(space, self.lines).merged(merged)) if merged else tuned)
        else:
            weighed = weighing(space, self.lines).merged(merged)
            yield _Way(self._over(Tables(weighed.merged((KERNEL, IMAGE)))), AT_A_GLANCE)
            sweep = self._over(Tables(weighed))
        yield _Way(sweep, NARROW)
        yield _Way(sweep, self.limit)

    def _over(self, tables: Tables) -> Sweep:
        return Sweep(tables, self.objective, self.best)

    def _sweep(self, way: _Way) -> tuple[bool, float]:
        """Whether nothing that may be better was left out, and the least bound of what was."""
        sweep, priced, lost = way.sweep, way.sweep.evaluations, np.inf
        if way.dive:
            sweep.dive()
            if self.objective is Objective.LATENCY and self.best.first <= VERY_NEAR * sweep.floor and sweep.hopeful:
                sweep.dive(together=False)
        if sweep.hopeful:
            far = way.near < np.inf and self.best.first > way.near * sweep.floor
            if way.width == AT_A_GLANCE or far:
                lost = sweep.floor
            else:
                sweep.run(min(way.width, self.limit))
                lost = sweep.lost
        self.evaluations += sweep.evaluations - priced
        return way.proves and self._settled(lost), lost

    def _settled(self, lost: float) -> bool:
        """Whether nothing dropped at such a bound is better, or as good and better in the tie-breaker."""
        if self.objective.has_ties:
            return bool(lost > self.best.first * (1 + TOLERANCE) or np.isinf(lost))
        return bool(lost >= self.best.first * (1 - TOLERANCE))


def map_layer(
    nest: LoopNest, profile: HardwareProfile, engine: str, objective: AnyObjective, limit: int = LABEL_LIMIT
) -> LayerCost:
    """Search and price one layer on one engine. Raises DoesNotFitError."""
    return found_cost(nest, profile, search(nest, profile, engine, objective, limit))


def found_cost(nest: LoopNest, profile: HardwareProfile, found: Found) -> LayerCost:
    """The full cost of what a search found."""
    return layer_cost(
        nest,
        found.mapping,
        profile,
        counts_of(nest, found.mapping, profile),
        on_chip_bytes=on_chip_bytes(nest, profile, found.mapping),
        bound_cycles=ceil(round(found.bound_cycles, 6)),
        gap=found.gap,
        proven=found.proven,
    )


def _mapping(best: Best) -> Mapping:
    """The loops and positions of a complete chain."""
    space = best.space
    if space is None:
        raise ValueError("no mapping was found")
    full = space.choice.steps
    inner_first: list[TemporalLoop] = []
    inside: list[tuple[Cut, int, int]] = []
    tile: tuple[int, ...] = (1,) * len(DIMENSIONS)
    for cut, copies, grown in _chain(best, space, full):
        for dimension, steps, inner, outer in zip(DIMENSIONS, full, tile, grown, strict=True):
            if outer > inner:
                inner_first.append(TemporalLoop(dimension, loop_extent(steps, inner, outer)))
        tile = grown
        if cut is not None:
            inside.append((cut, copies, len(inner_first)))
    residences = [
        Residence(cut.operand, cut.memory, len(inner_first) - loops, _buffers(space.profile, cut, copies))
        for cut, copies, loops in inside
    ]
    ranked = sorted(residences, key=lambda part: OPERANDS.index(part.operand))
    return Mapping(space.engine, space.choice.loops, tuple(reversed(inner_first)), tuple(ranked))


def _chain(best: Best, space: LayerSpace, full: tuple[int, ...]) -> Iterator[tuple[Cut | None, int, tuple[int, ...]]]:
    """Cuts, copies and tiles in steps, innermost first; the whole layer, without a cut, last."""
    for cut, holding, number in best.chain:
        yield cut, holding.copies, space.grid.tile(number)
    yield None, 1, full


def _buffers(profile: HardwareProfile, cut: Cut, copies: int) -> int:
    return copies if profile.memories[cut.memory].buffering is Buffering.EITHER else 1


def on_chip_bytes(nest: LoopNest, profile: HardwareProfile, mapping: Mapping) -> int:
    """Bytes a mapping allocates in all on-chip memories, every instance counted."""
    choice = choice_of(nest, mapping)
    total = 0
    for part in mapping.residences:
        instances = prod(choice.replicated_lanes(profile.memories[part.memory].replicated_over))
        total += instances * residence_bytes(nest, profile, mapping, choice, part)
    return total


def residence_bytes(
    nest: LoopNest, profile: HardwareProfile, mapping: Mapping, choice: SpatialChoice, part: Residence
) -> int:
    """Bytes one residence takes in one instance of its memory."""
    refilled = any(loop.extent > 1 for loop in mapping.loops[: part.position])
    return tile_bytes(
        nest,
        profile,
        choice,
        mapping.engine,
        part.operand,
        part.memory,
        mapping.tile(nest, part.position),
        refilled=refilled,
        partial=_arrives_partial(mapping, profile, part),
        buffers=part.buffers,
    )


def _arrives_partial(mapping: Mapping, profile: HardwareProfile, part: Residence) -> bool:
    """True when outputs reach this memory before their reduction is complete."""
    if part.operand is not OUTPUTS:
        return False
    levels = profile.hierarchy(mapping.engine, OUTPUTS)
    if part.memory == levels[0]:
        return False
    inner = mapping.residence(OUTPUTS, levels[levels.index(part.memory) - 1])
    if inner is None:
        raise ValueError(f"the mapping has no residence of outputs inside {part.memory}")
    return any(loop.extent > 1 and loop.dimension in REDUCTION for loop in mapping.loops[: inner.position])


def choice_of(nest: LoopNest, mapping: Mapping) -> SpatialChoice:
    """The lanes of a mapping."""
    lanes = mapping.covered[-1]
    return SpatialChoice(mapping.spatial, lanes, steps_of(nest.sizes, lanes))
