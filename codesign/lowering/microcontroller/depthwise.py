"""A depthwise convolution with channels last: four channels at a time, all taps of a pixel, sums in registers.

for every pixel, every four channels:
    4 sums += codes * weights    per tap; where the whole window lies inside the image, without asking
    4 codes = requantised sums
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from codesign.lowering.integers.requantizing import Requantizer
from codesign.lowering.microcontroller.building import Expression, FunctionBuilder
from codesign.lowering.microcontroller.convolution import Window
from codesign.lowering.microcontroller.epilogue import Epilogue
from codesign.lowering.microcontroller.trailing import depthwise_lead
from codesign.numerics.steps import Convolve, Step

CHANNELS = 4


@dataclass(frozen=True)
class DepthwiseLayer:
    """weights: [taps down, taps across, C]. dtype: of the codes it reads."""

    window: Window
    weights: np.ndarray
    zero_point: int
    epilogue: Epilogue
    dtype: str = "int8"

    @property
    def channels(self) -> int:
        """How many are computed at a time."""
        return CHANNELS if self.window.channels % CHANNELS == 0 else 1

    @property
    def has_microkernel(self) -> bool:
        """Whether products of four channels are made at once: of bytes with sign."""
        return self.dtype == str(self.weights.dtype) == "int8" and self.channels == CHANNELS

    @property
    def lead_bytes(self) -> int:
        """How far before x the output may begin and lie over it."""
        sizes = np.dtype(self.dtype).itemsize, np.dtype(self.epilogue.dtype).itemsize
        return depthwise_lead(self.window, self.channels, sizes)

    def constants(self) -> tuple[np.ndarray, ...]:
        """Weights of four channels after those of the four before, the bias, and what requantising reads."""
        down, across, channels = self.weights.shape
        packed = self.weights.reshape(down, across, channels // self.channels, self.channels).transpose(2, 0, 1, 3)
        return (np.ascontiguousarray(packed), *self.epilogue.constants())


def depthwise_layer_of(step: Step) -> DepthwiseLayer | None:
    """The step as `depthwise` computes it, or None: one image, as many channels out as in, sums of 32 bits."""
    if not isinstance(step, Convolve) or step.sum_bits != 32 or step.transposed:
        return None
    shape, made = step.inputs[0].shape, step.output.shape
    if len(shape) != 4 or shape[0] != 1 or not step.group == shape[1] == made[1]:
        return None
    weights = np.ascontiguousarray(np.transpose(step.weights[:, 0], (1, 2, 0)))
    zero_point = step.inputs[0].zero_point
    bias = step.bias.astype(np.int64) - weights.astype(np.int64).sum(axis=(0, 1)) * zero_point
    epilogue = Epilogue(Requantizer(step.requantization, step.output.dtype), bias)
    if not _fits(weights, epilogue, step.inputs[0].dtype):
        return None
    return DepthwiseLayer(Window.of(step, rows=False), weights, zero_point, epilogue, step.inputs[0].dtype)


def _fits(weights: np.ndarray, epilogue: Epilogue, dtype: str) -> bool:
    """Whether sums of codes, of which no zero point is taken away, stay within 32 bits all the way."""
    largest = max(abs(int(limit)) for limit in (np.iinfo(dtype).min, np.iinfo(dtype).max))
    sums = np.abs(weights.astype(np.int64)).sum(axis=(0, 1)) * largest
    return bool((sums + np.abs(epilogue.whole_bias) < 1 << 31).all())


def depthwise(layer: DepthwiseLayer) -> Any:
    """A PrimFunc of x [IY, IX, C], the layer's constants, and y [OY, OX, C]; codes with channels last."""
    return _Depthwise(layer).build()


