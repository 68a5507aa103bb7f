"""The mapper: the best mapping of one layer on one engine, with proof.

Best-first search over chains of growing tiles with cuts on them (codesign.mapping.cuts), all choices of lanes in one
queue. A node is a chain prefix; its children place one more cut at every tile that may follow. A node's bound adds what its
cuts cost already to what every other cut costs wherever it is placed; costs never fall when a chain grows, so the bound
never exceeds the cost of any completion. The first prefix popped whose bound is no better than the best complete mapping
ends the search: that is the proof, for the declared space of codesign.mapping.space.

Why growing only `Cut.grows` loses nothing: between two cuts, a loop the outer cut gains nothing from can move above that
cut. Its elements move as often as before, its tile only shrinks, and the chain stays legal. (The whole tensor alone may take
less memory than a part of it, as it is never refilled; it is always among the children.)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from heapq import heappop, heappush
from itertools import count
from math import ceil

import numpy as np

from codesign.errors import DoesNotFitError, Problem
from codesign.hardware.profile import HardwareProfile
from codesign.mapping.cost import Meter, Vector, layer_cost
from codesign.mapping.counts import counts_of
from codesign.mapping.cuts import IRRELEVANT, Cut, Floats, LayerSpace, Least, Tile, Tiles, regrowth
from codesign.mapping.layer_cost import LayerCost
from codesign.mapping.mapping import Mapping, Residence, TemporalLoop
from codesign.mapping.space import SpatialChoice, loop_extent, spatial_choices, tile_bytes
from codesign.vocabulary import DIMENSIONS, Operand
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
class Prefix:
    """A chain of tiles with the cuts placed so far. costs of weights and inputs copies may still grow by `regrowth`."""

    space: LayerSpace
    tile: Tile
    waiting: tuple[tuple[Cut, ...], ...]
    fixed: Vector
    copies: tuple[Vector, Vector]
    used: dict[str, float]
    chain: tuple[tuple[Cut, Tile], ...]
    grown: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Family:
    """All children of one prefix by one cut, best first."""

    prefix: Prefix
    cut: Cut
    tiles: Tiles
    order: tuple[int, ...]
    first: tuple[float, ...]
    second: tuple[float, ...]


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
    """The best mapping of a nest with MACs on an engine. Raises DoesNotFitError when nothing fits."""
    meter = Meter(profile, engine)
    queue: list[tuple[float, float, int, int, Family]] = []
    state = _Search(objective, queue, count())
    choices = spatial_choices(nest, profile.engines[engine])
    for choice in choices:
        state.expand(_root(LayerSpace.of(nest, meter, choice)))
    expansions = 0
    while queue and expansions < limit:
        first, second, _, rank, family = heappop(queue)
        if not state.improves(first, second):
            queue.clear()
            break
        if rank + 1 < len(family.order):
            following = family.first[rank + 1], family.second[rank + 1]
            heappush(queue, (*following, next(state.ticket), rank + 1, family))
        state.expand(_child(family.prefix, family.cut, family.tiles, family.order[rank]))
        expansions += 1
    if state.best is None:
        raise _nothing_fits(nest, profile, engine, choices)
    bound = min(state.value[0], queue[0][0]) if queue else state.value[0]
    roof = min(_roof_cycles(LayerSpace.of(nest, meter, choice)) for choice in choices)
    bound_cycles = max(roof, bound) if objective is Objective.LATENCY else roof
    return Found(_mapping(state.best), state.value[0], bound, bound_cycles, state.evaluations)


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
    queue: list[tuple[float, float, int, int, Family]]
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
        key = (id(prefix.space), prefix.tile, *(len(cuts) for cuts in prefix.waiting))
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
        options = _placeable(prefix)
        least = _least_from_here(prefix, options)
        for cut, tiles in options:
            self.evaluations += tiles.count
            fits = _fits(prefix, cut, tiles)
            if not fits.any():
                continue
            first, second = self.objective.values(*_bounds(prefix, cut, tiles, least))
            first, second = np.where(fits, first, np.inf), np.where(fits, second, np.inf)
            order = np.lexsort((second, first))[: int(fits.sum())]
            if not self.improves(float(first[order[0]]), float(second[order[0]])):
                continue
            if sum(len(cuts) for cuts in prefix.waiting) == 1:
                self._complete(prefix, cut, tiles, int(order[0]), float(first[order[0]]), float(second[order[0]]))
                continue
            family = Family(prefix, cut, tiles, tuple(order.tolist()), tuple(first[order]), tuple(second[order]))
            heappush(self.queue, (family.first[0], family.second[0], next(self.ticket), 0, family))

    def _complete(self, prefix: Prefix, cut: Cut, tiles: Tiles, index: int, first: float, second: float) -> None:
        if self.improves(first, second):
            self.best = _child(prefix, cut, tiles, index)
            self.value = (first, second)


def _root(space: LayerSpace) -> Prefix:
    zero = space.meter.zero()
    return Prefix(space, (1,) * len(DIMENSIONS), space.cuts, space.constant(), (zero, zero), {}, (), ())


def _placeable(prefix: Prefix) -> list[tuple[Cut, Tiles]]:
    """The next cut of every operand with the tiles to try: all that follow, or the whole where another order covers them."""
    space = prefix.space
    options = []
    for rank, waiting in enumerate(prefix.waiting):
        if not waiting:
            continue
        covered = _covered(prefix, waiting[0], rank)
        tiles = space.whole_alone(prefix.tile) if covered else space.grow(prefix.tile, waiting[0])
        if tiles is not None:
            options.append((waiting[0], tiles))
    return options


def _covered(prefix: Prefix, cut: Cut, rank: int) -> bool:
    """A cut that cannot grow here and gained nothing from the last growth belongs before the last cut."""
    if not prefix.chain or prefix.chain[-1][0].operand is cut.operand:
        return False
    full = prefix.space.choice.steps
    if any(prefix.tile[index] < full[index] for index in cut.grows) or set(prefix.grown) & set(cut.grows):
        return False
    last = list(Operand).index(prefix.chain[-1][0].operand)
    return bool(prefix.grown) or rank < last


def _fits(prefix: Prefix, cut: Cut, tiles: Tiles) -> np.ndarray:
    """Which tiles fit, counting what is placed, the cut here, and the least every waiting cut takes later."""
    space = prefix.space
    need: dict[str, Floats | float] = dict(prefix.used)
    for room in cut.rooms:
        need[room.memory] = need.get(room.memory, 0.0) + space.bytes_taken(cut, room, tiles)
    for other in _others(prefix, cut):
        for room in other.rooms:
            need[room.memory] = need.get(room.memory, 0.0) + space.least_bytes(other, room, tiles)
    fits = np.ones(tiles.count, dtype=bool)
    for memory, amount in need.items():
        size = space.profile.memories[memory].size_bytes
        if size is not None:
            fits &= amount <= size
    return fits


def _others(prefix: Prefix, cut: Cut) -> list[Cut]:
    """The cuts that wait beside this one."""
    return [waiting for group in prefix.waiting for waiting in group if waiting is not cut]


def _placed(prefix: Prefix, cut: Cut, tiles: Tiles) -> tuple[Vector, list[Vector]]:
    """Fixed costs and growing copies of all children, one row each."""
    space = prefix.space
    full = space.choice.steps
    fixed = np.repeat(prefix.fixed[None, :], tiles.count, axis=0)
    fixed[:, 0] += space.fill_cycles(cut, tiles)
    copies = []
    for operand, vector in zip((Operand.WEIGHTS, Operand.INPUTS), prefix.copies, strict=True):
        factor = np.asarray(regrowth(prefix.tile, tiles, full, IRRELEVANT[operand]), dtype=np.float64)
        rows = np.broadcast_to(factor, (tiles.count,))[:, None] * vector[None, :]
        if operand is cut.operand:
            moved = np.broadcast_to(np.asarray(space.moved(cut, tiles), dtype=np.float64), (tiles.count,))
            rows = rows + moved[:, None] * cut.hop[None, :]
        copies.append(rows)
    return fixed, copies


def _least_from_here(prefix: Prefix, options: list[tuple[Cut, Tiles]]) -> dict[Cut, Least]:
    """Lower bounds of every waiting cut, wherever it is placed from this prefix's tile outwards."""
    space = prefix.space
    least = {cut: space.least(cut) for group in prefix.waiting for cut in group}
    for cut, tiles in options:
        if tiles.count == 1:
            continue  # the whole tensor alone, or a cut that cannot grow: no more is known than before
        fits = np.ones(tiles.count, dtype=bool)
        for room in cut.rooms:
            if room.size_bytes is not None:
                fits &= space.bytes_taken(cut, room, tiles) + prefix.used.get(room.memory, 0.0) <= room.size_bytes
        rows = space.costs(cut, tiles)[fits]
        cycles = (rows[:, :-1] @ space.meter.blends.T).min(axis=0, initial=np.inf)
        energy = float(rows[:, -1].min(initial=np.inf))
        least[cut] = Least(np.maximum(cycles, least[cut].cycles), max(energy, least[cut].energy_pj))
    return least


