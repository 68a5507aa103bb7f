"""ShiftNet A, B and C, and ResNets of small images with shifts: Wu et al., CVPR 2018."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from codesign.networks.architecture import IMAGENET, Architecture, Generator
from codesign.networks.blocks import ConvNormAct, pooled_classifier
from codesign.networks.shifts import Shift, square


@dataclass(frozen=True)
class Group:
    """Modules of one width. expansions: of each module, the first of which halves rows and columns."""

    channels: int
    kernel: int
    expansions: tuple[int, ...]


# Table 4 of the paper; B halves the channels, C is shallow and narrow.
GROUPS_A = (
    Group(64, 5, (4, 4, 4, 4, 4)),
    Group(128, 5, (4, 3, 3, 3, 3, 3)),
    Group(256, 3, (3, 2, 2, 2, 2, 2, 2)),
    Group(512, 3, (2, 1, 1)),
)
GROUPS_B = tuple(Group(group.channels // 2, group.kernel, group.expansions) for group in GROUPS_A)
GROUPS_C = (Group(32, 3, (1,)), Group(64, 3, (1,) * 4), Group(128, 3, (1,) * 4), Group(256, 3, (1,) * 3))


class ConvShiftConv(nn.Module):
    """The CSC module: norm, activation, 1x1 to expansion x `made`, norm, activation, shift, 1x1 to `made` channels.

    At stride 1 the input is added. At stride 2 it is pooled and its channels stand beside the made ones, so that
    `made` is what is missing to out_channels; or, with keeps_input False, there is no path beside the module.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        expansion: int,
        stride: int = 1,
        *,
        keeps_input: bool = True,
        as_convolution: bool = False,
    ) -> None:
        super().__init__()
        made = out_channels - in_channels if stride == 2 and keeps_input else out_channels
        middle = made * expansion
        self.layers = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.ReLU(),
            ConvNormAct(in_channels, middle, 1),
            Shift(middle, square(kernel), as_convolution=as_convolution),
            nn.Conv2d(middle, made, 1, stride, bias=False),
        )
        self.pool = nn.AvgPool2d(3, 2, 1) if stride == 2 and keeps_input else None
        self.adds_input = stride == 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = self.layers(x)
        if self.pool is not None:
            return torch.cat([self.pool(x), made], dim=1)
        return x + made if self.adds_input else made


class ShiftNet(nn.Sequential):
    """A 7x7 stem of stride 2, groups of CSC modules, norm, activation, pooling and one dense layer."""

    def __init__(
        self,
        groups: Sequence[Group],
        stem: int,
        *,
        keeps_input: bool = True,
        classes: int = 1000,
        channels: int = 3,
        as_convolution: bool = False,
    ) -> None:
        modules: list[nn.Module] = [nn.Conv2d(channels, stem, 7, 2, 3, bias=False)]
        width = stem
        for group in groups:
            for number, expansion in enumerate(group.expansions):
                stride = 1 if number else 2
                modules.append(
                    ConvShiftConv(
                        width,
                        group.channels,
                        group.kernel,
                        expansion,
                        stride,
                        keeps_input=keeps_input,
                        as_convolution=as_convolution,
                    )
                )
                width = group.channels
        super().__init__(*modules, nn.BatchNorm2d(width), nn.ReLU(), pooled_classifier(width, classes))


def shiftnet(
    width: float = 1.0, classes: int = 1000, channels: int = 3, resolution: int = 224, as_convolution: bool = False
) -> ShiftNet:
    """ShiftNet-A with all channels times `width`; 0.5 is B. Any resolution will do; the paper's is 224."""
    groups = [Group(int(group.channels * width), group.kernel, group.expansions) for group in GROUPS_A]
    return ShiftNet(groups, int(32 * width), classes=classes, channels=channels, as_convolution=as_convolution)


class ShiftResidual(nn.Module):
    """Two 3x3 convolutions of a residual block become 1x1, shift, 1x1; the norm stands before the shift.

    Source: the authors' code for CIFAR (alvinwan/shiftresnet-cifar).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = out_channels * expansion
        self.layers = nn.Sequential(
            ConvNormAct(in_channels, middle, 1),
            Shift(middle, square(3)),
            ConvNormAct(middle, out_channels, 1, stride, activation=None),
        )
        same = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Identity() if same else ConvNormAct(in_channels, out_channels, 1, stride, activation=None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.layers(x) + self.shortcut(x))


def shift_resnet_cifar(depth: int = 20, expansion: int = 6, classes: int = 10, channels: int = 3) -> nn.Sequential:
    """ResNet of 16, 32 and 64 channels for images of 32x32. depth: 6 n + 2, for n blocks of each width."""
    blocks: list[nn.Module] = [ConvNormAct(channels, 16)]
    width = 16
    for out_channels in (16, 32, 64):
        for number in range((depth - 2) // 6):
            stride = 2 if number == 0 and out_channels != 16 else 1
            blocks.append(ShiftResidual(width, out_channels, stride, expansion))
            width = out_channels
    return nn.Sequential(*blocks, pooled_classifier(width, classes))


_SOURCE = "Wu et al., Shift: A Zero FLOP, Zero Parameter Alternative to Spatial Convolutions, CVPR 2018"
_ORDER = "Norm and activation stand before the shift, as in the authors' code for small images."
ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture(
        "shiftnet_a", "ShiftNet", IMAGENET, partial(ShiftNet, GROUPS_A, 32), f"{_SOURCE}, tables 4 and 5", _ORDER
    ),
    Architecture(
        "shiftnet_b",
        "ShiftNet",
        IMAGENET,
        partial(ShiftNet, GROUPS_B, 16),
        f"{_SOURCE}, table 5",
        f"{_ORDER} The stem is halved too: that gives the 371 M printed.",
    ),
    Architecture(
        "shiftnet_c",
        "ShiftNet",
        IMAGENET,
        partial(ShiftNet, GROUPS_C, 32, keeps_input=False),
        f"{_SOURCE}, section 4.4 and table 5",
        f"{_ORDER} Modules of stride 2 make all their channels, with nothing beside them: that gives the 0.78 M "
        "parameters printed; with the pooled input it would be 0.70 M.",
    ),
    *(
        Architecture(
            f"shift_resnet{depth}_cifar",
            "ShiftNet",
            (3, 32, 32),
            partial(shift_resnet_cifar, depth, 6),
            f"{_SOURCE}, table 2, expansion 6",
        )
        for depth in (20, 56, 110)
    ),
)
GENERATORS: dict[str, Generator] = {"shiftnet": shiftnet, "shift_resnet_cifar": shift_resnet_cifar}
