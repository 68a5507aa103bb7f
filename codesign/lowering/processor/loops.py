"""Loops every kernel has: over tiles of equal size and what is left, over all images and blocks, around the image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

from tvm.tirx.script.builder import ir as T

from codesign.lowering.processor.layout import Layout
from codesign.lowering.processor.registers import Expression, splat, store
from codesign.vocabulary import Dimension

TILES_A_THREAD = 4  # so that threads that are through early find more to do


Level = tuple[Dimension, int]  # a loop over tiles: so many


@dataclass(frozen=True)
class Part:
    """Tiles of `size`, from `start` on. extents: of the loops over them, outermost first."""

    start: int
    extents: tuple[int, ...]
    size: int


def parts(extent: int, size: int, levels: Sequence[int] = ()) -> list[Part]:
    """Full tiles, and one narrower tile for what is left of the extent.

    levels: extents of the loops over full tiles, outermost first; what does not fill an outermost iteration follows in
    a part of its own. No levels: one loop.
    """
    size = min(size, extent)
    count, rest = divmod(extent, size)
    inner = tuple(levels[1:])
    outer, left = divmod(count, prod(inner))
    ones = (1,) * len(inner)
    found = [Part(0, (outer, *inner), size)] if outer else []
    if left:
        found.append(Part(outer * prod(inner) * size, (left, *ones), size))
    return [*found, Part(count * size, (1, *ones), rest)] if rest else found


@dataclass(frozen=True)
class Tile:
    """Outputs held in registers: so many vectors of channels at so many rows and columns.

    loops: over tiles, outermost first; a dimension may have several, and has one of its own, innermost, where it has
    none here.
    """

    vectors: int
    rows: int
    columns: int
    loops: tuple[Level, ...] = ()

    def over(self, dimensions: Sequence[Dimension]) -> tuple[Level, ...]:
        """Loops over these dimensions; extents of outermost ones follow from the sizes, not from here."""
        given = tuple(level for level in self.loops if level[0] in dimensions)
        missing = (dimension for dimension in dimensions if dimension not in {level[0] for level in given})
        return (*given, *((dimension, 1) for dimension in missing))


@contextmanager
def tile_loops(
    outside: Sequence[int], levels: Sequence[Level], size: Mapping[Dimension, Part], threads: int
) -> Iterator[tuple[list[Expression], dict[Dimension, Expression]]]:
    """Loops over all tiles of one part; indices of the loops outside them, and where the tile begins.

    outside: extents around everything. More than one thread: outer loops become one parallel loop with enough
    iterations for all of them.
    """
    depth = dict.fromkeys(size, 0)
    extents = list(outside)
    for dimension, _ in levels:
        extents.append(size[dimension].extents[depth[dimension]])
        depth[dimension] += 1
    with nested_loops(extents, threads) as numbers:
        at: dict[Dimension, Expression] = dict.fromkeys(size, 0)
        for (dimension, _), number, extent in zip(
            levels, numbers[len(outside) :], extents[len(outside) :], strict=True
        ):
            at[dimension] = at[dimension] * extent + number
        yield (
            numbers[: len(outside)],
            {dimension: size[dimension].start + tile * size[dimension].size for dimension, tile in at.items()},
        )


@contextmanager
def nested_loops(extents: Sequence[int], threads: int) -> Iterator[list[Expression]]:
    """Loops inside each other; their indices. The outer ones are one parallel loop if there is more than one thread."""
    joined = 0
    while threads != 1 and joined < len(extents) and prod(extents[:joined]) < TILES_A_THREAD * threads:
        joined += 1
    with ExitStack() as stack:
        together = prod(extents[:joined])
        number = stack.enter_context(T.parallel(0, together)) if together > 1 else T.int32(0)
        inner = [stack.enter_context(T.serial(0, extent)) if extent > 1 else T.int32(0) for extent in extents[joined:]]
        yield [*_indices(number, extents[:joined]), *inner]


def _indices(number: Expression, extents: Sequence[int]) -> list[Expression]:
    """Digits of a number, the last extent's fastest."""
    digits: list[Expression] = []
    inside = 1
    for extent in reversed(extents):
        digits.append((number // inside) % extent if extent > 1 else T.int32(0))
        inside *= extent
    return digits[::-1]


def clear_halo(y: Any, layout: Layout, zero: Expression | None = None) -> None:
    """Zeros around every image of a result. zero: what stands for it where that is no float 0."""
    top, left, bottom, right = layout.halo
    if not any(layout.halo):
        return
    rows = layout.rows
    value = splat(T.float32(0) if zero is None else zero, layout.lanes)

    def clear(offset: Expression, count: int) -> None:
        if count:
            with T.serial(0, count) as number:
                store(y, offset + number * layout.lanes, layout.lanes, value)

    with T.serial(0, layout.batch * layout.blocks) as block:
        start = block * layout.block_elements
        columns = layout.columns + left + right
        # A row's right halo and the next one's left lie side by side.
        clear(start, top * columns + left)
        if left + right:
            with T.serial(0, rows - 1) as row:
                clear(start + (top + row + 1) * layout.row_elements - right * layout.lanes, left + right)
        clear(start + (top + rows) * layout.row_elements - right * layout.lanes, right + bottom * columns)
