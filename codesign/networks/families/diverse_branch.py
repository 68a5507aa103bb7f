"""Diverse Branch Block: a convolution trained as four branches, Ding et al. 2021."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional

from codesign.networks.architecture import IMAGENET, Architecture, Generator
from codesign.networks.blocks import ConvNormAct, pooled_classifier

MakeConvolution = Callable[[int, int, int, int], nn.Module]  # in and out channels, kernel, stride; norm included


class NormThenPad(nn.Module):
    """BatchNorm, and a border of what it makes of zeros: as if the input of the norm had been padded with zeros.

    At inference just that is done, as it is the same. In training zeros would spoil the batch's mean and variance, so
    the border is added behind the norm, from the running statistics; no gradient flows through it.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.zeros = (width,) * 4

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return self.norm(functional.pad(x, self.zeros))
        border = self.border()
        return functional.pad(self.norm(x) - border, self.zeros) + border

    def border(self) -> torch.Tensor:
        """What the norm makes of zeros, (1, channels, 1, 1)."""
        norm = self.norm
        assert norm.running_mean is not None and norm.running_var is not None
        offsets = norm.bias - norm.running_mean * norm.weight / torch.sqrt(norm.running_var + norm.eps)
        return offsets.detach().view(1, -1, 1, 1)


class IdentityConvolution(nn.Conv2d):
    """A 1x1 convolution that begins as the identity: what is learned is added to it."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 1, bias=False)
        nn.init.zeros_(self.weight)
        self.register_buffer("identity", torch.eye(channels).view(channels, channels, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(x, self.weight + self.get_buffer("identity"))


class DiverseBranch(nn.Module):
    """A kernel x kernel convolution, a 1x1, a 1x1 before a kernel x kernel, a 1x1 before an average; all summed.

    Every branch ends in a BatchNorm, and between two convolutions stands another. All of it is linear at inference:
    one convolution with a bias (the pass merge-branches makes it). kernel: odd, not 1.
    Source: the paper's figure 2, and the authors' code (DingXiaoH/DiverseBranchBlock).
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        border = kernel // 2
        self.direct = ConvNormAct(in_channels, out_channels, kernel, stride, activation=None)
        self.point = ConvNormAct(in_channels, out_channels, 1, stride, activation=None)
        self.narrow = nn.Sequential(
            IdentityConvolution(in_channels),
            NormThenPad(in_channels, border),
            nn.Conv2d(in_channels, out_channels, kernel, stride, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.average = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            NormThenPad(out_channels, border),
            nn.AvgPool2d(kernel, stride),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.direct(x) + self.point(x) + self.narrow(x) + self.average(x)


def _plain(in_channels: int, out_channels: int, kernel: int, stride: int) -> nn.Module:
    return ConvNormAct(in_channels, out_channels, kernel, stride, activation=None)


class Residual(nn.Module):
    """ResNet's basic block: two 3x3 and a shortcut."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, make: MakeConvolution) -> None:
        super().__init__()
        self.first = make(in_channels, out_channels, 3, stride)
        self.second = make(out_channels, out_channels, 3, 1)
        same = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Identity() if same else _plain(in_channels, out_channels, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.second(torch.relu(self.first(x))) + self.shortcut(x))


def diverse_branch_resnet(
    blocks: Sequence[int] = (2, 2, 2, 2), width: int = 64, classes: int = 1000, channels: int = 3, branches: bool = True
) -> nn.Sequential:
    """ResNet of basic blocks whose every 3x3 is a DiverseBranch; with `branches` False it is a plain one.

    width: channels of the first stage, twice as many in each one that follows.
    """
    make: MakeConvolution = DiverseBranch if branches else _plain
    layers: list[nn.Module] = [ConvNormAct(channels, width, 7, 2), nn.MaxPool2d(3, 2, 1)]
    in_channels = width
    for stage, count in enumerate(blocks):
        out_channels = width * 2**stage
        for number in range(count):
            layers.append(Residual(in_channels, out_channels, 2 if stage and number == 0 else 1, make))
            in_channels = out_channels
    return nn.Sequential(*layers, pooled_classifier(in_channels, classes))


_SOURCE = "Ding et al., Diverse Branch Block: Building a Convolution as an Inception-like Unit, CVPR 2021"
ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture(
        "diverse_branch_resnet18",
        "Diverse Branch Block",
        IMAGENET,
        diverse_branch_resnet,
        f"{_SOURCE}, figure 2 and table 3",
        "As it is trained; at inference it is ResNet-18. The 7x7 and the 1x1 stay single, as in the authors' code.",
    ),
)
GENERATORS: dict[str, Generator] = {"diverse_branch_resnet": diverse_branch_resnet}
