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

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import ceil, prod

from codesign.hardware.profile import HardwareProfile
from codesign.hardware.sections import Axis, Buffering, Engine
from codesign.mapping.counts import stored_sizes, tile_elements
from codesign.mapping.mapping import SpatialLoop
from codesign.vocabulary import DIMENSIONS, Dimension, Operand
from codesign.workload.loop_nest import LoopNest

Tile = tuple[int, ...]


@lru_cache(maxsize=4096)
def tile_sizes(size: int, *, perfect: bool = False) -> tuple[int, ...]:
    """ceil(size / n) for every n, ascending: the smallest tile for each number of tiles; divisors are among them.

    perfect: divisors alone.
    """
    found = {-(-size // count) for count in range(1, size + 1) if not perfect or size % count == 0}
    return tuple(sorted(found))


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
        return tuple(
            prod(loop.extent for loop in self.loops if loop.dimension is dimension and loop.axis in axes)
            for dimension in DIMENSIONS
        )


def spatial_choices(nest: LoopNest, engine: Engine) -> tuple[SpatialChoice, ...]:
    """Every maximal way to spread the layer over the engine's axes."""
    choices: dict[tuple[SpatialLoop, ...], SpatialChoice] = {}
    for loops in _axis_loops(nest, list(engine.axes.items()), nest.sizes):
        lanes = tuple(prod(loop.extent for loop in loops if loop.dimension is dimension) for dimension in DIMENSIONS)
        steps = tuple(-(-size // lane) for size, lane in zip(nest.sizes, lanes, strict=True))
        choices.setdefault(loops, SpatialChoice(loops, lanes, steps))
    return tuple(choices.values())


def _axis_loops(nest: LoopNest, axes: list[tuple[str, Axis]], remaining: Tile) -> Iterator[tuple[SpatialLoop, ...]]:
    """Choices axis by axis; `remaining` is what earlier axes leave of each dimension."""
    if not axes:
        yield ()
        return
    (name, axis), *rest = axes
    for factors in axis_factors(axis, remaining):
        left = tuple(
            -(-size // factors.get(dimension, 1)) for dimension, size in zip(DIMENSIONS, remaining, strict=True)
        )
        here = tuple(SpatialLoop(name, dimension, factor) for dimension, factor in factors.items() if factor > 1)
        for others in _axis_loops(nest, rest, left):
            yield here + others


def axis_factors(axis: Axis, remaining: Tile) -> list[dict[Dimension, int]]:
    """Maximal factor choices for one axis, given what is left of each dimension."""
    if axis.fixed:
        return [{axis.unrolls[0]: axis.size}]
    left = dict(zip(DIMENSIONS, remaining, strict=True))
    options = tuple(_axis_options(axis, dimension, left[dimension]) for dimension in axis.unrolls)
    return [dict(zip(axis.unrolls, factors, strict=True)) for factors in _maximal(options, axis.size)]


def _axis_options(axis: Axis, dimension: Dimension, size: int) -> Tile:
    """Factors one dimension may have on an axis: only the largest of those it must run in full."""
    options = tuple(factor for factor in tile_sizes(size) if factor <= axis.size)
    return options[-1:] if dimension in axis.whole else options


@lru_cache(maxsize=4096)
def _maximal(options: tuple[Tile, ...], size: int) -> tuple[Tile, ...]:
    """Choices of one factor each within a product, none of which could be the next larger; the largest first."""
    larger = [dict(zip(sizes, (*sizes[1:], size + 1), strict=True)) for sizes in options]
    found = []
    for factors in product(*options):
        lanes = prod(factors)
        if lanes <= size and all(lanes // own * more[own] > size for own, more in zip(factors, larger, strict=True)):
            found.append(factors)
    return tuple(sorted(found, reverse=True))


def storage_bits(profile: HardwareProfile, engine: str, operand: Operand, memory: str, *, partial: bool) -> float:
    """Width of one element in a memory: outputs at accumulator width in their innermost memory and while partial."""
    if operand is Operand.OUTPUTS and (partial or profile.hierarchy(engine, operand)[0] == memory):
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
    per_lane = choice.replicated_lanes(level.replicated_over)
    stored = stored_sizes(operand, tile, choice.lanes, profile)
    instance = tuple(-(-size // lanes) for size, lanes in zip(stored, per_lane, strict=True))
    width = storage_bits(profile, engine, operand, memory, partial=partial) / 8
    copies = 2 if refilled and (level.buffering is Buffering.DOUBLE or buffers == 2) else 1
    return copies * ceil(tile_elements(nest, operand, instance) * width)
