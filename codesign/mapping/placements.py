"""What placing a cut costs and takes on every tile of a grid: computed once, looked up by the numbers of tiles."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from codesign.mapping.cuts import Cut
from codesign.mapping.grid import Floats, Grid


@dataclass(frozen=True, eq=False)
class Placement:
    """One cut on all tiles."""

    cut: Cut
    grid: Grid

    @cached_property
    def amounts(self) -> tuple[tuple[Floats, ...], ...]:
        """By holding: what its rates price. As many axes as the box of the grid has, of its size or 1."""
        axes = len(self.grid.box)
        found = (self.cut.amounts(self.grid.everywhere, holding) for holding in self.cut.holdings)
        return tuple(tuple(each.reshape((1,) * (axes - each.ndim) + each.shape) for each in row) for row in found)

    @cached_property
    def costs(self) -> tuple[Floats, ...]:
        """By holding: one row a cost, one column a tile."""
        pairs = zip(self.cut.holdings, self.amounts, strict=True)
        found = (holding.costs(amounts, self.grid.box) for holding, amounts in pairs)
        return tuple(costs.reshape(len(costs), -1) for costs in found)

    @cached_property
    def once(self) -> tuple[Floats, Floats]:
        """Bytes of one copy, shaped as `amounts`: of complete elements, while partial sums arrive."""
        complete = self.cut.bytes_once(self.grid.everywhere, partial=False)
        if self.cut.partial_bytes == self.cut.bytes_per_element:
            return complete, complete
        return complete, self.cut.bytes_once(self.grid.everywhere, partial=True)

    @cached_property
    def taken(self) -> tuple[Floats, ...]:
        """By holding: bytes in one instance of the memory."""
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

    def least_taken(self, copies: int, *, partial: bool) -> Floats:
        """As many bytes or fewer, without a look at which tiles are the whole layer; shaped as `amounts`."""
        return self.cut.allowed(self.grid.everywhere, self._at_least(copies, partial))

    @cached_property
    def least(self) -> Floats:
        """Bytes the cut takes wherever it is placed at a tile or further out, shaped as `amounts`."""
        return self._at_least(min(holding.copies for holding in self.cut.holdings), False)

    def _at_least(self, copies: int, partial: bool) -> Floats:
        once = self.once[partial]
        return once if copies == 1 else np.minimum(copies * once, once.flat[-1])

    @cached_property
    def least_bytes(self) -> Floats:
        """The same by tile."""
        return self._flat(self.least)

    @cached_property
    def whole_reduction(self) -> NDArray[np.bool_]:
        """Which tiles hold the whole reduction, shaped as `amounts`."""
        return self.cut.complete(self.grid.everywhere)

    @cached_property
    def complete(self) -> NDArray[np.bool_]:
        """The same by tile."""
        return np.broadcast_to(self.whole_reduction, self.grid.box).ravel()

    def _flat(self, values: Floats) -> Floats:
        return np.broadcast_to(values, self.grid.box).flatten()
