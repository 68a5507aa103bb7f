"""A float depthwise convolution, channels first: a few pixels of a row at a time, their sums in registers.

    for every channel, every row, every few pixels of it:
        sums += values * weights    tap by tap; rows of taps above and below the image are left out
        values = sums with the layer's epilogue

Neighbours' windows overlap: the taps are written out, so that a compiler loads every value and every weight once.
Columns whose windows are cut have code of their own, without the taps that miss the image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from codesign.lowering.microcontroller.building import Expression, FunctionBuilder
from codesign.lowering.microcontroller.float_convolution import (
    FloatLayer,
    added_names,
    epilogue_parameters,
    x_shape,
    y_elements,
)
from codesign.lowering.microcontroller.trailing import planes_lead
from codesign.lowering.processor.epilogue import apply

_MOST_UNROLLED = 25  # taps


@dataclass(frozen=True)
class _Pixel:
    """A column and the taps across that meet the image there."""

    column: Expression
    taps: Sequence[int]


def float_depthwise(layer: FloatLayer) -> Any:
    """A PrimFunc of x [B, G, IY, IX], packed weights and bias, the epilogue's tensors, and y, flat as those."""
    return _FloatDepthwise(layer).build()


class _FloatDepthwise:
    def __init__(self, layer: FloatLayer) -> None:
        self.layer = layer
        self.window = layer.window
        self.code = FunctionBuilder()

    def build(self) -> Any:
        layer, window, code = self.layer, self.window, self.code
        lead = planes_lead(window, layer.images * layer.groups, np.dtype("float32").itemsize)
        with code.function(read_in_place=added_names(layer.extras), lead_bytes=lead):
            self.x = code.parameter("x", x_shape(layer), "float32")
            self.weights = code.parameter("weights", (layer.groups, 1, window.terms, 1), "float32")
            self.bias = code.parameter("bias", (layer.groups, 1), "float32")
            self.added, self.y = epilogue_parameters(code, layer.extras, y_elements(layer))
            with (
                code.loop("b", layer.images) as b,
                code.loop("g", layer.groups) as g,
                code.loop("oy", window.output_rows) as oy,
            ):
                self._row(b, g, oy)
        return code.built()

    def _row(self, b: Expression, g: Expression, oy: Expression) -> None:
        """Columns at the left, blocks of those with whole windows, and the rest."""
        pixels, every_tap = self.layer.block.pixels, range(self.window.taps[1])
        columns = range(self.window.output_columns)
        uncut = [column for column in columns if len(self._taps_across(column)) == len(every_tap)]
        blocks = len(uncut) // pixels
        first = uncut[0] if blocks else 0
        for block in self._own_code(columns[:first]):
            self._block(b, g, oy, block)
        if blocks:
            with self.code.loop("block", blocks) as at:
                start = at * pixels + first
                self._block(b, g, oy, [_Pixel(start + pixel, every_tap) for pixel in range(pixels)])
        for block in self._own_code(columns[first + blocks * pixels :]):
            self._block(b, g, oy, block)

    def _own_code(self, columns: Sequence[int]) -> Iterator[list[_Pixel]]:
        """Blocks of columns that are known one by one."""
        pixels = self.layer.block.pixels
        for start in range(0, len(columns), pixels):
            yield [_Pixel(column, self._taps_across(column)) for column in columns[start : start + pixels]]

    def _taps_across(self, column: int) -> list[int]:
        window = self.window
        return [fx for fx in range(window.taps[1]) if 0 <= window.column(column, fx) < window.columns]

    def _block(self, b: Expression, g: Expression, oy: Expression, block: Sequence[_Pixel]) -> None:
        """Pixels side by side."""
        layer, code = self.layer, self.code
        sums = code.local("sums", len(block), "float32")
        for number in range(len(block)):
            code.store(sums, [number], self.bias[g, 0])
        self._rows_of_taps(sums, b, g, oy, block)
        for number, pixel in enumerate(block):
            at = oy * self.window.output_columns + pixel.column
            value = apply(layer.extras, sums[number], 1, self.added, (b, g, 0, at))
            code.store(self.y, [(b * layer.groups + g) * layer.pixels + at], value)

    def _rows_of_taps(self, sums: Any, b: Expression, g: Expression, oy: Expression, block: Sequence[_Pixel]) -> None:
        """Written out where all rows meet the image and they are not many."""
        window, code = self.window, self.code
        (first, count), _ = window.taps_inside(oy, 0)
        if window.terms > _MOST_UNROLLED:
            with code.loop("fy", count, first) as fy:
                self._row_of_taps(sums, b, g, (oy, fy), block)
            return
        if not (window.pads[0] or window.pads[2]):
            self._all_rows(sums, b, g, oy, block)
            return
        with code.either(self._uncut(oy)) as (uncut, cut):
            with uncut:
                self._all_rows(sums, b, g, oy, block)
            with cut, code.loop("fy", count, first) as fy:
                self._row_of_taps(sums, b, g, (oy, fy), block)

    def _uncut(self, oy: Expression) -> Expression:
        from tvm import tirx

        return tirx.all(self.window.row(oy, 0) >= 0, self.window.row(oy, self.window.taps[0] - 1) < self.window.rows)

    def _all_rows(self, sums: Any, b: Expression, g: Expression, oy: Expression, block: Sequence[_Pixel]) -> None:
        for fy in range(self.window.taps[0]):
            self._row_of_taps(sums, b, g, (oy, fy), block)

    def _row_of_taps(self, sums: Any, b: Expression, g: Expression, rows: Any, block: Sequence[_Pixel]) -> None:
        """rows: of the output and of the taps."""
        window, (oy, fy) = self.window, rows
        for number, pixel in enumerate(block):
            for fx in pixel.taps:
                value = self.x[b, g, window.row(oy, fy), window.column(pixel.column, fx)]
                weight = self.weights[g, 0, fy * window.taps[1] + fx, 0]
                self.code.add_product(sums, number, value, weight)
