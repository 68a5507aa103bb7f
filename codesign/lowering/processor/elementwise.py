"""Element-wise work, gathering of channels, and the way into and out of channel blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from codesign.lowering.processor.epilogue import Step, apply, tensors_of
from codesign.lowering.processor.layout import Layout
from codesign.lowering.processor.loops import clear_halo, nested_loops
from codesign.lowering.processor.registers import Expression, load, store

_OPERATIONS = {
    "Add": lambda a, b: a + b,
    "Sub": lambda a, b: a - b,
    "Mul": lambda a, b: a * b,
}


@dataclass(frozen=True)
class Elementwise:
    """operator(first, second), or the steps alone where there is no second. A second of one row and column is used for
    all of them (a gate for every channel)."""

    first: Layout
    second: Layout | None
    result: Layout
    operator: str = ""
    steps: tuple[Step, ...] = ()
    threads: int = 1

    def function(self) -> Any:
        """The kernel as a PrimFunc over first, second, the steps' tensors, outputs: flat float32 buffers."""
        result = self.result
        with IRBuilder() as builder, T.prim_func():
            T.func_name("elementwise")
            T.func_attr({"tirx.noalias": True, "codesign_processor": 1})
            layouts = [layout for layout in (self.first, self.second, *tensors_of(self.steps)) if layout is not None]
            reads = [
                T.arg(f"tensor_{number}", T.buffer((layout.size,), "float32")) for number, layout in enumerate(layouts)
            ]
            y = T.arg("outputs", T.buffer((result.size,), "float32"))
            with T.sblock("root"):
                clear_halo(y, result)
                extents = [result.batch, result.blocks, result.rows, result.columns]
                with nested_loops(extents, self.threads) as place:
                    value = load(reads[0], self.first.offset(*place), result.lanes)
                    if self.second is not None:
                        value = _OPERATIONS[self.operator](value, self._second(reads[1], place))
                    rest = reads[1 if self.second is None else 2 :]
                    value = apply(self.steps, value, result.lanes, rest, place)
                    store(y, result.offset(*place), result.lanes, value)
        return builder.get()

    def _second(self, buffer: Any, place: Sequence[Expression]) -> Expression:
        assert self.second is not None
        image, block, row, column = place
        one_pixel = (self.second.rows, self.second.columns) == (1, 1)
        at = (image, block, 0, 0) if one_pixel else (image, block, row, column)
        return load(buffer, self.second.offset(*at), self.result.lanes)


@dataclass(frozen=True)
class Concatenation:
    """Feature maps one behind the other along the channels; all but the last fill whole blocks."""

    sources: tuple[Layout, ...]
    result: Layout
    threads: int = 1

    def function(self) -> Any:
        """The kernel as a PrimFunc over the sources, outputs: flat float32 buffers."""
        result = self.result
        with IRBuilder() as builder, T.prim_func():
            T.func_name("concatenation")
            T.func_attr({"tirx.noalias": True, "codesign_processor": 1})
            reads = [
                T.arg(f"tensor_{number}", T.buffer((layout.size,), "float32"))
                for number, layout in enumerate(self.sources)
            ]
            y = T.arg("outputs", T.buffer((result.size,), "float32"))
            with T.sblock("root"):
                clear_halo(y, result)
                first = 0
                for layout, buffer in zip(self.sources, reads, strict=True):
                    extents = [result.batch, layout.blocks, result.rows, result.columns]
                    with nested_loops(extents, self.threads) as (image, block, row, column):
                        value = load(buffer, layout.offset(image, block, row, column), result.lanes)
                        store(y, result.offset(image, first + block, row, column), result.lanes, value)
                    first += layout.blocks
        return builder.get()


@dataclass(frozen=True)
class Conversion:
    """The same feature map in another layout: into channel blocks (idle lanes zero) or out of them."""

    source: Layout
    result: Layout
    threads: int = 1

    def function(self) -> Any:
        """The kernel as a PrimFunc over inputs, outputs: flat float32 buffers."""
        source, result = self.source, self.result
        with IRBuilder() as builder, T.prim_func():
            T.func_name("conversion")
            T.func_attr({"tirx.noalias": True, "codesign_processor": 1})
            x = T.arg("inputs", T.buffer((source.size,), "float32"))
            y = T.arg("outputs", T.buffer((result.size,), "float32"))
            with T.sblock("root"):
                clear_halo(y, result)
                channels = result.channels if result.lanes == 1 else result.blocks * result.lanes
                extents = [result.batch, channels, result.rows, result.columns]
                with nested_loops(extents, self.threads) as (image, channel, row, column):
                    value = self._element(x, image, channel, row, column)
                    at = result.offset(image, channel // result.lanes, row, column) + channel % result.lanes
                    T.buffer_store(y, value, [at])
        return builder.get()

    def _element(
        self, x: Any, image: Expression, channel: Expression, row: Expression, column: Expression
    ) -> Expression:
        at = self.source.offset(image, channel // self.source.lanes, row, column) + channel % self.source.lanes
        if self.result.blocks * self.result.lanes == self.result.channels or self.result.lanes == 1:
            return x[at]
        return tirx.if_then_else(channel < self.result.channels, x[at], T.float32(0))
