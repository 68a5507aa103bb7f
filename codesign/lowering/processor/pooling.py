"""Pooling of channel-blocked tensors.

A maximum reads clamped positions: at the border the same element twice, which a maximum does not see. An average reads
the zeros of the halo and divides by what its window counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from codesign.lowering.processor.layout import Layout
from codesign.lowering.processor.loops import clear_halo, nested_loops
from codesign.lowering.processor.registers import Expression, load, register, splat, store


@dataclass(frozen=True)
class Pooling:
    """One pooling's kernel. maximum: else an average. real_only: an average divides by the real elements it saw."""

    source: Layout
    result: Layout
    kernel: tuple[int, int]
    stride: tuple[int, int]
    pads: tuple[int, int]
    maximum: bool
    real_only: bool = False
    threads: int = 1

    def function(self) -> Any:
        """The kernel as a PrimFunc over inputs, outputs: flat float32 buffers."""
        result = self.result
        with IRBuilder() as builder, T.prim_func():
            T.func_name("pooling")
            T.func_attr({"tirx.noalias": True, "codesign_processor": 1})
            x = T.arg("inputs", T.buffer((self.source.size,), "float32"))
            y = T.arg("outputs", T.buffer((result.size,), "float32"))
            with T.sblock("root"):
                clear_halo(y, result)
                extents = [result.batch, result.blocks, result.rows, result.columns]
                with nested_loops(extents, self.threads) as place:
                    value = self._maximum(x, place) if self.maximum else self._average(x, place)
                    store(y, result.offset(*place), result.lanes, value)
        return builder.get()

    def _maximum(self, x: Any, place: Sequence[Expression]) -> Expression:
        image, block, row, column = place
        lanes = self.result.lanes
        best = register(lanes)
        ends = self.source.rows - 1, self.source.columns - 1
        for fy in range(self.kernel[0]):
            at_row = _clamped(row * self.stride[0] - self.pads[0] + fy, ends[0])
            for fx in range(self.kernel[1]):
                at_column = _clamped(column * self.stride[1] - self.pads[1] + fx, ends[1])
                value = load(x, self.source.offset(image, block, at_row, at_column), lanes)
                first = fy == fx == 0
                store(best, 0, lanes, value if first else tirx.max(load(best, 0, lanes), value))
        return load(best, 0, lanes)

    def _average(self, x: Any, place: Sequence[Expression]) -> Expression:
        image, block, row, column = place
        lanes = self.result.lanes
        total = register(lanes)
        store(total, 0, lanes, splat(T.float32(0), lanes))
        with T.serial(0, self.kernel[0]) as fy, T.serial(0, self.kernel[1]) as fx:
            at = row * self.stride[0] - self.pads[0] + fy, column * self.stride[1] - self.pads[1] + fx
            value = load(x, self.source.offset(image, block, *at), lanes)
            store(total, 0, lanes, load(total, 0, lanes) + value)
        if not self.real_only:
            scale = T.float32(1 / (self.kernel[0] * self.kernel[1]))
            return load(total, 0, lanes) * splat(scale, lanes)
        rows = self._real(row, 0, self.source.rows)
        columns = self._real(column, 1, self.source.columns)
        return load(total, 0, lanes) / splat(tirx.Cast("float32", rows * columns), lanes)

    def _real(self, at: Expression, axis: int, size: int) -> Expression:
        """Positions of a window along one axis that lie in the image."""
        start = at * self.stride[axis] - self.pads[axis]
        return tirx.min(start + self.kernel[axis], size) - tirx.max(start, 0)


def _clamped(at: Expression, end: int) -> Expression:
    return tirx.max(tirx.min(at, end), 0)
