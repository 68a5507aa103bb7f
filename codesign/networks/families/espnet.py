"""ESPNet: a pyramid of dilated convolutions behind a 1x1, for segmentation, Mehta et al. 2018."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from codesign.networks.architecture import Architecture, Generator
from codesign.networks.blocks import convolution

_DILATIONS = (1, 2, 4, 8, 16)
_EPSILON = 1e-3


class NormSlope(nn.Sequential):
    """BatchNorm and an activation with a learned slope for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__(nn.BatchNorm2d(channels, eps=_EPSILON), nn.PReLU(channels))


class Pyramid(nn.Module):
    """The ESP module: reduce to a fifth, five 3x3 of dilations 1 to 16, sums of the dilated ones, side by side.

    Sums from one dilation to the next (hierarchical feature fusion) are there against the grid that holes leave. The
    first convolution is the 1x1 that reduces; of kernel 3 and stride 2 it halves rows and columns too. add: the input
    is added before norm and activation.
    """

    def __init__(self, in_channels: int, out_channels: int, *, kernel: int = 1, stride: int = 1, add: bool) -> None:
        super().__init__()
        narrow = out_channels // len(_DILATIONS)
        first = out_channels - narrow * (len(_DILATIONS) - 1)
        self.reduce = convolution(in_channels, narrow, kernel, stride)
        self.dilated = nn.ModuleList(
            convolution(narrow, first if dilation == 1 else narrow, 3, dilation=dilation) for dilation in _DILATIONS
        )
        self.norm = NormSlope(out_channels)
        self.add = add

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        reduced = self.reduce(x)
        undilated, *parts = (layer(reduced) for layer in self.dilated)
        for number in range(1, len(parts)):
            parts[number] = parts[number] + parts[number - 1]
        merged = torch.cat([undilated, *parts], dim=1)
        return self.norm(x + merged if self.add else merged)


class Encoder(nn.Module):
    """ESPNet-C without its classifier: features of a half, a quarter and an eighth of the image's rows and columns.

    depths: repeats of the module on the second and third level (alpha 2 and 3). The image, averaged down, is put beside
    the features of a level before the next one.
    """

    def __init__(self, channels: int, depths: tuple[int, int]) -> None:
        super().__init__()
        self.stem = nn.Sequential(convolution(channels, 16, 3, 2), NormSlope(16))
        self.shrink = nn.AvgPool2d(3, 2, 1)
        self.norms = nn.ModuleList([NormSlope(16 + channels), NormSlope(128 + channels), NormSlope(256)])
        self.down = nn.ModuleList(
            [
                Pyramid(16 + channels, 64, kernel=3, stride=2, add=False),
                Pyramid(128 + channels, 128, kernel=3, stride=2, add=False),
            ]
        )
        self.levels = nn.ModuleList(
            nn.Sequential(*(Pyramid(width, width, add=True) for _ in range(depth)))
            for width, depth in zip((64, 128), depths, strict=True)
        )

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        half = self.shrink(x)
        quarter = self.shrink(half)
        first = self.stem(x)
        down = self.down[0](self.norms[0](torch.cat([first, half], dim=1)))
        second = self.norms[1](torch.cat([self.levels[0](down), down, quarter], dim=1))
        down = self.down[1](second)
        third = self.norms[2](torch.cat([down, self.levels[1](down)], dim=1))
        return first, second, third


class EspNetC(nn.Module):
    """The encoder with a 1x1 classifier: scores of an eighth of the image's rows and columns."""

    def __init__(self, classes: int = 20, channels: int = 3, depths: tuple[int, int] = (2, 8)) -> None:
        super().__init__()
        self.encoder = Encoder(channels, depths)
        self.classifier = nn.Conv2d(256, classes, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.encoder(x)[2])


class EspNet(nn.Module):
    """The encoder and a decoder that doubles rows and columns three times: scores for every pixel."""

    def __init__(self, classes: int = 20, channels: int = 3, depths: tuple[int, int] = (2, 8)) -> None:
        super().__init__()
        self.encoder = Encoder(channels, depths)
        self.third = nn.Sequential(nn.Conv2d(256, classes, 1, bias=False), nn.BatchNorm2d(classes, eps=_EPSILON))
        self.second = nn.Conv2d(128 + channels, classes, 1, bias=False)
        self.up_third, self.up_second, self.up_first = (
            nn.ConvTranspose2d(classes, classes, 2, 2, bias=False) for _ in range(3)
        )
        self.combine = nn.Sequential(NormSlope(2 * classes), Pyramid(2 * classes, classes, add=False))
        self.norm = NormSlope(classes)
        self.first = nn.Sequential(convolution(16 + classes, classes, 3), NormSlope(classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second, third = self.encoder(x)
        quarter = torch.cat([self.second(second), self.up_third(self.third(third))], dim=1)
        half = self.norm(self.up_second(self.combine(quarter)))
        return self.up_first(self.first(torch.cat([half, first], dim=1)))


def espnet(
    depths: tuple[int, int] = (2, 8), decoder: bool = True, classes: int = 20, channels: int = 3
) -> EspNet | EspNetC:
    """ESPNet, or ESPNet-C without the decoder. depths: alpha 2 and alpha 3. Rows and columns: multiples of 8."""
    return (EspNet if decoder else EspNetC)(classes, channels, depths)


_SOURCE = "Mehta et al., ESPNet: Efficient Spatial Pyramid of Dilated Convolutions, ECCV 2018"
_NOTE = (
    "Level widths, epsilon and the decoder's order are those of the authors' code for their released weights "
    "(sacmehta/ESPNet, test/Model.py). The 424 M printed leave out the transposed convolutions."
)
_CITYSCAPES = (3, 512, 1024)
ARCHITECTURES: tuple[Architecture, ...] = tuple(
    Architecture(
        f"espnet{name}_{depth}",
        "ESPNet",
        _CITYSCAPES,
        partial(espnet, (2, depth), decoder=not name),
        f"{_SOURCE}, alpha 2 and {depth}",
        _NOTE,
    )
    for name in ("", "_c")
    for depth in (3, 5, 8)
)
GENERATORS: dict[str, Generator] = {"espnet": espnet}
