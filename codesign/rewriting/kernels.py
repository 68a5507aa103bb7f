"""Convolutions as maps that can be put one after another, added up, and written down as one convolution again.

A Footprint says which elements such a map reads, a Kernel adds the numbers. Everything that is linear in each channel's
neighbourhood is one: a convolution, a normalisation, an average, the identity (a 1x1 kernel of ones), padding.
All arithmetic is float64. A map reads zeros outside its input; putting two maps after one another takes the first one
as if it went on outside its output, and `Footprint.reaches_outside` with `Footprint.is_blind_outside` tell whether that
makes a difference.
Source: Ding et al., "Diverse Branch Block", CVPR 2021, transforms I, II, III, V and VI.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import product
from math import gcd, prod
from typing import TypeAlias

import numpy as np

from codesign.graph.windows import Pads, Pair

Taps: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class Footprint:
    """The output at (row, column) sums x at (stride * row + tap, stride * column + tap) over the taps of each axis.

    inputs, outputs: channels. taps: in rising order, for rows and for columns; negative ones reach before the edge.
    """

    inputs: int
    outputs: int
    group: int
    strides: Pair
    taps: tuple[Taps, Taps]
    input_size: Pair
    output_size: Pair

    @classmethod
    def identity(cls, channels: int, size: Pair) -> Footprint:
        """The map that leaves every element as it is."""
        return cls(channels, channels, channels, (1, 1), ((0,), (0,)), size, size)

    @property
    def is_channelwise(self) -> bool:
        """Whether every output channel reads the input channel of the same number alone."""
        return self.group == self.inputs == self.outputs

    def then(self, second: Footprint) -> Footprint:
        """This map, and `second` on its result."""
        rows, columns = (
            tuple(sorted({stride * later + tap for later in there for tap in here}))
            for stride, here, there in zip(self.strides, self.taps, second.taps, strict=True)
        )
        strides = (self.strides[0] * second.strides[0], self.strides[1] * second.strides[1])
        group, sizes = gcd(self.group, second.group), (self.input_size, second.output_size)
        return Footprint(self.inputs, second.outputs, group, strides, (rows, columns), *sizes)

    def plus(self, other: Footprint) -> Footprint | None:
        """The sum of two maps of one input, in the finest grouping that holds both; None when they step differently."""
        strides = []
        for mine, others, size in zip(self.strides, other.strides, self.output_size, strict=True):
            if mine != others and size > 1:
                return None
            strides.append(mine if size > 1 else 1)
        rows, columns = (tuple(sorted({*mine, *others})) for mine, others in zip(self.taps, other.taps, strict=True))
        group, sizes = gcd(self.group, other.group), (self.input_size, self.output_size)
        return Footprint(self.inputs, self.outputs, group, (strides[0], strides[1]), (rows, columns), *sizes)

    def outside(self, axis: int) -> set[int]:
        """Rows (axis 0) or columns it reads that its input does not have."""
        places = range(self.output_size[axis])
        read = {self.strides[axis] * place + tap for place in places for tap in self.taps[axis]}
        return {place for place in read if not 0 <= place < self.input_size[axis]}

    @property
    def reaches_outside(self) -> bool:
        """Whether it reads beyond any edge of its input."""
        return bool(self.outside(0) or self.outside(1))

    def is_blind_outside(self, second: Footprint) -> bool:
        """Whether, where `second` reads beyond the edges of this map's result, this map would see no real element.

        It gives its bias there, whatever the data.
        """
        return not any(
            0 <= stride * place + tap < size
            for axis, (stride, size) in enumerate(zip(self.strides, self.input_size, strict=True))
            for place in second.outside(axis)
            for tap in self.taps[axis]
        )

    @property
    def window(self) -> WindowOver:
        """The convolution's window over the input that has all the taps, some perhaps with weights of zero."""
        axes = zip(self.taps, self.strides, self.input_size, self.output_size, strict=True)
        rows, columns = (_Regular.of(*axis) for axis in axes)
        return WindowOver(
            (rows.count, columns.count),
            (rows.dilation, columns.dilation),
            (rows.begin, columns.begin, rows.end, columns.end),
        )

    @property
    def weights(self) -> int:
        """How many weights one convolution needs."""
        return self.outputs * (self.inputs // self.group) * prod(self.window.kernel)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one convolution, for one image."""
        return self.weights * prod(self.output_size)


@dataclass(frozen=True)
class WindowOver:
    """Kernel (rows, columns), dilations, and pads (top, left, bottom, right) of a convolution."""

    kernel: Pair
    dilations: Pair
    pads: Pads


@dataclass(frozen=True)
class _Regular:
    """Taps at equal distances along one axis: -begin, -begin + dilation, ..."""

    count: int
    dilation: int
    begin: int
    end: int

    @classmethod
    def of(cls, taps: Taps, stride: int, size: int, result: int) -> _Regular:
        """Those that hold `taps`, begin at or before the edge and make `result` places of `size`."""
        dilation = reduce(gcd, (tap - taps[0] for tap in taps)) or 1
        first = taps[0] if taps[0] <= 0 else taps[0] % dilation - (dilation if taps[0] % dilation else 0)
        last = taps[-1]
        # A convolution makes all the places there are: more taps, of zero weight, where `result` leaves some out.
        while (missing := (result - 1) * stride + last + 1 - size) <= -stride:
            last += dilation
        places = (size - 2 * first - (last - first + 1)) // stride + 1
        end = -first if places == result else max(0, missing)  # the same at both ends where it can be
        return cls((last - first) // dilation + 1, dilation, -first, end)


@dataclass(frozen=True, eq=False)
class Kernel:
    """A Footprint with numbers. weights: [outputs, inputs / group, taps of rows, taps of columns]; bias: [outputs]."""

    footprint: Footprint
    weights: np.ndarray
    bias: np.ndarray

    @classmethod
    def identity(cls, channels: int, size: Pair) -> Kernel:
        """The map that leaves every element as it is."""
        return cls(Footprint.identity(channels, size), np.ones((channels, 1, 1, 1)), np.zeros(channels))

    def then(self, second: Kernel) -> Kernel:
        """This map, and `second` on its result.

        w2 (w1 x + b1) + b2 = (w2 w1) x + (w2 b1 + b2), each tap of w2 moving all taps of w1.
        """
        footprint = self.footprint.then(second.footprint)
        weights = np.zeros(_shape(footprint))
        first, later = self.weights.astype(np.float64), second.weights.astype(np.float64)
        for row, column in product(*(range(len(taps)) for taps in second.footprint.taps)):
            shifts = (second.footprint.taps[0][row], second.footprint.taps[1][column])
            rows, columns = (
                _places(footprint.taps[axis], [shifts[axis] * self.footprint.strides[axis] + tap for tap in taps])
                for axis, taps in enumerate(self.footprint.taps)
            )
            tap_of_second = later[:, :, row, column]
            weights[:, :, rows[:, None], columns] += _mixed(self, first, second, tap_of_second, footprint.group)
        return Kernel(footprint, weights, second.on_constant(self.bias))

    def on_constant(self, values: np.ndarray) -> np.ndarray:
        """What it makes of a feature map that is `values`, [inputs], everywhere."""
        group = self.footprint.group
        matrix = self.weights.sum(axis=(2, 3), dtype=np.float64).reshape(group, -1, self.weights.shape[1])
        result: np.ndarray = (matrix @ values.reshape(group, -1, 1)).reshape(-1) + self.bias
        return result

    @property
    def window_weights(self) -> np.ndarray:
        """The weights at all places of the window: [outputs, inputs / group, rows, columns]."""
        window = self.footprint.window
        result = np.zeros((*self.weights.shape[:2], *window.kernel))
        rows, columns = (
            np.array([(tap + window.pads[axis]) // window.dilations[axis] for tap in taps])
            for axis, taps in enumerate(self.footprint.taps)
        )
        result[:, :, rows[:, None], columns] = self.weights
        return result


def total(kernels: Sequence[Kernel]) -> Kernel:
    """The sum of maps of one input that step alike: in the union of their taps, in the finest grouping that holds all.

    Raises ValueError when strides differ.
    """
    footprint = kernels[0].footprint
    for kernel in kernels[1:]:
        both = footprint.plus(kernel.footprint)
        if both is None:
            raise ValueError("the strides differ")
        footprint = both
    weights = np.zeros(_shape(footprint))
    for kernel in kernels:
        rows, columns = (
            _places(all_taps, taps) for all_taps, taps in zip(footprint.taps, kernel.footprint.taps, strict=True)
        )
        weights[:, :, rows[:, None], columns] += _regrouped(kernel.weights, kernel.footprint.group, footprint.group)
    return Kernel(footprint, weights, np.stack([kernel.bias for kernel in kernels]).sum(axis=0, dtype=np.float64))


def _shape(footprint: Footprint) -> tuple[int, ...]:
    return (footprint.outputs, footprint.inputs // footprint.group, *map(len, footprint.taps))


def _places(taps: Taps, wanted: Sequence[int]) -> np.ndarray:
    return np.searchsorted(np.array(taps), np.array(wanted))


def _regrouped(weights: np.ndarray, group: int, wanted: int) -> np.ndarray:
    """Weights of `group` groups as those of `wanted` fewer, larger ones: zeros between the old groups."""
    if group == wanted:
        return weights
    inner = group // wanted
    outputs, inputs, *window = weights.shape
    result = np.zeros((wanted, inner, outputs // group, inner, inputs, *window))
    parts = weights.reshape(wanted, inner, outputs // group, inputs, *window)
    places = np.arange(inner)
    result[:, places, :, places] = np.moveaxis(parts, 1, 0)
    return result.reshape((outputs, inner * inputs, *window))


def _mixed(first: Kernel, weights: np.ndarray, second: Kernel, tap: np.ndarray, group: int) -> np.ndarray:
    """Weights [M, C / g, ...] of the first after one tap [K, M / g] of the second: [K, C / group, ...]."""
    wide = tap[:, :, None, None]
    if second.footprint.is_channelwise:
        weights = weights * wide
    elif first.footprint.is_channelwise:
        by_group = weights.reshape(second.footprint.group, -1, *weights.shape[2:])
        weights = np.repeat(by_group, len(tap) // len(by_group), axis=0) * wide
    else:
        left = _regrouped(wide, second.footprint.group, group).reshape(group, len(tap) // group, -1)
        right = _regrouped(weights, first.footprint.group, group)
        weights = (left @ right.reshape(group, len(weights) // group, -1)).reshape(len(tap), *right.shape[1:])
    return weights
