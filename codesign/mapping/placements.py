"""What placing a cut costs and takes on every tile of a grid: computed once, looked up by the numbers of tiles."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from codesign.mapping.cuts import Cut
from codesign.mapping.grid import Floats, Grid, Integers


class Priced(NamedTuple):
    """Amounts over a box, along a first axis, and what one of each costs: a row of rates each."""

    rates: Floats
    amounts: Floats


@dataclass(frozen=True, eq=False)
class Placement:
    """One cut on all tiles of a grid. Arrays `over the box` have as many axes as it, of its sizes or 1."""

    cut: Cut
    grid: Grid

    @cached_property
    def priced(self) -> tuple[tuple[Priced, ...], ...]:
        """By holding: what it prices, amounts that vary along the same axes together."""
        return tuple(self._priced(number) for number in range(len(self.cut.holdings)))

    def _priced(self, number: int) -> tuple[Priced, ...]:
        holding, axes = self.cut.holdings[number], len(self.grid.box)
        alike: dict[tuple[int, ...], list[int]] = {}
        amounts = self.cut.amounts(self.grid.everywhere, holding)
        for at, amount in enumerate(amounts):
            if holding.rates[at].any():
                alike.setdefault((1,) * (axes - amount.ndim) + amount.shape, []).append(at)
        return tuple(
            Priced(holding.rates[rows], np.concatenate([amounts[at].ravel() for at in rows]).reshape(-1, *shape))
            for shape, rows in alike.items()
        )

    @cached_property
    def _by_tile(self) -> tuple[tuple[Floats, Floats], ...]:
        """By holding: what each amount costs, one column an amount, and the amounts, one column a tile."""
        found = []
        for priced in self.priced:
            rates = np.concatenate([part.rates for part in priced]) if priced else self.cut.holdings[0].rates[:0]
            amounts = np.empty((len(rates), *self.grid.box))
            row = 0
            for part in priced:
                amounts[row : row + len(part.rates)] = part.amounts
                row += len(part.rates)
            found.append((np.ascontiguousarray(rates.T), amounts.reshape(len(rates), -1)))
        return tuple(found)

    def costs_at(self, number: int, tiles: Integers) -> Floats:
        """Of a holding: one row a cost, one column a tile."""
        rates, amounts = self._by_tile[number]
        return rates @ amounts.take(tiles, axis=1)

    @cached_property
    def once(self) -> tuple[Floats, Floats]:
        """Bytes of one copy, over the box: of complete elements, while partial sums arrive."""
        complete = self.cut.bytes_once(self.grid.everywhere, partial=False)
        if self.cut.partial_bytes == self.cut.bytes_per_element:
            return complete, complete
        return complete, self.cut.bytes_once(self.grid.everywhere, partial=True)

    @cached_property
    def taken(self) -> tuple[Floats, ...]:
        """By holding: bytes in one instance of the memory, by tile."""
        return self._taken(partial=False)

    @cached_property
    def partial_taken(self) -> tuple[Floats, ...]:
        """The same while partial sums arrive."""
        return self._taken(partial=True)

    def _taken(self, *, partial: bool) -> tuple[Floats, ...]:
        found = []
        for holding in self.cut.holdings:
            bytes_taken = self._flat(self.cut.allowed(self.grid.everywhere, holding.copies * self.once[partial]))
            bytes_taken[-1] /= holding.copies  # the whole layer is never refilled
            found.append(bytes_taken)
        return tuple(found)

    @cached_property
    def least(self) -> Floats:
        """Bytes the cut takes wherever it is placed at a tile or further out, over the box."""
        return self._at_least(min(holding.copies for holding in self.cut.holdings), False)

    @cached_property
    def least_by_tile(self) -> Floats:
        """The same by tile."""
        return self._flat(self.least)

    def least_taken(self, copies: int, *, partial: bool) -> Floats:
        """Bytes of so many copies or fewer, without a look at which tiles are the whole layer; over the box."""
        return self.cut.allowed(self.grid.everywhere, self._at_least(copies, partial))

    def _at_least(self, copies: int, partial: bool) -> Floats:
        once = self.once[partial]
        return once if copies == 1 else np.minimum(copies * once, once.flat[-1])

    @cached_property
    def complete(self) -> NDArray[np.bool_]:
        """Which tiles hold the whole reduction, over the box."""
        return self.cut.complete(self.grid.everywhere)

    @cached_property
    def complete_by_tile(self) -> NDArray[np.bool_]:
        """The same by tile."""
        return np.broadcast_to(self.complete, self.grid.box).ravel()

    def _flat(self, values: Floats) -> Floats:
        flat = np.empty(self.grid.box)
        flat[...] = values
        return flat.reshape(-1)
