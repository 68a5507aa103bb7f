"""Lower bounds of all completions of a chain, by dynamic programming over the grid of tiles.

A line weighs cycles, energy and the bytes of shared memories into one number. Without the limit on those bytes, the
least total of one line over all chains is found exactly, backwards, cut by cut: that is the table. Charging a price
for each byte used beyond the limit (a negative charge for what is left, so never too much) makes it a bound with
the limit: Lagrange's. Several lines together enclose what latency and energy a completion can reach.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np

from codesign.mapping.grid import Floats, Integers
from codesign.mapping.layer_space import LayerSpace
from codesign.mapping.merging import Group, Merged
from codesign.mapping.stages import Stairs

ALWAYS, COMPLETE, PARTIAL = range(3)


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
        """Of labels: what is spent, and at least what lies ahead. One row a line, one column a label."""
        values = self.weights @ costs + ahead
        return values + self.prices @ (used - self.limits[:, None]) if self.priced else values

    @cached_property
    def priced(self) -> bool:
        """Whether any line has a price."""
        return bool(self.prices.any())

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
        least_latency, least_energy = costs[:-1].max(axis=0), costs[-1]
        for line in self.pure_cycles:
            least_latency = np.maximum(least_latency, values[line] / self.cycles[line])
        for line in self.pure_energy:
            least_energy = np.maximum(least_energy, values[line] / self.energy[line])
        return least_latency, least_energy

    @cached_property
    def pure_cycles(self) -> tuple[int, ...]:
        """Lines over cycles alone."""
        return tuple(np.flatnonzero((self.cycles > 0) & (self.energy <= 0)).tolist())

    @cached_property
    def pure_energy(self) -> tuple[int, ...]:
        """Lines over energy alone."""
        return tuple(np.flatnonzero((self.energy > 0) & (self.cycles <= 0)).tolist())

    @cached_property
    def mixed(self) -> tuple[int, ...]:
        """Lines over both."""
        return tuple(np.flatnonzero((self.cycles > 0) & (self.energy > 0)).tolist())


class Tables:
    """Per stage and tile, the least of every line over all ways to place the cuts that wait.

    merged: groups of dimensions of which a tile holds all or a part (see Merged): smaller tables, whose bounds are no
    larger. ahead: (stages, lines, tiles of `grid`).
    """

    def __init__(self, space: LayerSpace, lines: Lines, merged: tuple[Group, ...] = ()) -> None:
        self.lines = lines
        self.space = space
        self.merged = Merged(space.grid, merged) if merged else None
        self.grid = self.merged.grid if self.merged else space.grid
        self.ahead = _Builder(self).ahead()

    def only(self, rows: list[int]) -> Tables:
        """The tables of some of the lines."""
        some = copy(self)
        some.lines = self.lines.only(rows)
        some.ahead = self.ahead[:, rows]
        return some

    def values(self, stage: int, tiles: Integers, costs: Floats, used: Floats) -> Floats:
        """Of labels at a stage: the lines' values of every completion, at least."""
        rows = self.merged.rows[tiles] if self.merged else tiles
        return self.lines.values(costs, used, self.ahead[stage].take(rows, axis=1))

    def root(self) -> Floats:
        """The lines' values of the best mapping, at least."""
        used = np.zeros((len(self.space.shared), 1))
        return np.asarray(self.values(0, np.zeros(1, dtype=np.intp), self.space.constant[:, None], used)[:, 0])


class _Holding(NamedTuple):
    """One way to place a cut, by numbers of cut and holding."""

    cut: int
    arrives_partial: bool
    holding: int


class _Placing(NamedTuple):
    """Placing a cut in one way. on: the tiles it may happen at. beside: cuts that wait for room in the same memory."""

    way: int
    on: int
    beside: tuple[int, ...]


class _Program(NamedTuple):
    """What fills tables, the same for all layers of an engine. moves: by stage, to a stage by a placing."""

    ways: tuple[_Holding, ...]
    placings: tuple[_Placing, ...]
    moves: tuple[tuple[tuple[int, int], ...], ...]


