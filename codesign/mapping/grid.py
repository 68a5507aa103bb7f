"""Tiles of one layer with one choice of lanes as a grid, and which of them may follow which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod

import numpy as np
from numpy.typing import NDArray

from codesign.mapping.space import tile_sizes
from codesign.vocabulary import DIMENSIONS, POSITION, Dimension

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]
Index = Sequence[Integers]  # per dimension: positions in its list of sizes, arrays that broadcast together

Group = tuple[int, ...]  # neighbouring dimensions, by their place in DIMENSIONS
KERNEL: Group = (POSITION[Dimension.FY], POSITION[Dimension.FX])
IMAGE: Group = (POSITION[Dimension.OY], POSITION[Dimension.OX])
ORDER = (
    *KERNEL,
    *(axis for axis in range(len(DIMENSIONS)) if axis not in KERNEL + IMAGE),
    *IMAGE,
)  # of dimensions in tile numbers, slowest first: arrays that vary along a long last axis are cheap
FEW = 4  # trailing places up to which long strided runs beat short contiguous ones


@dataclass(frozen=True, eq=False)
class Followers:
    """Of one dimension: the sizes that may follow each size outwards, itself first, as positions.

    tiles: how many of each size there are. flat: all lists one behind the other; start, count: where each begins and
    how long it is; farther: how many positions outwards each of `flat` is. covers: (inner, outer) pairs with no size
    between, the largest inner first.
    """

    sizes: Integers
    tiles: Floats
    flat: Integers
    farther: Integers
    start: Integers
    count: Integers
    covers: tuple[tuple[int, int], ...]


@lru_cache(maxsize=4096)
def followers(steps: int, perfect: bool) -> Followers:
    """The sizes of a dimension of so many steps, and what may follow each."""
    sizes = np.asarray(tile_sizes(steps, perfect=perfect))
    follows = sizes % sizes[:, None] == 0  # by inner and outer size: as `larger_sizes` of the inner one
    follows[:, -1] = True
    inner, flat = follows.nonzero()
    count = follows.sum(axis=1)
    larger = follows & (sizes > sizes[:, None])
    ways = larger.astype(np.float32)
    near, far = (larger & (ways @ ways == 0)).nonzero()
    covers = tuple(zip(near[::-1].tolist(), far[::-1].tolist(), strict=True))
    return Followers(sizes, np.ceil(steps / sizes), flat, flat - inner, count.cumsum() - count, count, covers)


@lru_cache(maxsize=4096)
def lengths(size: int, lanes: int, perfect: bool) -> Floats:
    """The tile sizes of a dimension in elements, where so many lanes run it."""
    steps = followers(-(-size // lanes), perfect).sizes
    return np.minimum(size, lanes * steps).astype(np.float64)


@dataclass(frozen=True, eq=False)
class Grid:
    """All tiles: the product of the sizes of every dimension. A tile's number counts in the order of ORDER."""

    full: tuple[int, ...]
    perfect: bool

    @cached_property
    def dimensions(self) -> tuple[Followers, ...]:
        """Sizes and followers, per dimension."""
        return tuple(followers(steps, self.perfect) for steps in self.full)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Sizes there are, per dimension."""
        return tuple(len(dimension.sizes) for dimension in self.dimensions)

    @cached_property
    def strides(self) -> tuple[int, ...]:
        """Distance of tile numbers, per dimension."""
        strides, faster = [0] * len(self.shape), 1
        for axis in reversed(ORDER):
            strides[axis] = faster
            faster *= self.shape[axis]
        return tuple(strides)

    @property
    def count(self) -> int:
        """Number of tiles."""
        return prod(self.shape)

    @cached_property
    def box(self) -> tuple[int, ...]:
        """The sizes of `axes`."""
        return tuple(self.shape[axis] for axis in self.axes) or (1,)

    @cached_property
    def axes(self) -> tuple[int, ...]:
        """Dimensions of more than one size, in order."""
        return tuple(axis for axis in ORDER if self.shape[axis] > 1)

    @cached_property
    def everywhere(self) -> tuple[Integers, ...]:
        """The index of the whole grid, shaped like `box`."""
        return tuple(
            np.arange(size).reshape([-1 if other == axis else 1 for other in self.axes] or [1])
            for axis, size in enumerate(self.shape)
        )

    def tile(self, number: int) -> tuple[int, ...]:
        """One tile in steps."""
        parts = zip(self.dimensions, self.strides, self.shape, strict=True)
        return tuple([part.sizes.item(number // stride % size) for part, stride, size in parts])

    def grow(self, tiles: Integers, dimension: int) -> tuple[Integers, Integers]:
        """Every tile that follows one of `tiles` in one dimension, and which of them it follows."""
        part, stride = self.dimensions[dimension], self.strides[dimension]
        at = tiles // stride % self.shape[dimension]
        counts, rows = part.count.take(at), np.arange(len(tiles))
        origin = rows.repeat(counts)
        if len(origin) == len(tiles):
            return tiles, rows
        follower = np.arange(len(origin)) + (part.start.take(at) - counts.cumsum() + counts).take(origin)
        return tiles.take(origin) + part.farther.take(follower) * stride, origin

    def least_outwards(self, values: Floats) -> None:
        """In place: every tile takes the least value of all tiles that may follow it. values: (any, any, tiles)."""
        for axis, part in enumerate(self.dimensions):
            if part.covers:
                along = values.reshape(-1, self.shape[axis], self.strides[axis])
                few = along.shape[2] <= FEW
                runs = [along[..., at] for at in range(along.shape[2])] if few else [along]
                for inner, outer in part.covers:
                    for run in runs:
                        np.minimum(run[:, inner], run[:, outer], out=run[:, inner])
