"""YOLOv7 and YOLOv7-tiny: Wang, Bochkovskiy and Liao, CVPR 2023. What comes out are raw maps of three scales."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from codesign.networks.architecture import Architecture, Generator
from codesign.networks.blocks import Activation, ConvNormAct

Maps = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
_Leaky = partial(nn.LeakyReLU, 0.1)
_ANCHORS = 3
_POOLS = (5, 9, 13)


class Elan(nn.Module):
    """Efficient layer aggregation: two 1x1, a chain of 3x3 behind the second, some of all that side by side, a 1x1.

    heads: channels of each of the two 1x1. chain: of each 3x3. kept: which are put side by side, first come the 1x1.
    """

    def __init__(
        self,
        in_channels: int,
        heads: int,
        chain: Sequence[int],
        out_channels: int,
        kept: Sequence[int],
        activation: Activation,
    ) -> None:
        super().__init__()
        self.beside = ConvNormAct(in_channels, heads, 1, activation=activation)
        self.first = ConvNormAct(in_channels, heads, 1, activation=activation)
        widths = [heads, *chain]
        self.chain = nn.ModuleList(
            ConvNormAct(before, after, activation=activation)
            for before, after in zip(widths[:-1], widths[1:], strict=True)
        )
        self.kept = tuple(kept)
        merged = sum([heads, *widths][number] for number in kept)
        self.merge = ConvNormAct(merged, out_channels, 1, activation=activation)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = [self.beside(x), self.first(x)]
        for layer in self.chain:
            found.append(layer(found[-1]))
        return self.merge(torch.cat([found[number] for number in reversed(self.kept)], dim=1))


class Halve(nn.Module):
    """Half the rows and columns twice over, side by side: by a convolution of stride 2, and by a maximum of 2x2."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.convolved = nn.Sequential(
            ConvNormAct(in_channels, channels, 1, activation=nn.SiLU),
            ConvNormAct(channels, channels, 3, 2, activation=nn.SiLU),
        )
        self.pooled = nn.Sequential(nn.MaxPool2d(2), ConvNormAct(in_channels, channels, 1, activation=nn.SiLU))

    def forward(self, x: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.convolved(x), self.pooled(x), *others], dim=1)


