"""Cuts: what placing one operand's tile in one memory costs and takes, for whole arrays of tiles at once.

A mapping is a chain of growing tiles (in steps of the lanes) with cuts on it: where weights leave their registers,
where they leave the buffer, where outputs leave the accumulators, and so on. What a cut costs and takes depends on the
tile it is placed at alone (of outputs, also on whether they arrive complete): loop order has disappeared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from codesign.mapping.burst_pricing import BurstPricing
from codesign.mapping.counts import REDUCED
from codesign.mapping.grid import Floats, Index
from codesign.vocabulary import Operand

Factor = tuple[tuple[int, ...], Floats]  # dimensions, and a table over their sizes


@dataclass(frozen=True, eq=False)
class Holding:
    """One way to hold a refilled tile.

    copies: of the tile. rates: costs per unit of `Cut.amounts`, one row each. fill: lane cycles per element of the
    first tile: complete (or of weights, inputs), partial. overhead: lane cycles of a refill beyond its transfers; wait:
    those of them spent waiting for the memory outside, which the first refill does not (`Meter.first_waits` has it).
    """

    copies: int
    rates: Floats
    fill: tuple[float, float]
    overhead: int
    wait: int


@dataclass(frozen=True, eq=False)
class Cut:
    """One operand leaving one on-chip memory, priced on the tiles of one grid.

    grows: dimensions in which a larger tile at this cut can save something; growing any other only costs capacity, so
    an optimal chain grows those after the cut. moved, elements, instance: factors of the elements moved over the layer,
    of a tile's elements, and of those in one instance of the memory. bytes_per_element, partial_bytes: as stored there,
    and while partial sums arrive. refills: factors of the number of tiles, each of which may cost lane cycles. inside:
    dimensions a fixed dataflow runs inside. outside: dimensions no tile grows in. last: the index of the whole layer.
    bursts: if they move in such.
    """

    operand: Operand
    memory: str
    size_bytes: int
    grows: tuple[int, ...]
    holdings: tuple[Holding, ...]
    moved: tuple[Factor, ...]
    elements: tuple[Factor, ...]
    instance: tuple[Factor, ...]
    refills: tuple[Factor, ...]
    bytes_per_element: float
    partial_bytes: float
    finished: float
    unread: float
    last: tuple[int, ...]
    inside: tuple[int, ...]
    outside: tuple[int, ...]
    bursts: BurstPricing | None

    @cached_property
    def tries_whole(self) -> bool:
        """Whether the whole layer may take less memory than a part of it, and is not always among what is grown."""
        refilled_twice = any(holding.copies > 1 for holding in self.holdings)
        return refilled_twice and len(self.grows) < sum(size > 0 for size in self.last)

    def bytes_once(self, index: Index, *, partial: bool) -> Floats:
        """Bytes of one copy."""
        return np.ceil(_product(self.instance, index) * (self.partial_bytes if partial else self.bytes_per_element))

    def allowed(self, index: Index, taken: Floats) -> Floats:
        """The same bytes, infinite where a fixed dataflow forbids the tile."""
        if self.inside:
            taken = np.where(self._at_last(index, self.inside), taken, np.inf)
        for axis in self.outside:
            taken = np.where(index[axis] > 0, np.inf, taken)
        return taken

    def amounts(self, index: Index, holding: Holding) -> tuple[Floats, ...]:
        """What the rates of a holding price: elements (of outputs partial visits, finished and unread), bursts as many
        times, lane cycles."""
        lanes: Floats | float = 0.0
        bursts: tuple[Floats, ...] = ()
        moved = _product(self.moved, index)
        if self.operand is not Operand.OUTPUTS:
            if self.bursts is not None:
                bursts, lanes = self.bursts.of_moved(index, holding.copies, moved, lambda: self._tile(index))
            elif holding.fill[0]:
                lanes = holding.fill[0] * self._tile(index)
            return moved, *bursts, self._with_overhead(lanes, index, holding)
        complete = self.complete(index)
        visits, first = np.where(complete, 0.0, moved), np.where(complete, 0.0, -self.unread)
        out = visits, np.where(complete, self.finished, 0.0), first
        if self.bursts is not None:
            bursts, lanes = self.bursts.of_outputs(index, holding.copies, out, lambda: self._tile(index))
        elif any(holding.fill):
            lanes = np.where(complete, *holding.fill) * self._tile(index)
        return *out, *bursts, self._with_overhead(lanes, index, holding)

    def _tile(self, index: Index) -> Floats:
        return _product(self.elements, index)

    def _with_overhead(self, lanes: Floats | float, index: Index, holding: Holding) -> Floats:
        if holding.overhead:
            lanes = lanes + holding.overhead * _product(self.refills, index) - holding.wait
        return np.asarray(lanes, dtype=np.float64)

    def complete(self, index: Index) -> NDArray[np.bool_]:
        """Which tiles hold the whole reduction."""
        return self._at_last(index, REDUCED)

    def _at_last(self, index: Index, axes: Sequence[int]) -> NDArray[np.bool_]:
        found = np.ones(1, dtype=np.bool_)
        for axis in axes:
            if self.last[axis]:
                found = found & (index[axis] == self.last[axis])
        return found


def _product(factors: tuple[Factor, ...], index: Index) -> Floats:
    total: Floats | float = 1.0
    for axes, table in factors:
        total = total * table[tuple(index[axis] for axis in axes)]
    return np.asarray(total)
