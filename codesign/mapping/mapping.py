"""Mapping: where, when and in which memory a layer's loops run; and the counts any reading of it must agree on.

A mapping is the spatial loops of one engine, ONE ordered list of temporal loops (outermost first), and, per operand and
on-chip memory, one position in that list. A memory's tile is everything the loops from that position inwards touch; it
is refilled once in every iteration of the loops outside it. Sizes: within one dimension the spatial extent times the
extents of the loops inside a position is the tile's size there; every tile size divides the next, and only the
outermost loop of a dimension may be ragged (its last tile is cut at the dimension's size).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from codesign.vocabulary import DIMENSIONS, POSITION, Dimension, Operand
from codesign.workload.loop_nest import LoopNest

ENGINE = "engine"  # the far end of transfers into and out of the lanes


@dataclass(frozen=True)
class SpatialLoop:
    """`extent` lanes along one axis of the engine run different values of one dimension in the same cycle."""

    axis: str
    dimension: Dimension
    extent: int


def extents_of(loops: Iterable[SpatialLoop]) -> tuple[int, ...]:
    """Lanes per dimension, in the order of DIMENSIONS."""
    extents = [1] * len(DIMENSIONS)
    for loop in loops:
        extents[POSITION[loop.dimension]] *= loop.extent
    return tuple(extents)


@dataclass(frozen=True)
class TemporalLoop:
    """`extent` iterations over tiles of one dimension."""

    dimension: Dimension
    extent: int


@dataclass(frozen=True)
class Residence:
    """One operand's tile in one on-chip memory: what loops[position:] and the lanes touch.

    buffers: 2 for a double-buffered tile where the memory leaves the choice (`buffering: either`), otherwise 1.
    """

    operand: Operand
    memory: str
    position: int
    buffers: int = 1


@dataclass(frozen=True)
class Mapping:
    """One layer on one engine. loops: outermost first. residences: innermost memory of each operand first.

    An operand's outermost memory (off chip) holds the whole tensor and has no residence.
    """

    engine: str
    spatial: tuple[SpatialLoop, ...]
    loops: tuple[TemporalLoop, ...]
    residences: tuple[Residence, ...]

    @cached_property
    def covered(self) -> tuple[tuple[int, ...], ...]:
        """By position: extents (order of DIMENSIONS) of what loops[position:] and the lanes cover; the last: lanes."""
        extents = list(extents_of(self.spatial))
        inner_first = [tuple(extents)]
        for loop in reversed(self.loops):
            extents[POSITION[loop.dimension]] *= loop.extent
            inner_first.append(tuple(extents))
        return tuple(reversed(inner_first))

    def lanes(self, dimension: Dimension) -> int:
        """Spatial extent of one dimension over all axes."""
        return self.covered[-1][POSITION[dimension]]

    def tile(self, nest: LoopNest, position: int) -> tuple[int, ...]:
        """Sizes (order of DIMENSIONS) of what loops[position:] and the lanes cover, cut at the layer's sizes.

        Of a position outside the loops, which no legal mapping has: as of the nearest within.
        """
        return tuple(map(min, nest.sizes, self.covered[max(0, min(position, len(self.loops)))]))

    def residence(self, operand: Operand, memory: str) -> Residence | None:
        """The residence of an operand in a memory, if it has one."""
        for residence in self.residences:
            if residence.operand is operand and residence.memory == memory:
                return residence
        return None


class Transfer(NamedTuple):
    """Elements of one operand moved from one memory to the next over the whole layer (padding zeros not counted).

    partial: outputs whose reduction is not complete; they move at accumulator width.

    Into and out of ENGINE, lanes that use the same element in the same cycle count it once (multicast), lanes
    that add into the same output count it once (reduction), and zeros of the padding are counted: they sit in the tile.
    """

    operand: Operand
    source: str
    destination: str
    elements: int
    partial: bool = False


class Allocation(NamedTuple):
    """Elements one operand's tile takes in one on-chip memory (zeros of the padding included)."""

    operand: Operand
    memory: str
    elements: int


@dataclass(frozen=True)
class LayerCounts:
    """What the cost model charges and the scheduled TIR must show, number by number.

    macs_issued: lanes busy or not, in every cycle the engine computes. macs_useful: those inside the layer's sizes.
    transfers, allocations: sorted.
    """

    macs_useful: int
    macs_issued: int
    transfers: tuple[Transfer, ...]
    allocations: tuple[Allocation, ...]
