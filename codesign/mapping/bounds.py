"""Lower bounds of all completions of a chain, by dynamic programming over the grid of tiles.

A line weighs cycles, energy and the bytes of shared memories into one number. Without the limit on those bytes, the
least total of one line over all chains is found exactly, backwards, cut by cut: that is the table. Charging a price
for each byte used beyond the limit (a negative charge for what is left, so never too much) makes it a bound with
the limit: Lagrange's. Several lines together enclose what latency and energy a completion can reach.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from codesign.mapping.cuts import Cut, LayerSpace
from codesign.mapping.grid import Floats, Integers
from codesign.vocabulary import Operand

OUTPUTS = list(Operand).index(Operand.OUTPUTS)


@dataclass(frozen=True)
class Stage:
    """Cuts placed so far, by operand; partial: the last one of the outputs left its sums incomplete."""

    placed: tuple[int, ...]
    partial: bool = False


@dataclass(frozen=True, eq=False)
class Step:
    """Placing one more cut. complete, partial: the stage that follows, by what the tile holds of the reduction."""

    cut: Cut
    arrives_partial: bool
    complete: Stage
    partial: Stage | None


@dataclass(frozen=True, eq=False)
class Staircase:
    """The stages of one layer in order, and the steps between them."""

    space: LayerSpace

    @cached_property
    def last(self) -> Stage:
        """Everything placed."""
        return Stage(tuple(len(group) for group in self.space.cuts))

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """All stages, fewer cuts first."""
        found: dict[Stage, None] = {Stage((0,) * len(Operand)): None}
        for stage in (queue := list(found)):
            for step in self.steps(stage):
                for following in (step.complete, step.partial):
                    if following is not None and following not in found:
                        found[following] = None
                        queue.append(following)
        return tuple(sorted(found, key=lambda stage: sum(stage.placed)))

    def steps(self, stage: Stage) -> Iterator[Step]:
        """What may be placed next."""
        for operand, group in enumerate(self.space.cuts):
            done = stage.placed[operand]
            if done == len(group):
                continue
            placed = tuple(count + (other == operand) for other, count in enumerate(stage.placed))
            if operand != OUTPUTS:
                yield Step(group[done], False, Stage(placed, stage.partial), None)
            elif done + 1 == len(group):
                yield Step(group[done], stage.partial, Stage(placed), Stage(placed))
            else:
                yield Step(group[done], stage.partial, Stage(placed), Stage(placed, partial=True))

    def waiting(self, stage: Stage, beside: Cut | None = None) -> list[Cut]:
        """Cuts not placed yet."""
        groups = zip(self.space.cuts, stage.placed, strict=True)
        return [cut for group, done in groups for cut in group[done:] if cut is not beside]


@dataclass(frozen=True, eq=False)
class Lines:
    """weights: one row a line, over [lanes, ports..., energy]; prices: one row a line, per byte of each shared memory.

    energy, cycles: line k says energy[k] x energy + cycles[k] x latency >= its value, for every completion.
    """

    weights: Floats
    prices: Floats
    limits: Floats

    @cached_property
    def energy(self) -> Floats:
        """Weight of the energy in each line."""
        return self.weights[:, -1]

    @cached_property
    def cycles(self) -> Floats:
        """Weight of the latency in each line: it is at least every mean of lanes and ports."""
        return np.asarray(self.weights[:, :-1].sum(axis=1))

    def values(self, costs: Floats, used: Floats, ahead: Floats) -> Floats:
        """Of labels: what is spent, and at least what lies ahead. One row a label, one column a line."""
        return np.asarray(costs @ self.weights.T + (used - self.limits) @ self.prices.T + ahead)

    def edge(self, line: int, value: Floats, latency: Floats, energy: Floats) -> tuple[Floats, Floats]:
        """Of a mixed line with these values: the least latency at the least energy, and the least energy at the least
        latency; no completion lies below both."""
        cycles, spent = self.cycles[line], self.energy[line]
        slow = np.maximum(latency, (value - spent * energy) / cycles)
        return slow, np.maximum(energy, (value - cycles * latency) / spent)

    def only(self, rows: list[int]) -> Lines:
        """Some of the lines."""
        return Lines(self.weights[rows], self.prices[rows], self.limits)

    def corner(self, values: Floats, costs: Floats) -> tuple[Floats, Floats]:
        """The least latency and the least energy, each by itself. costs: what is spent already."""
        latency, energy = self.cycles > 0, self.energy > 0
        pure_latency, pure_energy = latency & ~energy, energy & ~latency
        least_latency = np.max(values[:, pure_latency] / self.cycles[pure_latency], axis=1, initial=0.0)
        least_energy = np.max(values[:, pure_energy] / self.energy[pure_energy], axis=1, initial=0.0)
        return np.maximum(least_latency, costs[:, :-1].max(axis=1)), np.maximum(least_energy, costs[:, -1])

    @cached_property
    def mixed(self) -> tuple[int, ...]:
        """Lines over both."""
        return tuple(np.flatnonzero((self.cycles > 0) & (self.energy > 0)).tolist())


class Tables:
    """Per stage and tile, the least of every line over all ways to place the cuts that wait."""

    def __init__(self, staircase: Staircase, lines: Lines, shared: tuple[str, ...]) -> None:
        self.lines = lines
        self.staircase = staircase
        self.shared = shared
        self.space = staircase.space
        self.ahead: dict[Stage, Floats] = {}
        _Builder(self).fill()

    def only(self, rows: list[int]) -> Tables:
        """The tables of some of the lines."""
        some = copy(self)
        some.lines = self.lines.only(rows)
        some.ahead = {stage: np.ascontiguousarray(values[:, rows]) for stage, values in self.ahead.items()}
        return some

    def values(self, stage: Stage, tiles: Integers, costs: Floats, used: Floats) -> Floats:
        """Of labels at a stage: the lines' values of every completion, at least."""
        return self.lines.values(costs, used, self.ahead[stage][tiles])

    def root(self, constant: Floats) -> Floats:
        """The lines' values of the best mapping, at least."""
        used = np.zeros((1, len(self.shared)))
        start = np.zeros(1, dtype=np.intp)
        return np.asarray(self.values(self.staircase.stages[0], start, constant[None, :], used)[0])


