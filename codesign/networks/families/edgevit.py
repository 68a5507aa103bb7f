"""EdgeViT: gather nearby by convolutions, attend between few tokens, spread nearby by transposed convolutions.

Source: Pan et al., EdgeViTs, 2022; widths, depths and layers as in their public code.
"""

from __future__ import annotations

from functools import partial
from math import isqrt

import torch
from torch import nn

from codesign.networks.architecture import IMAGENET, Architecture, Generator
from codesign.networks.attention import SelfAttention, TransformerBlock

EPSILON = 1e-6  # of LayerNorm between tokens


class SparseAttention(SelfAttention):
    """Attention between one token of every `rate` x `rate`, spread over the rest by a transposed convolution.

    The tokens are those of a square image. rate 1: every token, and nothing to spread.
    """

    def __init__(self, channels: int, heads: int, rate: int) -> None:
        super().__init__(channels, heads)
        self.rate = rate
        if rate > 1:
            self.spread = nn.ConvTranspose2d(channels, channels, rate, rate, groups=channels)
            self.norm = nn.LayerNorm(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.rate == 1:
            return self.projection(self.mixed(x))
        batch, tokens, channels = x.shape
        side = isqrt(tokens)
        few = x.reshape(batch, side, side, channels)[:, :: self.rate, :: self.rate]
        mixed = self.mixed(few.reshape(batch, -1, channels))
        image = mixed.transpose(1, 2).reshape(batch, channels, side // self.rate, side // self.rate)
        return self.projection(self.norm(self.spread(image).flatten(2).transpose(1, 2)))


class LocalAggregation(nn.Module):
    """Convolutions alone, in the shape of a transformer block: position, mixing of neighbours, mixing of channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.position = _depthwise(channels, 3)
        self.neighbours = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, channels, 1),
            _depthwise(channels, 5),
            nn.Conv2d(channels, channels, 1),
        )
        self.dense = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.Conv2d(channels, 4 * channels, 1),
            nn.GELU(),
            nn.Conv2d(4 * channels, channels, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.position(x)
        x = x + self.neighbours(x)
        return x + self.dense(x)


class GlobalAttention(nn.Module):
    """Position by a depthwise convolution, then a transformer block with sparse attention."""

    def __init__(self, channels: int, heads: int, rate: int) -> None:
        super().__init__()
        self.position = _depthwise(channels, 3)
        attention = SparseAttention(channels, heads, rate)
        self.block = TransformerBlock(attention, channels, 4 * channels, nn.GELU, EPSILON)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.position(x)
        return self.block(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(x.shape)


class Patches(nn.Module):
    """Squares of `size` pixels become one, by a convolution and LayerNorm over channels."""

    def __init__(self, in_channels: int, channels: int, size: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(in_channels, channels, size, size)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.convolution(x)
        return self.norm(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(x.shape)


def _depthwise(channels: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)


def edgevit(
    widths: tuple[int, ...] = (48, 96, 240, 384),
    depths: tuple[int, ...] = (1, 2, 5, 3),
    head_width: int = 48,
    rates: tuple[int, ...] = (4, 2, 2, 1),
    classes: int = 1000,
    channels: int = 3,
) -> nn.Sequential:
    """Stages of local-global-local blocks; attention sees one token of every rate x rate, at rate 1 without local half.

    Sides are multiples of 32 pixels, for four stages with these rates.
    """
    layers: list[nn.Module] = []
    before = channels
    for stage, (width, depth, rate) in enumerate(zip(widths, depths, rates, strict=True)):
        layers.append(Patches(before, width, 2 if stage else 4))
        for _ in range(depth):
            layers += [LocalAggregation(width)] if rate > 1 else []
            layers.append(GlobalAttention(width, width // head_width, rate))
        before = width
    head = (nn.BatchNorm2d(before), nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(before, classes))
    return nn.Sequential(*layers, *head)


def _architecture(name: str, build: Generator, note: str) -> Architecture:
    source = f"Pan et al., EdgeViTs, 2022, EdgeViT-{name.upper()}"
    return Architecture(f"edgevit_{name}", "EdgeViT", IMAGENET, build, source, note)


_LATER = "{} M parameters (later papers print {}), {} M MACs (later papers print {} G)."
ARCHITECTURES = (
    _architecture(
        "xxs", partial(edgevit, (36, 72, 144, 288), (1, 1, 3, 2), 36), _LATER.format("4.068", "4.1", "551.3", "0.6")
    ),
    _architecture(
        "xs", partial(edgevit, depths=(1, 1, 3, 1)), "6.770 M parameters, 1127.8 M MACs; no printed figures at hand."
    ),
    _architecture("s", edgevit, _LATER.format("13.108", "13.1", "1911.0", "1.9")),
)
GENERATORS: dict[str, Generator] = {"edgevit": edgevit}
