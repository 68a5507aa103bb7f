"""Integer sums, products, pooling, tables and concatenation of channel-blocked codes.

Codes lie in uint8: int8 codes plus SIGNED_OFFSET, uint8 codes as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from codesign.lowering.integers.requantizing import Requantizer
from codesign.lowering.processor.arguments import integer_arguments
from codesign.lowering.processor.integer_convolution import Requantization
from codesign.lowering.processor.layout import Layout
from codesign.lowering.processor.loops import clear_halo, nested_loops
from codesign.lowering.processor.registers import Expression, load, register, splat, store

_TABLE = 256
_SHUFFLED = 64
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
                total = total + _centred(buffer, layout, place, zero) * splat(T.int32(factor), lanes)
            return self.requantization.codes(total, self.requantization.one_ratio(self.ratio, lanes), lanes)

        return _function("integer_sum", self.sources, self.result, self.requantization.offset, self.threads, value)


@dataclass(frozen=True)
class IntegerProduct:
    """requantise((x0 - zero) * (x1 - zero)): zeros and the result's halo as they are stored. A source of one row and
    column is used for all of them (a gate for every channel). ratio: of the product."""

    sources: tuple[Layout, Layout]
    result: Layout
    zeros: tuple[int, int]
    ratio: float
    requantization: Requantization
    threads: int = 1

    def function(self) -> Any:
        """The kernel as a PrimFunc over both inputs, outputs: flat uint8 buffers."""

        def value(buffers: list[Any], place: Sequence[Expression]) -> Expression:
            lanes = self.result.lanes
            first, second = (
                _centred(buffer, layout, place, zero)
                for layout, buffer, zero in zip(self.sources, buffers, self.zeros, strict=True)
            )
            return self.requantization.codes(first * second, self.requantization.one_ratio(self.ratio, lanes), lanes)

        return _function("integer_product", self.sources, self.result, self.requantization.offset, self.threads, value)


@dataclass(frozen=True)
class IntegerAverage:
    """requantise(sum of x - zero over a window), without padding. zero: as stored, of the source. offset: added to the
    network's codes where they are stored."""

    source: Layout
    result: Layout
    kernel: tuple[int, int]
    stride: tuple[int, int]
    zero: int
    requantizer: Requantizer
    offset: int
    threads: int = 1

    def function(self) -> Any:
        """The kernel as a PrimFunc over inputs, outputs: flat uint8 buffers."""
        result, lanes = self.result, self.result.lanes
        with IRBuilder() as builder, T.prim_func():
            reads, y = integer_arguments("integer_average", (self.source,), result)
            with T.sblock("root"):
                around = self.offset + self.requantizer.requantization.zero_point
                clear_halo(y, result, T.uint8(around))
                extents = [result.batch, result.blocks, result.rows, result.columns]
                with nested_loops(extents, self.threads) as (image, block, row, column):
                    total = register(lanes, "int32")
                    store(total, 0, lanes, splat(T.int32(-self.zero * self.kernel[0] * self.kernel[1]), lanes))
                    with T.serial(0, self.kernel[0]) as fy, T.serial(0, self.kernel[1]) as fx:
                        down, across = row * self.stride[0] + fy, column * self.stride[1] + fx
                        codes = load(reads[0], self.source.offset(image, block, down, across), lanes)
                        store(total, 0, lanes, load(total, 0, lanes) + T.cast(codes, f"int32x{lanes}"))
                    with T.serial(0, lanes) as lane:
                        code = T.cast(self.requantizer.codes(total[lane]), "int32") + T.int32(self.offset)
                        at = result.offset(image, block, row, column) + lane
                        T.buffer_store(y, T.cast(code, "uint8"), [at])
        return builder.get()


