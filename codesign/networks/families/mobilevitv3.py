"""MobileViTv3: convolutions for what is near, attention for what is far, 1x1 convolutions to join them.

Two lines of networks: XXS, XS and S with the transformer of MobileViT, 0.5, 0.75 and 1.0 with the linear attention of
MobileViTv2. Images are (batch, channels, rows, columns) with sides that are multiples of 64.
Source: Wadekar and Chaurasia, MobileViTv3, 2022; widths and depths as in their public configurations.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from codesign.networks.architecture import Architecture, Generator
from codesign.networks.attention import SelfAttention, TransformerBlock
from codesign.networks.blocks import ConvNormAct, InvertedResidual, pooled_classifier, round_to_8

PATCH = 2  # rows and columns of a patch
conv_norm_silu = partial(ConvNormAct, activation=nn.SiLU)


def to_patches(x: torch.Tensor) -> torch.Tensor:
    """(batch, channels, rows, columns) to (batch, pixels of a patch, patches, channels)."""
    batch, channels, rows, columns = x.shape
    x = x.reshape(batch, channels, rows // PATCH, PATCH, columns // PATCH, PATCH)
    return x.permute(0, 3, 5, 2, 4, 1).reshape(batch, PATCH * PATCH, -1, channels)


def to_image(patches: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """`to_patches` backwards, to the shape of an image."""
    batch, channels, rows, columns = image.shape
    x = patches.reshape(batch, PATCH, PATCH, rows // PATCH, columns // PATCH, channels)
    return x.permute(0, 5, 3, 1, 4, 2).reshape(image.shape)


class TransformerMixing(nn.Module):
    """Every pixel of a patch attends to the pixels at its place in all patches."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        blocks = [TransformerBlock(SelfAttention(width, 4), width, 2 * width, nn.SiLU) for _ in range(depth)]
        self.layers = nn.Sequential(*blocks, nn.LayerNorm(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patches = to_patches(x)
        mixed = self.layers(patches.flatten(0, 1))
        return to_image(mixed.reshape(patches.shape), x)


class LinearAttention(nn.Module):
    """One score per token, not per pair: softmax of the scores weighs the keys, their sum multiplies every value.

    Images come in as (batch, channels, pixels of a patch, patches), and the softmax is over patches.
    Source: Mehta and Rastegari, Separable Self-attention for Mobile Vision Transformers, 2022.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.query_key_value = nn.Conv2d(width, 1 + 2 * width, 1)
        self.projection = nn.Conv2d(width, width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.query_key_value(x).split((1, self.width, self.width), 1)
        context = (key * torch.softmax(query, -1)).sum(-1, keepdim=True)
        return self.projection(torch.relu(value) * context)


class LinearMixing(nn.Module):
    """The same between patches, with linear attention and convolutions for dense layers."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        hidden = 2 * width // 16 * 16
        self.steps = nn.ModuleList()
        for _ in range(depth):
            self.steps.append(nn.Sequential(nn.GroupNorm(1, width), LinearAttention(width)))
            dense = (nn.Conv2d(width, hidden, 1), nn.SiLU(), nn.Conv2d(hidden, width, 1))
            self.steps.append(nn.Sequential(nn.GroupNorm(1, width), *dense))
        self.norm = nn.GroupNorm(1, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patches = to_patches(x).permute(0, 3, 1, 2)
        for step in self.steps:
            patches = patches + step(patches)
        return to_image(self.norm(patches).permute(0, 2, 3, 1), x)


def _local(channels: int, width: int) -> nn.Sequential:
    depthwise = conv_norm_silu(channels, channels, 3, groups=channels)
    return nn.Sequential(depthwise, nn.Conv2d(channels, width, 1, bias=False))


class TransformerFusion(nn.Module):
    """A block of XXS, XS and S: convolutions to `width` channels, attention, 1x1 back; both joined, plus the input."""

    def __init__(self, channels: int, width: int, depth: int) -> None:
        super().__init__()
        self.local = _local(channels, width)
        self.mixing = nn.Sequential(TransformerMixing(width, depth), conv_norm_silu(width, channels, 1))
        self.fusion = conv_norm_silu(width + channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        local = self.local(x)
        return x + self.fusion(torch.cat((local, self.mixing(local)), 1))


class LinearFusion(nn.Module):
    """A block of 0.5 and 1.0: as above, but what is mixed is joined as it is and nothing follows the last BatchNorm."""

    def __init__(self, channels: int, width: int, depth: int) -> None:
        super().__init__()
        self.local = _local(channels, width)
        self.mixing = LinearMixing(width, depth)
        self.fusion = ConvNormAct(2 * width, channels, 1, activation=None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        local = self.local(x)
        return x + self.fusion(torch.cat((self.mixing(local), local), 1))


@dataclass(frozen=True)
class Size:
    """Widths of a network.

    stem: of the first convolution. plain: channels and number of inverted residuals of every stage without attention.
    mixed: channels of every stage with it, and width and depth of its mixing. expansion: of the inverted residuals.
    head: of a 1x1 convolution before the classifier, 0 for none.
    """

    stem: int
    plain: tuple[tuple[int, int], ...]
    mixed: tuple[tuple[int, int, int], ...]
    expansion: int
    head: int = 0


class MobileViTv3(nn.Sequential):
    """A 3x3 convolution, stages of inverted residuals, `fusion` at the end of those with attention, a classifier."""

    def __init__(
        self,
        size: Size,
        fusion: type[TransformerFusion] | type[LinearFusion] = TransformerFusion,
        classes: int = 1000,
        channels: int = 3,
    ) -> None:
        layers: list[nn.Module] = [conv_norm_silu(channels, size.stem, 3, 2)]
        width = size.stem
        stages: list[tuple[int, int, tuple[int, int] | None]] = [(*stage, None) for stage in size.plain]
        stages += [(out_channels, 1, (mixed, depth)) for out_channels, mixed, depth in size.mixed]
        for number, (out_channels, repeats, mixing) in enumerate(stages):
            for repeat in range(repeats):
                stride = 2 if number > 0 and repeat == 0 else 1
                inner = round_to_8(width * size.expansion)
                layers.append(InvertedResidual(width, out_channels, inner, 3, stride, activation=nn.SiLU))
                width = out_channels
            layers += [] if mixing is None else [fusion(width, *mixing)]
        if size.head:
            layers.append(conv_norm_silu(width, size.head, 1))
        super().__init__(*layers, pooled_classifier(size.head or width, classes))


SIZES = {
    "xxs": Size(16, ((16, 1), (24, 3)), ((64, 64, 2), (80, 80, 4), (128, 96, 3)), expansion=2, head=512),
    "xs": Size(16, ((32, 1), (48, 3)), ((96, 96, 2), (160, 120, 4), (160, 144, 3)), expansion=4, head=640),
    "s": Size(16, ((32, 1), (64, 3)), ((128, 144, 2), (256, 192, 4), (320, 240, 3)), expansion=4, head=960),
}


def mobilevitv3(width: float = 1.0, classes: int = 1000, channels: int = 3) -> MobileViTv3:
    """The line with linear attention; `width` multiplies channels, which are rounded to 8, of the first stage to 16."""
    stem = round_to_8(min(64, max(16, 32 * width)))
    plain = ((round_to_8(64 * width, 16), 1), (round_to_8(128 * width), 2))
    wide = ((256, 2), (384, 4), (512, 3))
    mixed = tuple((round_to_8(whole * width), round_to_8(whole / 2 * width), depth) for whole, depth in wide)
    size = Size(stem, plain, mixed, expansion=2)
    return MobileViTv3(size, LinearFusion, classes, channels)


def _architecture(name: str, build: Generator, note: str) -> Architecture:
    source = f"Wadekar and Chaurasia, MobileViTv3, 2022, MobileViTv3-{name.upper()}"
    return Architecture(f"mobilevitv3_{name}", "MobileViTv3", (3, 256, 256), build, source, note)


_COUNT = (
    "The authors' profiler takes the products of attention for tokens x channels x channels MACs each, not tokens x "
    "tokens x channels: {} M that way (printed {})."
)
_FIGURES = "{} M parameters (printed {}), {} M MACs (printed {})."
ARCHITECTURES = (
    _architecture(
        "xxs",
        partial(MobileViTv3, SIZES["xxs"]),
        "1.249 M parameters (printed 1.2), 332.2 M MACs. " + _COUNT.format("287.6", "280"),
    ),
    _architecture(
        "xs",
        partial(MobileViTv3, SIZES["xs"]),
        "2.490 M parameters (printed 2.5), 966.6 M MACs. " + _COUNT.format("924.6", "920"),
    ),
    _architecture(
        "s",
        partial(MobileViTv3, SIZES["s"]),
        "5.764 M parameters (printed 5.8), 1832.7 M MACs. " + _COUNT.format("1837.5", "1840"),
    ),
    _architecture("0.5", partial(mobilevitv3, 0.5), _FIGURES.format("1.430", "1.4", "479.8", "480")),
    _architecture("0.75", partial(mobilevitv3, 0.75), "3.000 M parameters, 1062.2 M MACs."),
    _architecture("1.0", mobilevitv3, _FIGURES.format("5.139", "5.1", "1872.9", "1870")),
)
GENERATORS: dict[str, Generator] = {"mobilevitv3": mobilevitv3}
