"""Depthwise convolution of channel-blocked tensors: a vector is the same pixel of `lanes` channels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any, ClassVar

import numpy as np
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from codesign.lowering.processor.arguments import Buffers, float_arguments
from codesign.lowering.processor.epilogue import Step, apply
from codesign.lowering.processor.layout import Layout
from codesign.lowering.processor.loops import Part, Tile, clear_halo, parts, tile_loops
from codesign.lowering.processor.registers import Expression, load, register, store
from codesign.vocabulary import Dimension

_TILED = (Dimension.G, Dimension.OY, Dimension.OX)


@dataclass(frozen=True)
class Depthwise:
    """One depthwise convolution's kernel; channels are those of source and result. tile: its vectors are 1.

    types: of inputs, weights, sums and outputs.
    """

    types: ClassVar[tuple[str, str, str, str]] = ("float32", "float32", "float32", "float32")

    source: Layout
    result: Layout
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pads: tuple[int, int]
    tile: Tile
    steps: tuple[Step, ...] = ()
    threads: int = 1

    @property
    def weight_elements(self) -> int:
        """Of the packed weights."""
        return self.result.blocks * prod(self.kernel) * self.result.lanes

    @property
    def bias_elements(self) -> int:
        """Of the bias, idle lanes included."""
        return self.result.blocks * self.result.lanes

    @property
    def columns_issued(self) -> int:
        """Taps of a row it multiplies."""
        return self.kernel[1]

    @property
    def macs_issued(self) -> int:
        """Multiply-accumulates the lanes do, idle lanes included."""
        taps = self.kernel[0] * self.columns_issued
        return self.bias_elements * taps * self.result.batch * self.result.rows * self.result.columns

    def function(self) -> Any:
        """The kernel as a PrimFunc over inputs, weights, bias, the epilogue's tensors, outputs: flat float buffers."""
        with IRBuilder() as builder, T.prim_func():
            T.func_name("depthwise")
            T.func_attr({"tirx.noalias": True, "codesign_processor": 1})
            inputs, weights, sums, outputs = self.types
            x = T.arg("inputs", T.buffer((self.source.size,), inputs))
            w = T.arg("weights", T.buffer((self.weight_elements,), weights))
            bias = T.arg("bias", T.buffer((self.bias_elements,), sums))
            tensors = self._other_arguments()
            y = T.arg("outputs", T.buffer((self.result.size,), outputs))
            buffers = Buffers(x, w, bias, tensors, y)
            with T.sblock("root"):
                clear_halo(y, self.result, self._zero())
                for size in self._tile_sizes():
                    with tile_loops([self.result.batch], self.tile.over(_TILED), size, self.threads) as ((image,), at):
                        place = (image, *(at[dimension] for dimension in _TILED))
                        pixels = size[Dimension.OY].size, size[Dimension.OX].size
                        self._tile(buffers, pixels, place)
        return builder.get()

    def _other_arguments(self) -> list[Any]:
        return float_arguments(self.steps)

    def _zero(self) -> Expression:
        return T.float32(0)

    def _finished(self, total: Expression, tensors: list[Any], place: Sequence[Expression]) -> Expression:
        return apply(self.steps, total, self.result.lanes, tensors, place)

    def _added(self, total: Expression, inputs: Expression, weights: Expression) -> Expression:
        return total + inputs * weights

    def _tile_sizes(self) -> Iterator[dict[Dimension, Part]]:
        levels = self.tile.over(_TILED)
        extents = {dimension: [extent for which, extent in levels if which is dimension] for dimension in _TILED}
        sizes = (
            (Dimension.G, self.result.blocks, 1),
            (Dimension.OY, self.result.rows, self.tile.rows),
            (Dimension.OX, self.result.columns, self.tile.columns),
        )
        choices = (parts(extent, size, extents[dimension]) for dimension, extent, size in sizes)
        for chosen in product(*choices):
            yield dict(zip(_TILED, chosen, strict=True))

    def _tile(self, buffers: Buffers, size: tuple[int, int], place: Sequence[Expression]) -> None:
        image, block, row, column = place
        lanes = self.result.lanes
        pixels = [(down, across) for down in range(size[0]) for across in range(size[1])]
        sums = {pixel: register(lanes, self.types[2]) for pixel in pixels}
        start = load(buffers.bias, block * lanes, lanes)
        for pixel in pixels:
            store(sums[pixel], 0, lanes, start)
        origin = self.source.offset(
            image, block, row * self.stride[0] - self.pads[0], column * self.stride[1] - self.pads[1]
        )
        self._accumulate(buffers, sums, origin, block)
        for pixel in pixels:
            at = (image, block, row + pixel[0], column + pixel[1])
            value = self._finished(load(sums[pixel], 0, lanes), buffers.tensors, at)
            store(buffers.y, self.result.offset(*at), lanes, value)

    def _accumulate(
        self, buffers: Buffers, sums: dict[tuple[int, int], Any], origin: Expression, block: Expression
    ) -> None:
        """All taps of all pixels of a tile. origin: of the first pixel's window."""
        lanes = self.result.lanes
        down, across = self.stride[0] * self.source.row_elements, self.stride[1] * lanes
        with T.serial(0, self.kernel[0]) as fy:
            start_of_row = origin + fy * self.dilation[0] * self.source.row_elements
            for fx in range(self.kernel[1]):
                weight = load(buffers.w, ((block * self.kernel[0] + fy) * self.kernel[1] + fx) * lanes, lanes)
                for pixel, total in sums.items():
                    index = start_of_row + pixel[0] * down + pixel[1] * across + fx * self.dilation[1] * lanes
                    value = self._added(load(total, 0, lanes), load(buffers.x, index, lanes), weight)
                    store(total, 0, lanes, value)


def pack_depthwise(weights: np.ndarray, lanes: int) -> np.ndarray:
    """Weights [G, 1, FY, FX] as [blocks, FY, FX, lanes]; zeros in idle lanes."""
    channels, _, rows, columns = weights.shape
    blocks = -(-channels // lanes)
    full = np.zeros((blocks * lanes, rows, columns), weights.dtype)
    full[:channels] = weights[:, 0]
    return np.ascontiguousarray(full.reshape(blocks, lanes, rows, columns).transpose(0, 2, 3, 1))
