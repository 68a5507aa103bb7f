"""Labels: chains of tiles with some cuts placed, as rows of arrays; what follows them, and which are worth keeping."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from codesign.mapping.cuts import Cut, Holding
from codesign.mapping.grid import Floats, Integers

NEIGHBOURS = 4  # labels of the same tile each one is compared with


@dataclass(eq=False, slots=True)
class Labels:
    """Tile of the last cut, state (one row each of lanes, ports, energy, bytes of shared memories), trail."""

    tiles: Integers
    state: Floats
    trail: Integers

    def __len__(self) -> int:
        return len(self.tiles)

    def pick(self, rows: NDArray[np.bool_] | Integers) -> Labels:
        """Some of them, by number or True."""
        if rows.dtype == np.bool_:
            rows = rows.nonzero()[0]
            if len(rows) == len(self):
                return self
        return self.at(self.tiles.take(rows), rows)  # type: ignore[arg-type]

    def at(self, tiles: Integers, rows: Integers) -> Labels:
        """Some of them, grown to other tiles."""
        return Labels(tiles, self.state.take(rows, axis=1), self.trail.take(rows))

    @staticmethod
    def together(parts: Sequence[Labels]) -> Labels:
        """All of several."""
        if len(parts) == 1:
            return parts[0]
        return Labels(
            np.concatenate([part.tiles for part in parts]),
            np.concatenate([part.state for part in parts], axis=1),
            np.concatenate([part.trail for part in parts]),
        )

    def undominated(self) -> NDArray[np.bool_]:
        """False for labels that another one of the same tile matches or beats in all costs and bytes.

        Not every such label is found: each is compared with a few that sum up to less.
        """
        if len(self) < 2:
            return np.ones(len(self), dtype=bool)
        scale = self.state.max(axis=1)
        score = (1 / np.where(scale > 0, scale, 1.0)) @ self.state
        order = np.lexsort((score, self.tiles))
        rows, tiles = self.state.take(order, axis=1), self.tiles.take(order)
        beaten = np.zeros(len(self), dtype=bool)
        for shift in range(1, min(NEIGHBOURS, len(self) - 1) + 1):
            same = tiles[shift:] == tiles[:-shift]
            if not same.any():
                break
            beaten[shift:] |= same & np.logical_and.reduce(rows[:, :-shift] <= rows[:, shift:])
        kept = np.ones(len(self), dtype=bool)
        kept[order] = ~beaten
        return kept


@dataclass
class Trail:
    """Where every label came from: parent, cut, how it is held, tile."""

    starts: list[int] = field(default_factory=lambda: [0])
    parts: list[tuple[Integers, Cut, Holding, Integers]] = field(default_factory=list)

    def record(self, parents: Integers, cut: Cut, holding: Holding, tiles: Integers) -> Integers:
        """Numbers for new labels."""
        first = self.starts[-1]
        self.parts.append((parents, cut, holding, tiles))
        self.starts.append(first + len(parents))
        return np.arange(first, first + len(parents))

    def chain(self, number: int) -> list[tuple[Cut, Holding, int]]:
        """Cuts with their tiles, innermost first."""
        found = []
        while number >= 0:
            at = bisect_right(self.starts, number) - 1
            parents, cut, holding, tiles = self.parts[at]
            row = number - self.starts[at]
            found.append((cut, holding, int(tiles[row])))
            number = int(parents[row])
        return found[::-1]
