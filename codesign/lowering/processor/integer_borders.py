"""The way of codes into channel blocks and out of them, and of the network's numbers into blocks of codes.

Images of a few channels become blocks of DEPTH: sixteen pixels at a time, one byte of an int32 for every channel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from codesign.lowering.processor.arguments import integer_arguments
from codesign.lowering.processor.integer_convolution import DEPTH
from codesign.lowering.processor.layout import Layout
from codesign.lowering.processor.loops import clear_halo, nested_loops
from codesign.lowering.processor.registers import Expression, load, splat, store

PIXELS = 16  # side by side
Codes = Callable[[Any, Expression], Expression]  # the buffer read, where -> PIXELS codes as they are stored, int32


@dataclass(frozen=True)
class IntegerConversion:
    """Codes into blocks or out of them. types: of source and result, as stored: uint8 in blocks, the network's type
    outside. offset: added to every code on the way in, taken away on the way out. zero: of a halo and of idle lanes."""

    source: Layout
    result: Layout
    types: tuple[str, str]
    offset: int
    zero: int
    threads: int = 1

    def function(self) -> Any:
        """The kernel as a PrimFunc over inputs, outputs: flat buffers of `types`."""
        if few_channels(self.source, self.result):
            return _interleaved("integer_conversion", self, self.types[0], self._codes)
        source, result = self.source, self.result
        inward = result.lanes > 1
        with IRBuilder() as builder, T.prim_func():
            reads, y = integer_arguments("integer_conversion", (source,), result, *self.types)
            with T.sblock("root"):
                if inward:
                    clear_halo(y, result, T.uint8(self.zero))
                channels = result.blocks * result.lanes
                extents = [result.batch, channels, result.rows, result.columns]
                with nested_loops(extents, self.threads) as (image, channel, row, column):
                    at = source.offset(image, channel // source.lanes, row, column) + channel % source.lanes
                    moved = T.cast(reads[0][at], "int32") + T.int32(self.offset if inward else -self.offset)
                    if channels != result.channels:
                        moved = tirx.if_then_else(channel < result.channels, moved, T.int32(self.zero))
                    to = result.offset(image, channel // result.lanes, row, column) + channel % result.lanes
                    T.buffer_store(y, T.cast(moved, self.types[1]), [to])
        return builder.get()

    def _codes(self, buffer: Any, at: Expression) -> Expression:
        codes = T.cast(load(buffer, at, PIXELS), f"int32x{PIXELS}")
        return codes + splat(T.int32(self.offset), PIXELS) if self.offset else codes


@dataclass(frozen=True)
class IntegerQuantization:
    """Numbers to codes in blocks: divided by the scale, rounded half to even, saturated. few_channels(source, result).

    low, high: of the codes, zero point taken away. zero: what is stored for 0, of a halo and of idle lanes.
    """

    source: Layout
    result: Layout
    scale: float
    low: int
    high: int
    zero: int
    threads: int = 1

    def function(self) -> Any:
        """The kernel as a PrimFunc over float32 inputs, uint8 outputs: flat buffers."""
        return _interleaved("integer_quantization", self, "float32", self._codes)

    def _codes(self, buffer: Any, at: Expression) -> Expression:
        def number(value: float) -> Expression:
            return splat(T.float32(value), PIXELS)

        rounded = tirx.nearbyint(load(buffer, at, PIXELS) / number(self.scale))
        limited = tirx.max(tirx.min(rounded, number(self.high)), number(self.low))
        return T.cast(limited, f"int32x{PIXELS}") + splat(T.int32(self.zero), PIXELS)


def few_channels(source: Layout, result: Layout) -> bool:
    """Whether a feature map goes from rows of channels into blocks of DEPTH and has rows of PIXELS at least."""
    return source.lanes == 1 and result.lanes == DEPTH and result.blocks == 1 and result.columns >= PIXELS


def _interleaved(name: str, kernel: IntegerConversion | IntegerQuantization, read: str, codes: Codes) -> Any:
    source, result = kernel.source, kernel.result
    with IRBuilder() as builder, T.prim_func():
        reads, y = integer_arguments(name, (source,), result, read)
        with T.sblock("root"):
            clear_halo(y, result, T.uint8(kernel.zero))
            with nested_loops([result.batch, result.rows, -(-result.columns // PIXELS)], kernel.threads) as place:
                image, row, number = place
                # The last ones of a row may overlap those before them.
                column = tirx.min(number * PIXELS, result.columns - PIXELS)
                total: Expression = None
                for channel in range(DEPTH):
                    byte: Expression = splat(T.int32(kernel.zero), PIXELS)
                    if channel < result.channels:
                        byte = codes(reads[0], source.offset(image, channel, row, column))
                    byte = T.shift_left(byte, splat(T.int32(8 * channel), PIXELS)) if channel else byte
                    total = byte if total is None else T.bitwise_or(total, byte)
                four = T.reinterpret(f"uint8x{DEPTH * PIXELS}", total)
                store(y, result.offset(image, 0, row, column), DEPTH * PIXELS, four)
    return builder.get()
