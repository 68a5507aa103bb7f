"""The search space of one layer with one choice of lanes: its grid of tiles, its cuts, and what it costs at least."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import numpy as np

from codesign.hardware.profile import HardwareProfile
from codesign.hardware.sections import Buffering
from codesign.mapping.burst_pricing import BurstPricing, burst_pricing
from codesign.mapping.cost import Meter, Vector, mac_energy_pj, stops_the_lanes
from codesign.mapping.counts import stored_sizes
from codesign.mapping.cuts import Cut, Factor, Holding
from codesign.mapping.grid import Floats, Grid
from codesign.mapping.mapping import ENGINE
from codesign.mapping.placements import Placement
from codesign.mapping.space import SpatialChoice, storage_bits
from codesign.mapping.stages import Stairs, stairs
from codesign.mapping.window import Window, moved_table, windows_of
from codesign.vocabulary import DIMENSIONS, RELEVANT, Dimension, Operand
from codesign.workload.loop_nest import LoopNest

POSITION = {dimension: at for at, dimension in enumerate(DIMENSIONS)}
OY, OX, FY, FX = (POSITION[dimension] for dimension in (Dimension.OY, Dimension.OX, Dimension.FY, Dimension.FX))
CHANNELS = tuple(POSITION[dimension] for dimension in (Dimension.B, Dimension.G, Dimension.C))
IRRELEVANT = {
    operand: tuple(POSITION[dimension] for dimension in DIMENSIONS if dimension not in RELEVANT[operand])
    for operand in Operand
}


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

    @cached_property
    def placements(self) -> tuple[Placement, ...]:
        """What placing each of them costs and takes on all tiles."""
        return tuple(Placement(cut, self.grid) for cut in self.all_cuts)

    @property
    def stairs(self) -> Stairs:
        """The stages of placing them; they number the cuts as `all_cuts` does."""
        together = self.profile.engines[self.engine].loaded_with_outputs
        numbers = tuple(at for at, operand in enumerate(Operand) if operand in together)
        return stairs(tuple(len(group) for group in self.cuts), numbers)

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
    def start(self) -> Floats:
        """What is spent before any cut: constant costs, no bytes of shared memories. One column."""
        return np.concatenate([self.constant, np.zeros(len(self.shared))])[:, None]

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
        """Costs no mapping with these lanes goes below: the constant ones, and every element enters or leaves once."""
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
        total[0] = prod(self.choice.steps) * self.profile.cycles_per_step(self.engine) + engine.pipeline_depth_cycles
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
            outside=self._outside(),
            bursts=bursts,
        )

    def _inside(self, operand: Operand, memory: str) -> tuple[int, ...]:
        """What a fixed dataflow runs inside the innermost memory of its operand."""
        innermost = self.profile.hierarchy(self.engine, operand)[0]
        fixed = self.profile.engines[self.engine].stationary is operand and memory == innermost
        return IRRELEVANT[operand] if fixed else ()

    def _outside(self) -> tuple[int, ...]:
        """What is computed part by part, if anything: groups."""
        return (POSITION[Dimension.G],) if self.profile.engines[self.engine].group_by_group else ()

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
        return moved_table(window, self._whole_sizes(output), self._whole_sizes(tap), zeros)

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
