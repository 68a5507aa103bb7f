"""A float depthwise convolution, channels first: a few pixels of a row at a time, their sums in registers.

    for every channel, every few pixels of a row:
        sums += values * weights    tap by tap; where all windows lie inside the image, without asking
        values = sums with the layer's epilogue

Neighbours' windows overlap: the taps are written out, so that a compiler loads every value and every weight once.
"""

from __future__ import annotations

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
from codesign.lowering.processor.epilogue import apply


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
        pixels = layer.block.pixels
        with code.function(read_in_place=added_names(layer.extras)):
            self.x = code.parameter("x", x_shape(layer), "float32")
            self.weights = code.parameter("weights", (layer.groups, 1, window.terms, 1), "float32")
            self.bias = code.parameter("bias", (layer.groups, 1), "float32")
            self.added, self.y = epilogue_parameters(code, layer.extras, y_elements(layer))
            with (
                code.loop("b", layer.images) as b,
                code.loop("g", layer.groups) as g,
                code.loop("oy", window.output_rows) as oy,
            ):
                whole, rest = divmod(window.output_columns, pixels)
                if whole:
                    with code.loop("block", whole) as at:
                        self._block(b, g, oy, at * pixels, pixels)
                if rest:
                    self._block(b, g, oy, whole * pixels, rest)
        return code.built()

    def _block(self, b: Expression, g: Expression, oy: Expression, ox: Expression, pixels: int) -> None:
        """Pixels side by side from column ox on."""
        window, code = self.window, self.code
        sums = code.local("sums", pixels, "float32")
        for pixel in range(pixels):
            code.store(sums, [pixel], self.bias[g, 0])
        if any(window.pads):
            with code.either(self._uncut(oy, ox, pixels)) as (uncut, cut):
                with uncut:
                    self._all_taps(sums, b, g, oy, ox, pixels)
                with cut:
                    for pixel in range(pixels):
                        self._taps_inside(sums, b, g, oy, ox + pixel, pixel)
        else:
            self._all_taps(sums, b, g, oy, ox, pixels)
        for pixel in range(pixels):
            number = oy * window.output_columns + ox + pixel
            place = (b, g, 0, number)
            value = apply(self.layer.extras, sums[pixel], 1, self.added, place)
            code.store(self.y, [(b * self.layer.groups + g) * self.layer.pixels + number], value)

    def _uncut(self, oy: Expression, ox: Expression, pixels: int) -> Expression:
        """Whether no tap of any of the pixels meets padding."""
        from tvm import tirx

        last = [size - 1 for size in self.window.taps]
        first, end = self.window.holds(oy, ox, 0, 0), self.window.holds(oy, ox + pixels - 1, *last)
        return tirx.all(first, end)

    def _all_taps(self, sums: Any, b: Expression, g: Expression, oy: Expression, ox: Expression, pixels: int) -> None:
        for tap in np.ndindex(*self.window.taps):
            for pixel in range(pixels):
                self._tap(sums, b, g, (oy, ox + pixel), tap, pixel)

    def _taps_inside(self, sums: Any, b: Expression, g: Expression, oy: Expression, ox: Expression, pixel: int) -> None:
        down, across = self.window.taps_inside(oy, ox)
        with self.code.loop("fy", down[1], down[0]) as fy, self.code.loop("fx", across[1], across[0]) as fx:
            self._tap(sums, b, g, (oy, ox), (fy, fx), pixel)

    def _tap(self, sums: Any, b: Expression, g: Expression, at: Any, tap: Any, pixel: int) -> None:
        window = self.window
        value = self.x[b, g, window.row(at[0], tap[0]), window.column(at[1], tap[1])]
        weight = self.weights[g, 0, tap[0] * window.taps[1] + tap[1], 0]
        self.code.add_product(sums, pixel, value, weight)
