"""The declared space of mappings: tile sizes, spatial choices, and what fits a memory.

Declared space (the mapper searches it, brute force in the tests enumerates it by the same definitions):
* spatial: every axis runs the dimensions its engine lets it; factors are `tile_sizes` of the dimension (the largest of
  one that is `whole`), products stay within the axis, and only maximal choices count (no factor can be raised to its
  next size);
* temporal: tile sizes in steps of the lanes are `tile_sizes` of the step count; from tile to tile outwards each divides
  the next, the whole dimension always may follow (its loop is then ragged);
* residence: one position per operand and on-chip memory, in the one loop list, outer memories no further inside. A
  reduction loop outside a position of the outputs makes their partial sums leave and return.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import ceil, prod

from codesign.hardware.profile import HardwareProfile
from codesign.hardware.sections import Axis, Buffering, Engine
from codesign.mapping.counts import stored_sizes, tile_elements
from codesign.mapping.mapping import SpatialLoop, extents_of
from codesign.vocabulary import OUTPUTS, POSITION, Operand
from codesign.workload.loop_nest import LoopNest

Tile = tuple[int, ...]


@lru_cache(maxsize=4096)
def tile_sizes(size: int, *, perfect: bool = False) -> tuple[int, ...]:
    """ceil(size / n) for every n, ascending: the smallest tile for each number of tiles; divisors are among them.

    perfect: divisors alone.
    """
    sizes = [size]
    while sizes[-1] > 1:
        count = -(-size // (sizes[-1] - 1))  # the fewest tiles that are smaller
        sizes.append(-(-size // count))
    return tuple(each for each in reversed(sizes) if not perfect or size % each == 0)


@lru_cache(maxsize=65536)
def larger_sizes(steps: int, inner: int, *, perfect: bool = False) -> tuple[int, ...]:
    """Tile sizes that may follow `inner` outwards, itself first: its multiples, and the whole dimension."""
    sizes = tile_sizes(steps, perfect=perfect)
    return tuple(size for size in sizes if size >= inner and (size % inner == 0 or size == steps))


def loop_extent(steps: int, inner: int, outer: int) -> int:
    """Iterations of the loop that grows a tile from `inner` to `outer`."""
    return -(-steps // inner) if outer == steps else outer // inner


@dataclass(frozen=True)
class SpatialChoice:
    """The lanes of one engine for one layer. lanes, steps: per dimension, in the order of DIMENSIONS."""

    loops: tuple[SpatialLoop, ...]
    lanes: Tile
    steps: Tile

    def replicated_lanes(self, axes: tuple[str, ...]) -> Tile:
        """Lanes per dimension along the given axes alone."""
        return extents_of(loop for loop in self.loops if loop.axis in axes)


def steps_of(sizes: Tile, lanes: Tile) -> Tile:
    """Steps the lanes take per dimension."""
    return tuple([-(-size // lane) for size, lane in zip(sizes, lanes, strict=True)])


def spatial_choices(nest: LoopNest, engine: Engine) -> tuple[SpatialChoice, ...]:
    """Every maximal way to spread the layer over the engine's axes."""
    found: list[tuple[tuple[SpatialLoop, ...], Tile]] = [((), nest.sizes)]  # loops, and the steps they leave
    for name, axis in engine.axes.items():
        found = [
            (loops + here, steps_of(steps, extents_of(here)))
            for loops, steps in found
            for here in _axis_loops(name, axis, steps)
        ]
    return tuple([SpatialChoice(loops, extents_of(loops), steps) for loops, steps in found])


def _axis_loops(name: str, axis: Axis, left: Tile) -> Iterator[tuple[SpatialLoop, ...]]:
    """Maximal choices for one axis, given what earlier ones leave of each dimension."""
    for factors in axis_factors(axis, left):
        pairs = zip(axis.unrolls, factors, strict=True)
        yield tuple([SpatialLoop(name, dimension, factor) for dimension, factor in pairs if factor > 1])


def axis_factors(axis: Axis, left: Tile) -> tuple[Tile, ...]:
    """Maximal choices of a factor for each dimension an axis unrolls, given what is left of all."""
    if axis.fixed:
        return ((axis.size,),)
    if not axis.unrolls:  # constraints left it none
        return ((),)
    sizes = tuple([left[POSITION[dimension]] for dimension in axis.unrolls])
    return _maximal(sizes, tuple([dimension in axis.whole for dimension in axis.unrolls]), axis.size)


@lru_cache(maxsize=4096)
def _maximal(sizes: Tile, whole: tuple[bool, ...], lanes: int) -> tuple[Tile, ...]:
    """Factors of dimensions within a product, none of which could be the next larger; the largest first.

    whole: dimensions that run in full, of which only the largest factor counts.
    """
    options = [_options(size, lanes, full) for size, full in zip(sizes, whole, strict=True)]
    *others, last = options
    found = []
    for steps in product(*(zip(each, (*each[1:], lanes + 1), strict=True) for each in others)):
        used = prod([factor for factor, _ in steps])
        room = bisect_right(last, lanes // used)
        if room:
            largest = last[room - 1]  # for which the others leave room
            if all(used // factor * larger * largest > lanes for factor, larger in steps):
                found.append((*(factor for factor, _ in steps), largest))
    return tuple(sorted(found, reverse=True))


def _options(size: int, lanes: int, full: bool) -> Tile:
    """Factors one dimension may have on an axis: only the largest of those it must run in full."""
    options = tuple(factor for factor in tile_sizes(size) if factor <= lanes)
    return options[-1:] if full else options


def storage_bits(profile: HardwareProfile, engine: str, operand: Operand, memory: str, *, partial: bool) -> float:
    """Width of one element in a memory: outputs at accumulator width in their innermost memory and while partial."""
    if operand is OUTPUTS and (partial or profile.hierarchy(engine, operand)[0] == memory):
        return profile.precision.accumulators_bits
    return profile.stored_bits(operand, memory)


def tile_bytes(
    nest: LoopNest,
    profile: HardwareProfile,
    choice: SpatialChoice,
    engine: str,
    operand: Operand,
    memory: str,
    tile: Tile,
    *,
    refilled: bool,
    partial: bool,
    buffers: int = 1,
) -> int:
    """Bytes a tile takes in ONE instance of a memory; twice its size when it is refilled under double buffering.

    partial: outputs arrive in the memory before their reduction is complete.
    """
    level = profile.memories[memory]
    stored = stored_sizes(operand, tile, choice.lanes, profile)
    instance = steps_of(stored, choice.replicated_lanes(level.replicated_over))
    width = storage_bits(profile, engine, operand, memory, partial=partial) / 8
    copies = 2 if refilled and (level.buffering is Buffering.DOUBLE or buffers == 2) else 1
    return copies * ceil(tile_elements(nest, operand, instance) * width)
