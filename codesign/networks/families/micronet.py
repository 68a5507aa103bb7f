"""MicroNet M0 to M3: convolutions in small factors, and Dynamic Shift-Max for an activation that joins their groups.

Source: Li et al., MicroNet: Improving Image Recognition with Extremely Low FLOPs, 2021; rows as in their public code.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from codesign.networks.architecture import IMAGENET, Architecture
from codesign.networks.blocks import round_to_8


@dataclass(frozen=True)
class Row:
    """One block.

    expansion: channels per input channel. The first grouped 1x1 convolution has `groups_in` groups, 0 for a block that
    begins with the depthwise convolution instead; the second has `groups_out`, 0 for a block that ends before it.
    shuffle: of channels after the first half, in as many groups. shift_max: whether Dynamic Shift-Max follows the first
    convolution, the second, the third; ReLU6 does otherwise, and nothing the third. reduction: of its inner width.
    """

    stride: int
    channels: int
    kernel: int
    expansion: tuple[int, int]
    groups_in: int
    shuffle: int
    groups_out: int
    shift_max: tuple[bool, bool, bool]
    reduction: int


class DynamicShiftMax(nn.Module):
    """The greater of two weighted sums of an image and of itself shifted by one group and one channel.

    Weights come from averages of the channels, like those of squeeze-excite. With `maximum` off there is one sum only.
    start: what is added to the weights of (image, shifted image), for the first sum and the second.
    Source: equations 4 to 6 of the paper, as in its authors' code.
    """

    def __init__(
        self,
        channels: int,
        groups: int,
        reduction: int,
        maximum: bool = True,
        start: tuple[tuple[float, float], ...] = ((1.0, 0.0), (1.0, 0.0)),
    ) -> None:
        super().__init__()
        sums = 2 if maximum else 1
        inner = round_to_8(channels // reduction, 4)
        self.start = [weight for pair in start[:sums] for weight in pair]
        self.weights = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, inner, 1),
            nn.ReLU(),
            nn.Conv2d(inner, 2 * sums * channels, 1),
            nn.Hardsigmoid(),
        )
        places = torch.arange(channels).reshape(groups, channels // groups).roll((-1, -1), (0, 1))
        self.register_buffer("places", places.flatten(), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights = (self.weights(x) * 4 - 2).chunk(len(self.start), 1)
        own, other, *second = [weight + start for weight, start in zip(weights, self.start, strict=True)]
        shifted = x.index_select(1, self.places)
        first_sum = x * own + shifted * other
        return torch.maximum(first_sum, x * second[0] + shifted * second[1]) if second else first_sum


class Shuffle(nn.Module):
    """Channels of `groups` groups dealt out: the first of every group, then the second of every group, and so on."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, channels, rows, columns = x.shape
        x = x.reshape(batch, self.groups, channels // self.groups, rows, columns)
        return x.transpose(1, 2).reshape(batch, channels, rows, columns)


def _convolution(
    in_channels: int, channels: int, kernel: tuple[int, int], stride: tuple[int, int] = (1, 1), groups: int = 1
) -> list[nn.Module]:
    zeros = (kernel[0] // 2, kernel[1] // 2)
    layer = nn.Conv2d(in_channels, channels, kernel, stride, zeros, groups=groups, bias=False)
    return [layer, nn.BatchNorm2d(channels)]


def _separated(in_channels: int, expansion: tuple[int, int], kernel: int, stride: int) -> list[nn.Module]:
    """A depthwise convolution as a column and a row."""
    inner, channels = in_channels * expansion[0], in_channels * expansion[0] * expansion[1]
    column = _convolution(in_channels, inner, (kernel, 1), (stride, 1), in_channels)
    return [*column, *_convolution(inner, channels, (1, kernel), (1, stride), inner)]


class MicroBlock(nn.Module):
    """A block of one of three kinds, as its row says; with its input added where nothing changes shape."""

    def __init__(self, in_channels: int, row: Row, start: tuple[tuple[float, float], ...]) -> None:
        super().__init__()
        make = partial(_activation, start=start)
        channels = in_channels * row.expansion[0] * row.expansion[1]
        first, second, third = row.shift_max
        layers: list[nn.Module]
        if not row.groups_in:
            layers = _separated(in_channels, row.expansion, row.kernel, row.stride)
            layers += [make(second, channels, row.shuffle, row.reduction), Shuffle(row.shuffle)]
            layers += [Shuffle(channels // 2)] if second else []
            last_reduction = row.reduction // 2
        else:
            layers = _convolution(in_channels, channels, (1, 1), groups=row.groups_in)
            last_reduction = row.reduction // 2 if row.channels < channels else row.reduction
        if row.groups_in and row.groups_out:
            layers += [make(first, channels, row.shuffle, row.reduction), Shuffle(row.shuffle)]
            layers += _separated(channels, (1, 1), row.kernel, row.stride)
            layers += [make(second, channels, channels // row.shuffle, row.reduction)]
            layers += [Shuffle(channels // (4 if first and second else 2))] if first or second else []
        if row.groups_out:
            layers += _convolution(channels, row.channels, (1, 1), groups=row.groups_out)
        groups = row.groups_out or row.shuffle
        layers += [DynamicShiftMax(row.channels, groups, last_reduction, maximum=False)] if third else []
        if row.groups_out:
            layers += [Shuffle(groups), *([Shuffle(row.channels // 2)] if third else [])]
        self.layers = nn.Sequential(*layers)
        self.adds_input = row.stride == 1 and in_channels == row.channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.adds_input else self.layers(x)


def _activation(
    shift_max: bool, channels: int, groups: int, reduction: int, start: tuple[tuple[float, float], ...]
) -> nn.Module:
    return DynamicShiftMax(channels, groups, reduction, start=start) if shift_max else nn.ReLU6()


@dataclass(frozen=True)
class Size:
    """A network: the factors of its stem's convolution, channels before the classifier, and its blocks.

    start: what the weights of Dynamic Shift-Max start from.
    """

    stem: tuple[int, int]
    head: int
    rows: tuple[Row, ...]
    start: tuple[tuple[float, float], ...] = ((1.0, 0.0), (1.0, 0.0))


class MicroNet(nn.Sequential):
    """A stem of a column and a row convolution, the blocks, and two dense layers with BatchNorm and hard swish."""

    def __init__(self, size: Size, classes: int = 1000, channels: int = 3) -> None:
        column, row = size.stem
        width = column * row
        layers: list[nn.Module] = _convolution(channels, column, (3, 1), (2, 1))
        layers += [*_convolution(column, width, (1, 3), (1, 2), column), Shuffle(column), nn.ReLU6()]
        for block in size.rows:
            layers.append(MicroBlock(width, block, size.start))
            width = block.channels
        layers += [nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Hardswish(), nn.Flatten(1)]
        for before, behind in ((width, size.head), (size.head, classes)):
            layers += [nn.Linear(before, behind), nn.BatchNorm1d(behind), nn.Hardswish()]
        super().__init__(*layers)


def _row(*figures: int, shift_max: tuple[bool, bool, bool] = (True, True, True)) -> Row:
    """stride, channels, kernel, expansion in two factors, groups in, shuffle, groups out, reduction."""
    stride, channels, kernel, first, second, groups_in, shuffle, groups_out, reduction = figures
    expansion = (first, second)
    return Row(stride, channels, kernel, expansion, groups_in, shuffle, groups_out, shift_max, reduction)


_NOT_SECOND = (True, False, True)
M0 = Size(
    (2, 2),
    640,
    (
        _row(2, 8, 3, 2, 2, 0, 4, 2, 8, shift_max=_NOT_SECOND),
        _row(2, 12, 3, 2, 2, 0, 8, 4, 8),
        _row(2, 16, 5, 2, 2, 0, 12, 4, 8),
        _row(1, 32, 5, 1, 4, 4, 4, 4, 8),
        _row(2, 64, 5, 1, 4, 8, 8, 8, 8),
        _row(1, 96, 3, 1, 4, 8, 8, 8, 16),
        _row(1, 384, 3, 1, 4, 12, 12, 0, 16),
    ),
)
M1 = Size(
    (3, 2),
    960,
    (
        _row(2, 8, 3, 2, 2, 0, 6, 2, 8, shift_max=_NOT_SECOND),
        _row(2, 16, 3, 2, 2, 0, 8, 4, 8),
        _row(2, 16, 5, 2, 2, 0, 16, 4, 8),
        _row(1, 32, 5, 1, 6, 4, 4, 4, 8),
        _row(2, 64, 5, 1, 6, 8, 8, 8, 8),
        _row(1, 96, 3, 1, 6, 8, 8, 8, 16),
        _row(1, 576, 3, 1, 6, 12, 12, 0, 16),
    ),
)
M2 = Size(
    (4, 2),
    1024,
    (
        _row(2, 12, 3, 2, 2, 0, 8, 4, 8, shift_max=_NOT_SECOND),
        _row(2, 16, 3, 2, 2, 0, 12, 4, 8),
        _row(1, 24, 3, 2, 2, 0, 16, 4, 8),
        _row(2, 32, 5, 1, 6, 6, 6, 4, 8),
        _row(1, 32, 5, 1, 6, 8, 8, 4, 16),
        _row(1, 64, 5, 1, 6, 8, 8, 8, 16),
        _row(2, 96, 5, 1, 6, 8, 8, 8, 16),
        _row(1, 128, 3, 1, 6, 12, 12, 8, 16),
        _row(1, 768, 3, 1, 6, 16, 16, 0, 16),
    ),
)
_only_second = partial(_row, shift_max=(False, True, False))
M3 = Size(
    (4, 3),
    1024,
    (
        _only_second(2, 16, 3, 2, 2, 0, 12, 4, 8),
        _only_second(2, 24, 3, 2, 2, 0, 16, 4, 8),
        _only_second(1, 24, 3, 2, 2, 0, 24, 4, 8),
        _only_second(2, 32, 5, 1, 6, 6, 6, 4, 8),
        _only_second(1, 32, 5, 1, 6, 8, 8, 4, 16),
        _only_second(1, 64, 5, 1, 6, 8, 8, 8, 16),
        _only_second(1, 80, 5, 1, 6, 8, 8, 8, 16),
        _only_second(1, 80, 5, 1, 6, 10, 10, 8, 16),
        _only_second(2, 120, 5, 1, 6, 10, 10, 10, 16),
        _only_second(1, 120, 5, 1, 6, 12, 12, 10, 16),
        _only_second(1, 144, 3, 1, 6, 12, 12, 12, 16),
        _only_second(1, 864, 3, 1, 6, 12, 12, 0, 16),
    ),
    start=((1.0, 0.0), (0.5, 0.5)),
)


def _architecture(name: str, size: Size, figures: tuple[str, ...]) -> Architecture:
    return Architecture(
        f"micronet_{name}",
        "MicroNet",
        IMAGENET,
        partial(MicroNet, size),
        f"Li et al., MicroNet, 2021, MicroNet-{name.upper()}",
        "{} M parameters (printed {}), {} M MACs (printed {}; {} with one for every result of BatchNorm).".format(
            *figures
        ),
    )


ARCHITECTURES = (
    _architecture("m0", M0, ("1.020", "1.0", "3.45", "4", "3.9")),
    _architecture("m1", M1, ("1.778", "1.8", "5.31", "6", "6.0")),
    _architecture("m2", M2, ("2.394", "2.4", "10.34", "12", "11.7")),
    _architecture("m3", M3, ("2.623", "2.6", "18.24", "21", "20.5")),
)
