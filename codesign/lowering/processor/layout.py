"""Where a processor's kernels keep a feature map: blocks of channels, a vector of them side by side, zeros around it.

    [batch, channels, rows, columns]  -->  [batch, blocks, rows + halo, columns + halo, lanes]

Channel c is lane c % lanes of block c // lanes; lanes past the last channel hold zeros or finite values nobody reads
(their weights are zero). The halo holds the zeros of the readers' padding, so that no kernel asks where the image ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Expression = Any  # an expression of TIR; tvm carries no types
Halo = tuple[int, int, int, int]  # top, left, bottom, right
NO_HALO: Halo = (0, 0, 0, 0)


@dataclass(frozen=True)
class Layout:
    """A feature map in memory. With one block of all channels it is [batch, rows, columns, channels]; with one lane it
    is [batch, channels, rows, columns]."""

    batch: int
    channels: int
    rows: int
    columns: int
    lanes: int
    halo: Halo = NO_HALO

    @property
    def blocks(self) -> int:
        """Blocks of channels."""
        return -(-self.channels // self.lanes)

    @property
    def row_elements(self) -> int:
        """From one row to the next."""
        _, left, _, right = self.halo
        return (self.columns + left + right) * self.lanes

    @property
    def block_elements(self) -> int:
        """From one block of channels to the next."""
        top, _, bottom, _ = self.halo
        return (self.rows + top + bottom) * self.row_elements

    @property
    def size(self) -> int:
        """Elements of the buffer."""
        return self.batch * self.blocks * self.block_elements

    @property
    def image_elements(self) -> int:
        """From one image of the batch to the next."""
        return self.blocks * self.block_elements

    def offset(self, image: Expression, block: Expression, row: Expression, column: Expression) -> Expression:
        """Of the first lane there; rows and columns of the halo are below zero and past the end."""
        top, left, _, _ = self.halo
        start = image * self.image_elements + block * self.block_elements + top * self.row_elements + left * self.lanes
        return start + row * self.row_elements + column * self.lanes


def widest(first: Halo, second: Halo) -> Halo:
    """A halo that serves both."""
    top, left, bottom, right = (max(pair) for pair in zip(first, second, strict=True))
    return top, left, bottom, right