def _bounds(prefix: Prefix, cut: Cut, tiles: Tiles, least: dict[Cut, Least]) -> tuple[Floats, Floats]:
    """Lower bounds of latency and energy of all completions; exact when no other cut waits."""
    space = prefix.space
    fixed, copies = _placed(prefix, cut, tiles)
    total = fixed + copies[0] + copies[1]
    cycles, energy = total[:, :-1] @ space.meter.blends.T, total[:, -1]
    lanes = total[:, 0]
    for other in _others(prefix, cut):
        cycles, energy = cycles + least[other].cycles, energy + least[other].energy_pj
        lanes = lanes + space.fill_cycles(other, tiles)
    return np.maximum(cycles.max(axis=1), lanes), energy


def _child(prefix: Prefix, cut: Cut, tiles: Tiles, index: int) -> Prefix:
    tile = tiles.pick(index)
    one = prefix.space.tiles(1, _like(tiles, tile))
    fixed, copies = _placed(prefix, cut, one)
    used = dict(prefix.used)
    for room in cut.rooms:
        used[room.memory] = used.get(room.memory, 0.0) + float(np.max(prefix.space.bytes_taken(cut, room, one)))
    waiting = tuple(tuple(other for other in group if other is not cut) for group in prefix.waiting)
    grown = tuple(index for index, (old, new) in enumerate(zip(prefix.tile, tile, strict=True)) if new > old)
    chain = (*prefix.chain, (cut, tile))
    return Prefix(prefix.space, tile, waiting, fixed[0], (copies[0][0], copies[1][0]), used, chain, grown)


