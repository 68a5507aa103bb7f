"""Residual networks whose convolutions are all 1x1 after a shift: Brown et al., ICCV workshops 2019."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from codesign.networks.architecture import IMAGENET, Architecture, Generator
from codesign.networks.blocks import ConvNormAct, pooled_classifier
from codesign.networks.shifts import EIGHT_CONNECTED, FOUR_CONNECTED, Offset, Shift

_EXPANSION = 4


class ShiftBottleneck(nn.Module):
    """Three times a shift and a 1x1 convolution, with the input of the second added to its result.

    flat: the middle is as wide as the result, not a quarter of it. At stride 2 pixels are averaged two by two, behind
    the first convolution and before the shortcut's.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, offsets: Sequence[Offset], *, flat: bool
    ) -> None:
        super().__init__()
        middle = out_channels if flat else out_channels // _EXPANSION
        halve = [nn.AvgPool2d(2)] if stride == 2 else []
        self.first = nn.Sequential(Shift(in_channels, offsets), ConvNormAct(in_channels, middle, 1), *halve)
        self.second = nn.Sequential(Shift(middle, offsets), ConvNormAct(middle, middle, 1, activation=None))
        self.third = nn.Sequential(Shift(middle, offsets), ConvNormAct(middle, out_channels, 1, activation=None))
        same = stride == 1 and in_channels == out_channels
        project = [] if same else [ConvNormAct(in_channels, out_channels, 1, activation=None)]
        self.shortcut = nn.Sequential(*halve, *project)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        narrow = self.first(x)
        moved = self.third(torch.relu(self.second(narrow) + narrow))
        return torch.relu(moved + self.shortcut(x))


def shift_resnet(
    blocks: Sequence[int] = (3, 4, 23, 3),
    offsets: Sequence[Offset] = FOUR_CONNECTED,
    flat: bool = False,
    width: int = 64,
    classes: int = 1000,
    channels: int = 3,
) -> nn.Sequential:
    """A 7x7 stem and a maximum, then blocks of 4, 8, 16 and 32 x `width` channels, pooling and one dense layer."""
    layers: list[nn.Module] = [ConvNormAct(channels, width, 7, 2), nn.MaxPool2d(3, 2, 1)]
    in_channels = width
    for stage, count in enumerate(blocks):
        out_channels = width * 2**stage * _EXPANSION
        for number in range(count):
            stride = 2 if stage and number == 0 else 1
            layers.append(ShiftBottleneck(in_channels, out_channels, stride, offsets, flat=flat))
            in_channels = out_channels
    return nn.Sequential(*layers, pooled_classifier(in_channels, classes))


_SOURCE = "Brown, Mettes and Worring, 4-Connected Shift Residual Networks, ICCV workshops 2019"
_CODE = "Places of shifts and shortcuts are those of the authors' code (andrewgrahambrown/4CShiftResNet)."
ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture("shift_resnet101_4c", "4-connected shift ResNet", IMAGENET, shift_resnet, _SOURCE, _CODE),
    Architecture(
        "shift_resnet101_8c",
        "4-connected shift ResNet",
        IMAGENET,
        partial(shift_resnet, offsets=EIGHT_CONNECTED),
        _SOURCE,
        _CODE,
    ),
    Architecture(
        "shift_resnet35_4c_flat",
        "4-connected shift ResNet",
        IMAGENET,
        partial(shift_resnet, (1, 1, 8, 1), flat=True),
        f"{_SOURCE}: the new, shorter network without narrow middles",
        _CODE,
    ),
)
GENERATORS: dict[str, Generator] = {"shift_resnet": shift_resnet}
