"""Cuts: what placing one operand's tile in one memory costs and takes, for whole arrays of tiles at once.

A mapping is a chain of growing tiles (in steps of the lanes) with cuts on it: where weights leave their registers, where
they leave the buffer, where outputs leave the accumulators, and so on. What a cut costs depends on its tile alone, but for
copies repeated in empty iterations of ragged loops (see `regrowth`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
from numpy.typing import NDArray

from codesign.hardware.profile import HardwareProfile
from codesign.mapping.cost import Meter, Vector
from codesign.mapping.mapping import ENGINE
from codesign.mapping.space import SpatialChoice, larger_sizes, loop_extent, storage_bits
from codesign.mapping.window import Window, windows_of
from codesign.vocabulary import DIMENSIONS, RELEVANT, Dimension, Operand
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
    """Arrays of candidate tiles that grew from one tile. steps: one array (or a number) per dimension."""

    count: int
    steps: tuple[Floats | int, ...]

    def pick(self, index: int) -> Tile:
        """One of them."""
        return tuple(int(size) if np.ndim(size) == 0 else int(size[index]) for size in self.steps)  # type: ignore[index]


def regrowth(tile: Tile, tiles: Tiles, full: Tile, dimensions: Sequence[int]) -> Floats | float:
    """Factor on the copies of cuts placed so far: a ragged loop also repeats them in its empty iterations (>= 1)."""
    factor: Floats | float = 1.0
    for index in dimensions:
        grown = tiles.steps[index]
        if np.ndim(grown) == 0:
            continue
        extent = np.where(grown == full[index], loop_extent(full[index], tile[index], full[index]), grown / tile[index])
        factor = factor * extent * np.ceil(full[index] / grown) / -(-full[index] // tile[index])
    return factor


@dataclass(frozen=True, eq=False)
class Cut:
    """One operand leaving one on-chip memory (outputs: all of its on-chip memories at once).

    grows: dimensions in which a larger tile at this cut saves traffic; growing any other dimension only costs capacity
    (its elements move once either way), so an optimal chain grows those after the cut.
    """

    operand: Operand
    memories: tuple[str, ...]
    hop: Vector
    fill: float
    grows: tuple[int, ...]
    from_off_chip: bool


def grow(tile: Tile, full: Tile, cut: Cut) -> Tiles:
    """Tiles that may follow `tile` outwards at a cut: growth in its dimensions alone, and the whole tensor.

    Outputs leave complete: their reduction dimensions grow to their full size at once. The whole tensor is never refilled, so under double buffering it may take less than a smaller tile.
    """
    grown = [index for index in cut.grows if tile[index] < full[index]]
    complete = cut.operand is Operand.OUTPUTS
    options = [
        np.asarray([full[index]] if complete else larger_sizes(full[index], tile[index]), dtype=np.float64)
        for index in grown
    ]
    steps: list[Floats | int] = list(tile)
    for index, mesh in zip(grown, np.meshgrid(*options, indexing="ij"), strict=True):
        steps[index] = mesh.ravel()
    count = prod(len(option) for option in options)
    if all(index in grown for index, size in enumerate(tile) if size < full[index]):
        return Tiles(count, tuple(steps))
    for index, size in enumerate(tile):
        if size < full[index]:
            steps[index] = np.append(np.broadcast_to(np.asarray(steps[index], dtype=np.float64), (count,)), full[index])
    return Tiles(count + 1, tuple(steps))


def whole_alone(tile: Tile, full: Tile) -> Tiles | None:
    """The whole tensor as the only tile that follows; None when `tile` is whole already."""
    if tile == full:
        return None
    steps = (np.asarray([float(new)]) if new > old else old for old, new in zip(tile, full, strict=True))
    return Tiles(1, tuple(steps))


@dataclass(frozen=True, eq=False)
class Least:
    """Lower bounds of one cut: of every blend of cycles (Meter.blends), and of energy in pJ."""

    cycles: Floats
    energy_pj: float


@dataclass(frozen=True, eq=False)
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

    @staticmethod
    def of(nest: LoopNest, meter: Meter, choice: SpatialChoice) -> LayerSpace:
        """The space of one layer."""
        rows, columns = windows_of(nest)
        return LayerSpace(nest, meter.profile, meter.engine, choice, meter, rows, columns)

    def cuts(self, operand: Operand) -> tuple[Cut, ...]:
        """Cuts of one operand, innermost memory first."""
        levels = self.profile.hierarchy(self.engine, operand)
        if operand is Operand.OUTPUTS:
            fill = sum(self.meter.fill(operand, inner, outer) for inner, outer in zip(levels, levels[1:], strict=False))
            return (Cut(operand, levels[:-1], self.meter.zero(), fill, (C, FY, FX), True),)
        grows = IRRELEVANT[operand]
        if operand is Operand.INPUTS:
            grows += (OY, FY) if self.rows.taps > 1 else ()
            grows += (OX, FX) if self.columns.taps > 1 else ()
        return tuple(
            Cut(
                operand,
                (inner,),
                self.meter.hop(operand, outer, inner),
                self.meter.fill(operand, outer, inner),
                grows,
                outer == levels[-1],
            )
            for inner, outer in zip(levels, levels[1:], strict=False)
        )

    def constant(self) -> Vector:
        """Costs that no tile changes: compute, what the lanes read and accumulate, and the outputs' way out."""
        engine = self.profile.engines[self.engine]
        total = self.meter.zero()
        total[0] = prod(self.choice.steps) + engine.pipeline_depth_cycles
        total[-1] = self.nest.loop_macs * engine.energy_pj_per_mac
        for operand in (Operand.WEIGHTS, Operand.INPUTS):
            innermost = self.profile.hierarchy(self.engine, operand)[0]
            total += self._lane_reads(operand) * self.meter.hop(operand, innermost, ENGINE)
        levels = self.profile.hierarchy(self.engine, Operand.OUTPUTS)
        finished = self.nest.elements(Operand.OUTPUTS)
        visits = self._lane_reads(Operand.OUTPUTS)
        total += visits * self.meter.hop(Operand.OUTPUTS, ENGINE, levels[0])
        total += (visits - finished) * self.meter.hop(Operand.OUTPUTS, levels[0], ENGINE)
        for inner, outer in zip(levels, levels[1:], strict=False):
            total += finished * self.meter.hop(Operand.OUTPUTS, inner, outer)
        return total

    def _lane_reads(self, operand: Operand) -> int:
        steps, sizes, lanes = self.choice.steps, self.nest.sizes, self.choice.lanes
        total = prod(steps[index] for index in IRRELEVANT[operand])
        if operand is not Operand.INPUTS:
            return total * prod(sizes[INDEX[dimension]] for dimension in RELEVANT[operand])
        rows = self.rows.read_by_lanes(lanes[OY], lanes[FY])
        return total * sizes[B] * sizes[G] * sizes[C] * rows * self.columns.read_by_lanes(lanes[OX], lanes[FX])

    def sizes(self, tiles: Tiles) -> list[Floats | int]:
        """Tiles in elements."""
        return [
            np.minimum(size, lanes * steps)
            for size, lanes, steps in zip(self.nest.sizes, self.choice.lanes, tiles.steps, strict=True)
        ]

    def moved(self, cut: Cut, tiles: Tiles) -> Floats | float:
        """Elements copied into the cut's memory over the whole layer (outputs: 0, they are constant)."""
        if cut.operand is Operand.OUTPUTS:
            return 0.0
        repeats: Floats | float = 1.0
        for index in IRRELEVANT[cut.operand]:
            repeats = repeats * np.ceil(self.choice.steps[index] / np.asarray(tiles.steps[index]))
        if cut.operand is Operand.WEIGHTS:
            return repeats * self.nest.elements(cut.operand)
        size = self.sizes(tiles)
        zeros = not cut.from_off_chip
        rows = _moved(self.rows, size[OY], size[FY], zeros)
        columns = _moved(self.columns, size[OX], size[FX], zeros)
        return repeats * self.nest.sizes[B] * self.nest.sizes[G] * self.nest.sizes[C] * rows * columns

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

    def bytes_taken(self, cut: Cut, memory: str, tiles: Tiles) -> Floats | float:
        """Bytes in one instance of the memory at least, here or further out; exact when the cut is placed here.

        A tile that is refilled takes twice its bytes under double buffering; the whole tensor is never refilled.
        """
        level = self.profile.memories[memory]
        per_lane = self.choice.replicated_lanes(level.replicated_over)
        bits = storage_bits(self.profile, self.engine, cut.operand, memory)

        def one_copy(sizes: Sequence[Floats | int]) -> Floats | float:
            instance = [np.ceil(size / lanes) for size, lanes in zip(sizes, per_lane, strict=True)]
            return np.ceil(self.elements(cut.operand, instance) * bits / 8)

        here = one_copy(self.sizes(tiles))
        if not level.double_buffered:
            return here
        return np.where(self._whole(tiles), here, 2 * here)

    def _whole(self, tiles: Tiles) -> NDArray[np.bool_]:
        whole = np.ones(tiles.count, dtype=bool)
        for steps, full in zip(tiles.steps, self.choice.steps, strict=True):
            whole &= np.asarray(steps) == full
        return whole

    def least_bytes(self, cut: Cut, memory: str, tiles: Tiles) -> Floats | float:
        """Bytes the cut takes in a memory wherever it is placed at these tiles or further out."""
        whole = Tiles(1, self.choice.steps)
        return np.minimum(self.bytes_taken(cut, memory, tiles), self.bytes_taken(cut, memory, whole))

    def least(self, cut: Cut) -> Least:
        """What the cut costs wherever it is placed: the least over all its tiles that fit with the outputs.

        Outputs leave either outside the cut, then their accumulators hold at least the cut's tile, or inside it, then
        the cut's tile has the whole reduction.
        """
        if cut not in self._least:
            self._least[cut] = self._search_least(cut)
        return self._least[cut]

    def _search_least(self, cut: Cut) -> Least:
        (outputs,) = self.cuts(Operand.OUTPUTS)
        full = self.choice.steps
        tiles = grow((1,) * len(full), full, cut)
        reduced = Tiles(
            tiles.count, tuple(full[index] if index in (C, FY, FX) else at for index, at in enumerate(tiles.steps))
        )
        outside = self._fit_alone(cut, tiles) & self._fit_alone(outputs, tiles)
        rows = np.concatenate(
            [self.costs(cut, tiles)[outside], self.costs(cut, reduced)[self._fit_alone(cut, reduced)]]
        )
        cycles = rows[:, :-1] @ self.meter.blends.T
        return Least(cycles.min(axis=0, initial=np.inf), float(rows[:, -1].min(initial=np.inf)))

    def costs(self, cut: Cut, tiles: Tiles) -> Floats:
        """Cost vectors of placing a cut at each tile: its copies, and the first (outputs: the last) tile's way."""
        moved = np.broadcast_to(np.asarray(self.moved(cut, tiles), dtype=np.float64), (tiles.count,))
        rows = moved[:, None] * cut.hop[None, :]
        rows[:, 0] += self.fill_cycles(cut, tiles)
        return rows

    def fill_cycles(self, cut: Cut, tiles: Tiles) -> Floats | float:
        """Lane cycles until the first tile is in (the last is out)."""
        return cut.fill * self.elements(cut.operand, self.sizes(tiles))

    def _fit_alone(self, cut: Cut, tiles: Tiles) -> NDArray[np.bool_]:
        """Which tiles leave room for nothing but this cut."""
        fits = np.ones(tiles.count, dtype=bool)
        for memory in cut.memories:
            size = self.profile.memories[memory].size_bytes
            if size is not None:
                fits &= np.asarray(self.least_bytes(cut, memory, tiles)) <= size
        return fits


def _moved(window: Window, outputs: Floats | int, taps: Floats | int, zeros: bool) -> Floats | float:
    """Window.moved over arrays: few different pairs, each computed once."""
    if np.ndim(outputs) == 0 and np.ndim(taps) == 0:
        return float(window.moved(int(outputs), int(taps), zeros=zeros))
    pairs = np.broadcast_arrays(np.asarray(outputs), np.asarray(taps))
    keys = pairs[0] * (window.taps + 1) + pairs[1]
    values, where = np.unique(keys, return_inverse=True)
    table = np.asarray(
        [window.moved(*(int(part) for part in divmod(key, window.taps + 1)), zeros=zeros) for key in values],
        dtype=np.float64,
    )
    return table[where]
