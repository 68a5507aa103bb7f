"""Lower bounds of all completions of a chain, by dynamic programming over the grid of tiles.

Without the limit on the bytes of shared memories, the least total of one line over all chains is found exactly,
backwards, cut by cut: that is the table.
"""

from __future__ import annotations

from copy import copy

import numpy as np

from codesign.mapping.grid import Floats, Integers
from codesign.mapping.weighing import Weighing


class Tables:
    """Per stage and tile, the least of every line over all ways to place the cuts that wait.

    ahead: (stages, lines, tiles of the weighing's grid).
    """

    def __init__(self, weighing: Weighing) -> None:
        self.space = weighing.space
        self.lines = weighing.lines
        self.rows = weighing.rows
        self.ahead = _ahead(weighing)

    def only(self, rows: list[int]) -> Tables:
        """The tables of some of the lines."""
        some = copy(self)
        some.lines = self.lines.only(rows)
        some.ahead = self.ahead[:, rows]
        return some

    def values(self, stage: int, tiles: Integers, state: Floats) -> Floats:
        """Of labels at a stage: the lines' values of every completion, at least."""
        rows = tiles if self.rows is None else self.rows.take(tiles)
        return self.lines.values(state, self.ahead[stage].take(rows, axis=1))

    def root(self) -> Floats:
        """The lines' values of the best mapping, at least."""
        return np.asarray(self.values(0, np.zeros(1, dtype=np.intp), self.space.start)[:, 0])


def _ahead(weighing: Weighing) -> Floats:
    """The tables, from the last stage backwards, all stages with equally many cuts at once."""
    stairs, program = weighing.space.stairs, weighing.program
    weighed, barred = _weighed(weighing), _barred(weighing)
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
        weighing.grid.least_outwards(ahead[first:end])
    return ahead


def _weighed(weighing: Weighing) -> Floats:
    """Values: (ways, lines, tiles)."""
    stack = np.empty((len(weighing.values), len(weighing.lines.weights), *weighing.grid.box))
    for row, parts in zip(stack, weighing.values, strict=True):
        row[...] = sum(parts[1:], parts[0])
    return stack.reshape(*stack.shape[:2], -1)


def _barred(weighing: Weighing) -> Floats:
    """0 where a placing may happen, infinite elsewhere: (placings, tiles)."""
    placings = weighing.program.placings
    barred = np.empty((len(placings), *weighing.grid.box))
    for row, one in zip(barred, placings, strict=True):
        needed = sum((weighing.least[other] for other in one.beside), weighing.taken[one.way])
        row[...] = np.where(needed <= weighing.size_bytes(one.way), weighing.conditions[one.on], np.inf)
    return barred.reshape(len(barred), -1)
