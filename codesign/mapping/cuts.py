"""Cuts: what placing one operand's tile in one memory costs and takes, for whole arrays of tiles at once.

A mapping is a chain of growing tiles (in steps of the lanes) with cuts on it: where weights leave their registers,
where they leave the buffer, where outputs leave the accumulators, and so on. What a cut costs depends on its tile
alone, but for copies repeated in empty iterations of ragged loops (see `regrowth`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod

import numpy as np
from numpy.typing import NDArray

from codesign.hardware.profile import Buffering, HardwareProfile
from codesign.mapping.cost import Meter, Vector
from codesign.mapping.mapping import ENGINE
from codesign.mapping.space import SpatialChoice, larger_sizes, loop_extent, storage_bits, tile_sizes
from codesign.mapping.window import Window, windows_of
from codesign.vocabulary import DIMENSIONS, RELEVANT, Operand
from codesign.workload.loop_nest import LoopNest

Floats = NDArray[np.float64]
Tile = tuple[int, ...]

INDEX = {dimension: index for index, dimension in enumerate(DIMENSIONS)}
B, G, K, C, OY, OX, FY, FX = range(8)
IRRELEVANT = {
    operand: tuple(INDEX[dimension] for dimension in DIMENSIONS if dimension not in RELEVANT[operand])
    for operand in Operand
}


@dataclass(frozen=True, eq=False)
class Tiles:
    """Arrays of candidate tiles that grew from one tile.

    steps, sizes: in steps of the lanes and in elements, one array (or a number) per dimension. whole: which of them are
    the whole tensor.
    """

    count: int
    steps: tuple[Floats | int, ...]
    sizes: tuple[Floats | int, ...]
    whole: NDArray[np.bool_] | bool

    def pick(self, index: int) -> Tile:
        """One of them, in steps."""
        return tuple(int(size[index]) if isinstance(size, np.ndarray) else size for size in self.steps)


def regrowth(tile: Tile, tiles: Tiles, full: Tile, dimensions: Sequence[int]) -> Floats | float:
    """Factor on the copies of cuts placed so far: a ragged loop also repeats them in its empty iterations (>= 1)."""
    factor: Floats | float = 1.0
    for index in dimensions:
        grown = tiles.steps[index]
        if not isinstance(grown, np.ndarray):
            continue
        extent = np.where(grown == full[index], loop_extent(full[index], tile[index], full[index]), grown / tile[index])
        factor = factor * extent * np.ceil(full[index] / grown) / -(-full[index] // tile[index])
    return factor


@dataclass(frozen=True, eq=False)
class Room:
    """What a cut takes in its memory. per_lane: lanes with an instance of their own, None for a shared one.

    bytes_per_element: as stored there; partial_bytes: while partial sums arrive. copies: 2 when refilled tiles are
    double-buffered. whole_bytes: of the whole tensor, which is never refilled.
    """

    size_bytes: int | None
    per_lane: Tile | None
    bytes_per_element: float
    partial_bytes: float
    copies: int
    whole_bytes: float = 0.0


@dataclass(frozen=True, eq=False)
class Hop:
    """Costs per element between a cut's memory and the next one out, and lane cycles per element of its first tile."""

    vector: Vector
    fill: float


@dataclass(frozen=True, eq=False)
class Cut:
    """One operand leaving one on-chip memory.

    hop: towards the lanes; of outputs: of a finished element outwards. partial_out, partial_back: of outputs, while
    their reduction is not complete. grows: dimensions in which a larger tile at this cut saves traffic; growing any
    other only costs capacity (its elements move once either way), so an optimal chain grows those after the cut.
    overhead: lane cycles of every refill beyond its transfers.
    """

    operand: Operand
    memory: str
    hop: Hop
    partial_out: Hop
    partial_back: Hop
    grows: tuple[int, ...]
    from_off_chip: bool
    overhead: int
    room: Room


@dataclass(frozen=True, eq=False)
class Least:
    """Lower bounds of one cut: of every blend of cycles (Meter.blends), and of energy in pJ."""

    cycles: Floats
    energy_pj: float


