"""Smaller grids for cheaper bounds: tiles that differ little become one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, reduce
from math import prod

import numpy as np

from codesign.mapping.grid import Floats, Grid, Group, Integers


@dataclass(frozen=True, eq=False)
class Merged:
    """A grid that tells apart all of a group of dimensions from any part of it, and no more.

    A bound over it lets every cut take the part it likes best, whatever the others take. Arrays over the fine grid are
    shaped like its `box`.
    """

    fine: Grid
    groups: tuple[Group, ...]

    @cached_property
    def grid(self) -> Grid:
        """The smaller grid: two sizes for the first dimension of a group, which stand for the others too."""
        steps = list(self.fine.full)
        for group in self.groups:
            several = any(self.fine.shape[axis] > 1 for axis in group)
            for axis in group:
                steps[axis] = 2 if several and axis == group[0] else 1
        return Grid(tuple(steps), self.fine.perfect)

    @cached_property
    def rows(self) -> Integers:
        """The number of every tile of the fine grid in the smaller one."""
        index = list(self.fine.everywhere)
        for group in self.groups:
            whole = [self.fine.everywhere[axis] == self.fine.shape[axis] - 1 for axis in group]
            index[group[0]] = reduce(np.logical_and, whole).astype(np.intp)
        shape, strides = self.grid.shape, self.grid.strides
        parts = [index[axis] * strides[axis] for axis, size in enumerate(shape) if size > 1]
        return np.broadcast_to(sum(parts, np.zeros(1, dtype=np.intp)), self.fine.box).ravel()

    @cached_property
    def _spans(self) -> tuple[tuple[int, int], ...]:
        """Axes of the box of each group: the first, counted from the last, and how many. The last group first."""
        axes = self.fine.axes
        found = [[at - len(axes) for at, axis in enumerate(axes) if axis in group] for group in self.groups]
        return tuple(sorted(((part[0], len(part)) for part in found if part), reverse=True))

    def least(self, values: Floats) -> Floats:
        """Of values over the fine grid the least of those that become one: shaped like the box of the smaller grid."""
        gone = 0
        for first, count in self._spans:
            end = first + count
            sizes = self.fine.box[first : end or None]
            values = _part_and_whole(values, first + gone, sizes)
            gone += count - 1
        return values

    def varies(self, values: Floats) -> bool:
        """Whether values differ between tiles that become one."""
        return any(size > 1 for first, count in self._spans for size in values.shape[first : first + count or None])


def _part_and_whole(values: Floats, first: int, sizes: tuple[int, ...]) -> Floats:
    """Neighbouring axes of these sizes as one of two: the least of any part, and the whole.

    first: the first of them, counted from the last of all.
    """
    at = values.ndim + first
    before, here, after = values.shape[:at], values.shape[at : at + len(sizes)], values.shape[at + len(sizes) :]
    if prod(here) == 1:
        return values.reshape(*before, 1, *after)
    if here != sizes:
        values = np.broadcast_to(values, (*before, *sizes, *after))
    several = values.reshape(prod(before), prod(sizes), prod(after))
    found = np.empty((len(several), 2, several.shape[2]))
    np.minimum.reduce(several[:, :-1], axis=1, out=found[:, 0])
    found[:, 1] = several[:, -1]
    return found.reshape(*before, 2, *after)