@lru_cache(maxsize=64)
def _program(stairs: Stairs, memories: tuple[str, ...], holdings: tuple[int, ...]) -> _Program:
    """The program for cuts out of these memories that may be held in so many ways."""
    ways: dict[_Holding, int] = {}
    placings: dict[_Placing, int] = {}
    moves = []
    for steps in stairs.steps[:-1]:
        here: list[tuple[int, int]] = []
        for step in steps:
            beside = tuple(other for other in step.waiting if memories[other] == memories[step.cut])
            ends = [(step.complete, ALWAYS if step.partial is None else COMPLETE), (step.partial, PARTIAL)]
            for held in range(holdings[step.cut]):
                way = ways.setdefault(_Holding(step.cut, step.arrives_partial, held), len(ways))
                here.extend(
                    (following, placings.setdefault(_Placing(way, on, beside), len(placings)))
                    for following, on in ends
                    if following is not None
                )
        moves.append(tuple(here))
    return _Program(tuple(ways), tuple(placings), tuple(moves))


class _Builder:
    """Fills tables from the last stage backwards, all stages with equally many cuts at once."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._space = tables.space
        self._placements = tables.space.placements
        cuts = tables.space.all_cuts
        self._program = _program(
            tables.space.stairs, tuple(cut.memory for cut in cuts), tuple(len(cut.holdings) for cut in cuts)
        )

    def ahead(self) -> Floats:
        """The tables: (stages, lines, tiles)."""
        stairs, program = self._space.stairs, self._program
        values, taken = zip(*map(self._way, program.ways), strict=True)
        weighed = self._stacked(values, len(self._tables.lines.weights))
        barred = self._barred(self._stacked(taken))
        ahead = np.empty((len(stairs.stages), *weighed.shape[1:]))
        ahead[-1] = 0.0
        total = np.empty(weighed.shape[1:])
        for first, end in reversed(stairs.spans[:-1]):
            for stage in range(first, end):
                for number, (following, placing) in enumerate(program.moves[stage]):
                    into = total if number else ahead[stage]
                    np.add(ahead[following], weighed[program.placings[placing].way], out=into)
                    np.add(into, barred[placing], out=into)
                    if number:
                        np.minimum(ahead[stage], total, out=ahead[stage])
            self._tables.grid.least_outwards(ahead[first:end])
        return ahead

    def _barred(self, taken: Floats) -> Floats:
        """Of every placing over the tiles: infinite where it may not happen. taken: by way, bytes over the tiles."""
        cuts, ways, placings = self._space.all_cuts, self._program.ways, self._program.placings
        least = self._stacked([self._least(place.least) for place in self._placements])
        conditions = self._stacked(self._conditions())
        barred = np.empty((len(placings), taken.shape[1]))
        for bars, one in zip(barred, placings, strict=True):
            needed = sum((least[at] for at in one.beside), taken[one.way])
            bars[:] = np.where(needed <= cuts[ways[one.way].cut].size_bytes, conditions[one.on], np.inf)
        return barred

    def _conditions(self) -> list[Floats]:
        """0 where tiles are as a move wants them, infinite elsewhere: always, complete, partial."""
        complete = self._placements[-1].whole_reduction
        wanted = np.ones_like(complete), complete, ~complete
        return [self._least(np.where(tiles, 0.0, np.inf)) for tiles in wanted]

    def _way(self, way: _Holding) -> tuple[Floats, Floats]:
        """The lines' values of placing and holding a cut, and the bytes taken at least, over the tiles."""
        lines, merged, shared = self._tables.lines, self._tables.merged, self._space.shared
        place = self._placements[way.cut]
        cut, holding = place.cut, place.cut.holdings[way.holding]
        value = holding.weighed(place.amounts[way.holding], lines.weights)
        taken = place.least_taken(holding.copies, partial=way.arrives_partial)
        if cut.memory in shared and lines.prices.any():
            prices = lines.prices[:, shared.index(cut.memory)].reshape(-1, *(1,) * taken.ndim)
            value = value + prices * np.minimum(taken, cut.size_bytes)
        if merged and merged.varies(value) and merged.varies(taken):
            value = value + np.where(taken > cut.size_bytes, np.inf, 0.0)
        return self._least(value), self._least(taken)

    def _stacked(self, parts: Sequence[Floats], *first: int) -> Floats:
        """Arrays over the tiles, one a row: (parts, tiles), or (parts, first, tiles)."""
        stack = np.empty((len(parts), *first, *self._tables.grid.box))
        for at, part in enumerate(parts):
            stack[at] = part
        return stack.reshape(len(parts), *first, -1)

    def _least(self, values: Floats) -> Floats:
        return self._tables.merged.least(values) if self._tables.merged else values
