"""Convolution of channel-blocked tensors, without branches: sums of a tile of outputs stay in vector registers.

    for <tiles of output channels, rows, columns, in the mapping's order>:
        registers = bias
        for c, fy, fx:
            registers[pixel, vector] += splat(input[pixel, c]) * weights[vector, c]
        outputs = epilogue(registers)

Weights are packed as [groups, output blocks, input blocks, FY, FX, input lanes, lanes]. Groups narrower than a vector
share one: zeros stand in their weights where a channel reads another group.
"""

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
from codesign.lowering.processor.loops import Part, Tile, clear_halo, nested_loops, parts, tile_loops
from codesign.lowering.processor.registers import Expression, load, register, splat, store
from codesign.vocabulary import Dimension

_TILED = (Dimension.K, Dimension.OY, Dimension.OX)


@dataclass(frozen=True)
class Convolution:
    """One convolution's kernel. groups: independent parts (see group_split). lanes: of a vector, over output channels.

    result.lanes is `lanes` or a multiple. source's halo covers every position read. threads: 1 makes plain loops.

    types: of inputs, weights, sums and outputs. depth: input channels a lane multiplies and adds at once.
    """

    types: ClassVar[tuple[str, str, str, str]] = ("float32", "float32", "float32", "float32")
    depth: ClassVar[int] = 1

    source: Layout
    result: Layout
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pads: tuple[int, int]
    groups: int
    lanes: int
    tile: Tile
    steps: tuple[Step, ...] = ()
    threads: int = 1

    @property
    def output_blocks(self) -> int:
        """Vectors of output channels of one group."""
        return -(-self.result.channels // self.lanes) // self.groups

    @property
    def input_blocks(self) -> int:
        """Blocks of input channels of one group."""
        return self.source.blocks // self.groups

    @property
    def weight_elements(self) -> int:
        """Of the packed weights."""
        return self.groups * self.output_blocks * self.input_blocks * prod(self.kernel) * self.source.lanes * self.lanes

    @property
    def bias_elements(self) -> int:
        """Of the bias, idle lanes included."""
        return self.groups * self.output_blocks * self.lanes

    @property
    def macs_issued(self) -> int:
        """Multiply-accumulates the lanes do, those of idle lanes and of zeros in the weights among them."""
        return self.weight_elements * self.result.batch * self.result.rows * self.result.columns

    def function(self) -> Any:
        """The kernel as a PrimFunc over inputs, weights, bias, the epilogue's tensors, outputs: flat float buffers."""
        with IRBuilder() as builder, T.prim_func():
            T.func_name("convolution")
            T.func_attr({"tirx.noalias": True, "codesign_processor": 1})
            inputs, weights, sums, outputs = self.types
            x = T.arg("inputs", T.buffer((self.source.size,), inputs))
            w = T.arg("weights", T.buffer((self.weight_elements,), weights))
            bias = T.arg("bias", T.buffer((self.bias_elements,), sums))
            tensors = self._other_arguments()
            y = T.arg("outputs", T.buffer((self.result.size,), outputs))
            with T.sblock("root"):
                clear_halo(y, self.result, self._zero())
                buffers = Buffers(x, w, bias, tensors, y)
                for size in self._tile_sizes():
                    self._loops(buffers, size)
        return builder.get()

    def _other_arguments(self) -> list[Any]:
        return float_arguments(self.steps)

    def _zero(self) -> Expression:
        return T.float32(0)

    def _tile_sizes(self) -> Iterator[dict[Dimension, Part]]:
        """Full tiles, and the narrower ones at the ends of the three dimensions."""
        levels = self.tile.over(_TILED)
        extents = {dimension: [extent for which, extent in levels if which is dimension] for dimension in _TILED}
        sizes = (
            (Dimension.K, self.output_blocks, self.tile.vectors),
            (Dimension.OY, self.result.rows, self.tile.rows),
            (Dimension.OX, self.result.columns, self.tile.columns),
        )
        choices = (parts(extent, size, extents[dimension]) for dimension, extent, size in sizes)
        for chosen in product(*choices):
            yield dict(zip(_TILED, chosen, strict=True))

    def _loops(self, buffers: Buffers, size: dict[Dimension, Part]) -> None:
        outside = [self.result.batch, self.groups]
        with tile_loops(outside, self.tile.over(_TILED), size, self.threads) as ((image, group), at):
            self._tile(buffers, size, image, group, at)

    def _tile(
        self,
        buffers: Buffers,
        size: dict[Dimension, Part],
        image: Expression,
        group: Expression,
        at: dict[Dimension, Expression],
    ) -> None:
        vectors = range(size[Dimension.K].size)
        pixels = [(row, column) for row in range(size[Dimension.OY].size) for column in range(size[Dimension.OX].size)]
        sums = {(k, pixel): register(self.lanes, self.types[2]) for pixel in pixels for k in vectors}
        block = group * self.output_blocks + at[Dimension.K]
        for k in vectors:
            start = load(buffers.bias, (block + k) * self.lanes, self.lanes)
            for pixel in pixels:
                store(sums[k, pixel], 0, self.lanes, start)
        self._accumulate(buffers, sums, vectors, pixels, image, group, at)
        wide = self.result.lanes // self.lanes
        for k in vectors:
            for row, column in pixels:
                channel = block + k
                place = (image, channel, at[Dimension.OY] + row, at[Dimension.OX] + column)
                value = self._finished(load(sums[k, (row, column)], 0, self.lanes), buffers.tensors, place)
                index = self.result.offset(image, channel // wide, *place[2:]) + channel % wide * self.lanes
                store(buffers.y, index, self.lanes, value)

    def _finished(self, total: Expression, tensors: list[Any], place: Sequence[Expression]) -> Expression:
        return apply(self.steps, total, self.lanes, tensors, place)

    def _added(self, total: Expression, buffers: Buffers, index: Expression, weight: Expression) -> Expression:
        """A sum with the products of `depth` inputs from index on and the weights there added."""
        return total + splat(buffers.x[index], self.lanes) * load(buffers.w, weight, self.lanes)

    def _accumulate(
        self,
        buffers: Buffers,
        sums: dict[Any, Any],
        vectors: range,
        pixels: list[tuple[int, int]],
        image: Expression,
        group: Expression,
        at: dict[Dimension, Expression],
    ) -> None:
        (rows, columns), (top, left) = self.kernel, self.pads
        down, across = self.stride
        step = self.source.lanes * self.lanes
        taps = self.input_blocks * rows * columns * step
        sums_of = (self.input_blocks, rows, columns, self.source.lanes // self.depth)
        with nested_loops(sums_of, 1) as (c, fy, fx, step_in_block):
            lane = step_in_block * self.depth
            weight = (group * self.output_blocks + at[Dimension.K]) * taps
            weight += ((c * rows + fy) * columns + fx) * step + lane * self.lanes
            row = at[Dimension.OY] * down - top + fy * self.dilation[0]
            column = at[Dimension.OX] * across - left + fx * self.dilation[1]
            origin = self.source.offset(image, group * self.input_blocks + c, row, column) + lane
            for pixel in pixels:
                index = origin + pixel[0] * down * self.source.row_elements + pixel[1] * across * self.source.lanes
                for k in vectors:
                    total = sums[k, pixel]
                    value = self._added(load(total, 0, self.lanes), buffers, index, weight + k * taps)
                    store(total, 0, self.lanes, value)


def group_split(groups: int, outputs: int, inputs: int, lanes: int, input_lanes: int) -> int | None:
    """Independent parts of a convolution with so many groups, outputs and inputs of one group; None where its groups
    and the vectors do not fit together.

    Groups of whole vectors stay apart; narrower ones of which whole numbers fill a vector share it.
    """
    if groups == 1:
        return 1
    if outputs % lanes == 0 and inputs % input_lanes == 0:
        return groups
    blocks, rest = divmod(lanes // outputs * inputs, input_lanes)
    apart = -(-groups * outputs // lanes)
    fits = lanes % outputs == 0 and rest == 0 and apart * blocks == -(-groups * inputs // input_lanes)
    return apart if fits else None


def pack_weights(weights: np.ndarray, groups: int, kernel: Convolution) -> np.ndarray:
    """Weights [K, C / groups, FY, FX] as `kernel` reads them, zeros where lanes are idle or see another group."""
    outputs, inputs, rows, columns = weights.shape
    per_group = outputs // groups
    blocks, source_blocks = kernel.output_blocks, kernel.input_blocks
    apart = kernel.groups
    dense = np.zeros((apart, blocks * kernel.lanes, source_blocks * kernel.source.lanes, rows, columns), weights.dtype)
    for group in range(groups):
        first, source = group * per_group, group * inputs
        part, at = divmod(first, blocks * kernel.lanes)
        column = source - part * source_blocks * kernel.source.lanes
        dense[part, at : at + per_group, column : column + inputs] = weights[first : first + per_group]
    shape = (apart, blocks, kernel.lanes, source_blocks, kernel.source.lanes, rows, columns)
    return np.ascontiguousarray(dense.reshape(shape).transpose(0, 1, 3, 5, 6, 4, 2))


def pack_bias(bias: np.ndarray | None, channels: int, lanes: int) -> np.ndarray:
    """Bias [K] filled up to whole vectors; zeros where there is none."""
    packed = np.zeros(-(-channels // lanes) * lanes, np.float32)
    if bias is not None:
        packed[:channels] = bias
    return packed
