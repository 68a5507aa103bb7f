"""How far behind its reading a kernel writes, so that its output may lie over its input.

A kernel that goes through an image pixel by pixel needs an old pixel only until its window has passed. Where the output
begins a little before the input (by rows of the window, not by the image), every value is written to where nothing is
that is read later: no copy, no scratch, the same instructions.

    input          . . . . r r r r r r r r        r: read later
    output     w w w w w                          written so far, from `lead` bytes before the input

The same is done to whole networks by diagonal memory optimisation (Blacker et al., 2020), which finds the distances by
running the operators.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from codesign.lowering.microcontroller.convolution import Window

Array = np.ndarray


def first_pixels(window: Window) -> Array:
    """By output pixel, the first pixel of the image that its window meets; one behind the last where it meets none."""
    rows = _first_met(
        window.output_rows, window.rows, window.taps[0], window.strides[0], window.dilations[0], window.pads[0]
    )
    columns = _first_met(
        window.output_columns, window.columns, window.taps[1], window.strides[1], window.dilations[1], window.pads[1]
    )
    behind = window.rows * window.columns
    found = rows[:, None] * window.columns + columns[None, :]
    return np.where((rows < window.rows)[:, None] & (columns < window.columns)[None, :], found, behind).reshape(-1)


def lead_of(first: Array, end: Array) -> int:
    """How far before the input the output must begin so that nothing is written over what is read later.

    first: by the kernel's steps in order, the first byte each reads; end: one past the last byte it has written then.
    All a step reads it reads before it writes.
    """
    later = np.minimum.accumulate(first[::-1])[::-1][1:]
    return max(0, int((end[:-1] - later).max(initial=0)))


def depthwise_lead(window: Window, channels: int, sizes: tuple[int, int]) -> int:
    """Of a depthwise convolution with channels last, so many of them at a time. sizes: bytes of a code in and out."""
    groups = np.arange(0, window.channels, channels)
    pixels = np.arange(window.output_rows * window.output_columns)
    first = first_pixels(window)[:, None] * window.channels + groups
    end = pixels[:, None] * window.channels + groups + channels
    return _holding(lead_of(first.reshape(-1) * sizes[0], end.reshape(-1) * sizes[1]), window, sizes)


def convolution_lead(window: Window, sizes: tuple[int, int]) -> int:
    """Of a convolution with channels last, which reads windows of a few pixels and then makes all their channels."""
    pixels = np.arange(window.output_rows * window.output_columns)
    first, end = first_pixels(window) * window.channels, (pixels + 1) * window.outputs
    return _holding(lead_of(first * sizes[0], end * sizes[1]), window, sizes)


def planes_lead(window: Window, planes: int, size: int) -> int:
    """Of a depthwise convolution with channels first, plane by plane. size: bytes of a value."""
    read, made = window.rows * window.columns, window.output_rows * window.output_columns
    number = np.arange(planes)[:, None]
    first, end = first_pixels(window) + read * number, np.arange(1, made + 1) + made * number
    grown = max(0, planes * (made - read) * size)
    return max(grown, lead_of(first.reshape(-1) * size, end.reshape(-1) * size))


def _holding(lead: int, window: Window, sizes: tuple[int, int]) -> int:
    """At least what the output is larger than the input: it ends where that does."""
    read = window.rows * window.columns * window.channels * sizes[0]
    made = window.output_rows * window.output_columns * window.outputs * sizes[1]
    return max(lead, made - read)


def _first_met(outputs: int, size: int, taps: int, stride: int, dilation: int, pad: int) -> Array:
    """By output row, the first row of the image that a tap meets; `size` where none does."""
    found = np.full(outputs, size)
    for at, tap in product(range(outputs), reversed(range(taps))):
        row = at * stride + tap * dilation - pad
        found[at] = row if 0 <= row < size else found[at]
    return found
