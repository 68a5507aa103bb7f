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
from codesign.mapping.cost import mac_energy_pj
from codesign.mapping.counts import CHANNELS, FX, FY, OX, OY, engine_reads, stored_nest
from codesign.mapping.cuts import Cut, Factor, Holding
from codesign.mapping.grid import Floats, Grid, lengths
from codesign.mapping.mapping import ENGINE
from codesign.mapping.meter import Costs, Meter, Vector, plus, stops_the_lanes
from codesign.mapping.placements import Placement
from codesign.mapping.space import SpatialChoice, storage_bits
from codesign.mapping.stages import Stairs, stairs
from codesign.mapping.window import Window, moved_table, windows_of
from codesign.vocabulary import (
    DIMENSIONS,
    INPUTS,
    IRRELEVANT_AXES,
    OPERANDS,
    OUTPUTS,
    POSITION,
    RELEVANT_AXES,
    WEIGHTS,
    Dimension,
    Operand,
)
from codesign.workload.loop_nest import LoopNest

COPIES = {
    Buffering.SINGLE: (1,),
    Buffering.DOUBLE: (2,),
    Buffering.OVERLAPPED: (1,),
    Buffering.EITHER: (1, 2),
}


@dataclass(frozen=True, eq=False)
class EngineLayer:
    """One layer on one engine: what is the same for all choices of lanes."""

    nest: LoopNest
    meter: Meter

    @cached_property
    def windows(self) -> tuple[Window, Window]:
        """Rows and columns."""
        return windows_of(self.nest)

    @cached_property
    def channels(self) -> int:
        """Input planes: batch, groups and channels."""
        return prod(self.nest.sizes[axis] for axis in CHANNELS)

    @cached_property
    def elements(self) -> dict[Operand, int]:
        """Of whole tensors."""
        return {operand: self.nest.elements(operand) for operand in OPERANDS}

    @cached_property
    def unread_outputs(self) -> int:
        """Outputs whose first visit starts at zero without reading it."""
        read = self.meter.profile.conventions.first_partial_sums_are_read
        return 0 if read else self.elements[OUTPUTS]

    @cached_property
    def fixed(self) -> Costs:
        """Costs besides those of steps and elements: the engine's pipeline, first waits, the energy of the MACs."""
        profile, engine = self.meter.profile, self.meter.engine
        lanes = profile.engines[engine].pipeline_depth_cycles + sum(self.meter.first_waits.values())
        return float(lanes), *self.meter.zero[1:-1], mac_energy_pj(self.nest.loop_macs, profile, engine)

    @cached_property
    def lane_hops(self) -> tuple[Costs, Costs, Costs, Costs]:
        """Costs of an element: weights and inputs into the lanes, outputs out of them and back in."""
        hop, (weights, inputs, outputs) = self.meter.hop, [levels[0] for levels in self.meter.levels.values()]
        return (
            hop(WEIGHTS, weights, ENGINE),
            hop(INPUTS, inputs, ENGINE),
            hop(OUTPUTS, ENGINE, outputs),
            hop(OUTPUTS, outputs, ENGINE),
        )

    @cached_property
    def crossings(self) -> tuple[tuple[int, Costs], ...]:
        """Elements that cross from memory to memory, once each, and the costs of one.

        Weights and the inputs that are used go in, outputs out.
        """
        rows, columns = self.windows
        found = []
        for operand, levels in self.meter.levels.items():
            used = self.channels * rows.touched * columns.touched
            count = used if operand is INPUTS else self.elements[operand]
            for inner, outer in zip(levels, levels[1:], strict=False):
                way = (inner, outer) if operand is OUTPUTS else (outer, inner)
                found.append((count, self.meter.hop(operand, *way)))
        return tuple(found)


