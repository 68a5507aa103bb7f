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
from codesign.numerics.steps import Convolve, Step

CHANNELS = 4


@dataclass(frozen=True)
class DepthwiseLayer:
    """weights: int8 [taps down, taps across, C]."""

    window: Window
    weights: np.ndarray
    zero_point: int
    epilogue: Epilogue

    def constants(self) -> tuple[np.ndarray, ...]:
        """Weights of four channels after those of the four before, the bias, and what requantising reads."""
        down, across, channels = self.weights.shape
        packed = self.weights.reshape(down, across, channels // CHANNELS, CHANNELS).transpose(2, 0, 1, 3)
        return (np.ascontiguousarray(packed), *self.epilogue.constants())


def depthwise_layer_of(step: Step) -> DepthwiseLayer | None:
    """The step as `depthwise` computes it, or None: bytes by bytes, one image, channels a multiple of four."""
    if not isinstance(step, Convolve) or step.sum_bits != 32 or step.transposed or str(step.weights.dtype) != "int8":
        return None
    if step.inputs[0].dtype != "int8" or step.output.dtype not in ("int8", "uint8"):
        return None
    shape, made = step.inputs[0].shape, step.output.shape
    if len(shape) != 4 or shape[0] != 1 or not step.group == shape[1] == made[1] or shape[1] % CHANNELS:
        return None
    weights = np.ascontiguousarray(np.transpose(step.weights[:, 0], (1, 2, 0)))
    zero_point = step.inputs[0].zero_point
    bias = step.bias.astype(np.int64) - weights.astype(np.int64).sum(axis=(0, 1)) * zero_point
    epilogue = Epilogue(Requantizer(step.requantization, step.output.dtype), bias)
    return DepthwiseLayer(Window.of(step, rows=False), weights, zero_point, epilogue)


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
        with code.function():
            x = code.parameter("x", (window.rows, window.columns, window.channels), "int8")
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
        with code.loop("c", self.window.channels // CHANNELS) as c:
            sums = code.local("sums", CHANNELS, "int32")
            for number in range(CHANNELS):
                code.store(sums, [number], bias[c * CHANNELS + number])
            taps(c, sums)
            for number in range(CHANNELS):
                made = c * CHANNELS + number
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
        codes = code.address(x, self.window.row(oy, fy), self.window.column(ox, fx), c * CHANNELS)
        code.call("multiply_4", code.address(sums, 0), code.address(weights, c, fy, fx, 0), codes)

    def _zero_point(self, tensors: Any, sums: Any, tap: Any, c: Expression) -> None:
        """Padding is the zero point, whose share was taken off the bias for all taps."""
        from tvm import tirx

        weights, zero = tensors[1][0], tirx.const(self.layer.zero_point, "int32")
        for number in range(CHANNELS):
            weight = weights[(c, *tap, number)].astype("int32")
            self.code.store(sums, [number], sums[number] + weight * zero)
