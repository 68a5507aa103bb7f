"""A convolution with channels last: windows of a few pixels spread out as 16-bit numbers, met by a few channels.

    for every two pixels of a row:
        columns = their windows, in pairs of codes:  pixel 0 | pixel 1 | pixel 0 | ...
        for every two channels:
            4 sums += columns * weights     weights in groups of four: channel 0 | channel 1 | channel 0 | ...
            4 codes = requantised sums

Two by two is the block that serves most layers, and other ones are chosen by the mappings. Each load of the inner loop
serves two products of two, as in CMSIS-NN (Lai, Suda, Chandra, 2018, section 3.1); but columns and weights are
interleaved, so that one instruction loads for both pixels and one for both channels, and both are taken apart in the
same order, so that nothing is put back in order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from codesign.lowering.integers.requantizing import Requantizer
from codesign.lowering.microcontroller.blocks import Block
from codesign.lowering.microcontroller.building import Expression, FunctionBuilder
from codesign.lowering.microcontroller.epilogue import Epilogue
from codesign.lowering.microcontroller.macs import GROUP
from codesign.lowering.microcontroller.trailing import convolution_lead
from codesign.numerics.steps import Convolve, Multiply, Step

KNOWN = tuple(Block(pixels, channels) for pixels, channels in ((1, 1), (1, 2), (1, 4), (2, 1), (2, 2)))
MANY_PIXELS = Block(2, 2)
ONE_PIXEL = Block(1, 4)
PAIR = 2
_MOST_UNROLLED = 64  # elements of a window whose places are computed one by one
_SAFE_TERMS = 1 << 16  # sums of so many products of bytes fit 32 bits with a bias


@dataclass(frozen=True)
class Window:
    """Sizes of one convolution with channels last."""

    rows: int
    columns: int
    channels: int
    output_rows: int
    output_columns: int
    outputs: int
    taps: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]

    @classmethod
    def of(cls, step: Convolve, *, rows: bool = True) -> Window:
        """Of a step over one image. rows: a pointwise one may be taken as `of_rows`."""
        _, channels, input_rows, columns = step.inputs[0].shape
        _, outputs, output_rows, output_columns = step.output.shape
        taps = (step.weights.shape[2], step.weights.shape[3])
        if rows and taps == (1, 1) and step.strides == (1, 1) and not any(step.pads):
            return cls.of_rows(input_rows * columns, channels, outputs)
        sizes = (input_rows, columns, channels, output_rows, output_columns, outputs)
        return cls(*sizes, taps, step.strides, step.dilations, step.pads)

    @property
    def terms(self) -> int:
        """Products of one sum, channels of one group."""
        return self.taps[0] * self.taps[1] * self.channels

    @property
    def is_rows(self) -> bool:
        """Whether it is as `of_rows` makes it: a pixel meets the one in its place and no other."""
        return self == self.of_rows(self.columns, self.channels, self.outputs)

    def row(self, oy: Expression, fy: Expression) -> Expression:
        """The row of the image a tap meets."""
        return oy * self.strides[0] + fy * self.dilations[0] - self.pads[0]

    def column(self, ox: Expression, fx: Expression) -> Expression:
        """The column of the image a tap meets."""
        return ox * self.strides[1] + fx * self.dilations[1] - self.pads[1]

    def taps_inside(self, oy: Expression, ox: Expression) -> tuple[tuple[Expression, Expression], ...]:
        """First tap that meets the image and how many do, down and across; none or less where all miss it."""
        from tvm import tirx

        found = []
        for at, (place, size) in enumerate(((oy, self.rows), (ox, self.columns))):
            start = place * self.strides[at] - self.pads[at]
            step = self.dilations[at]
            first = tirx.max(tirx.floordiv(step - 1 - start, step), 0)
            end = tirx.min(tirx.floordiv(size - 1 - start, step) + 1, self.taps[at])
            found.append((first, end - first))
        return tuple(found)

    def holds(self, oy: Expression, ox: Expression, fy: Expression, fx: Expression) -> Expression:
        """Whether what a tap meets lies in the image."""
        from tvm import tirx

        iy, ix = self.row(oy, fy), self.column(ox, fx)
        return tirx.all(iy >= 0, iy < self.rows, ix >= 0, ix < self.columns)

    @classmethod
    def of_rows(cls, pixels: int, channels: int, outputs: int) -> Window:
        """Every pixel by itself, all of them in one row: pairs do not end with every row of an image."""
        return cls(1, pixels, channels, 1, pixels, outputs, (1, 1), (1, 1), (1, 1), (0, 0, 0, 0))


@dataclass(frozen=True)
class Layer:
    """A convolution or a matrix product. weights: int8 [K, taps down x taps across x C]."""

    window: Window
    weights: np.ndarray
    zero_point: int
    epilogue: Epilogue
    block: Block

    @property
    def macs(self) -> int:
        """Of whole blocks and groups, so those of idle channels, pixels and products too."""
        window, block = self.window, self.block
        pixels = window.output_rows * -(-window.output_columns // block.pixels) * block.pixels
        return -(-window.outputs // block.channels) * block.channels * pixels * self.groups * GROUP

    @property
    def lead_bytes(self) -> int:
        """How far before x the output may begin and lie over it."""
        return convolution_lead(self.window, (1, np.dtype(self.epilogue.dtype).itemsize))

    @property
    def groups(self) -> int:
        """Of four products each, in one sum."""
        return -(-self.window.terms // GROUP)

    def constants(self) -> tuple[np.ndarray, ...]:
        """Packed weights, the bias, and what requantising reads."""
        packed = packed_weights(self.weights, self.block.channels, whole_groups=self.window.channels % GROUP == 0)
        return (packed, *(_padded(array, self.block.channels) for array in self.epilogue.constants()))


def layer_of(step: Step) -> Layer | None:
    """The step as `convolution` computes it, or None: only bytes by bytes, one image, all channels in one group."""
    if not isinstance(step, Convolve | Multiply) or step.sum_bits != 32 or str(step.weights.dtype) != "int8":
        return None
    if step.inputs[0].dtype != "int8" or step.output.dtype not in ("int8", "uint8"):
        return None
    if isinstance(step, Convolve):
        if step.transposed or step.group != 1 or len(step.output.shape) != 4 or step.output.shape[0] != 1:
            return None
        window = Window.of(step)
        weights = np.transpose(step.weights, (0, 2, 3, 1)).reshape(window.outputs, -1)
    else:
        terms, outputs = step.weights.shape
        window = Window.of_rows(step.output.elements // outputs, terms, outputs)
        weights = np.ascontiguousarray(step.weights.T)
    zero_point = step.inputs[0].zero_point
    bias = step.bias.astype(np.int64) - weights.astype(np.int64).sum(axis=1) * zero_point
    epilogue = Epilogue(Requantizer(step.requantization, step.output.dtype), bias)
    block = MANY_PIXELS if window.output_rows * window.output_columns > 1 else ONE_PIXEL
    layer = Layer(window, weights, zero_point, epilogue, block)
    return layer if window.terms < _SAFE_TERMS else None


def packed_weights(flat: np.ndarray, channels: int, *, whole_groups: bool) -> np.ndarray:
    """int8 [K, N] as the inner loop meets it: [K / channels, N / 4, channels, 4], zeros behind the last.

    channels: of a block. whole_groups: columns are taken apart by words as the weights are; else they stand in order,
    and the weights of a group are stored so that taking them apart puts them in order.
    """
    outputs, terms = flat.shape
    filled = np.zeros((-(-outputs // channels) * channels, -(-terms // GROUP) * GROUP), np.int8)
    filled[:outputs, :terms] = flat
    grouped = filled.reshape(-1, channels, filled.shape[1] // GROUP, GROUP).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(grouped if whole_groups else grouped[..., [0, 2, 1, 3]]).reshape(-1)


def convolution(layer: Layer) -> Any:
    """A PrimFunc of x [IY, IX, C], the layer's constants, and y [OY, OX, K]; codes with channels last."""
    return _Convolution(layer).build()


