"""DiCENet: dimension-wise convolutions and their fusion, Mehta et al. 2019."""

from __future__ import annotations

from functools import partial
from math import gcd

import torch
from torch import nn

from codesign.networks.architecture import IMAGENET, Architecture, Generator
from codesign.networks.blocks import convolution

# Channels of the stem and of the three stages, and those before the classifier, by the width the paper names them by.
WIDTHS: dict[float, tuple[int, int, int, int, int]] = {
    0.2: (16, 32, 64, 128, 1024),
    0.5: (24, 48, 96, 192, 1024),
    0.75: (24, 86, 172, 344, 1024),
    1.0: (24, 116, 232, 464, 1024),
    1.5: (24, 176, 352, 704, 1024),
    2.0: (24, 244, 488, 976, 1024),
}
_REPEATS = (3, 7, 3)


def shuffle(x: torch.Tensor, groups: int) -> torch.Tensor:
    """Channels of all groups in turn: (batch, groups x n, rows, columns) with n and groups exchanged."""
    batch, channels, rows, columns = x.shape
    parts = x.reshape(batch, groups, channels // groups, rows, columns)
    return parts.transpose(1, 2).reshape(batch, channels, rows, columns)


class ConvNormSlope(nn.Sequential):
    """Convolution, BatchNorm and an activation with a learned slope for each channel."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        conv = convolution(in_channels, out_channels, kernel, stride, groups=groups)
        super().__init__(conv, nn.BatchNorm2d(out_channels), nn.PReLU(out_channels))


class DimensionWise(nn.Module):
    """DimConv: a 3x3 kernel for every channel, for every row (over channels and columns), for every column.

    x: (batch, channels, size, size); result: three times the channels, the three answers for a channel side by side.
    """

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.along_depth = convolution(channels, channels, 3, groups=channels)
        self.along_rows = convolution(size, size, 3, groups=size)
        self.along_columns = convolution(size, size, 3, groups=size)
        self.norm = nn.BatchNorm2d(3 * channels)
        self.activation = nn.PReLU(3 * channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = self.along_rows(x.transpose(1, 2)).transpose(1, 2)
        columns = self.along_columns(x.transpose(1, 3)).transpose(1, 3)
        found = torch.cat([self.along_depth(x), rows, columns], dim=1)
        return shuffle(self.activation(self.norm(found)), 3)


class DiceUnit(nn.Module):
    """DimConv, then DimFuse: a 1x1 within the answers for a channel, and a 3x3 weighed by a squeeze-excite.

    size: rows and columns of the feature map, which are part of the weights' shapes.
    Source: the paper's figure 3, and the authors' code (sacmehta/EdgeNets), which projects with a grouped 3x3.
    """

    def __init__(self, in_channels: int, out_channels: int, size: int) -> None:
        super().__init__()
        self.dimension_wise = DimensionWise(in_channels, size)
        self.merge = ConvNormSlope(3 * in_channels, in_channels, 1, groups=in_channels)
        self.project = ConvNormSlope(in_channels, out_channels, 3, groups=gcd(in_channels, out_channels))
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(in_channels, in_channels // 4, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(in_channels // 4, out_channels, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        merged = self.merge(self.dimension_wise(x))
        return self.project(merged) * self.weigh(merged)


class StridedDice(nn.Module):
    """Half the rows and columns, twice the channels: a depthwise branch beside a pooled one with a DiCE unit."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.left = nn.Sequential(
            ConvNormSlope(channels, channels, 3, 2, groups=channels), ConvNormSlope(channels, channels, 1)
        )
        self.right = nn.Sequential(
            nn.AvgPool2d(3, 2, 1), DiceUnit(channels, channels, size), ConvNormSlope(channels, channels, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return shuffle(torch.cat([self.left(x), self.right(x)], dim=1), 2)


class ShuffleDice(nn.Module):
    """ShuffleNet v2's block with a DiCE unit: half the channels stay, the rest pass a 1x1 and the unit."""

    def __init__(self, in_channels: int, out_channels: int, size: int) -> None:
        super().__init__()
        self.kept = in_channels // 2
        made = out_channels - self.kept
        self.right = nn.Sequential(ConvNormSlope(in_channels - self.kept, made, 1), DiceUnit(made, made, size))
        self.sizes = [self.kept, in_channels - self.kept]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = torch.split(x, self.sizes, dim=1)
        return shuffle(torch.cat([left, self.right(right)], dim=1), 2)


def dicenet(width: float = 1.0, resolution: int = 224, classes: int = 1000, channels: int = 3) -> nn.Sequential:
    """DiCENet of one of the WIDTHS. resolution: a multiple of 32. Raises ValueError for others."""
    if width not in WIDTHS or resolution % 32:
        raise ValueError(f"no DiCENet of width {width} at {resolution}: widths are {', '.join(map(str, WIDTHS))}")
    stem, *stages, last = WIDTHS[width]
    layers: list[nn.Module] = [ConvNormSlope(channels, stem, 3, 2), nn.MaxPool2d(3, 2, 1)]
    in_channels, size = stem, resolution // 4
    for out_channels, repeats in zip(stages, _REPEATS, strict=True):
        size //= 2
        layers.append(StridedDice(in_channels, size))
        in_channels *= 2
        for _ in range(repeats):
            layers.append(ShuffleDice(in_channels, out_channels, size))
            in_channels = out_channels
    layers += [nn.AdaptiveAvgPool2d(1), nn.Conv2d(in_channels, last, 1, groups=4, bias=False)]
    return nn.Sequential(*layers, nn.Conv2d(last, classes, 1), nn.Flatten(1))


_SOURCE = "Mehta et al., DiCENet: Dimension-wise Convolutions for Efficient Networks, arXiv 1906.03516"
ARCHITECTURES: tuple[Architecture, ...] = tuple(
    Architecture(
        f"dicenet_w{name}",
        "DiCENet",
        IMAGENET,
        partial(dicenet, width),
        _SOURCE,
        "Widths and the grouped 3x3 of DimFuse are those of the authors' code.",
    )
    for name, width in (("d5", 0.2), ("d2", 0.5), ("3d4", 0.75), ("1", 1.0), ("3d2", 1.5), ("2", 2.0))
)
GENERATORS: dict[str, Generator] = {"dicenet": dicenet}
