"""The mapper: the best mapping of one layer on one engine, with proof.

Best-first search over chains of growing tiles with cuts on them (codesign.mapping.cuts), all choices of lanes in one
queue. A node is a chain prefix; its children place one more cut at every tile that may follow. A node's bound adds what
its cuts cost already to what every other cut costs wherever it is placed; costs never fall when a chain grows, so the
bound never exceeds the cost of any completion. The first prefix popped whose bound is no better than the best complete
mapping ends the search: that is the proof, for the declared space of codesign.mapping.space.

Why growing only `Cut.grows` loses nothing: between two cuts, a loop the outer cut gains nothing from can move above
that cut. Its elements move as often as before, its tile only shrinks, and the chain stays legal. (The whole tensor
alone may take less memory than a part of it, as it is never refilled; it is always among the children.)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from heapq import heapify, heappop, heappush
from itertools import count
from math import ceil
from typing import TypeAlias

import numpy as np

from codesign.errors import DoesNotFitError, Problem
from codesign.hardware.profile import HardwareProfile
from codesign.mapping.cost import Meter, Vector, layer_cost
from codesign.mapping.counts import counts_of
from codesign.mapping.cuts import Cut, Floats, LayerSpace, Tile, Tiles
from codesign.mapping.layer_cost import LayerCost
from codesign.mapping.mapping import Mapping, Residence, TemporalLoop
from codesign.mapping.prefix import Prefix, bounds, child, fits, least_from_here, placeable, root_of
from codesign.mapping.space import SpatialChoice, loop_extent, spatial_choices, tile_bytes
from codesign.vocabulary import DIMENSIONS, REDUCTION, Operand
from codesign.workload.loop_nest import LoopNest

EXPANSION_LIMIT = 20_000
_TOLERANCE = 1e-9


class Objective(StrEnum):
    """What is minimised; ties go to the other (latency before energy for edp)."""

    LATENCY = "latency"
    ENERGY = "energy"
    EDP = "edp"

    def values(self, latency: Floats, energy: Floats) -> tuple[Floats, Floats]:
        """Objective and tie-breaker."""
        match self:
            case Objective.LATENCY:
                return latency, energy
            case Objective.ENERGY:
                return energy, latency
            case Objective.EDP:
                return latency * energy, latency


@dataclass(frozen=True, eq=False)
class Family:
    """All children of one prefix by one cut, best first."""

    prefix: Prefix
    cut: Cut
    tiles: Tiles
    order: tuple[int, ...]
    first: tuple[float, ...]
    second: tuple[float, ...]


Entry: TypeAlias = tuple[float, float, int, int, Family]  # objective's bound, tie-breaker's, ticket, rank, children


@dataclass(frozen=True)
class Found:
    """The outcome of a search: the best mapping, the bound on the objective, and how many tiles were priced."""

    mapping: Mapping
    objective_value: float
    bound_value: float
    bound_cycles: float
    evaluations: int

    @property
    def proven(self) -> bool:
        """No mapping of the declared space is better."""
        return self.bound_value >= self.objective_value * (1 - _TOLERANCE)

    @property
    def gap(self) -> float:
        """(found - bound) / bound of the objective, 0 when proven."""
        return 0.0 if self.proven else self.objective_value / self.bound_value - 1


def search(
    nest: LoopNest, profile: HardwareProfile, engine: str, objective: Objective, limit: int = EXPANSION_LIMIT
) -> Found:
    """The best mapping of a nest with MACs on an engine, or the best found after `limit` expansions.

    Raises DoesNotFitError when nothing fits.
    """
    meter = Meter(profile, engine)
    queue: list[Entry] = []
    state = _Search(objective, queue, count())
    choices = spatial_choices(nest, profile.engines[engine])
    spaces = [LayerSpace.of(nest, meter, choice) for choice in choices]
    for space in spaces:
        state.expand(root_of(space))
    expansions = 0
    while queue and (expansions < limit or state.best is None):
        first, second, _, rank, family = heappop(queue) if expansions < limit else _pop_deepest(queue)
        if not state.improves(first, second):
            queue.clear()
            break
        if rank + 1 < len(family.order):
            following = family.first[rank + 1], family.second[rank + 1]
            heappush(queue, (*following, next(state.ticket), rank + 1, family))
        state.expand(child(family.prefix, family.cut, family.tiles, family.order[rank]))
        expansions += 1
    if state.best is None:
        raise _nothing_fits(spaces)
    bound = min(state.value[0], queue[0][0]) if queue else state.value[0]
    roof = min(_roof_cycles(space) for space in spaces)
    bound_cycles = max(roof, bound) if objective is Objective.LATENCY else roof
    return Found(_mapping(state.best), state.value[0], bound, bound_cycles, state.evaluations)


def _pop_deepest(queue: list[Entry]) -> Entry:
    """The entry nearest to a complete mapping, the best of those: how a search out of time finds its first one."""
    deepest = min(queue, key=lambda entry: (-len(entry[-1].prefix.chain), *entry[:3]))
    queue.remove(deepest)
    heapify(queue)
    return deepest


def map_layer(
    nest: LoopNest, profile: HardwareProfile, engine: str, objective: Objective, limit: int = EXPANSION_LIMIT
) -> LayerCost:
    """Search and price one layer on one engine. Raises DoesNotFitError."""
    found = search(nest, profile, engine, objective, limit)
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


@dataclass
class _Search:
    """The queue, the best complete mapping so far and its objective."""

    objective: Objective
    queue: list[Entry]
    ticket: count[int]
    best: Prefix | None = None
    value: tuple[float, float] = (float("inf"), float("inf"))
    evaluations: int = 0
    seen: dict[tuple[object, ...], list[Vector]] = field(default_factory=dict)

    def improves(self, first: float, second: float) -> bool:
        """True when an objective value with its tie-breaker beats the best."""
        if self.best is None:
            return True
        slack = self.value[0] * _TOLERANCE
        if first < self.value[0] - slack:
            return True
        return first <= self.value[0] + slack and second < self.value[1] * (1 - _TOLERANCE)

    def dominated(self, prefix: Prefix) -> bool:
        """True when another prefix at the same tile with the same cuts left costs and takes no more in any respect."""
        key = (prefix.space, prefix.tile, prefix.partial, *(len(cuts) for cuts in prefix.waiting))
        memories = prefix.space.profile.memories
        taken = np.asarray([prefix.used.get(name, 0.0) for name in memories])
        costs = np.concatenate([prefix.fixed, *prefix.copies, taken])
        others = self.seen.setdefault(key, [])
        if any((other <= costs).all() for other in others):
            return True
        others.append(costs)
        return False

    def expand(self, prefix: Prefix) -> None:
        """Queue the children of a prefix; complete ones are compared at once."""
        if self.dominated(prefix):
            return
        options = placeable(prefix)
        least = least_from_here(prefix, options)
        for cut, tiles in options:
            self.evaluations += tiles.count
            fitting = fits(prefix, cut, tiles)
            if not fitting.any():
                continue
            first, second = self.objective.values(*bounds(prefix, cut, tiles, least))
            first, second = np.where(fitting, first, np.inf), np.where(fitting, second, np.inf)
            order = np.lexsort((second, first))[: int(fitting.sum())]
            if not self.improves(float(first[order[0]]), float(second[order[0]])):
                continue
            if sum(len(cuts) for cuts in prefix.waiting) == 1:
                self._complete(prefix, cut, tiles, int(order[0]), float(first[order[0]]), float(second[order[0]]))
                continue
            family = Family(prefix, cut, tiles, tuple(order.tolist()), tuple(first[order]), tuple(second[order]))
            heappush(self.queue, (family.first[0], family.second[0], next(self.ticket), 0, family))

    def _complete(self, prefix: Prefix, cut: Cut, tiles: Tiles, index: int, first: float, second: float) -> None:
        if self.improves(first, second):
            self.best = child(prefix, cut, tiles, index)
            self.value = (first, second)


def _mapping(best: Prefix) -> Mapping:
    """The loops and positions of a complete chain."""
    full = best.space.choice.steps
    inner_first: list[TemporalLoop] = []
    inside: list[tuple[Cut, int]] = []
    tile: Tile = (1,) * len(DIMENSIONS)
    for cut, grown in (*best.chain, (None, full)):
        for index, dimension in enumerate(DIMENSIONS):
            extent = loop_extent(full[index], tile[index], grown[index]) if grown[index] > tile[index] else 1
            if extent > 1:
                inner_first.append(TemporalLoop(dimension, extent))
        tile = grown
        if cut is not None:
            inside.append((cut, len(inner_first)))
    residences = [Residence(cut.operand, cut.memory, len(inner_first) - loops) for cut, loops in inside]
    ranked = sorted(residences, key=lambda part: list(Operand).index(part.operand))
    return Mapping(best.space.engine, best.space.choice.loops, tuple(reversed(inner_first)), tuple(ranked))


def on_chip_bytes(nest: LoopNest, profile: HardwareProfile, mapping: Mapping) -> int:
    """Bytes a mapping allocates in all on-chip memories, every instance counted."""
    choice = choice_of(nest, mapping)
    total = 0
    for part in mapping.residences:
        instances = int(np.prod(choice.replicated_lanes(profile.memories[part.memory].replicated_over)))
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
    )


def _arrives_partial(mapping: Mapping, profile: HardwareProfile, part: Residence) -> bool:
    """True when outputs reach this memory before their reduction is complete."""
    levels = profile.hierarchy(mapping.engine, Operand.OUTPUTS)
    if part.operand is not Operand.OUTPUTS or part.memory == levels[0]:
        return False
    inner = mapping.residence(Operand.OUTPUTS, levels[levels.index(part.memory) - 1])
    if inner is None:
        raise ValueError(f"the mapping has no residence of outputs inside {part.memory}")
    return any(loop.extent > 1 and loop.dimension in REDUCTION for loop in mapping.loops[: inner.position])


def choice_of(nest: LoopNest, mapping: Mapping) -> SpatialChoice:
    """The lanes of a mapping."""
    lanes = tuple(mapping.lanes(dimension) for dimension in DIMENSIONS)
    return SpatialChoice(mapping.spatial, lanes, tuple(-(-n // w) for n, w in zip(nest.sizes, lanes, strict=True)))


def _roof_cycles(space: LayerSpace) -> float:
    """Cycles no mapping with these lanes goes below: compute, and every cut's least traffic over every port."""
    total = space.constant()
    cycles = space.meter.blends @ total[:-1]
    for cut in (cut for group in space.cuts for cut in group):
        cycles = cycles + space.least(cut).cycles
    return float(cycles.max())


