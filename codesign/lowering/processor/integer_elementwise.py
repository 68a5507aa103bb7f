"""Integer sums, maxima and concatenation of channel-blocked codes, and the way into and out of blocks.

Codes lie in uint8: int8 codes plus SIGNED_OFFSET, uint8 codes as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from codesign.lowering.processor.integer_convolution import Requantization
from codesign.lowering.processor.layout import Layout
from codesign.lowering.processor.loops import clear_halo, nested_loops
from codesign.lowering.processor.registers import Expression, load, register, splat, store

Value = Callable[[list[Any], Sequence[Expression]], Expression]  # buffers, place -> a vector of uint8


@dataclass(frozen=True)
class IntegerSum:
    """requantise(sum of multiplier * (x - zero)): zeros and the result's halo as they are stored. ratio: of the sum."""

    sources: tuple[Layout, Layout]
    result: Layout
    multipliers: tuple[int, int]
    zeros: tuple[int, int]
    ratio: float
    requantization: Requantization
    threads: int = 1

    def function(self) -> Any:
        """The kernel as a PrimFunc over both inputs, outputs: flat uint8 buffers."""

        def value(buffers: list[Any], place: Sequence[Expression]) -> Expression:
            lanes = self.result.lanes
            total = splat(T.int32(0), lanes)
            for layout, buffer, factor, zero in zip(self.sources, buffers, self.multipliers, self.zeros, strict=True):
                x = T.cast(load(buffer, layout.offset(*place), lanes), f"int32x{lanes}")
                total = total + (x - splat(T.int32(zero), lanes)) * splat(T.int32(factor), lanes)
            return self.requantization.codes(total, self.requantization.one_ratio(self.ratio, lanes), lanes)

        return _function("integer_sum", self.sources, self.result, self.requantization.offset, self.threads, value)


@dataclass(frozen=True)
class IntegerMaximum:
    """The largest code of a window, read at clamped positions. zero: of the result's halo."""

    source: Layout
    result: Layout
    kernel: tuple[int, int]
    stride: tuple[int, int]
    pads: tuple[int, int]
    zero: int
    threads: int = 1

    def function(self) -> Any:
        """The kernel as a PrimFunc over inputs, outputs: flat uint8 buffers."""

        def value(buffers: list[Any], place: Sequence[Expression]) -> Expression:
            image, block, row, column = place
            lanes = self.result.lanes
            best = register(lanes, "uint8")
            for fy in range(self.kernel[0]):
                y = _clamped(row * self.stride[0] - self.pads[0] + fy, self.source.rows - 1)
                for fx in range(self.kernel[1]):
                    x = _clamped(column * self.stride[1] - self.pads[1] + fx, self.source.columns - 1)
                    code = load(buffers[0], self.source.offset(image, block, y, x), lanes)
                    store(best, 0, lanes, code if fy == fx == 0 else tirx.max(load(best, 0, lanes), code))
            return load(best, 0, lanes)

        return _function("integer_maximum", (self.source,), self.result, self.zero, self.threads, value)


@dataclass(frozen=True)
class IntegerConcatenation:
    """Codes one behind the other along the channels; all sources but the last fill whole blocks."""

    sources: tuple[Layout, ...]
    result: Layout
    zero: int
    threads: int = 1

    def function(self) -> Any:
        """The kernel as a PrimFunc over the sources, outputs: flat uint8 buffers."""
        result = self.result
        with IRBuilder() as builder, T.prim_func():
            reads, y = _arguments("integer_concatenation", self.sources, result)
            with T.sblock("root"):
                clear_halo(y, result, T.uint8(self.zero))
                first = 0
                for layout, buffer in zip(self.sources, reads, strict=True):
                    extents = [result.batch, layout.blocks, result.rows, result.columns]
                    with nested_loops(extents, self.threads) as (image, block, row, column):
                        code = load(buffer, layout.offset(image, block, row, column), result.lanes)
                        store(y, result.offset(image, first + block, row, column), result.lanes, code)
                    first += layout.blocks
        return builder.get()


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
        source, result = self.source, self.result
        inward = result.lanes > 1
        with IRBuilder() as builder, T.prim_func():
            reads, y = _arguments("integer_conversion", (source,), result, *self.types)
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


def _function(name: str, sources: Sequence[Layout], result: Layout, zero: int, threads: int, value: Value) -> Any:
    with IRBuilder() as builder, T.prim_func():
        reads, y = _arguments(name, sources, result)
        with T.sblock("root"):
            clear_halo(y, result, T.uint8(zero))
            with nested_loops([result.batch, result.blocks, result.rows, result.columns], threads) as place:
                store(y, result.offset(*place), result.lanes, value(reads, place))
    return builder.get()


def _arguments(
    name: str, sources: Sequence[Layout], result: Layout, read: str = "uint8", written: str = "uint8"
) -> tuple[list[Any], Any]:
    T.func_name(name)
    T.func_attr({"tirx.noalias": True, "codesign_processor": 1})
    reads = [T.arg(f"tensor_{number}", T.buffer((layout.size,), read)) for number, layout in enumerate(sources)]
    return reads, T.arg("outputs", T.buffer((result.size,), written))


def _clamped(at: Expression, end: int) -> Expression:
    return tirx.max(tirx.min(at, end), 0)