@dataclass(eq=False)
class LayerSpace:
    """One layer on one engine with one choice of lanes: its cuts and what they cost."""

    nest: LoopNest
    profile: HardwareProfile
    engine: str
    choice: SpatialChoice
    meter: Meter
    rows: Window
    columns: Window
    _least: dict[Cut, Least] = field(default_factory=dict)
    _tables: dict[tuple[int, bool], Floats] = field(default_factory=dict)

    @staticmethod
    def of(nest: LoopNest, meter: Meter, choice: SpatialChoice) -> LayerSpace:
        """The space of one layer."""
        rows, columns = windows_of(nest)
        return LayerSpace(nest, meter.profile, meter.engine, choice, meter, rows, columns)

    @cached_property
    def cuts(self) -> tuple[tuple[Cut, ...], ...]:
        """Cuts by operand (weights, inputs, outputs), innermost memory first."""
        return tuple(self._cuts(operand) for operand in Operand)

    def _cuts(self, operand: Operand) -> tuple[Cut, ...]:
        levels = self.profile.hierarchy(self.engine, operand)
        grows = IRRELEVANT[operand]
        if operand is Operand.INPUTS:
            grows += (OY, FY) if self.rows.taps > 1 else ()
            grows += (OX, FX) if self.columns.taps > 1 else ()
        return tuple(
            Cut(
                operand,
                inner,
                *self._hops(operand, inner, outer),
                grows,
                outer == levels[-1],
                self.profile.memories[inner].refill_overhead_cycles,
                self._room(operand, inner),
            )
            for inner, outer in zip(levels, levels[1:], strict=False)
        )

    def _hops(self, operand: Operand, inner: str, outer: str) -> tuple[Hop, Hop, Hop]:
        """Towards the lanes (outputs: finished, outwards); partial sums outwards and back."""

        def hop(source: str, destination: str, partial: bool) -> Hop:
            vector = self.meter.hop(operand, source, destination, partial=partial)
            return Hop(vector, self.meter.fill(operand, source, destination, partial=partial))

        nothing = Hop(self.meter.zero(), 0.0)
        if operand is not Operand.OUTPUTS:
            return hop(outer, inner, False), nothing, nothing
        return hop(inner, outer, False), hop(inner, outer, True), hop(outer, inner, True)

    def _room(self, operand: Operand, memory: str) -> Room:
        level = self.profile.memories[memory]
        per_lane = self.choice.replicated_lanes(level.replicated_over) if level.replicated_over else None
        width, partial_width = (
            storage_bits(self.profile, self.engine, operand, memory, partial=partial) / 8 for partial in (False, True)
        )
        room = Room(level.size_bytes, per_lane, width, partial_width, 2 if level.buffering is Buffering.DOUBLE else 1)
        return replace(room, whole_bytes=float(self._one_copy(operand, room, self.nest.sizes, partial=False)))

    def tiles(self, count: int, steps: Sequence[Floats | int]) -> Tiles:
        """Tiles given in steps."""
        sizes: list[Floats | int] = []
        whole: NDArray[np.bool_] | bool = True
        for size, lanes, at, full in zip(self.nest.sizes, self.choice.lanes, steps, self.choice.steps, strict=True):
            if isinstance(at, np.ndarray):
                sizes.append(np.minimum(size, lanes * at))
                whole = whole & (at == full)
            else:
                sizes.append(min(size, lanes * at))
                whole = whole if at == full else False
        return Tiles(count, tuple(steps), tuple(sizes), whole)

    def grow(self, tile: Tile, cut: Cut) -> Tiles:
        """Tiles that may follow `tile` outwards at a cut: growth in its dimensions alone, and the whole tensor.

        The whole tensor is never refilled, so under double buffering it may take less than a smaller tile.
        """
        full = self.choice.steps
        grown = [index for index in cut.grows if tile[index] < full[index]]
        options = [np.asarray(larger_sizes(full[index], tile[index]), dtype=np.float64) for index in grown]
        steps: list[Floats | int] = list(tile)
        for index, mesh in zip(grown, np.meshgrid(*options, indexing="ij"), strict=True):
            steps[index] = mesh.ravel()
        count = prod(len(option) for option in options)
        reached = all(index in grown for index, size in enumerate(tile) if size < full[index])
        if reached or (cut.room.size_bytes is not None and cut.room.whole_bytes > cut.room.size_bytes):
            return self.tiles(count, steps)
        for index, size in enumerate(tile):
            if size < full[index]:
                here = np.broadcast_to(np.asarray(steps[index], dtype=np.float64), (count,))
                steps[index] = np.append(here, float(full[index]))
        return self.tiles(count + 1, steps)

    def constant(self) -> Vector:
        """Costs that no tile changes: compute, and what the lanes read and accumulate."""
        engine = self.profile.engines[self.engine]
        total = self.meter.zero()
        total[0] = prod(self.choice.steps) + engine.pipeline_depth_cycles
        total[-1] = self.nest.loop_macs * engine.energy_pj_per_mac
        for operand in (Operand.WEIGHTS, Operand.INPUTS):
            innermost = self.profile.hierarchy(self.engine, operand)[0]
            total += self._lane_reads(operand) * self.meter.hop(operand, innermost, ENGINE)
        accumulators = self.profile.hierarchy(self.engine, Operand.OUTPUTS)[0]
        visits = self._lane_reads(Operand.OUTPUTS)
        total += visits * self.meter.hop(Operand.OUTPUTS, ENGINE, accumulators)
        total += (visits - self.unread_outputs) * self.meter.hop(Operand.OUTPUTS, accumulators, ENGINE)
        return total

    @cached_property
    def unread_outputs(self) -> int:
        """Outputs whose first visit starts at zero without reading it."""
        read = self.profile.conventions.first_partial_sums_are_read
        return 0 if read else self.nest.elements(Operand.OUTPUTS)

    def _lane_reads(self, operand: Operand) -> int:
        steps, sizes, lanes = self.choice.steps, self.nest.sizes, self.choice.lanes
        total = prod(steps[index] for index in IRRELEVANT[operand])
        if operand is not Operand.INPUTS:
            return total * prod(sizes[INDEX[dimension]] for dimension in RELEVANT[operand])
        rows = self.rows.read_by_lanes(lanes[OY], lanes[FY])
        return total * sizes[B] * sizes[G] * sizes[C] * rows * self.columns.read_by_lanes(lanes[OX], lanes[FX])

    def moved(self, cut: Cut, tiles: Tiles) -> Floats:
        """Elements copied into the cut's memory over the whole layer (outputs: visits of all elements)."""
        repeats: Floats | float = 1.0
        for index in IRRELEVANT[cut.operand]:
            repeats = repeats * -(-self.choice.steps[index] // tiles.steps[index])
        if cut.operand is not Operand.INPUTS:
            return _spread(repeats * self.nest.elements(cut.operand), tiles.count)
        size = tiles.sizes
        zeros = self.profile.conventions.padding_is_data or not cut.from_off_chip
        rows = self._table(self.rows, OY, FY, zeros)[_index(size[OY]), _index(size[FY])]
        columns = self._table(self.columns, OX, FX, zeros)[_index(size[OX]), _index(size[FX])]
        channels = self.nest.sizes[B] * self.nest.sizes[G] * self.nest.sizes[C]
        return _spread(repeats * channels * rows * columns, tiles.count)

    def _table(self, window: Window, output: int, tap: int, zeros: bool) -> Floats:
        """Window.moved by tile of outputs and of taps, for the tile sizes there are."""
        key = (output, zeros)
        if key not in self._tables:
            table = np.zeros((window.outputs + 1, window.taps + 1))
            for outputs in tile_sizes(self.choice.steps[output]):
                for taps in tile_sizes(self.choice.steps[tap]):
                    sizes = (
                        min(window.outputs, outputs * self.choice.lanes[output]),
                        min(window.taps, taps * self.choice.lanes[tap]),
                    )
                    table[sizes] = window.moved(*sizes, zeros=zeros)
            self._tables[key] = table
        return self._tables[key]

    def elements(self, operand: Operand, size: Sequence[Floats | int]) -> Floats | float:
        """Elements of tiles (given in elements) on chip; the array form of counts.tile_elements."""
        if operand is Operand.INPUTS:
            rows = self.rows.hull(size[OY], size[FY])  # type: ignore[arg-type]
            columns = self.columns.hull(size[OX], size[FX])  # type: ignore[arg-type]
            return size[B] * size[G] * size[C] * rows * columns
        total: Floats | float = 1.0
        for dimension in RELEVANT[operand]:
            total = total * size[INDEX[dimension]]
        return total

    def _one_copy(
        self, operand: Operand, room: Room, sizes: Sequence[Floats | int], *, partial: bool
    ) -> Floats | float:
        if room.per_lane is not None:
            sizes = [-(-size // lanes) for size, lanes in zip(sizes, room.per_lane, strict=True)]
        width = room.partial_bytes if partial else room.bytes_per_element
        return np.ceil(self.elements(operand, sizes) * width)

    def bytes_taken(self, cut: Cut, tiles: Tiles, *, partial: bool) -> Floats | float:
        """Bytes a cut placed here takes in one instance of its memory. partial: of outputs, as they arrive."""
        here = self._one_copy(cut.operand, cut.room, tiles.sizes, partial=partial)
        return np.where(tiles.whole, here, cut.room.copies * here)

    def least_bytes(self, cut: Cut, tiles: Tiles, *, partial: bool = False) -> Floats | float:
        """Bytes the cut takes in its memory wherever it is placed at these tiles or further out."""
        here = cut.room.copies * self._one_copy(cut.operand, cut.room, tiles.sizes, partial=partial)
        return np.minimum(here, cut.room.whole_bytes)

    def least(self, cut: Cut) -> Least:
        """What the cut costs wherever it is placed: the least over all its tiles that fit its memory."""
        if cut not in self._least:
            tiles = self.grow((1,) * len(DIMENSIONS), cut)
            fits = np.ones(tiles.count, dtype=bool)
            if cut.room.size_bytes is not None:
                fits &= self.least_bytes(cut, tiles) <= cut.room.size_bytes
            self._least[cut] = self.least_of(self.costs(cut, tiles)[fits])
        return self._least[cut]

    def least_of(self, rows: Floats) -> Least:
        """The least of every blend, and of energy, over cost vectors."""
        cycles = rows[:, :-1] @ self.meter.blends.T
        return Least(cycles.min(axis=0, initial=np.inf), float(rows[:, -1].min(initial=np.inf)))

    def costs(self, cut: Cut, tiles: Tiles) -> Floats:
        """Cost vectors of placing a cut at each tile."""
        return self.repeated_costs(cut, tiles) + self.settled_costs(cut, tiles)

    def repeated_costs(self, cut: Cut, tiles: Tiles) -> Floats:
        """The copies, which ragged loops further out may repeat (`regrowth`)."""
        moved = self.moved(cut, tiles)
        if cut.operand is not Operand.OUTPUTS:
            return moved[:, None] * cut.hop.vector[None, :]
        visits = np.where(self.complete(tiles), 0.0, moved)
        return visits[:, None] * (cut.partial_out.vector + cut.partial_back.vector)[None, :]

    def settled_costs(self, cut: Cut, tiles: Tiles) -> Floats:
        """What no loop further out changes: the first tile in or the last one out, and finished outputs."""
        rows = np.zeros((tiles.count, len(cut.hop.vector)))
        elements = self.elements(cut.operand, tiles.sizes)
        refills = prod(-(-full // at) for full, at in zip(self.choice.steps, tiles.steps, strict=True))
        if cut.operand is not Operand.OUTPUTS:
            rows[:, 0] = cut.hop.fill * elements + cut.overhead * refills
            return rows
        complete = self.complete(tiles)
        rows[:, 0] = np.where(complete, cut.hop.fill, cut.partial_out.fill) * elements + cut.overhead * refills
        finished = np.where(complete, float(self.nest.elements(Operand.OUTPUTS)), 0.0)
        rows += finished[:, None] * cut.hop.vector[None, :]
        rows -= np.where(complete, 0.0, float(self.unread_outputs))[:, None] * cut.partial_back.vector[None, :]
        return rows

    def complete(self, tiles: Tiles) -> NDArray[np.bool_]:
        """Which tiles hold the whole reduction."""
        complete = np.ones(tiles.count, dtype=bool)
        for index in (C, FY, FX):
            complete &= np.asarray(tiles.steps[index]) == self.choice.steps[index]
        return complete

    def fill_cycles(self, cut: Cut, tiles: Tiles) -> Floats | float:
        """Lane cycles until the first tile is in (the last is out), at these tiles or further out."""
        fill = min(cut.hop.fill, cut.partial_out.fill) if cut.operand is Operand.OUTPUTS else cut.hop.fill
        return fill * self.elements(cut.operand, tiles.sizes)


def _spread(values: Floats | float, count: int) -> Floats:
    return np.broadcast_to(np.asarray(values, dtype=np.float64), (count,))


def _index(size: Floats | int) -> NDArray[np.intp] | int:
    return size.astype(np.intp) if isinstance(size, np.ndarray) else size