class _Builder:
    """Fills tables from the last stage backwards."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._grid = tables.space.grid
        self._lines = len(tables.lines.weights)
        self._least_bytes: dict[Cut, Floats] = {}
        self._complete: dict[Cut, NDArray[np.bool_]] = {}
        self._placing: dict[tuple[Cut, bool], list[tuple[Floats, Floats]]] = {}

    def fill(self) -> None:
        """All stages."""
        last, *earlier = reversed(self._tables.staircase.stages)
        self._tables.ahead[last] = np.zeros((self._grid.count, self._lines))
        for stage in earlier:
            self._tables.ahead[stage] = self._of(stage)

    def _of(self, stage: Stage) -> Floats:
        best = np.full((*self._grid.box, self._lines), np.inf)
        for step in self._tables.staircase.steps(stage):
            following = self._following(step)
            others = self._needed(stage, step.cut)
            for value, taken in self._values(step):
                total = value + following
                needed = taken if others is None else taken + others
                too_much = needed > step.cut.size_bytes
                if too_much.any():
                    np.putmask(total, np.broadcast_to(too_much[..., None], total.shape), np.inf)
                np.minimum(best, total, out=best)
        self._grid.least_outwards(best)
        return best.reshape(self._grid.count, self._lines)

    def _following(self, step: Step) -> Floats:
        """What the stage after a step adds."""
        ahead, shape = self._tables.ahead, (*self._grid.box, self._lines)
        following = ahead[step.complete].reshape(shape)
        if step.partial is None or step.partial == step.complete:
            return following
        if step.cut not in self._complete:
            self._complete[step.cut] = step.cut.complete(self._grid.everywhere)[..., None]
        return np.where(self._complete[step.cut], following, ahead[step.partial].reshape(shape))

    def _needed(self, stage: Stage, cut: Cut) -> Floats | None:
        """Bytes of the cut's memory which other waiting cuts take at least."""
        total: Floats | None = None
        for other in self._tables.staircase.waiting(stage, cut):
            if other.memory == cut.memory:
                if other not in self._least_bytes:
                    self._least_bytes[other] = other.least_bytes(self._grid.everywhere)
                least = self._least_bytes[other]
                total = least if total is None else total + least
        return total

    def _values(self, step: Step) -> list[tuple[Floats, Floats]]:
        """Of placing the cut, for every way to hold its tile: the lines' values, and bytes taken."""
        key = (step.cut, step.arrives_partial)
        if key not in self._placing:
            lines, shared, found = self._tables.lines, self._tables.shared, []
            for holding in step.cut.holdings:
                value = step.cut.priced(self._grid.everywhere, holding, holding.rates @ lines.weights.T)
                taken = step.cut.bytes_taken(self._grid.everywhere, holding.copies, partial=step.arrives_partial)
                if step.cut.memory in shared and lines.prices.any():
                    fitting = np.minimum(taken, step.cut.size_bytes)  # what takes more, or all there is, goes out below
                    value = value + fitting[..., None] * lines.prices[:, shared.index(step.cut.memory)]
                found.append((value, taken))
            self._placing[key] = found
        return self._placing[key]