@dataclass(frozen=True)
class IntegerLookup:
    """table[x], the table as stored codes: one of 256 for all channels, or one for every channel (idle lanes too).

    shuffles: with AVX-512 VBMI, which looks 64 codes up in a table of 128 at once.
    """

    source: Layout
    result: Layout
    per_channel: bool
    zero: int
    shuffles: bool
    threads: int = 1

    def function(self) -> Any:
        """The kernel as a PrimFunc over inputs, table, outputs: flat uint8 buffers."""
        result, lanes = self.result, self.result.lanes
        wide = _SHUFFLED // lanes if _SHUFFLED % lanes == 0 else 0  # pixels
        at_once = self.shuffles and not self.per_channel and 0 < wide <= result.columns
        elements = result.blocks * lanes * _TABLE if self.per_channel else _TABLE
        with IRBuilder() as builder, T.prim_func():
            T.func_name("integer_lookup")
            T.func_attr({"tirx.noalias": True, "codesign_processor": 1})
            x = T.arg("inputs", T.buffer((self.source.size,), "uint8"))
            table = T.arg("table", T.buffer((elements,), "uint8"))
            y = T.arg("outputs", T.buffer((result.size,), "uint8"))
            with T.sblock("root"):
                clear_halo(y, result, T.uint8(self.zero))
                columns = -(-result.columns // wide) if at_once else result.columns
                extents = [result.batch, result.blocks, result.rows, columns]
                with nested_loops(extents, self.threads) as (image, block, row, column):
                    if at_once:
                        # The last ones of a row may overlap those before them.
                        place = image, block, row, tirx.min(column * wide, result.columns - wide)
                        found = _shuffled(table, load(x, self.source.offset(*place), _SHUFFLED))
                        store(y, result.offset(*place), _SHUFFLED, found)
                    else:
                        with T.serial(0, lanes) as lane:
                            code = T.cast(x[self.source.offset(image, block, row, column) + lane], "int32")
                            start = (block * lanes + lane) * _TABLE if self.per_channel else 0
                            at = result.offset(image, block, row, column) + lane
                            T.buffer_store(y, table[start + code], [at])
        return builder.get()


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
            reads, y = integer_arguments("integer_concatenation", self.sources, result)
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


def _function(name: str, sources: Sequence[Layout], result: Layout, zero: int, threads: int, value: Value) -> Any:
    with IRBuilder() as builder, T.prim_func():
        reads, y = integer_arguments(name, sources, result)
        with T.sblock("root"):
            clear_halo(y, result, T.uint8(zero))
            with nested_loops([result.batch, result.blocks, result.rows, result.columns], threads) as place:
                store(y, result.offset(*place), result.lanes, value(reads, place))
    return builder.get()


def _clamped(at: Expression, end: int) -> Expression:
    return tirx.max(tirx.min(at, end), 0)


def _centred(buffer: Any, layout: Layout, place: Sequence[Expression], zero: int) -> Expression:
    """Codes less their zero, int32; those of the only pixel where there is one."""
    one_pixel = (layout.rows, layout.columns) == (1, 1)
    at = (*place[:2], 0, 0) if one_pixel else place
    lanes = layout.lanes
    return T.cast(load(buffer, layout.offset(*at), lanes), f"int32x{lanes}") - splat(T.int32(zero), lanes)


def _shuffled(table: Any, codes: Expression) -> Expression:
    """64 entries of a table of 256: one shuffle looks in its first half, one in its second."""
    name = "llvm.x86.avx512.vpermi2var.qi.512"
    number, bytes_ = T.llvm_lookup_intrinsic_id(name), f"int8x{_SHUFFLED}"
    index = T.reinterpret(bytes_, codes)
    quarters = [T.reinterpret(bytes_, load(table, start, _SHUFFLED)) for start in range(0, _TABLE, _SHUFFLED)]
    first, second = (
        T.call_llvm_pure_intrin(bytes_, number, quarters[half], index, quarters[half + 1]) for half in (0, 2)
    )
    low = codes < splat(T.uint8(_TABLE // 2), _SHUFFLED)
    return T.reinterpret(f"uint8x{_SHUFFLED}", tirx.Select(low, first, second))
