"""The sweep: all chains that may still beat the best mapping known, stage by stage, as arrays of labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import log
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from codesign.mapping.bounds import Tables
from codesign.mapping.cuts import Cut, Holding
from codesign.mapping.grid import Floats, Integers
from codesign.mapping.labels import Labels, Trail
from codesign.mapping.layer_space import LayerSpace
from codesign.mapping.lines import Lines
from codesign.mapping.objective import AnyObjective, Objective
from codesign.mapping.stages import Step

TOLERANCE = 1e-9
ROWS_AT_ONCE = 2048
BRANCHES = 3  # labels of a stage a dive may come back to
TRIES = 300
MUCH_WORSE = 0.5  # of the logarithm of what is guessed
NEVER = 1e200  # instead of infinite, where that may meet zero
A_LITTLE = 0.01  # energy in what a dive for latency follows, both in parts of the least there is
FEW_ROWS = 128  # beyond, a dive follows the most promising
MANY_ROWS = 1024  # from so many on, growing prunes before it goes on


@dataclass
class Best:
    """The best complete mapping so far. first, second: its objective and the tie-breaker."""

    first: float = np.inf
    second: float = np.inf
    space: LayerSpace | None = None
    chain: list[tuple[Cut, Holding, int]] = field(default_factory=list)


def bounds(objective: AnyObjective, lines: Lines, values: Floats, state: Floats, cap: float) -> tuple[Floats, Floats]:
    """Lower bounds of the objective and, no objective above `cap`, of the tie-breaker. values, state: of labels."""
    latency, energy = lines.corner(values, state)
    first, second = objective.values(latency, energy)
    values = np.minimum(values, NEVER)  # infinite ones are out already
    for line in lines.mixed:
        value, cycles, spent = values[line], lines.cycles[line], lines.energy[line]
        if objective is Objective.LATENCY:
            second = np.maximum(second, (value - cycles * cap) / spent)
        elif objective is Objective.ENERGY:
            second = np.maximum(second, (value - spent * cap) / cycles)
        else:
            slow, costly = lines.edge(line, value, latency, energy)
            corners = objective.values(slow, energy)[0], objective.values(latency, costly)[0]
            first = np.maximum(first, np.minimum(*corners))
    return first, second


def guesses(
    objective: AnyObjective, lines: Lines, values: Floats, state: Floats, *, together: bool
) -> tuple[Floats, Floats]:
    """What a dive follows: latency and energy `together`, which leaves fewer dead ends, or the bounds.

    Where no line tells of both, the bound of latency with a little energy: what costs energy keeps ports busy.
    """
    together = together and objective is not Objective.ENERGY
    if together and lines.mixed:
        return values[lines.mixed[0]], values[lines.mixed[0]]
    first, second = bounds(objective, lines, values, state, np.inf)
    if together and objective is Objective.LATENCY:
        first = lines.cycles.max() * first + A_LITTLE * lines.energy.max() * second
    return first, second


class _Ahead(NamedTuple):
    """One label a dive may follow, in the order in which it does. worse: in steps, than what was hoped for.

    depth: cuts placed, negative. number: of those noted, which also keeps labels from being compared.
    """

    worse: int
    depth: int
    first: float
    second: float
    number: int
    stage: int
    labels: Labels
    steps: tuple[Step, ...]


@dataclass
class Sweep:
    """All chains of one choice of lanes, as far as they are followed.

    left: by stage, the labels there was no room for, and the least bound of them. evaluations: cuts priced.
    """

    tables: Tables
    objective: AnyObjective
    best: Best
    left: dict[int, tuple[Labels, float]] = field(default_factory=dict)
    begun: bool = False
    evaluations: int = 0
    diving: bool = False
    together: bool = True
    arrived: bool = False
    trail: Trail = field(default_factory=Trail)
    pool: dict[int, list[Labels]] = field(default_factory=dict)

    @property
    def space(self) -> LayerSpace:
        """What is swept over."""
        return self.tables.space

    def dive(self, *, together: bool = True) -> None:
        """Follow the most promising labels to a complete mapping, back to others where there is no way on.

        The longest chains first, among those that are not much worse than what was hoped for. A step that adds nothing
        to what is guessed is followed before others are tried.
        """
        self.diving, self.together = True, together
        start, self.arrived = self._start(), False
        hoped, second = (float(guess[0]) for guess in self._guesses(0, start))
        ahead = [_Ahead(0, 0, hoped, second, 0, 0, start, self.space.stairs.steps[0])]
        count = 0
        while ahead and not self.arrived and count < TRIES:
            here = heappop(ahead)
            steps = here.steps
            roofs = here.first * (1 + TOLERANCE), here.second * (1 + TOLERANCE)
            for step in here.steps:
                self._place(here.stage, step, here.labels)
                steps = steps[1:]
                found = list(self._most_promising())
                self.pool.clear()
                for first, second, stage, labels in found:
                    count += 1
                    further = self.space.stairs.steps[stage]
                    worse = int(log(first / hoped) / MUCH_WORSE) if first > hoped > 0 else 0
                    heappush(ahead, _Ahead(worse, here.depth - 1, first, second, count, stage, labels, further))
                if self.arrived or any(first <= roofs[0] and second <= roofs[1] for first, second, _, _ in found):
                    break
            if steps:
                count += 1
                heappush(ahead, here._replace(number=count, steps=steps))
        self.diving = False

    @property
    def floor(self) -> float:
        """The bound of all mappings."""
        return float(self._bounds(0, self._start())[0][0])

    @property
    def hopeful(self) -> bool:
        """Whether the bounds leave room for anything better than the best."""
        return bool(self._promising(0, self._start()).any())

    def _most_promising(self) -> Iterator[tuple[float, float, int, Labels]]:
        """A few of every stage, with what is guessed of them."""
        for stage, parts in self.pool.items():
            labels = Labels.together(parts)
            first, second = self._guesses(stage, labels)
            for row in np.lexsort((second, first))[:BRANCHES].tolist():
                if np.isfinite(first[row]):
                    yield float(first[row]), float(second[row]), stage, labels.pick(np.asarray([row]))

    def _start(self) -> Labels:
        return Labels(np.zeros(1, dtype=np.intp), self.space.start, np.full(1, -1))

    def run(self, width: int) -> None:
        """Improve `best` as far as so many labels a stage allow; the next run goes on with those left over."""
        left = {stage: [labels] for stage, (labels, _) in self.left.items()}
        self.pool = left if self.begun else {0: [self._start()]}
        self.begun, self.left = True, {}
        for stage in range(self.space.stairs.last):
            parts = self.pool.pop(stage, [])
            if parts:
                labels = self._kept(stage, Labels.together(parts), width)
                for step in self.space.stairs.steps[stage]:
                    for row in range(0, len(labels), ROWS_AT_ONCE):
                        self._place(stage, step, labels.pick(np.arange(row, min(row + ROWS_AT_ONCE, len(labels)))))

    @property
    def lost(self) -> float:
        """The least bound of the labels there was no room for."""
        return min((bound for _, bound in self.left.values()), default=np.inf)

    def _bounds(self, stage: int, labels: Labels) -> tuple[Floats, Floats]:
        values = self.tables.values(stage, labels.tiles, labels.state)
        return bounds(self.objective, self.tables.lines, values, labels.state, self.best.first * (1 + TOLERANCE))

    def _promising(self, stage: int, labels: Labels) -> NDArray[np.bool_]:
        first, second = self._bounds(stage, labels)
        kept = first < self.best.first * (1 - TOLERANCE)
        if self.objective.has_ties:
            kept |= (first <= self.best.first * (1 + TOLERANCE)) & (second < self.best.second * (1 - TOLERANCE))
        return kept

    def _guesses(self, stage: int, labels: Labels) -> tuple[Floats, Floats]:
        values = self.tables.values(stage, labels.tiles, labels.state)
        return guesses(self.objective, self.tables.lines, values, labels.state, together=self.together)

    def _guessed(self, stage: int, labels: Labels) -> Integers:
        """The rows a dive follows, the most promising first."""
        return np.lexsort(self._guesses(stage, labels)[::-1])[:FEW_ROWS]

    def _kept(self, stage: int, labels: Labels, width: int) -> Labels:
        labels = labels.pick(self._promising(stage, labels)) if len(labels) > MANY_ROWS else labels
        labels = labels.pick(labels.undominated())
        if len(labels) <= width:
            return labels
        first, second = self._bounds(stage, labels)
        order = np.lexsort((second, first))
        self.left[stage] = labels.pick(order[width:]), float(first[order[width]])
        return labels.pick(order[:width])

    def _place(self, stage: int, step: Step, labels: Labels) -> None:
        grid, cut = self.space.grid, self.space.all_cuts[step.cut]
        tiles, rows = labels.tiles, np.arange(len(labels))
        for axis in cut.grows:
            tiles, parents = grid.grow(tiles, axis)
            rows = rows.take(parents)
            if len(tiles) > (FEW_ROWS if self.diving else MANY_ROWS):
                grown = labels.at(tiles, rows)
                kept = self._guessed(stage, grown) if self.diving else self._promising(stage, grown)
                tiles, rows = tiles[kept], rows[kept]
        if cut.tries_whole:
            tiles = np.concatenate([tiles, np.full(len(labels), grid.count - 1)])
            rows = np.concatenate([rows, np.arange(len(labels))])
        for holding in range(len(cut.holdings)):
            self._hold(step, holding, labels, tiles, rows)

    def _hold(self, step: Step, number: int, labels: Labels, tiles: Integers, rows: Integers) -> None:
        place = self.space.placements[step.cut]
        self.evaluations += len(tiles)
        taken = (place.partial_taken if step.arrives_partial else place.taken)[number].take(tiles)
        fits = taken <= place.cut.size_bytes
        complete = place.complete_by_tile.take(tiles) if step.partial is not None else None
        for following, wanted in (step.complete, complete), (step.partial, None if complete is None else ~complete):
            if following is None:
                continue
            chosen = (fits if wanted is None else fits & wanted).nonzero()[0]
            if not len(chosen):
                continue
            ends, origin = tiles.take(chosen), rows.take(chosen)
            state, costs = labels.state.take(origin, axis=1), place.costs_at(number, ends)
            state[: len(costs)] += costs
            for at, memory in enumerate(self.space.shared, len(costs)):
                if memory == place.cut.memory:
                    state[at] += taken.take(chosen)
            children = self._fitting(step.waiting, Labels(ends, state, labels.trail.take(origin)))
            if len(children):
                self._arrive(following, children, place.cut, place.cut.holdings[number])

    def _fitting(self, waiting: tuple[int, ...], labels: Labels) -> Labels:
        """Those that leave room in shared memories for the cuts that wait."""
        space = self.space
        for at, memory in enumerate(space.shared, -len(space.shared)):
            need = labels.state[at]
            for other in waiting:
                if space.all_cuts[other].memory == memory:
                    need = need + space.placements[other].least_by_tile.take(labels.tiles)
            labels = labels.pick(need <= space.shared_bytes[at])
        return labels

    def _arrive(self, stage: int, labels: Labels, cut: Cut, holding: Holding) -> None:
        if not self.diving:
            labels = labels.pick(self._promising(stage, labels))
            if not len(labels):
                return
        if stage == self.space.stairs.last:
            self.arrived = True
            self._complete(labels, cut, holding)
            return
        trail = self.trail.record(labels.trail, cut, holding, labels.tiles)
        self.pool.setdefault(stage, []).append(Labels(labels.tiles, labels.state, trail))

    def _complete(self, labels: Labels, cut: Cut, holding: Holding) -> None:
        latency, energy = self.tables.lines.spent(labels.state)
        first, second = self.objective.values(latency, energy)
        least = float(first.min())
        less = least < self.best.first * (1 - TOLERANCE)
        near = first <= (least if less else self.best.first) * (1 + TOLERANCE)
        row = int(np.argmin(np.where(near, second, np.inf)))
        better = less or (near[row] and second[row] < self.best.second)
        if better:
            chain = [*self.trail.chain(int(labels.trail[row])), (cut, holding, int(labels.tiles[row]))]
            best = self.best
            best.first, best.second = float(first[row]), float(second[row])
            best.space, best.chain = self.space, chain
