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
    def costs(self) -> tuple[Floats, ...]:
        """By holding: one row a cost, one column a tile."""
        found = (self.cut.costs(self.grid.everywhere, holding) for holding in self.cut.holdings)
        return tuple(costs.reshape(len(costs), -1) for costs in found)

    @cached_property
    def taken(self) -> tuple[Floats, ...]:
        """By holding: bytes in one instance of the memory."""
        return self._taken(partial=False)

    @cached_property
    def partial_taken(self) -> tuple[Floats, ...]:
        """The same while partial sums arrive."""
        return self._taken(partial=True)

    def _taken(self, *, partial: bool) -> tuple[Floats, ...]:
        index = self.grid.everywhere
        return tuple(
            self._flat(self.cut.bytes_taken(index, holding.copies, partial=partial)) for holding in self.cut.holdings
        )

    @cached_property
    def least_bytes(self) -> Floats:
        """Bytes the cut takes wherever it is placed at a tile or further out."""
        return self._flat(self.cut.least_bytes(self.grid.everywhere))

    @cached_property
    def complete(self) -> NDArray[np.bool_]:
        """Which tiles hold the whole reduction."""
        return np.broadcast_to(self.cut.complete(self.grid.everywhere), self.grid.box).ravel()

    def _flat(self, values: Floats) -> Floats:
        return np.broadcast_to(values, self.grid.box).ravel()
