"""Cuts: what placing one operand's tile in one memory costs and takes, for whole arrays of tiles at once.

A mapping is a chain of growing tiles (in steps of the lanes) with cuts on it: where weights leave their registers,
where they leave the buffer, where outputs leave the accumulators, and so on. What a cut costs and takes depends on the
tile it is placed at alone (of outputs, also on whether they arrive complete): loop order has disappeared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from math import prod

import numpy as np
from numpy.typing import NDArray

from codesign.hardware.profile import Buffering, HardwareProfile
from codesign.mapping.burst_pricing import BurstPricing, burst_pricing
from codesign.mapping.cost import Meter, Vector, mac_energy_pj, stops_the_lanes
from codesign.mapping.counts import stored_sizes
from codesign.mapping.grid import Floats, Grid, Index
from codesign.mapping.mapping import ENGINE
from codesign.mapping.space import SpatialChoice, storage_bits
from codesign.mapping.stages import Stairs, stairs
from codesign.mapping.window import Window, windows_of
from codesign.vocabulary import DIMENSIONS, RELEVANT, Dimension, Operand
from codesign.workload.loop_nest import LoopNest

POSITION = {dimension: at for at, dimension in enumerate(DIMENSIONS)}
OY, OX, FY, FX = (POSITION[dimension] for dimension in (Dimension.OY, Dimension.OX, Dimension.FY, Dimension.FX))
CHANNELS = tuple(POSITION[dimension] for dimension in (Dimension.B, Dimension.G, Dimension.C))
REDUCED = tuple(POSITION[dimension] for dimension in (Dimension.C, Dimension.FY, Dimension.FX))
IRRELEVANT = {
    operand: tuple(POSITION[dimension] for dimension in DIMENSIONS if dimension not in RELEVANT[operand])
    for operand in Operand
}

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
    dimensions a fixed dataflow runs inside. last: the index of the whole layer. bursts: if they move in such.
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
    bursts: BurstPricing | None

    def bytes_taken(self, index: Index, copies: int, *, partial: bool) -> Floats:
        """Bytes in one instance of the memory; the whole layer is never refilled and takes one copy.

        Infinite where a fixed dataflow forbids the tile.
        """
        once = self._bytes_of_one(index, partial)
        return np.where(self.whole(index), once, copies * once) if copies > 1 else once

    def least_taken(self, index: Index, copies: int, *, partial: bool) -> Floats:
        """As many or fewer, without a look at which tiles are the whole layer."""
        once = self._bytes_of_one(index, partial)
        return once if copies == 1 else np.minimum(copies * once, self._bytes_of_one(self.last_index, partial))

    def _bytes_of_one(self, index: Index, partial: bool) -> Floats:
        once = np.ceil(_product(self.instance, index) * (self.partial_bytes if partial else self.bytes_per_element))
        return np.where(self._at_last(index, self.inside), once, np.inf) if self.inside else once

    def least_bytes(self, index: Index) -> Floats:
        """Bytes the cut takes wherever it is placed at these tiles or further out."""
        copies = min(holding.copies for holding in self.holdings)
        once = np.ceil(_product(self.instance, index) * self.bytes_per_element)
        return once if copies == 1 else np.minimum(copies * once, self.whole_bytes)

    @cached_property
    def last_index(self) -> Index:
        """The index of the whole layer."""
        return tuple(np.asarray([size]) for size in self.last)

    @cached_property
    def whole_bytes(self) -> float:
        """Bytes of the whole layer's tile."""
        return float(np.ceil(_product(self.instance, self.last) * self.bytes_per_element))

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

    def costs(self, index: Index, holding: Holding) -> Floats:
        """Cost vectors, along a new last axis."""
        total: Floats | float = 0.0
        for amount, rate in zip(self.amounts(index, holding), holding.rates, strict=True):
            if rate.any():
                total = total + amount[..., None] * rate
        return np.asarray(total if isinstance(total, np.ndarray) else np.zeros(holding.rates.shape[1]))

    def weighed(self, index: Index, holding: Holding, weights: Floats) -> Floats:
        """Sums of the costs under weights, one row each: along a new first axis."""
        total = np.zeros((len(weights), *(1,) * index[0].ndim))
        for amount, rate in zip(self.amounts(index, holding), holding.rates @ weights.T, strict=True):
            if rate.any():
                total = total + rate.reshape(total.shape[:1] + (1,) * index[0].ndim) * amount
        return total

    def complete(self, index: Index) -> NDArray[np.bool_]:
        """Which tiles hold the whole reduction."""
        return self._at_last(index, REDUCED)

    def whole(self, index: Index) -> NDArray[np.bool_]:
        """Which tiles are the whole layer."""
        return self._at_last(index, range(len(self.last)))

    def _at_last(self, index: Index, axes: Sequence[int]) -> NDArray[np.bool_]:
        found = np.ones(1, dtype=np.bool_)
        for axis in axes:
            if self.last[axis]:
                found = found & (index[axis] == self.last[axis])
        return found