@dataclass(frozen=True, eq=False)
class LayerSpace:
    """One layer on one engine with one choice of lanes: its grid of tiles, and its cuts.

    cuts: by operand (weights, inputs, outputs), innermost memory first.
    """

    layer: EngineLayer
    choice: SpatialChoice
    perfect: bool

    @property
    def nest(self) -> LoopNest:
        """The loops of the layer."""
        return self.layer.nest

    @property
    def meter(self) -> Meter:
        """What an element moved costs on the engine."""
        return self.layer.meter

    @property
    def profile(self) -> HardwareProfile:
        """The machine."""
        return self.layer.meter.profile

    @property
    def engine(self) -> str:
        """The engine of it."""
        return self.layer.meter.engine

    @cached_property
    def grid(self) -> Grid:
        """All candidate tiles."""
        return Grid(self.choice.steps, self.perfect)

    @cached_property
    def cuts(self) -> tuple[tuple[Cut, ...], ...]:
        """Cuts by operand (weights, inputs, outputs), innermost memory first."""
        return tuple(self._cuts_of(operand) for operand in OPERANDS)

    @cached_property
    def all_cuts(self) -> tuple[Cut, ...]:
        """The same in one row."""
        return tuple(cut for group in self.cuts for cut in group)

    @cached_property
    def placements(self) -> tuple[Placement, ...]:
        """What placing each of them costs and takes on all tiles."""
        return tuple(Placement(cut, self.grid) for cut in self.all_cuts)

    @cached_property
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
    def sizes(self) -> tuple[Floats, ...]:
        """Every tile size of every dimension, in elements."""
        return self._lengths(self.nest.sizes)

    def _lengths(self, layer: tuple[int, ...]) -> tuple[Floats, ...]:
        pairs = zip(layer, self.choice.lanes, strict=True)
        return tuple([lengths(size, lanes, self.perfect) for size, lanes in pairs])

    def _stored(self, operand: Operand) -> LoopNest:
        """The layer as memories hold an operand."""
        return stored_nest(self.nest, operand, self.choice.lanes, self.profile)

    @cached_property
    def coarse(self) -> LayerSpace:
        """The same with perfect factors alone."""
        return replace(self, perfect=True)

    @cached_property
    def compulsory(self) -> Vector:
        """Costs no mapping with these lanes goes below: the constant ones, and every element enters or leaves once."""
        return np.asarray(self._compulsory)

    @cached_property
    def floor(self) -> tuple[float, float]:
        """Cycles and pJ no mapping with these lanes goes below."""
        *cycles, energy = self._compulsory
        return max(cycles), energy

    @cached_property
    def _compulsory(self) -> Costs:
        total = self._constant
        for count, costs in self.layer.crossings:
            total = plus(total, costs, count)
        return total

    @cached_property
    def constant(self) -> Vector:
        """Costs that no tile changes: compute, and what the lanes read and accumulate."""
        return np.asarray(self._constant)

    @cached_property
    def _constant(self) -> Costs:
        total = self.layer.fixed
        compute = prod(self.choice.steps) * self.profile.cycles_per_step(self.engine)
        total = (total[0] + compute, *total[1:])
        weights, inputs, visits = [engine_reads(self._stored(each), each, self.choice.lanes) for each in OPERANDS]
        counts = weights, inputs, visits, visits - self.layer.unread_outputs
        for count, costs in zip(counts, self.layer.lane_hops, strict=True):
            total = plus(total, costs, count)
        return total

    def _cuts_of(self, operand: Operand) -> tuple[Cut, ...]:
        levels = self.meter.levels[operand]
        pairs = zip(levels, levels[1:], strict=False)
        return tuple(self._cut(operand, inner, outer, outer == levels[-1]) for inner, outer in pairs)

    def _cut(self, operand: Operand, inner: str, outer: str, from_off_chip: bool) -> Cut:
        level = self.profile.memories[inner]
        if level.size_bytes is None:
            raise ValueError(f"{inner} is the outermost memory: nothing leaves it")
        width, partial_width = (
            storage_bits(self.profile, self.engine, operand, inner, partial=partial) / 8 for partial in (False, True)
        )
        stored = self._stored(operand)
        sizes = self.sizes if stored is self.nest else self._lengths(stored.sizes)
        lanes = self.choice.replicated_lanes(level.replicated_over)
        per_instance = tuple(
            [np.ceil(size / lane) if lane > 1 else size for size, lane in zip(sizes, lanes, strict=True)]
        )
        elements = self._elements(operand, sizes)
        bursts = burst_pricing(self.nest, self.meter, operand, inner, outer, sizes)
        holdings = tuple(self._holding(operand, inner, outer, copies, bursts) for copies in COPIES[level.buffering])
        waits = any(holding.overhead for holding in holdings)
        return Cut(
            operand=operand,
            memory=inner,
            size_bytes=level.size_bytes,
            grows=tuple(axis for axis in self._grows(operand, waits, bursts) if self.choice.steps[axis] > 1),
            holdings=holdings,
            moved=self._moved(operand, stored, from_off_chip),
            elements=elements,
            instance=elements if max(lanes) == 1 else self._elements(operand, per_instance),
            refills=self._tiles(range(len(DIMENSIONS))),
            bytes_per_element=width,
            partial_bytes=partial_width,
            finished=float(self.layer.elements[OUTPUTS]),
            unread=float(self.layer.unread_outputs),
            last=tuple([size - 1 for size in self.grid.shape]),
            inside=self._inside(operand, inner),
            outside=self._outside(),
            bursts=bursts,
        )

    def _inside(self, operand: Operand, memory: str) -> tuple[int, ...]:
        """What a fixed dataflow runs inside the innermost memory of its operand."""
        innermost = self.meter.levels[operand][0]
        fixed = self.profile.engines[self.engine].stationary is operand and memory == innermost
        return IRRELEVANT_AXES[operand] if fixed else ()

    def _outside(self) -> tuple[int, ...]:
        """What is computed part by part, if anything: groups."""
        return (POSITION[Dimension.G],) if self.profile.engines[self.engine].group_by_group else ()

    def _grows(self, operand: Operand, waits: bool, bursts: BurstPricing | None) -> tuple[int, ...]:
        if waits:
            return tuple(range(len(DIMENSIONS)))
        rows, columns = self.layer.windows
        windows = ((OY, FY) if rows.taps > 1 else ()) + ((OX, FX) if columns.taps > 1 else ())
        longer_runs = () if bursts is None else bursts.axes
        return IRRELEVANT_AXES[operand] + longer_runs + (windows if operand is INPUTS else ())

    def _holding(self, operand: Operand, inner: str, outer: str, copies: int, bursts: BurstPricing | None) -> Holding:
        stops = stops_the_lanes(self.profile, inner, copies) and bursts is None
        per_burst = [] if bursts is None else bursts.rates.tolist()
        wait = self.meter.refill_wait(operand, inner, copies)
        overhead = self.profile.memories[inner].refill_overhead_cycles + wait
        lanes = (1.0, *self.meter.zero[1:])

        def hop(source: str, destination: str, partial: bool) -> Costs:
            none = None if bursts is None else 0.0
            return self.meter.hop(operand, source, destination, partial=partial, stops_lanes=stops, bursts=none)

        def fill(source: str, destination: str, partial: bool) -> float:
            return self.meter.fill(operand, source, destination, partial=partial, stops_lanes=stops)

        if operand is not OUTPUTS:
            rates = np.asarray([hop(outer, inner, False), *per_burst, lanes])
            return Holding(copies, rates, (fill(outer, inner, False), 0.0), overhead, wait)
        back = hop(outer, inner, True)
        visit = plus(hop(inner, outer, True), back)
        rates = np.asarray([visit, hop(inner, outer, False), back, *per_burst, lanes])
        return Holding(copies, rates, (fill(inner, outer, False), fill(inner, outer, True)), overhead, wait)

    def _tiles(self, axes: Sequence[int]) -> tuple[Factor, ...]:
        """Factors of the number of tiles."""
        steps, parts = self.choice.steps, self.grid.dimensions
        return tuple([((axis,), parts[axis].tiles) for axis in axes if steps[axis] > 1])

    def _moved(self, operand: Operand, stored: LoopNest, from_off_chip: bool) -> tuple[Factor, ...]:
        repeats = self._tiles(IRRELEVANT_AXES[operand])
        if operand is not INPUTS:
            return (((), np.asarray(float(stored.elements(operand)))), *repeats)
        zeros = self.profile.conventions.padding_is_data or not from_off_chip
        rows, columns = self.layer.windows
        return (
            ((), np.asarray(float(self.layer.channels))),
            *repeats,
            ((OY, FY), self._window_table(rows, OY, FY, zeros)),
            ((OX, FX), self._window_table(columns, OX, FX, zeros)),
        )

    def _window_table(self, window: Window, output: int, tap: int, zeros: bool) -> Floats:
        return moved_table(window, self._whole_sizes(output), self._whole_sizes(tap), zeros)

    def _whole_sizes(self, axis: int) -> tuple[int, ...]:
        return tuple(map(int, self.sizes[axis].tolist()))

    def _elements(self, operand: Operand, sizes: tuple[Floats, ...]) -> tuple[Factor, ...]:
        if operand is not INPUTS:
            return tuple([((axis,), sizes[axis]) for axis in RELEVANT_AXES[operand]])
        rows, columns = self.layer.windows
        return (
            *(((axis,), sizes[axis]) for axis in CHANNELS),
            ((OY, FY), rows.hull(sizes[OY][:, None], sizes[FY][None, :])),  # type: ignore[arg-type]
            ((OX, FX), columns.hull(sizes[OX][:, None], sizes[FX][None, :])),  # type: ignore[arg-type]
        )