class _Convolution:
    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self.window = layer.window
        self.block = layer.block
        self.groups = layer.groups
        self.code = FunctionBuilder()

    def build(self) -> Any:
        window, code = self.window, self.code
        with code.function(lead_bytes=self.layer.lead_bytes):
            x = code.parameter("x", (window.rows, window.columns, window.channels), "int8")
            constants = [
                code.parameter(name, array.shape, str(array.dtype))
                for name, array in zip(
                    ("weights", "bias", "shift", "multiplier", "divisor"), self.layer.constants(), strict=False
                )
            ]
            shape = (window.output_rows, window.output_columns, window.outputs)
            y = code.parameter("y", shape, self.layer.epilogue.dtype)
            columns = code.scratch("columns", self.groups * GROUP * self.block.pixels, "int16")
            with (
                code.loop("oy", window.output_rows) as oy,
                code.loop("pair", -(-window.output_columns // self.block.pixels)) as pair,
            ):
                for pixel in range(self.block.pixels):
                    self._fill(x, columns, oy, self._pixel(pair, pixel), pixel)
                with code.loop("k", -(-window.outputs // self.block.channels)) as k:
                    self._channels(constants, columns, y, oy, pair, k)
        return code.built()

    def _pixel(self, pair: Expression, pixel: int) -> Expression:
        """The column of a pixel; where a row ends within a block, its last pixel again."""
        from tvm import tirx

        column, columns = pair * self.block.pixels + pixel, self.window.output_columns
        return column if columns % self.block.pixels == 0 else tirx.min(column, columns - 1)

    def _fill(self, x: Any, columns: Any, oy: Expression, ox: Expression, pixel: int) -> None:
        """One pixel's window."""
        window, code = self.window, self.code
        if window.channels % GROUP:
            self._fill_one_by_one(x, columns, oy, ox, pixel)
            return
        with code.loop("fy", window.taps[0]) as fy, code.loop("fx", window.taps[1]) as fx:
            at = (fy * window.taps[1] + fx) * (window.channels * self.block.pixels) + pixel * PAIR
            iy, ix = window.row(oy, fy), window.column(ox, fx)
            if any(window.pads):
                with code.either(window.holds(oy, ox, fy, fx)) as (inside, outside):
                    with inside:
                        self._expand(columns, at, x, iy, ix)
                    with outside, code.loop("c", window.channels // GROUP) as c:
                        start = at + c * (GROUP * self.block.pixels)
                        for number in range(GROUP):
                            code.store(columns, [start + self._place(number)], self._nothing())
            else:
                self._expand(columns, at, x, iy, ix)

    def _expand(self, columns: Any, at: Expression, x: Any, iy: Expression, ix: Expression) -> None:
        code, sizes = self.code, (self.window.channels // GROUP, self.block.pixels)
        code.call("expand_codes", code.address(columns, at), code.address(x, iy, ix, 0), *sizes)

    def _fill_one_by_one(self, x: Any, columns: Any, oy: Expression, ox: Expression, pixel: int) -> None:
        """Few channels: groups of four run across taps, so every number finds its own place."""
        from tvm import tirx

        window, code = self.window, self.code

        def put(at: Expression, fy: Expression, fx: Expression, c: Expression) -> None:
            iy, ix = window.row(oy, fy), window.column(ox, fx)
            value = x[iy, ix, c].astype("int16")
            inside = (
                value
                if not any(window.pads)
                else tirx.if_then_else(window.holds(oy, ox, fy, fx), value, self._nothing())
            )
            code.store(columns, [self._place(at) + pixel * PAIR], inside)

        down, across = window.taps
        if window.terms <= _MOST_UNROLLED:
            for at, (fy, fx, c) in enumerate(np.ndindex(down, across, window.channels)):
                put(at, fy, fx, c)
        else:
            with code.loop("fy", down) as fy, code.loop("fx", across) as fx, code.loop("c", window.channels) as c:
                put((fy * across + fx) * window.channels + c, fy, fx, c)
        for at in range(window.terms, self.groups * GROUP):
            code.store(columns, [self._place(at) + pixel * PAIR], tirx.const(0, "int16"))

    def _place(self, at: Expression) -> Expression:
        """Where a window's element stands in `columns`: pairs of all pixels take turns."""
        return at // PAIR * (PAIR * self.block.pixels) + at % PAIR

    def _nothing(self) -> Expression:
        """What padding stands for: its share was taken off the bias with all others'."""
        from tvm import tirx

        return tirx.const(self.layer.zero_point, "int16")

    def _channels(
        self, constants: list[Any], columns: Any, y: Any, oy: Expression, pair: Expression, k: Expression
    ) -> None:
        code, (weights, bias, *ratios) = self.code, constants
        pixels, channels = self.block.pixels, self.block.channels
        sums = code.local("sums", pixels * channels, "int32")
        places = [(channel, pixel) for channel in range(channels) for pixel in range(pixels)]
        for number, (channel, _) in enumerate(places):
            code.store(sums, [number], bias[k * channels + channel])
        start = k * (self.groups * GROUP * channels)
        operands = [code.address(sums, 0), code.address(weights, start), code.address(columns, 0)]
        code.call(f"multiply_{channels}x{pixels}", *operands, self.groups)
        for number, (channel, pixel) in enumerate(places):
            made = k * channels + channel
            codes = self.layer.epilogue.codes(sums[number], tuple(ratios), made)
            if channel and self.window.outputs % channels:
                with code.where(made < self.window.outputs):
                    code.store(y, [oy, self._pixel(pair, pixel), made], codes)
            else:
                code.store(y, [oy, self._pixel(pair, pixel), made], codes)


def _padded(array: np.ndarray, multiple: int) -> np.ndarray:
    """A row with its last entry repeated to a whole number of steps."""
    return np.pad(array, (0, -len(array) % multiple), mode="edge")