class PooledPyramid(nn.Module):
    """Maxima of 5x5, 9x9 and 13x13 beside their input, between convolutions, beside a 1x1 of the whole input."""

    def __init__(self, in_channels: int, channels: int, *, deep: bool, activation: Activation) -> None:
        super().__init__()
        conv = partial(ConvNormAct, activation=activation)
        around = [conv(channels, channels, 3)] if deep else []
        before = [*around, conv(channels, channels, 1)] if deep else []
        behind = [conv(channels, channels, 3)] if deep else []
        self.before = nn.Sequential(conv(in_channels, channels, 1), *before)
        self.pools = nn.ModuleList(nn.MaxPool2d(size, 1, size // 2) for size in _POOLS)
        self.behind = nn.Sequential(conv((1 + len(_POOLS)) * channels, channels, 1), *behind)
        self.beside = conv(in_channels, channels, 1)
        self.merge = conv(2 * channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = self.before(x)
        pyramid = self.behind(torch.cat([found, *(pool(found) for pool in self.pools)], dim=1))
        return self.merge(torch.cat([pyramid, self.beside(x)], dim=1))


class TwoBranches(nn.Module):
    """A 3x3 and a 1x1, each with its norm, added: one 3x3 at inference (the pass merge-branches makes it)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.wide = ConvNormAct(in_channels, out_channels, activation=None)
        self.point = ConvNormAct(in_channels, out_channels, 1, activation=None)
        self.activation = nn.SiLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activation(self.wide(x) + self.point(x))


class Heads(nn.Module):
    """A 3x3 that doubles the channels and a 1x1 to what is predicted, for each of three scales."""

    def __init__(self, widths: Sequence[int], classes: int, activation: Activation, *, branches: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                TwoBranches(width, 2 * width) if branches else ConvNormAct(width, 2 * width, activation=activation),
                nn.Conv2d(2 * width, _ANCHORS * (classes + 5), 1),
            )
            for width in widths
        )

    def forward(self, *features: torch.Tensor) -> Maps:
        eighth, sixteenth, thirty_second = (layer(x) for layer, x in zip(self.layers, features, strict=True))
        return eighth, sixteenth, thirty_second


class YoloV7(nn.Module):
    """YOLOv7: ELAN backbone, pooled pyramid, features up and down again, heads. Rows and columns: multiples of 32."""

    def __init__(self, classes: int = 80, channels: int = 3, *, branches: bool = False) -> None:
        super().__init__()
        conv = partial(ConvNormAct, activation=nn.SiLU)
        deep = partial(Elan, kept=(0, 1, 3, 5), activation=nn.SiLU)
        wide = partial(Elan, kept=range(6), activation=nn.SiLU)
        self.stem = nn.Sequential(conv(channels, 32), conv(32, 64, 3, 2), conv(64, 64), conv(64, 128, 3, 2))
        self.quarter = deep(128, 64, [64] * 4, 256)
        self.eighth = nn.Sequential(Halve(256, 128), deep(256, 128, [128] * 4, 512))
        self.sixteenth = nn.Sequential(Halve(512, 256), deep(512, 256, [256] * 4, 1024))
        self.last = nn.Sequential(Halve(1024, 512), deep(1024, 256, [256] * 4, 1024))
        self.pyramid = PooledPyramid(1024, 512, deep=True, activation=nn.SiLU)
        self.up = nn.ModuleList([conv(512, 256, 1), conv(256, 128, 1)])
        self.route = nn.ModuleList([conv(1024, 256, 1), conv(512, 128, 1)])
        self.mixed_up = nn.ModuleList([wide(512, 256, [128] * 4, 256), wide(256, 128, [64] * 4, 128)])
        self.down = nn.ModuleList([Halve(128, 128), Halve(256, 256)])
        self.mixed_down = nn.ModuleList([wide(512, 256, [128] * 4, 256), wide(1024, 512, [256] * 4, 512)])
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.heads = Heads((128, 256, 512), classes, nn.SiLU, branches=branches)

    def forward(self, x: torch.Tensor) -> Maps:
        eighth = self.eighth(self.quarter(self.stem(x)))
        sixteenth = self.sixteenth(eighth)
        top = self.pyramid(self.last(sixteenth))
        middle = self._raised(0, top, sixteenth)
        fine = self._raised(1, middle, eighth)
        middle = self.mixed_down[0](self.down[0](fine, middle))
        found: Maps = self.heads(fine, middle, self.mixed_down[1](self.down[1](middle, top)))
        return found

    def _raised(self, level: int, coarse: torch.Tensor, finer: torch.Tensor) -> torch.Tensor:
        raised = self.upsample(self.up[level](coarse))
        mixed: torch.Tensor = self.mixed_up[level](torch.cat([self.route[level](finer), raised], dim=1))
        return mixed


class YoloV7Tiny(nn.Module):
    """YOLOv7-tiny: shorter chains, maxima alone between the scales, LeakyReLU. Rows and columns: multiples of 32."""

    def __init__(self, classes: int = 80, channels: int = 3) -> None:
        super().__init__()
        conv = partial(ConvNormAct, activation=_Leaky)

        def elan(in_channels: int, width: int, out_channels: int) -> Elan:
            return Elan(in_channels, width, [width] * 2, out_channels, range(4), _Leaky)

        self.quarter = nn.Sequential(conv(channels, 32, 3, 2), conv(32, 64, 3, 2), elan(64, 32, 64))
        self.eighth = nn.Sequential(nn.MaxPool2d(2), elan(64, 64, 128))
        self.sixteenth = nn.Sequential(nn.MaxPool2d(2), elan(128, 128, 256))
        self.last = nn.Sequential(nn.MaxPool2d(2), elan(256, 256, 512))
        self.pyramid = PooledPyramid(512, 256, deep=False, activation=_Leaky)
        self.up = nn.ModuleList([conv(256, 128, 1), conv(128, 64, 1)])
        self.route = nn.ModuleList([conv(256, 128, 1), conv(128, 64, 1)])
        self.mixed_up = nn.ModuleList([elan(256, 64, 128), elan(128, 32, 64)])
        self.down = nn.ModuleList([conv(64, 128, 3, 2), conv(128, 256, 3, 2)])
        self.mixed_down = nn.ModuleList([elan(256, 64, 128), elan(512, 128, 256)])
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.heads = Heads((64, 128, 256), classes, _Leaky, branches=False)

    def forward(self, x: torch.Tensor) -> Maps:
        eighth = self.eighth(self.quarter(x))
        sixteenth = self.sixteenth(eighth)
        top = self.pyramid(self.last(sixteenth))
        middle = self._raised(0, top, sixteenth)
        fine = self._raised(1, middle, eighth)
        middle = self.mixed_down[0](torch.cat([self.down[0](fine), middle], dim=1))
        found: Maps = self.heads(fine, middle, self.mixed_down[1](torch.cat([self.down[1](middle), top], dim=1)))
        return found

    def _raised(self, level: int, coarse: torch.Tensor, finer: torch.Tensor) -> torch.Tensor:
        raised = self.upsample(self.up[level](coarse))
        mixed: torch.Tensor = self.mixed_up[level](torch.cat([self.route[level](finer), raised], dim=1))
        return mixed


_SOURCE = (
    "Wang et al., YOLOv7: Trainable bag-of-freebies, CVPR 2023, table 1; layers after WongKinYiu/yolov7, cfg/deploy"
)
_IMAGE = (3, 640, 640)
ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture(
        "yolov7",
        "YOLO",
        _IMAGE,
        YoloV7,
        _SOURCE,
        "As it is deployed: the heads' two branches are one 3x3, and what is predicted comes out undecoded. The "
        "generator's branches=True is what is trained.",
    ),
    Architecture("yolov7_tiny", "YOLO", _IMAGE, YoloV7Tiny, _SOURCE, "What is predicted comes out undecoded."),
)
GENERATORS: dict[str, Generator] = {"yolov7": YoloV7, "yolov7_tiny": YoloV7Tiny}
