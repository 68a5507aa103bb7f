"""A depthwise convolution with channels last: four channels at a time, all taps of a pixel, sums in registers.

for every pixel, every four channels:
    4 sums += codes * weights    per tap; where the whole window lies inside the image, without asking
    4 codes = requantised sums
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from codesign.lowering.integers.requantizing import Requantizer
from codesign.lowering.microcontroller.building import Expression, FunctionBuilder
from codesign.lowering.microcontroller.convolution import Window
from codesign.numerics.steps import Convolve, Step

CHANNELS = 4


@dataclass(frozen=True)
class DepthwiseLayer:
    """weights: int8 [taps down, taps across, C]. bias: int32 [C]."""

    window: Window
    weights: np.ndarray
    bias: np.ndarray
    zero_point: int
    requantizer: Requantizer

    def constants(self) -> tuple[np.ndarray, ...]:
        """Weights, biases with the zero point's share taken off, and what requantising reads."""
        shares = self.weights.astype(np.int64).sum(axis=(0, 1)) * self.zero_point
        bias = (self.bias.astype(np.int64) - shares).astype(np.int32)
        return (self.weights, bias, *self.requantizer.constants)


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
    requantizer = Requantizer(step.requantization, step.output.dtype)
    return DepthwiseLayer(Window.of(step, rows=False), weights, step.bias, step.inputs[0].zero_point, requantizer)


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
        arrays = self.layer.constants()
        with code.function():
            x = code.parameter("x", (window.rows, window.columns, window.channels), "int8")
            names = ("weights", "bias", "shift", "multiplier", "divisor")
            weights, bias, *ratios = [
                code.parameter(name, array.shape, str(array.dtype)) for name, array in zip(names, arrays, strict=False)
            ]
            shape = (window.output_rows, window.output_columns, window.outputs)
            y = code.parameter("y", shape, self.layer.requantizer.dtype)
            with (
                code.loop("oy", window.output_rows) as oy,
                code.loop("ox", window.output_columns) as ox,
                code.loop("c", window.channels // CHANNELS) as c,
            ):
                sums = code.local("sums", CHANNELS, "int32")
                for number in range(CHANNELS):
                    code.store(sums, [number], bias[c * CHANNELS + number])
                self._taps(x, weights, sums, oy, ox, c)
                for number in range(CHANNELS):
                    made = c * CHANNELS + number
                    codes = self.layer.requantizer.codes(sums[number], tuple(ratios), made)
                    code.store(y, [oy, ox, made], codes)
        return code.built()

    def _taps(self, x: Any, weights: Any, sums: Any, oy: Expression, ox: Expression, c: Expression) -> None:
        window, code = self.window, self.code
        if not any(window.pads):
            self._all_taps(x, weights, sums, oy, ox, c)
            return
        with code.either(self._whole_window(oy, ox)) as (whole, cut):
            with whole:
                self._all_taps(x, weights, sums, oy, ox, c)
            with cut, code.loop("fy", window.taps[0]) as fy, code.loop("fx", window.taps[1]) as fx:  # noqa: SIM117
                with code.either(window.holds(oy, ox, fy, fx)) as (inside, outside):
                    with inside:
                        self._tap(x, weights, sums, (oy, ox), (fy, fx), c)
                    with outside:
                        self._zero_point(weights, sums, (fy, fx), c)

    def _all_taps(self, x: Any, weights: Any, sums: Any, oy: Expression, ox: Expression, c: Expression) -> None:
        for fy, fx in np.ndindex(*self.window.taps):
            self._tap(x, weights, sums, (oy, ox), (fy, fx), c)

    def _whole_window(self, oy: Expression, ox: Expression) -> Expression:
        from tvm import tirx

        down, across = self.window.taps
        first, last = self.window.holds(oy, ox, 0, 0), self.window.holds(oy, ox, down - 1, across - 1)
        return tirx.all(first, last)

    def _tap(self, x: Any, weights: Any, sums: Any, pixel: Any, tap: Any, c: Expression) -> None:
        code, (oy, ox), (fy, fx) = self.code, pixel, tap
        codes = code.address(x, self.window.row(oy, fy), self.window.column(ox, fx), c * CHANNELS)
        code.call("multiply_4", code.address(sums, 0), code.address(weights, fy, fx, c * CHANNELS), codes)

    def _zero_point(self, weights: Any, sums: Any, tap: Any, c: Expression) -> None:
        """Padding is the zero point, whose share was taken off the bias for all taps."""
        from tvm import tirx

        zero = tirx.const(self.layer.zero_point, "int32")
        for number in range(CHANNELS if self.layer.zero_point else 0):
            weight = weights[(*tap, c * CHANNELS + number)].astype("int32")
            self.code.store(sums, [number], sums[number] + weight * zero)
