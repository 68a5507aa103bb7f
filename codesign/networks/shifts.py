"""The shift: every group of channels moves by whole pixels, zeros move in at the border, and nothing is computed.

    y[c, row, column] = x[c, row + down(c), column + right(c)], zero outside of x

A shift has no parameters and no multiply-accumulates, but every byte of its tensor is read and written. It is exported
as a Split, a Pad for every group that moves (negative where rows or columns leave the image), and a Concat: data
movement to the cost model, exact in int8. That is what a compiler without a shift of its own runs, nearly three passes
over the tensor where one would do. `as_convolution` makes the same values by a depthwise convolution whose kernels are
one tap each: an array can run that one, at kernel x kernel MACs a value.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

Offset = tuple[int, int]  # rows down, columns right: where a value is read, seen from where it is written

FOUR_CONNECTED: tuple[Offset, ...] = ((-1, 0), (0, 1), (1, 0), (0, -1))
EIGHT_CONNECTED: tuple[Offset, ...] = tuple(
    (down, right) for down in (-1, 0, 1) for right in (-1, 0, 1) if (down, right) != (0, 0)
)


def square(kernel: int) -> tuple[Offset, ...]:
    """Every offset of a kernel x kernel window but the middle. kernel: odd."""
    reach = range(-(kernel // 2), kernel // 2 + 1)
    return tuple((down, right) for down in reach for right in reach if (down, right) != (0, 0))


class Shift(nn.Module):
    """One group of channels for every offset, as large as is fair, and what remains of the channels stays in place.

    x, result: (batch, channels, rows, columns). Raises ValueError when there are fewer channels than groups.
    Source: Wu et al., Shift: A Zero FLOP, Zero Parameter Alternative to Spatial Convolutions, CVPR 2018, section 3.
    """

    def __init__(self, channels: int, offsets: Sequence[Offset], *, as_convolution: bool = False) -> None:
        super().__init__()
        group = channels // (len(offsets) + 1)
        if not group:
            raise ValueError(f"{channels} channels are too few for {len(offsets) + 1} groups")
        self.offsets = tuple(offsets)
        self.sizes = [group] * len(offsets) + [channels - group * len(offsets)]
        if as_convolution:
            self.register_buffer("taps", _taps(self.offsets, self.sizes))
        self.as_convolution = as_convolution

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.as_convolution:
            taps: torch.Tensor = self.get_buffer("taps")
            return functional.conv2d(x, taps, padding=taps.shape[-1] // 2, groups=taps.shape[0])
        *moving, staying = torch.split(x, self.sizes, dim=1)
        moved = [
            functional.pad(part, (-right, right, -down, down))
            for part, (down, right) in zip(moving, self.offsets, strict=True)
        ]
        return torch.cat([*moved, staying], dim=1)


def _taps(offsets: Sequence[Offset], sizes: Sequence[int]) -> torch.Tensor:
    """Kernels of one tap each: (channels, 1, kernel, kernel)."""
    reach = max(abs(step) for offset in offsets for step in offset)
    taps = torch.zeros(sum(sizes), 1, 2 * reach + 1, 2 * reach + 1)
    first = 0
    for (down, right), size in zip((*offsets, (0, 0)), sizes, strict=True):
        taps[first : first + size, 0, reach + down, reach + right] = 1
        first += size
    return taps
