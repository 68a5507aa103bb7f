"""What placing every cut in every way adds to lines, and the bytes it takes, at least, over the box of a grid.

All dimensions of a tile or fewer: merging dimensions (codesign.mapping.merging) gives smaller arrays with no larger
values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from codesign.mapping.grid import Floats, Grid, Group, Integers
from codesign.mapping.layer_space import LayerSpace
from codesign.mapping.lines import Lines
from codesign.mapping.merging import Merged
from codesign.mapping.placements import Placement
from codesign.mapping.stages import Stairs

ALWAYS, COMPLETE, PARTIAL = range(3)
Parts = tuple[Floats, ...]  # arrays over the box that are to be added up; each varies along as few axes as it can


class Way(NamedTuple):
    """One way to place a cut, by numbers of cut and holding."""

    cut: int
    arrives_partial: bool
    holding: int


class Placing(NamedTuple):
    """Placing a cut in one way. on: the tiles it may happen at. beside: cuts that wait for room in the same memory."""

    way: int
    on: int
    beside: tuple[int, ...]


class Program(NamedTuple):
    """What fills tables, the same for all layers of an engine. moves: by stage, to a stage by a placing."""

    ways: tuple[Way, ...]
    placings: tuple[Placing, ...]
    moves: tuple[tuple[tuple[int, int], ...], ...]


@lru_cache(maxsize=64)
def program_of(stairs: Stairs, memories: tuple[str, ...], holdings: tuple[int, ...]) -> Program:
    """The program for cuts out of these memories that may be held in so many ways."""
    ways: dict[Way, int] = {}
    placings: dict[Placing, int] = {}
    moves = []
    for steps in stairs.steps[:-1]:
        here: list[tuple[int, int]] = []
        for step in steps:
            beside = tuple(other for other in step.waiting if memories[other] == memories[step.cut])
            ends = [(step.complete, ALWAYS if step.partial is None else COMPLETE), (step.partial, PARTIAL)]
            for held in range(holdings[step.cut]):
                way = ways.setdefault(Way(step.cut, step.arrives_partial, held), len(ways))
                here.extend(
                    (following, placings.setdefault(Placing(way, on, beside), len(placings)))
                    for following, on in ends
                    if following is not None
                )
        moves.append(tuple(here))
    return Program(tuple(ways), tuple(placings), tuple(moves))


@dataclass(frozen=True, eq=False)
class Weighing:
    """Lines over the tiles of a grid.

    rows: the number in `grid` of every tile of the layer's own grid, None where they are the same. values, taken: by
    way, what is added to the lines (a first axis) and the bytes taken. least: by cut, the bytes it takes at a tile or
    further out. conditions: 0 where tiles are as a placing wants them, infinite elsewhere; by ALWAYS, COMPLETE and
    PARTIAL.
    """

    space: LayerSpace
    lines: Lines
    program: Program
    grid: Grid
    rows: Integers | None
    values: tuple[Parts, ...]
    taken: Parts
    least: Parts
    conditions: Parts

    def merged(self, groups: tuple[Group, ...]) -> Weighing:
        """The same where tiles only tell all of a group of dimensions from any part of it (see Merged)."""
        if not groups:
            return self
        merged = Merged(self.grid, groups)
        return replace(
            self,
            grid=merged.grid,
            rows=merged.rows if self.rows is None else merged.rows.take(self.rows),
            values=tuple(self._merged(merged, way) for way in range(len(self.values))),
            taken=tuple(map(merged.least, self.taken)),
            least=tuple(map(merged.least, self.least)),
            conditions=tuple(map(merged.least, self.conditions)),
        )

    def _merged(self, merged: Merged, way: int) -> Parts:
        """Values of a way on a smaller grid, those of tiles that do not fit left out where that tells anything."""
        varies = [merged.varies(part) for part in self.values[way]]
        alike = tuple(merged.least(part) for part, apart in zip(self.values[way], varies, strict=True) if not apart)
        apart = [part for part, apart in zip(self.values[way], varies, strict=True) if apart]
        if not apart:
            return alike
        if merged.varies(self.taken[way]):
            apart.append(np.where(self.taken[way] <= self.size_bytes(way), 0.0, np.inf))
        return (*alike, merged.least(sum(apart[1:], apart[0])))

    def size_bytes(self, way: int) -> int:
        """Of the memory the cut of a way leaves."""
        return self.space.all_cuts[self.program.ways[way].cut].size_bytes


def weighing(space: LayerSpace, lines: Lines) -> Weighing:
    """Lines over all tiles of a layer."""
    cuts, placements = space.all_cuts, space.placements
    program = program_of(space.stairs, tuple(cut.memory for cut in cuts), tuple(len(cut.holdings) for cut in cuts))
    taken = tuple(_taken(placements[way.cut], way) for way in program.ways)
    values = tuple(_values(space, lines, way, held) for way, held in zip(program.ways, taken, strict=True))
    complete = placements[-1].complete
    conditions = np.zeros((1,) * len(space.grid.box)), *(np.where(on, 0.0, np.inf) for on in (complete, ~complete))
    least = tuple(place.least for place in placements)
    return Weighing(space, lines, program, space.grid, None, values, taken, least, conditions)


def _taken(place: Placement, way: Way) -> Floats:
    return place.least_taken(place.cut.holdings[way.holding].copies, partial=way.arrives_partial)


def _values(space: LayerSpace, lines: Lines, way: Way, taken: Floats) -> Parts:
    place = space.placements[way.cut]
    parts = [_sums(lines.weights @ rates.T, amounts) for rates, amounts in place.priced[way.holding]]
    if place.cut.memory in space.shared and lines.priced:
        prices = lines.prices[:, space.shared.index(place.cut.memory)].reshape(-1, *(1,) * taken.ndim)
        parts.append(prices * np.minimum(taken, place.cut.size_bytes))
    return tuple(parts) or (np.zeros((len(lines.weights), *(1,) * taken.ndim)),)


def _sums(weights: Floats, amounts: Floats) -> Floats:
    """Weighted sums of amounts, one for each row of weights."""
    if len(amounts) == 1:  # what products of matrices are slow at
        return weights.reshape(-1, *(1,) * (amounts.ndim - 1)) * amounts
    return (weights @ amounts.reshape(len(amounts), -1)).reshape(-1, *amounts.shape[1:])
