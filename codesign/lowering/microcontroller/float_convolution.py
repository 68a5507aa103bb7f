"""A float convolution with a block of sums in registers; channels first, as ONNX has them.

    for every few pixels:
        columns = their windows, value by value:  pixel 0 | pixel 1 | ... , zeros where there is padding
        for every few channels:
            sums += columns * weights     weights in the same order:  channel 0 | channel 1 | ...
            values = sums with the layer's epilogue

A block of 4 pixels x 4 channels takes 8 loads for 16 products and 24 of the 32 registers of a Cortex-M4's
floating-point unit. Pixels are counted through all rows of an image, so that only its last block can be a short one. A
pointwise convolution whose pixels fill whole blocks reads its input where it lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from codesign.lowering.microcontroller.blocks import Block
from codesign.lowering.microcontroller.building import Expression, FunctionBuilder
from codesign.lowering.microcontroller.convolution import Window
from codesign.lowering.processor.epilogue import Step, apply, tensors_of

_MOST_UNROLLED = 8  # taps across


@dataclass(frozen=True)
class FloatLayer:
    """window: channels and outputs of one group; pixels of a pointwise layer in one row. extras: the epilogue."""

    window: Window
    images: int
    groups: int
    extras: tuple[Step, ...]
    block: Block

    @property
    def pixels(self) -> int:
        """Of one channel of one image."""
        return self.window.output_rows * self.window.output_columns

    @property
    def blocks_of_channels(self) -> int:
        """In one group, the last of them with idle channels if it must."""
        return -(-self.window.outputs // self.block.channels)

    @property
    def blocks_of_pixels(self) -> int:
        """In one image, the last of them with idle pixels if it must."""
        return -(-self.pixels // self.block.pixels)

    @property
    def reads_in_place(self) -> bool:
        """Whether the input already lies as the inner loop wants it."""
        return self.window.is_rows and self.pixels % self.block.pixels == 0

    @property
    def macs(self) -> int:
        """Of whole blocks, so those of idle channels and pixels too."""
        sums = self.blocks_of_channels * self.blocks_of_pixels * self.block.channels * self.block.pixels
        return self.images * self.groups * sums * self.window.terms

    def packed_weights(self, weights: np.ndarray) -> np.ndarray:
        """[K, C, FY, FX] of all groups -> [groups, blocks of channels, terms, channels of a block], zeros if idle."""
        flat = weights.reshape(self.groups, self.window.outputs, self.window.terms)
        idle = self.blocks_of_channels * self.block.channels - self.window.outputs
        filled = np.pad(flat, ((0, 0), (0, idle), (0, 0)))
        blocks = filled.reshape(self.groups, self.blocks_of_channels, self.block.channels, self.window.terms)
        return np.ascontiguousarray(blocks.transpose(0, 1, 3, 2))

    def packed_bias(self, bias: np.ndarray | None) -> np.ndarray:
        """[K] or none -> [groups, channels of whole blocks]."""
        values = np.zeros(self.groups * self.window.outputs, np.float32) if bias is None else bias
        idle = self.blocks_of_channels * self.block.channels - self.window.outputs
        return np.pad(values.astype(np.float32).reshape(self.groups, self.window.outputs), ((0, 0), (0, idle)))


def float_convolution(layer: FloatLayer) -> Any:
    """A PrimFunc of x [B, groups x C, IY, IX], packed weights and bias, the epilogue's tensors, and y, all flat."""
    return _FloatConvolution(layer).build()