def _nothing_fits(spaces: list[LayerSpace]) -> DoesNotFitError:
    """The memory that is too small, what asks for it, and the least size that would do."""
    profile, engine = spaces[0].profile, spaces[0].engine
    least: dict[str, tuple[float, list[str]]] = {}
    for space in spaces:
        for memory, (needed, parts) in _least_needs(space).items():
            if memory not in least or needed < least[memory][0]:
                least[memory] = (needed, parts)
    problems = []
    for memory, (needed, parts) in least.items():
        size = profile.memories[memory].size_bytes
        if size is not None and needed > size:
            problems.append(
                Problem(
                    f"memory {memory}",
                    f"{' and '.join(parts)} need {needed:.0f} bytes at least, {size} are available",
                    f"memories.{memory}.size_bytes: {needed:.0f} is the least that would do",
                )
            )
    if not problems:
        where = f"engine {engine}"
        what = "each memory alone is large enough, but no chain of tiles fits all of them at once"
        problems.append(Problem(where, what, "enlarge the innermost memories first"))
    return DoesNotFitError.of(problems)


def _least_needs(space: LayerSpace) -> dict[str, tuple[float, list[str]]]:
    """Bytes the smallest tiles take per memory, and the tensors they belong to."""
    smallest = space.tiles(1, (1,) * len(DIMENSIONS))
    needs: dict[str, tuple[float, list[str]]] = {}
    for cut in (cut for group in space.cuts for cut in group):
        amount = float(np.max(space.least_bytes(cut, smallest)))
        before, parts = needs.get(cut.memory, (0.0, []))
        needs[cut.memory] = (before + amount, [*parts, f"{cut.operand} ({amount:.0f} bytes)"])
    return needs
