"""Lines: weighted sums of cycles, energy and bytes whose least values enclose what a mapping can reach.

A line weighs cycles, energy and the bytes of shared memories into one number. Without the limit on those bytes, the
least total of one line over all chains is found exactly (codesign.mapping.bounds). Charging a price for each byte used
beyond the limit (a negative charge for what is left, so never too much) makes it a bound with the limit: Lagrange's.
Several lines together enclose what latency and energy a completion can reach.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from codesign.mapping.grid import Floats


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

    def values(self, state: Floats, ahead: Floats) -> Floats:
        """Of labels: what is spent, and at least what lies ahead. One row a line, one column a label."""
        values = self._of_state @ state + ahead
        return values - self._free if self.priced else values

    @cached_property
    def priced(self) -> bool:
        """Whether any line has a price."""
        return bool(self.prices.any())

    @cached_property
    def _of_state(self) -> Floats:
        return np.hstack([self.weights, self.prices])

    @cached_property
    def _free(self) -> Floats:
        return (self.prices @ self.limits)[:, None]

    def edge(self, line: int, value: Floats, latency: Floats, energy: Floats) -> tuple[Floats, Floats]:
        """Of a mixed line with these values: the least latency at the least energy, and the least energy at the least
        latency; no completion lies below both."""
        cycles, spent = self.cycles[line], self.energy[line]
        slow = np.maximum(latency, (value - spent * energy) / cycles)
        return slow, np.maximum(energy, (value - cycles * latency) / spent)

    def only(self, rows: list[int]) -> Lines:
        """Some of the lines."""
        return Lines(self.weights[rows], self.prices[rows], self.limits)

    def spent(self, state: Floats) -> tuple[Floats, Floats]:
        """Latency and energy spent already."""
        energy = self.weights.shape[1] - 1
        return np.maximum.reduce(state[:energy]), state[energy]

    def corner(self, values: Floats, state: Floats) -> tuple[Floats, Floats]:
        """The least latency and the least energy, each by itself."""
        least_latency, least_energy = self.spent(state)
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
