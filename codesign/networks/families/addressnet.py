"""AddressNet's three primitives as a network: He et al., WACV 2019 (Zhong et al., arXiv 1809.08458)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from codesign.networks.architecture import Architecture, Generator
from codesign.networks.blocks import ConvNormAct, pooled_classifier
from codesign.networks.shifts import FOUR_CONNECTED, Shift


class ChannelShift(nn.Module):
    """Channels move on by half a group, the last ones to the front: the next grouped convolution sees two groups."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        step = channels // groups // 2
        self.sizes = [channels - step, step]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        front, behind = torch.split(x, self.sizes, dim=1)
        return torch.cat([behind, front], dim=1)


class AddressModule(nn.Module):
    """Grouped 1x1, channel shift, address shift, grouped 1x1, and a shortcut.

    The address shift reads quarters of the channels from the row above and below and the column left and right. At
    stride 1 the input is added. At stride 2 it is pooled and stands beside the result, which is the shortcut shift:
    both are written where they are read, one behind the other.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, groups: int) -> None:
        super().__init__()
        made = out_channels - in_channels if stride == 2 else out_channels
        self.layers = nn.Sequential(
            ConvNormAct(in_channels, made, 1, groups=groups),
            ChannelShift(made, groups),
            Shift(made, FOUR_CONNECTED),
            ConvNormAct(made, made, 1, stride, groups=groups, activation=None),
        )
        self.pool = nn.AvgPool2d(3, 2, 1) if stride == 2 else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = self.layers(x)
        return torch.relu(x + made if self.pool is None else torch.cat([self.pool(x), made], dim=1))


def addressnet(
    blocks: Sequence[int] = (3, 3, 3),
    width: int = 48,
    groups: int = 3,
    classes: int = 100,
    channels: int = 3,
) -> nn.Sequential:
    """Stages of address modules, each of twice the channels of the one before it and half its rows and columns.

    width: channels of the first stage, a multiple of 2 x groups.
    """
    layers: list[nn.Module] = [ConvNormAct(channels, width)]
    in_channels = width
    for stage, count in enumerate(blocks):
        for number in range(count):
            stride = 2 if stage and number == 0 else 1
            out_channels = in_channels * stride
            layers.append(AddressModule(in_channels, out_channels, stride, groups))
            in_channels = out_channels
    return nn.Sequential(*layers, pooled_classifier(in_channels, classes))


ARCHITECTURES: tuple[Architecture, ...] = ()
GENERATORS: dict[str, Generator] = {"addressnet": addressnet}
_WHY = (
    "what is at hand describes the three primitives (channel, address and shortcut shift), not how many modules of "
    "which width; the generator addressnet has them as arguments"
)
NO_SOURCE: tuple[tuple[str, str], ...] = (("AddressNet", _WHY), ("Enhanced AddressNet", _WHY))
