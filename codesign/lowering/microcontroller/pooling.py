"""The largest codes of windows with channels last: a pixel's channels one after another, its taps innermost.

The largest so far is kept in a variable, not in the output, which may lie over the input.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from codesign.lowering.microcontroller.building import FunctionBuilder
from codesign.lowering.microcontroller.convolution import Window
from codesign.lowering.microcontroller.trailing import depthwise_lead
from codesign.numerics.steps import MaximumPool, Step

CHANNELS = 4


def pooling_window_of(step: Step) -> Window | None:
    """The windows of a step over one image, or None where `largest_codes` does not compute it."""
    if not isinstance(step, MaximumPool) or len(step.output.shape) != 4 or step.output.shape[0] != 1:
        return None
    _, channels, rows, columns = step.inputs[0].shape
    sizes = (rows, columns, channels, *step.output.shape[2:], channels)
    return Window(*sizes, step.kernel, step.strides, step.dilations, step.pads)


def largest_codes(window: Window, dtype: str) -> Any:
    """A PrimFunc of x [IY, IX, C] and y [OY, OX, C]."""
    from tvm import tirx

    channels = CHANNELS if window.channels % CHANNELS == 0 else 1
    size = np.dtype(dtype).itemsize
    code, lowest = FunctionBuilder(), tirx.const(int(np.iinfo(dtype).min), dtype)
    with code.function(lead_bytes=depthwise_lead(window, channels, (size, size))):
        x = code.parameter("x", (window.rows, window.columns, window.channels), dtype)
        y = code.parameter("y", (window.output_rows, window.output_columns, window.channels), dtype)
        with (
            code.root(),
            code.loop("oy", window.output_rows) as oy,
            code.loop("ox", window.output_columns) as ox,
            code.loop("c", window.channels // channels) as c,
        ):
            best = code.local("best", channels, dtype)
            for number in range(channels):
                code.store(best, [number], lowest)
            down, across = window.taps_inside(oy, ox)
            with code.loop("fy", down[1], down[0]) as fy, code.loop("fx", across[1], across[0]) as fx:
                for number in range(channels):
                    value = x[window.row(oy, fy), window.column(ox, fx), c * channels + number]
                    code.store(best, [number], tirx.max(best[number], value))
            for number in range(channels):
                code.store(y, [oy, ox, c * channels + number], best[number])
    return code.built()