class _Depthwise:
    def __init__(self, layer: DepthwiseLayer) -> None:
        self.layer = layer
        self.window = layer.window
        self.code = FunctionBuilder()

    def build(self) -> Any:
        window, code = self.window, self.code
        names = ("weights", "bias", "shift", "multiplier", "divisor")
        with code.function(lead_bytes=self.layer.lead_bytes):
            x = code.parameter("x", (window.rows, window.columns, window.channels), self.layer.dtype)
            constants = [
                code.parameter(name, array.shape, str(array.dtype))
                for name, array in zip(names, self.layer.constants(), strict=False)
            ]
            shape = (window.output_rows, window.output_columns, window.outputs)
            tensors = (x, constants, code.parameter("y", shape, self.layer.epilogue.dtype))
            with code.loop("oy", window.output_rows) as oy, code.loop("ox", window.output_columns) as ox:
                self._pixel(tensors, (oy, ox))
        return code.built()

    def _pixel(self, tensors: Any, pixel: Any) -> None:
        """A pixel whose window is not cut is computed without a question about its taps."""
        whole_window = lambda c, sums: self._all_taps(tensors, sums, pixel, c)  # noqa: E731
        if not any(self.window.pads):
            self._channels(tensors, pixel, whole_window)
            return
        with self.code.either(self._whole_window(*pixel)) as (whole, cut):
            with whole:
                self._channels(tensors, pixel, whole_window)
            with cut:
                self._channels(tensors, pixel, lambda c, sums: self._taps_inside(tensors, sums, pixel, c))

    def _channels(self, tensors: Any, pixel: Any, taps: Callable[[Expression, Any], None]) -> None:
        """All channels of a pixel. taps: adds the products of four of them, from the number of the four."""
        code, (_, (_, bias, *ratios), y) = self.code, tensors
        channels = self.layer.channels
        with code.loop("c", self.window.channels // channels) as c:
            sums = code.local("sums", channels, "int32")
            for number in range(channels):
                code.store(sums, [number], bias[c * channels + number])
            taps(c, sums)
            for number in range(channels):
                made = c * channels + number
                code.store(y, [*pixel, made], self.layer.epilogue.codes(sums[number], tuple(ratios), made))

    def _all_taps(self, tensors: Any, sums: Any, pixel: Any, c: Expression) -> None:
        for tap in np.ndindex(*self.window.taps):
            self._tap(tensors, sums, pixel, tap, c)

    def _taps_inside(self, tensors: Any, sums: Any, pixel: Any, c: Expression) -> None:
        window, code = self.window, self.code
        if self.layer.zero_point:
            with (
                code.loop("fy", window.taps[0]) as fy,
                code.loop("fx", window.taps[1]) as fx,
                code.either(window.holds(pixel[0], pixel[1], fy, fx)) as (here, outside),
            ):
                with here:
                    self._tap(tensors, sums, pixel, (fy, fx), c)
                with outside:
                    self._zero_point(tensors, sums, (fy, fx), c)
            return
        down, across = window.taps_inside(*pixel)
        with code.loop("fy", down[1], down[0]) as fy, code.loop("fx", across[1], across[0]) as fx:
            self._tap(tensors, sums, pixel, (fy, fx), c)

    def _whole_window(self, oy: Expression, ox: Expression) -> Expression:
        from tvm import tirx

        down, across = self.window.taps
        first, last = self.window.holds(oy, ox, 0, 0), self.window.holds(oy, ox, down - 1, across - 1)
        return tirx.all(first, last)

    def _tap(self, tensors: Any, sums: Any, pixel: Any, tap: Any, c: Expression) -> None:
        code, (x, (weights, *_), _), (oy, ox), (fy, fx) = self.code, tensors, pixel, tap
        channels, place = self.layer.channels, (self.window.row(oy, fy), self.window.column(ox, fx))
        if self.layer.has_microkernel:
            codes = code.address(x, *place, c * channels)
            code.call("multiply_4", code.address(sums, 0), code.address(weights, c, fy, fx, 0), codes)
            return
        for number in range(channels):
            product = weights[c, fy, fx, number].astype("int32") * x[(*place, c * channels + number)].astype("int32")
            code.store(sums, [number], sums[number] + product)

    def _zero_point(self, tensors: Any, sums: Any, tap: Any, c: Expression) -> None:
        """Padding is the zero point, whose share was taken off the bias for all taps."""
        from tvm import tirx

        weights, zero = tensors[1][0], tirx.const(self.layer.zero_point, "int32")
        for number in range(self.layer.channels):
            weight = weights[(c, *tap, number)].astype("int32")
            self.code.store(sums, [number], sums[number] + weight * zero)
