"""What a cut towards a memory that moves whole bursts costs, for whole arrays of tiles at once.

As many elements move as without bursts; how many bursts they take depends on the tile's groups and channels alone
(codesign.mapping.bursts), so a table over these two turns elements into bursts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from codesign.mapping.bursts import CHANNEL, Runs, runs_of
from codesign.mapping.grid import Floats, Index
from codesign.mapping.meter import Meter, Vector, stops_the_lanes
from codesign.vocabulary import OUTPUTS, POSITION, Dimension, Operand
from codesign.workload.loop_nest import LoopNest


@dataclass(frozen=True, eq=False)
class Pace:
    """One way of a tile. element: cycles of one at the memory on chip; burst: of one at the memory off chip.

    layer, tile: tables of bursts per element, of all tiles of the layer and of the largest alone.
    """

    element: float
    burst: float
    layer: Floats
    tile: Floats

    def serial(self, at: Index) -> Floats:
        """Cycles per element, of all tiles: the slower end's."""
        return np.asarray(np.maximum(self.element, self.burst * self.layer[at]))

    def first(self, at: Index) -> Floats:
        """Cycles per element of one tile."""
        return np.asarray(np.maximum(self.element, self.burst * self.tile[at]))


@dataclass(frozen=True, eq=False)
class BurstPricing:
    """Prices bursts in rows beside the elements'.

    whole: the way of weights and inputs in, of finished outputs out; partial, back: of partial sums out and in again.
    axes: groups and channels. overlaps: copies of a tile that is refilled behind the lanes. fills: whether the first
    tile then takes time of its own. rates: costs per burst, a row for each row of bursts.
    """

    axes: tuple[int, int]
    whole: Pace
    partial: Pace
    back: Pace
    overlaps: tuple[int, ...]
    fills: bool
    rates: Floats

    def of_moved(
        self, index: Index, copies: int, moved: Floats, elements: Callable[[], Floats]
    ) -> tuple[tuple[Floats, ...], Floats | float]:
        """Bursts and lane cycles of weights or inputs moved in."""
        at = self._at(index)
        lanes: Floats | float = moved * self.whole.serial(at)
        if copies in self.overlaps:
            lanes = elements() * self.whole.first(at) if self.fills else 0.0
        return (moved * self.whole.layer[at],), lanes

    def of_outputs(
        self, index: Index, copies: int, out: tuple[Floats, Floats, Floats], elements: Callable[[], Floats]
    ) -> tuple[tuple[Floats, ...], Floats | float]:
        """Bursts and lane cycles of outputs. out: partial visits, finished elements, and what no first visit reads."""
        at = self._at(index)
        visits, finished, first = out
        lanes: Floats | float = 0.0
        if copies not in self.overlaps:
            lanes = finished * self.whole.serial(at) + visits * self.partial.serial(at)
            lanes = lanes + (visits + first) * self.back.serial(at)
        elif self.fills:
            lanes = elements() * np.where(finished > 0, self.whole.first(at), self.partial.first(at))
        density = self.partial.layer[at]
        return (visits * density, finished * self.whole.layer[at], first * density), lanes

    def _at(self, index: Index) -> Index:
        return tuple(index[axis] for axis in self.axes)


def burst_pricing(
    nest: LoopNest, meter: Meter, operand: Operand, inner: str, outer: str, sizes: tuple[Floats, ...]
) -> BurstPricing | None:
    """Of an operand leaving `inner`; None where the memory outside moves no bursts. sizes: of tiles, per dimension."""
    profile = meter.profile
    whole_runs, partial_runs = (runs_of(nest, profile, operand, outer, partial=partial) for partial in (False, True))
    if whole_runs is None or partial_runs is None:
        return None
    axes = POSITION[Dimension.G], POSITION[CHANNEL[operand]]

    def pace(source: str, destination: str, runs: Runs, *, partial: bool) -> Pace:
        layer, tile = (
            np.asarray([[of(int(groups), int(own)) for own in sizes[axes[1]]] for groups in sizes[axes[0]]])
            for of in (runs.per_element, runs.per_element_of_tile)
        )
        on_chip = meter.hop(operand, source, destination, partial=partial, bursts=0.0)
        burst = burst_rate(meter, operand, source, destination)
        return Pace(max(on_chip[1:-1], default=0.0), float(burst[1:-1].max(initial=0.0)), layer, tile)

    outputs = operand is OUTPUTS
    ways = (inner, outer) if outputs else (outer, inner)
    read, write = (burst_rate(meter, operand, *way) for way in ((outer, inner), (inner, outer)))
    return BurstPricing(
        axes=axes,
        whole=pace(*ways, whole_runs, partial=False),
        partial=pace(*ways, partial_runs, partial=True),
        back=pace(outer, inner, partial_runs, partial=True),
        overlaps=tuple(copies for copies in (1, 2) if not stops_the_lanes(profile, inner, copies)),
        fills=profile.conventions.fill_and_drain,
        rates=np.stack([read + write, write, read]) if outputs else read[None, :],
    )


def burst_rate(meter: Meter, operand: Operand, source: str, destination: str) -> Vector:
    """Cost of one burst off chip, alone."""
    with_one, without = (meter.hop(operand, source, destination, bursts=bursts) for bursts in (1.0, 0.0))
    return np.subtract(with_one, without)
