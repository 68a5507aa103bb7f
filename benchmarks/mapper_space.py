"""The declared space of one layer: how many mappings it has, and random ones priced many at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import comb, prod

import numpy as np
from numpy.typing import NDArray

from codesign.hardware.profile import HardwareProfile
from codesign.mapping.cuts import Cut
from codesign.mapping.grid import Floats, Followers, Integers
from codesign.mapping.layer_space import EngineLayer, LayerSpace
from codesign.mapping.mapping import Mapping, Residence, TemporalLoop
from codesign.mapping.meter import Meter
from codesign.mapping.space import loop_extent, spatial_choices
from codesign.vocabulary import DIMENSIONS, Operand
from codesign.workload.loop_nest import LoopNest


def spaces_of(nest: LoopNest, profile: HardwareProfile, engine: str, *, perfect: bool = False) -> list[LayerSpace]:
    """The spaces of all choices of lanes of a layer."""
    layer = EngineLayer(nest, Meter(profile, engine))
    choices = spatial_choices(nest, profile.engines[engine])
    return [LayerSpace(layer, choice, perfect) for choice in choices]


def mappings_in(space: LayerSpace) -> int:
    """Mappings of the declared space with these lanes, those that do not fit included.

    A mapping gives every cut a tile; all tiles lie on one chain in which each may follow the one before. Orders of
    loops between the same two tiles, which cost the same, and numbers of copies are not counted. Chains in which tiles
    may be equal are a product over the dimensions; inclusion and exclusion takes the equal ones away, and the
    distributions of the cuts that leave a tile without one.
    """
    cuts = sum(len(part) for part in space.cuts)
    repeating = [0, *(prod(_chains(part, tiles) for part in space.grid.dimensions) for tiles in range(1, cuts + 1))]
    total = 0
    for tiles in range(1, cuts + 1):
        rising = sum((-1) ** (tiles - j) * comb(tiles - 1, j - 1) * repeating[j] for j in range(1, tiles + 1))
        total += rising * _distributions([len(part) for part in space.cuts], tiles)
    return total


def _chains(dimension: Followers, length: int) -> int:
    """Sequences of so many sizes of one dimension, each of which may follow the one before."""
    ways = [1] * len(dimension.sizes)
    for _ in range(length - 1):
        lists = zip(dimension.start.tolist(), dimension.count.tolist(), strict=True)
        ways = [sum(ways[size] for size in dimension.flat[start : start + count].tolist()) for start, count in lists]
    return sum(ways)


def _distributions(cuts: Sequence[int], tiles: int) -> int:
    """Ways to put the cuts of every operand, in their order, on so many tiles in a row, none of them left empty."""
    return sum(
        (-1) ** (tiles - used) * comb(tiles, used) * prod(comb(used + count - 1, count) for count in cuts)
        for used in range(1, tiles + 1)
    )


@dataclass(frozen=True, eq=False)
class Sample:
    """Random mappings. chain: (dimensions, cuts, mappings), positions in the lists of sizes, innermost tile first.

    rank: (cuts, mappings), which tile of the chain a cut is on. copies: of every cut.
    """

    space: LayerSpace
    chain: Integers
    rank: Integers
    copies: tuple[int, ...]

    @cached_property
    def cuts(self) -> tuple[Cut, ...]:
        """In the order of `rank`."""
        return tuple(cut for part in self.space.cuts for cut in part)

    def tiles(self, at: int) -> Integers:
        """The tiles of one cut, by number in the grid."""
        rows, found = np.arange(self.chain.shape[2]), np.zeros(self.chain.shape[2], dtype=np.intp)
        for sizes, count, stride in zip(self.chain, self.space.grid.shape, self.space.grid.strides, strict=True):
            if count > 1:
                found += sizes[self.rank[at], rows] * stride
        return found

    def mapping(self, number: int) -> Mapping:
        """One of them as loops and positions."""
        full = self.space.choice.steps
        tile, loops, inside = (1,) * len(full), [], [0]  # type: tuple[int, ...], list[TemporalLoop], list[int]
        parts = self.space.grid.dimensions
        chain = [
            tuple(int(part.sizes[size]) for part, size in zip(parts, sizes, strict=True))
            for sizes in self.chain[:, :, number].T
        ]
        for grown in (*chain, full):
            grows = zip(DIMENSIONS, full, tile, grown, strict=True)
            loops += [TemporalLoop(name, loop_extent(all_, old, new)) for name, all_, old, new in grows if new > old]
            tile = grown
            inside.append(len(loops))
        residences = tuple(
            Residence(cut.operand, cut.memory, len(loops) - inside[self.rank[at, number] + 1], copies)
            for at, (cut, copies) in enumerate(zip(self.cuts, self.copies, strict=True))
        )
        return Mapping(self.space.engine, self.space.choice.loops, tuple(reversed(loops)), residences)


def random_sample(space: LayerSpace, count: int, random: np.random.Generator) -> Sample:
    """Chains that start at one step and grow, or stay, in every dimension before every cut; cuts in any legal order."""
    operands = [number for number, part in enumerate(space.cuts) for _ in part]
    chain = np.zeros((len(space.grid.shape), len(operands), count), dtype=np.intp)
    for sizes, part in zip(chain, space.grid.dimensions, strict=True):
        size = np.zeros(count, dtype=np.intp)
        if len(part.sizes) > 1:
            for tile in sizes:
                pick = (random.random(count) ** 3 * part.count[size]).astype(np.intp)  # small steps more often
                size = part.flat[part.start[size] + pick]
                tile[:] = size
    rank = random.permuted(np.tile(np.arange(len(operands))[:, None], (1, count)), axis=0)
    for operand in set(operands):
        own = [at for at, other in enumerate(operands) if other == operand]
        rank[own] = np.sort(rank[own], axis=0)
    copies = tuple(int(random.choice([held.copies for held in cut.holdings])) for part in space.cuts for cut in part)
    return Sample(space, chain, rank, copies)


@dataclass(frozen=True, eq=False)
class Prices:
    """Of many mappings: cycles, pJ, and which of them fit all memories."""

    latency: Floats
    energy: Floats
    fits: NDArray[np.bool_]


def priced(sample: Sample) -> Prices:
    """Every mapping of a sample: the sum over its cuts, with the mapper's own cost functions."""
    total = sample.space.constant[:, None]
    memories = {cut.memory: cut.size_bytes for cut in sample.cuts}
    used: dict[str, Floats] = dict.fromkeys(memories, np.zeros(1))
    complete = np.ones(1, dtype=np.bool_)
    for at, (place, copies) in enumerate(zip(sample.space.placements, sample.copies, strict=True)):
        tiles, cut = sample.tiles(at), place.cut
        number = next(number for number, holding in enumerate(cut.holdings) if holding.copies == copies)
        total = total + place.costs_at(number, tiles)
        taken = place.taken[number].take(tiles)
        if cut.operand is Operand.OUTPUTS:
            if cut.partial_bytes != cut.bytes_per_element:
                taken = np.where(complete, taken, place.partial_taken[number].take(tiles))
            complete = place.complete_by_tile.take(tiles)
        used[cut.memory] = used[cut.memory] + taken
    fits = np.ones(1, dtype=np.bool_)
    for memory, size_bytes in memories.items():
        fits = fits & (used[memory] <= size_bytes)
    return Prices(total[:-1].max(axis=0), total[-1], fits)
