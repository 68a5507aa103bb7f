"""Sliding windows along one axis: which input rows (or columns) tiles of outputs and kernel taps touch."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from codesign.vocabulary import Dimension
from codesign.workload.loop_nest import LoopNest

Integers = NDArray[np.intp]


class Window(NamedTuple):
    """One axis of a convolution: input position = output * stride + tap * dilation - pad.

    outputs, taps: sizes of the two loops. size: real input positions. input_dilation: distance between real positions
    once zeros are inserted. With one tap and a stride above 1 only every stride-th position is touched and a tile
    holds just those (`compact`); otherwise a tile holds the contiguous hull of what it touches.
    """

    outputs: int
    taps: int
    stride: int
    dilation: int
    pad: int
    size: int
    input_dilation: int

    @property
    def compact(self) -> bool:
        """True when a tile keeps the touched positions alone."""
        return self.taps == 1 and self.stride > 1

    def hull(self, outputs: int, taps: int) -> int:
        """Positions a tile of `outputs` x `taps` takes on chip, zeros of the padding included."""
        if self.compact:
            return outputs
        return (outputs - 1) * self.stride + (taps - 1) * self.dilation + 1

    def distinct(self, outputs: int, taps: int) -> int:
        """Different positions used by `outputs` x `taps` lanes in one cycle."""
        return _distinct(outputs, taps, self.stride, self.dilation)

    def moved(self, output_tile: int, tap_tile: int, *, zeros: bool) -> int:
        """Positions copied over all tiles of the axis, edge tiles cut; real ones only, or `zeros` of padding too."""
        return _moved(self, output_tile, tap_tile, zeros)

    def read_by_lanes(self, output_lanes: int, tap_lanes: int) -> int:
        """Different positions used per cycle, summed over all steps of the axis, idle lanes left out."""
        return _read_by_lanes(self, output_lanes, tap_lanes)

    @property
    def touched(self) -> int:
        """Real positions used at least once."""
        return _touched(self)


@lru_cache(maxsize=4096)
def windows_of(nest: LoopNest) -> tuple[Window, Window]:
    """The row and the column window of a nest with MACs."""
    rows = Window(
        nest.size(Dimension.OY),
        nest.size(Dimension.FY),
        nest.stride[0],
        nest.dilation[0],
        nest.pads[0],
        nest.input_rows,
        nest.input_dilation[0],
    )
    columns = Window(
        nest.size(Dimension.OX),
        nest.size(Dimension.FX),
        nest.stride[1],
        nest.dilation[1],
        nest.pads[1],
        nest.input_columns,
        nest.input_dilation[1],
    )
    return rows, columns


@lru_cache(maxsize=65536)
def _distinct(outputs: int, taps: int, stride: int, dilation: int) -> int:
    return len({out * stride + tap * dilation for out in range(outputs) for tap in range(taps)})


@lru_cache(maxsize=4096)
def _touched(window: Window) -> int:
    used: set[int] = set()
    for tap in range(window.taps):
        first = tap * window.dilation - window.pad
        used.update(range(first, first + window.outputs * window.stride, window.stride))
    return len(used.intersection(range(0, window.size * window.input_dilation, window.input_dilation)))


@lru_cache(maxsize=65536)
def _moved(window: Window, output_tile: int, tap_tile: int, zeros: bool) -> int:
    return int(moved_table(window, (output_tile,), (tap_tile,), zeros)[0, 0])


@lru_cache(maxsize=4096)
def moved_table(
    window: Window, output_tiles: tuple[int, ...], tap_tiles: tuple[int, ...], zeros: bool
) -> NDArray[np.float64]:
    """`Window.moved` for every tile size of outputs (rows) and of taps (columns)."""
    if window.compact:
        touched = np.arange(window.outputs) * window.stride - window.pad
        real = int(((touched >= 0) & (touched < window.size)).sum())
        return np.full((len(output_tiles), len(tap_tiles)), float(window.outputs if zeros else real))
    first_output, last_output, output_starts = _tiles(window.outputs, output_tiles)
    first_tap, last_tap, tap_starts = _tiles(window.taps, tap_tiles)
    low = (first_output * window.stride)[:, None] + (first_tap * window.dilation - window.pad)
    high = (last_output * window.stride)[:, None] + (last_tap * window.dilation - window.pad)
    if not zeros:
        low = np.maximum(low, 0)
        high = np.minimum(high, (window.size - 1) * window.input_dilation)
        if window.input_dilation > 1:
            low, high = -(-low // window.input_dilation), high // window.input_dilation
    positions = np.maximum(high - low + 1, 0)
    by_output_tile = np.add.reduceat(positions, output_starts, axis=0)
    return np.add.reduceat(by_output_tile, tap_starts, axis=1).astype(np.float64)


def _tiles(size: int, tiles: tuple[int, ...]) -> tuple[Integers, Integers, Integers]:
    """First and last of every tile, for each size of tiles in turn, and where each size begins."""
    sizes = np.asarray(tiles)
    counts = -(-size // sizes)
    starts = counts.cumsum() - counts
    longest = sizes.repeat(counts)
    first = (np.arange(len(longest)) - starts.repeat(counts)) * longest
    return first, np.minimum(first + longest, size) - 1, starts


@lru_cache(maxsize=65536)
def _read_by_lanes(window: Window, output_lanes: int, tap_lanes: int) -> int:
    total = 0
    for outputs, output_steps in _steps(window.outputs, output_lanes):
        for taps, tap_steps in _steps(window.taps, tap_lanes):
            total += output_steps * tap_steps * window.distinct(outputs, taps)
    return total


def _steps(size: int, lanes: int) -> list[tuple[int, int]]:
    """(busy lanes, steps) of the full and the ragged step."""
    full, rest = divmod(size, lanes)
    return [(count, steps) for count, steps in ((lanes, full), (rest, 1)) if count and steps]