def _product(factors: tuple[Factor, ...], index: Index | tuple[int, ...]) -> Floats:
    total: Floats | float = 1.0
    for axes, table in factors:
        total = total * table[tuple(index[axis] for axis in axes)]
    return np.asarray(total)


@lru_cache(maxsize=4096)
def _moved_table(window: Window, outputs: tuple[int, ...], taps: tuple[int, ...], zeros: bool) -> Floats:
    """Positions moved for every tile size of outputs (rows) and of taps (columns)."""
    return np.asarray([[window.moved(out, tap, zeros=zeros) for tap in taps] for out in outputs], dtype=np.float64)


@dataclass(frozen=True, eq=False)
class LayerSpace:
    """One layer on one engine with one choice of lanes: its grid of tiles, and its cuts.

    cuts: by operand (weights, inputs, outputs), innermost memory first.
    """

    nest: LoopNest
    profile: HardwareProfile
    engine: str
    choice: SpatialChoice
    meter: Meter
    perfect: bool

    @cached_property
    def grid(self) -> Grid:
        """All candidate tiles."""
        return Grid(self.choice.steps, self.perfect)

    @cached_property
    def cuts(self) -> tuple[tuple[Cut, ...], ...]:
        """Cuts by operand (weights, inputs, outputs), innermost memory first."""
        return tuple(self._cuts_of(operand) for operand in Operand)

    @cached_property
    def all_cuts(self) -> tuple[Cut, ...]:
        """The same in one row."""
        return tuple(cut for group in self.cuts for cut in group)

    @property
    def stairs(self) -> Stairs:
        """The stages of placing them; they number the cuts as `all_cuts` does."""
        return stairs(tuple(len(group) for group in self.cuts))

    @cached_property
    def shared(self) -> tuple[str, ...]:
        """Memories that hold tiles of more than one cut."""
        names = [cut.memory for cut in self.all_cuts]
        return tuple(dict.fromkeys(name for name in names if names.count(name) > 1))

    @cached_property
    def shared_bytes(self) -> Floats:
        """Their sizes."""
        return np.asarray([self.profile.memories[name].size_bytes for name in self.shared], dtype=np.float64)

    @cached_property
    def windows(self) -> tuple[Window, Window]:
        """Rows and columns."""
        return windows_of(self.nest)

    @cached_property
    def sizes(self) -> tuple[Floats, ...]:
        """Every tile size of every dimension, in elements."""
        return self._sizes_up_to(self.nest.sizes)

    def _sizes_up_to(self, layer: tuple[int, ...]) -> tuple[Floats, ...]:
        parts = zip(layer, self.choice.lanes, self.grid.dimensions, strict=True)
        return tuple(np.minimum(size, lanes * part.sizes).astype(np.float64) for size, lanes, part in parts)

    def _stored(self, operand: Operand) -> tuple[int, ...]:
        """The layer's sizes as memories hold them."""
        return stored_sizes(operand, self.nest.sizes, self.choice.lanes, self.profile)

    @cached_property
    def coarse(self) -> LayerSpace:
        """The same with perfect factors alone."""
        return replace(self, perfect=True)

    @cached_property
    def compulsory(self) -> Vector:
        """Costs no mapping with these lanes goes below, at a glance: every element enters or leaves once."""
        rows, columns = self.windows
        total = self.constant.copy()
        for operand in Operand:
            count = (
                self._channels * rows.touched * columns.touched
                if operand is Operand.INPUTS
                else self.nest.elements(operand)
            )
            levels = self.profile.hierarchy(self.engine, operand)
            for inner, outer in zip(levels, levels[1:], strict=False):
                way = (inner, outer) if operand is Operand.OUTPUTS else (outer, inner)
                total += count * self.meter.hop(operand, *way)
        return total

    @cached_property
    def constant(self) -> Vector:
        """Costs that no tile changes: compute, and what the lanes read and accumulate."""
        engine = self.profile.engines[self.engine]
        total = self.meter.zero()
        total[0] = prod(self.choice.steps) * self.profile.passes(self.engine) + engine.pipeline_depth_cycles
        total[0] += sum(self.meter.first_waits().values())
        total[-1] = mac_energy_pj(self.nest.loop_macs, self.profile, self.engine)
        for operand in (Operand.WEIGHTS, Operand.INPUTS):
            innermost = self.profile.hierarchy(self.engine, operand)[0]
            total += self._lane_reads(operand) * self.meter.hop(operand, innermost, ENGINE)
        accumulators = self.profile.hierarchy(self.engine, Operand.OUTPUTS)[0]
        visits = self._lane_reads(Operand.OUTPUTS)
        total += visits * self.meter.hop(Operand.OUTPUTS, ENGINE, accumulators)
        total += (visits - self._unread_outputs) * self.meter.hop(Operand.OUTPUTS, accumulators, ENGINE)
        return total

    def least(self) -> Vector:
        """Costs no mapping with these lanes goes below: the constant ones, and of every cut the least of each kind.

        Only the dimensions a cut grows in change what it moves; all others at their smallest leave it the most room.
        """
        total = self.constant.copy()
        cuts = self.all_cuts
        first = self.grid.index(np.zeros(1, dtype=np.intp))
        for cut in cuts:
            index = tuple(
                everywhere if axis in cut.grows else everywhere.ravel()[:1]
                for axis, everywhere in enumerate(self.grid.everywhere)
            )
            others = sum(other.least_bytes(first) for other in cuts if other.memory == cut.memory and other is not cut)
            options = []
            for holding in cut.holdings:
                costs = cut.costs(index, holding)
                taken = cut.bytes_taken(index, holding.copies, partial=False) + others
                shape = np.broadcast_shapes(costs.shape[:-1], taken.shape)
                fits = np.broadcast_to(taken <= cut.size_bytes, shape).ravel()
                options.append(np.broadcast_to(costs, (*shape, len(total))).reshape(-1, len(total))[fits])
            options.extend(cut.costs(cut.last_index, holding).reshape(-1, len(total)) for holding in cut.holdings)
            total += np.concatenate(options).min(axis=0)
        return total

    @property
    def _channels(self) -> int:
        """Input planes: batch, groups and channels."""
        return prod(self.nest.sizes[axis] for axis in CHANNELS)

    @cached_property
    def _unread_outputs(self) -> int:
        """Outputs whose first visit starts at zero without reading it."""
        read = self.profile.conventions.first_partial_sums_are_read
        return 0 if read else self.nest.elements(Operand.OUTPUTS)

    def _lane_reads(self, operand: Operand) -> int:
        steps, sizes, lanes = self.choice.steps, self._stored(operand), self.choice.lanes
        total = prod(steps[axis] for axis in IRRELEVANT[operand])
        if operand is not Operand.INPUTS:
            return total * prod(sizes[POSITION[dimension]] for dimension in RELEVANT[operand])
        rows, columns = self.windows
        windows = rows.read_by_lanes(lanes[OY], lanes[FY]) * columns.read_by_lanes(lanes[OX], lanes[FX])
        return total * self._channels * windows

    def _cuts_of(self, operand: Operand) -> tuple[Cut, ...]:
        levels = self.profile.hierarchy(self.engine, operand)
        pairs = zip(levels, levels[1:], strict=False)
        return tuple(self._cut(operand, inner, outer, outer == levels[-1]) for inner, outer in pairs)

    def _cut(self, operand: Operand, inner: str, outer: str, from_off_chip: bool) -> Cut:
        level = self.profile.memories[inner]
        if level.size_bytes is None:
            raise ValueError(f"{inner} is the outermost memory: nothing leaves it")
        width, partial_width = (
            storage_bits(self.profile, self.engine, operand, inner, partial=partial) / 8 for partial in (False, True)
        )
        lanes, sizes = self.choice.replicated_lanes(level.replicated_over), self._sizes_up_to(self._stored(operand))
        per_instance = tuple(np.ceil(size / lane) for size, lane in zip(sizes, lanes, strict=True))
        bursts = burst_pricing(self.nest, self.meter, operand, inner, outer, sizes)
        holdings = self._holdings(operand, inner, outer, bursts)
        waits = any(holding.overhead for holding in holdings)
        return Cut(
            operand=operand,
            memory=inner,
            size_bytes=level.size_bytes,
            grows=tuple(axis for axis in self._grows(operand, waits, bursts) if self.choice.steps[axis] > 1),
            holdings=holdings,
            moved=self._moved(operand, from_off_chip),
            elements=self._elements(operand, sizes),
            instance=self._elements(operand, per_instance),
            refills=self._tiles(range(len(DIMENSIONS))),
            bytes_per_element=width,
            partial_bytes=partial_width,
            finished=float(self.nest.elements(Operand.OUTPUTS)),
            unread=float(self._unread_outputs),
            last=tuple(size - 1 for size in self.grid.shape),
            inside=self._inside(operand, inner),
            bursts=bursts,
        )

    def _inside(self, operand: Operand, memory: str) -> tuple[int, ...]:
        """What a fixed dataflow runs inside the innermost memory of its operand."""
        innermost = self.profile.hierarchy(self.engine, operand)[0]
        fixed = self.profile.engines[self.engine].stationary is operand and memory == innermost
        return IRRELEVANT[operand] if fixed else ()

    def _grows(self, operand: Operand, waits: bool, bursts: BurstPricing | None) -> tuple[int, ...]:
        if waits:
            return tuple(range(len(DIMENSIONS)))
        rows, columns = self.windows
        windows = ((OY, FY) if rows.taps > 1 else ()) + ((OX, FX) if columns.taps > 1 else ())
        longer_runs = () if bursts is None else bursts.axes
        return IRRELEVANT[operand] + longer_runs + (windows if operand is Operand.INPUTS else ())

    def _holdings(self, operand: Operand, inner: str, outer: str, bursts: BurstPricing | None) -> tuple[Holding, ...]:
        choices = {
            Buffering.SINGLE: (1,),
            Buffering.DOUBLE: (2,),
            Buffering.OVERLAPPED: (1,),
            Buffering.EITHER: (1, 2),
        }[self.profile.memories[inner].buffering]
        return tuple(self._holding(operand, inner, outer, copies, bursts) for copies in choices)

    def _holding(self, operand: Operand, inner: str, outer: str, copies: int, bursts: BurstPricing | None) -> Holding:
        stops = stops_the_lanes(self.profile, inner, copies) and bursts is None
        per_burst = [] if bursts is None else [bursts.rates]
        wait = self.meter.refill_wait(operand, inner, copies)
        overhead = self.profile.memories[inner].refill_overhead_cycles + wait
        lanes = self.meter.zero()
        lanes[0] = 1.0

        def hop(source: str, destination: str, partial: bool) -> Vector:
            none = None if bursts is None else 0.0
            return self.meter.hop(operand, source, destination, partial=partial, stops_lanes=stops, bursts=none)

        def fill(source: str, destination: str, partial: bool) -> float:
            return self.meter.fill(operand, source, destination, partial=partial, stops_lanes=stops)

        if operand is not Operand.OUTPUTS:
            rates = np.vstack([hop(outer, inner, False), *per_burst, lanes])
            return Holding(copies, rates, (fill(outer, inner, False), 0.0), overhead, wait)
        back = hop(outer, inner, True)
        rates = np.vstack([hop(inner, outer, True) + back, hop(inner, outer, False), back, *per_burst, lanes])
        return Holding(copies, rates, (fill(inner, outer, False), fill(inner, outer, True)), overhead, wait)

    def _tiles(self, axes: Sequence[int]) -> tuple[Factor, ...]:
        """Factors of the number of tiles."""
        steps, parts = self.choice.steps, self.grid.dimensions
        return tuple(((axis,), np.ceil(steps[axis] / parts[axis].sizes)) for axis in axes if steps[axis] > 1)

    def _moved(self, operand: Operand, from_off_chip: bool) -> tuple[Factor, ...]:
        repeats = self._tiles(IRRELEVANT[operand])
        if operand is not Operand.INPUTS:
            sizes = self._stored(operand)
            elements = prod(sizes[POSITION[dimension]] for dimension in RELEVANT[operand])
            return (((), np.asarray(float(elements))), *repeats)
        zeros = self.profile.conventions.padding_is_data or not from_off_chip
        rows, columns = self.windows
        return (
            ((), np.asarray(float(self._channels))),
            *repeats,
            ((OY, FY), self._window_table(rows, OY, FY, zeros)),
            ((OX, FX), self._window_table(columns, OX, FX, zeros)),
        )

    def _window_table(self, window: Window, output: int, tap: int, zeros: bool) -> Floats:
        return _moved_table(window, self._whole_sizes(output), self._whole_sizes(tap), zeros)

    def _whole_sizes(self, axis: int) -> tuple[int, ...]:
        return tuple(self.sizes[axis].astype(int).tolist())

    def _elements(self, operand: Operand, sizes: tuple[Floats, ...]) -> tuple[Factor, ...]:
        if operand is not Operand.INPUTS:
            return tuple(((POSITION[name],), sizes[POSITION[name]]) for name in RELEVANT[operand])
        channels = tuple(((axis,), sizes[axis]) for axis in CHANNELS)
        rows, columns = self.windows
        return (
            *channels,
            ((OY, FY), rows.hull(sizes[OY][:, None], sizes[FY][None, :])),  # type: ignore[arg-type]
            ((OX, FX), columns.hull(sizes[OX][:, None], sizes[FX][None, :])),  # type: ignore[arg-type]
        )