class _FloatConvolution:
    def __init__(self, layer: FloatLayer) -> None:
        self.layer = layer
        self.window = layer.window
        self.code = FunctionBuilder()

    def build(self) -> Any:
        layer, window, block, code = self.layer, self.window, self.layer.block, self.code
        with code.function(read_in_place=added_names(layer.extras)):
            self.x = code.parameter("x", x_shape(layer), "float32")
            weights = (layer.groups, layer.blocks_of_channels, window.terms, block.channels)
            self.weights = code.parameter("weights", weights, "float32")
            bias = (layer.groups, layer.blocks_of_channels * block.channels)
            self.bias = code.parameter("bias", bias, "float32")
            self.added, self.y = epilogue_parameters(code, layer.extras, y_elements(layer))
            if not layer.reads_in_place:
                self.columns = code.scratch("columns", window.terms * block.pixels, "float32")
            with (
                code.loop("b", layer.images) as b,
                code.loop("g", layer.groups) as g,
                code.loop("block", layer.blocks_of_pixels) as at,
            ):
                if not layer.reads_in_place:
                    for pixel in range(block.pixels):
                        self._fill(b, g, at, pixel)
                with code.loop("k", layer.blocks_of_channels) as k:
                    self._sums(b, g, at, k)
        return code.built()

    def _fill(self, b: Expression, g: Expression, at: Expression, pixel: int) -> None:
        """One pixel's window; past the last pixel, that one's again."""
        from tvm import tirx

        window, layer, code = self.window, self.layer, self.code
        number = at * layer.block.pixels + pixel
        if layer.pixels % layer.block.pixels:
            number = tirx.min(number, layer.pixels - 1)
        oy, ox = number // window.output_columns, number % window.output_columns
        if not any(window.pads):
            self._copy(b, g, oy, ox, pixel, inside=True)
            return
        last = tuple(size - 1 for size in window.taps)
        whole = tirx.all(window.holds(oy, ox, 0, 0), window.holds(oy, ox, *last))
        with code.either(whole) as (uncut, cut):
            with uncut:
                self._copy(b, g, oy, ox, pixel, inside=True)
            with cut:
                self._copy(b, g, oy, ox, pixel, inside=False)

    def _copy(self, b: Expression, g: Expression, oy: Expression, ox: Expression, pixel: int, *, inside: bool) -> None:
        """inside: no tap of this window lies in the padding."""
        window, code = self.window, self.code
        down, across = window.taps
        with code.loop("c", window.channels) as c, code.loop("fy", down) as fy:
            place = b, g * window.channels + c, (c * down + fy) * across
            if across <= _MOST_UNROLLED:
                for fx in range(across):
                    self._value(place, (oy, ox), (fy, fx), pixel, inside=inside)
            else:
                with code.loop("fx", across) as fx:
                    self._value(place, (oy, ox), (fy, fx), pixel, inside=inside)

    def _value(self, place: Any, at: Any, tap: Any, pixel: int, *, inside: bool) -> None:
        from tvm import tirx

        (b, channel, start), window = place, self.window
        value = self.x[b, channel, window.row(at[0], tap[0]), window.column(at[1], tap[1])]
        if not inside:
            value = tirx.if_then_else(window.holds(*at, *tap), value, tirx.const(0.0, "float32"))
        self.code.store(self.columns, [(start + tap[1]) * self.layer.block.pixels + pixel], value)

    def _sums(self, b: Expression, g: Expression, at: Expression, k: Expression) -> None:
        layer, code = self.layer, self.code
        pixels, channels = layer.block.pixels, layer.block.channels
        sums = code.local("sums", pixels * channels, "float32")
        places = [(channel, pixel) for channel in range(channels) for pixel in range(pixels)]
        for number, (channel, _) in enumerate(places):
            code.store(sums, [number], self.bias[g, k * channels + channel])
        with code.loop("term", self.window.terms) as term:
            for number, (channel, pixel) in enumerate(places):
                code.add_product(sums, number, self._input(b, g, at, term, pixel), self.weights[g, k, term, channel])
        for number, (channel, pixel) in enumerate(places):
            self._finish(sums[number], b, g, k * channels + channel, at * pixels + pixel)

    def _input(self, b: Expression, g: Expression, at: Expression, term: Expression, pixel: int) -> Expression:
        pixels = self.layer.block.pixels
        if self.layer.reads_in_place:
            return self.x[b, g * self.window.channels + term, 0, at * pixels + pixel]
        return self.columns[term * pixels + pixel]

    def _finish(self, total: Expression, b: Expression, g: Expression, k: Expression, number: Expression) -> None:
        """One value, if its channel and pixel exist."""
        layer, code = self.layer, self.code
        conditions = []
        if self.window.outputs % layer.block.channels:
            conditions.append(k < self.window.outputs)
        if layer.pixels % layer.block.pixels:
            conditions.append(number < layer.pixels)
        place = (b, g * self.window.outputs + k, 0, number)
        index = ((b * layer.groups + g) * self.window.outputs + k) * layer.pixels + number
        with code.where_all(conditions):
            code.store(self.y, [index], apply(layer.extras, total, 1, self.added, place))


def x_shape(layer: FloatLayer) -> tuple[int, int, int, int]:
    """Of the input as the kernels read it."""
    return layer.images, layer.groups * layer.window.channels, layer.window.rows, layer.window.columns


def y_elements(layer: FloatLayer) -> int:
    """Of the output."""
    return layer.images * layer.groups * layer.window.outputs * layer.pixels


def epilogue_parameters(code: FunctionBuilder, extras: Sequence[Step], elements: int) -> tuple[list[Any], Any]:
    """Tensors that are added on the way out, and the output."""
    added = [code.parameter(name, (elements,), "float32") for name in added_names(extras)]
    return added, code.parameter("y", (elements,), "float32")


def added_names(extras: Sequence[Step]) -> list[str]:
    """What the tensors that are added on the way out are called."""
    return [f"added_{number}" for number in range(len(tensors_of(extras)))]