def _like(tiles: Tiles, tile: Tile) -> list[Floats | int]:
    """One tile in the form of an array of tiles, so that growth is seen in the same dimensions."""
    return [
        np.asarray([float(size)]) if isinstance(shape, np.ndarray) else size
        for size, shape in zip(tile, tiles.steps, strict=True)
    ]


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
    residences = tuple(
        Residence(cut.operand, memory, len(inner_first) - loops) for cut, loops in inside for memory in cut.memories
    )
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
    tile = mapping.tile(nest, part.position)
    return tile_bytes(nest, profile, choice, mapping.engine, part.operand, part.memory, tile, refilled=refilled)


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


def _nothing_fits(
    nest: LoopNest, profile: HardwareProfile, engine: str, choices: tuple[SpatialChoice, ...]
) -> DoesNotFitError:
    """The memory that is too small, what asks for it, and the least size that would do."""
    meter = Meter(profile, engine)
    least: dict[str, tuple[float, list[str]]] = {}
    for choice in choices:
        space = LayerSpace.of(nest, meter, choice)
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
        for room in cut.rooms:
            amount = float(np.max(space.least_bytes(cut, room, smallest)))
            before, parts = needs.get(room.memory, (0.0, []))
            needs[room.memory] = (before + amount, [*parts, f"{cut.operand} ({amount:.0f} bytes)"])
    return needs
