"""Register blocks worth trying for a kernel, the likeliest first."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from codesign.hardware.sections import Processor
from codesign.lowering.processor.convolution import Convolution
from codesign.lowering.processor.depthwise import Depthwise
from codesign.lowering.processor.loops import Tile, parts
from codesign.vocabulary import Dimension

_SPARE_REGISTERS = 4  # for weights and inputs on their way; with fewer LLVM moves sums to the stack
_MOST_ROWS = 7
_ORDERS = (
    (Dimension.K, Dimension.OY, Dimension.OX),
    (Dimension.OY, Dimension.OX, Dimension.K),
)


def candidates(kernel: Convolution | Depthwise, processor: Processor) -> list[Tile]:
    """The kernel's own block, then others by the slots their loads and multiply-adds take.

    Convolutions: each with output channels outermost and with output channels innermost.
    """
    most = processor.vector_registers - _SPARE_REGISTERS
    depthwise = isinstance(kernel, Depthwise)
    blocks = 1 if isinstance(kernel, Depthwise) else kernel.output_blocks
    shapes = [
        shape
        for shape in product(
            range(1, min(blocks, most) + 1),
            range(1, min(kernel.result.rows, _MOST_ROWS) + 1),
            range(1, min(kernel.result.columns, most) + 1),
        )
        if shape[0] * shape[1] * shape[2] <= most
    ]
    shapes.sort(key=lambda shape: _slots(kernel, shape, blocks, processor.sums_in_flight))
    tiles = dict.fromkeys([kernel.tile])
    for shape in shapes:
        for loops in _loops(depthwise):
            tiles[Tile(*shape, loops)] = None
    return list(tiles)


def _loops(depthwise: bool) -> Iterator[tuple[tuple[Dimension, int], ...]]:
    if depthwise:
        yield ()
        return
    for order in _ORDERS:
        yield tuple((dimension, 1) for dimension in order)


def _slots(
    kernel: Convolution | Depthwise, shape: tuple[int, int, int], blocks: int, sums_in_flight: int
) -> tuple[float, int, int]:
    """Slots of one reduction step over all tiles: of its multiply-adds, of its loads, of their latency; the largest.

    Among equals fewer kinds of tiles first, then more sums.
    """
    depthwise = isinstance(kernel, Depthwise)
    total, kinds = 0.0, 0
    for k, oy, ox in product(
        parts(blocks, shape[0]), parts(kernel.result.rows, shape[1]), parts(kernel.result.columns, shape[2])
    ):
        tiles = k.extents[0] * oy.extents[0] * ox.extents[0]
        sums, pixels = k.size * oy.size * ox.size, oy.size * ox.size
        loads = 1 + pixels if depthwise else k.size + pixels
        total += tiles * max(sums, loads, sums_in_flight)
        kinds += 1
    return total, kinds, -shape[0] * shape[1] * shape[2]
