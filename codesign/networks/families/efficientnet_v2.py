"""EfficientNetV2 S, M and L: fused blocks in the first stages, inverted residuals with squeeze-excite later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from codesign.networks.architecture import Architecture
from codesign.networks.blocks import ConvNormAct, InvertedResidual, Padding, pooled_classifier

HEAD = 1280
_EPSILON = 1e-3


@dataclass(frozen=True)
class Stage:
    """Blocks of one width, with 3x3 kernels. fused: a dense 3x3 expands, without squeeze-excite."""

    fused: bool
    expansion: int
    channels: int
    repeats: int
    stride: int


SIZES = {
    "s": (
        Stage(True, 1, 24, 2, 1),
        Stage(True, 4, 48, 4, 2),
        Stage(True, 4, 64, 4, 2),
        Stage(False, 4, 128, 6, 2),
        Stage(False, 6, 160, 9, 1),
        Stage(False, 6, 256, 15, 2),
    ),
    "m": (
        Stage(True, 1, 24, 3, 1),
        Stage(True, 4, 48, 5, 2),
        Stage(True, 4, 80, 5, 2),
        Stage(False, 4, 160, 7, 2),
        Stage(False, 6, 176, 14, 1),
        Stage(False, 6, 304, 18, 2),
        Stage(False, 6, 512, 5, 1),
    ),
    "l": (
        Stage(True, 1, 32, 4, 1),
        Stage(True, 4, 64, 7, 2),
        Stage(True, 4, 96, 7, 2),
        Stage(False, 4, 192, 10, 2),
        Stage(False, 6, 224, 19, 1),
        Stage(False, 6, 384, 25, 2),
        Stage(False, 6, 640, 7, 1),
    ),
}


class FusedInvertedResidual(nn.Module):
    """3x3 to the expanded channels, 1x1 to `out_channels` without activation; plus the input. Expansion 1: one 3x3."""

    def __init__(self, in_channels: int, out_channels: int, expansion: int, stride: int, padding: Padding) -> None:
        super().__init__()
        conv = partial(ConvNormAct, padding=padding, epsilon=_EPSILON)
        expanded = expansion * in_channels
        if expansion == 1:
            layers = [conv(in_channels, out_channels, 3, stride, activation=nn.SiLU)]
        else:
            layers = [
                conv(in_channels, expanded, 3, stride, activation=nn.SiLU),
                conv(expanded, out_channels, 1, activation=None),
            ]
        self.layers = nn.Sequential(*layers)
        self.adds_input = stride == 1 and in_channels == out_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.adds_input else self.layers(x)


def build(stages: Sequence[Stage], classes: int, channels: int, padding: Padding = "same") -> nn.Sequential:
    """The network: stem as wide as the first stage, stages, head of a 1x1 convolution, classifier.

    padding: "same" is the authors' (TensorFlow); "symmetric" that of torchvision, of the same sizes.
    """
    conv = partial(ConvNormAct, activation=nn.SiLU, padding=padding, epsilon=_EPSILON)
    width = stages[0].channels
    layers: list[nn.Module] = [conv(channels, width, 3, 2)]
    for stage in stages:
        for repeat in range(stage.repeats):
            stride = stage.stride if repeat == 0 else 1
            layers.append(_block(stage, width, stride, padding))
            width = stage.channels
    return nn.Sequential(*layers, conv(width, HEAD, 1), pooled_classifier(HEAD, classes))


def _block(stage: Stage, in_channels: int, stride: int, padding: Padding) -> nn.Module:
    if stage.fused:
        return FusedInvertedResidual(in_channels, stage.channels, stage.expansion, stride, padding)
    return InvertedResidual(
        in_channels,
        stage.channels,
        stage.expansion * in_channels,
        3,
        stride,
        squeezed=in_channels // 4,
        activation=nn.SiLU,
        squeeze_activation=nn.SiLU,
        padding=padding,
        epsilon=_EPSILON,
    )


def efficientnet_v2(
    size: str = "s", resolution: int = 384, classes: int = 1000, channels: int = 3, padding: Padding = "same"
) -> nn.Sequential:
    """size: s, m or l. Source: Tan and Le, EfficientNetV2, 2021, table 4, and the authors' code."""
    del resolution
    return build(SIZES[size], classes, channels, padding)


GENERATORS = {"efficientnet_v2": efficientnet_v2}

_SOURCE = "Tan and Le, EfficientNetV2, 2021, table 4, and the authors' code"

ARCHITECTURES = tuple(
    Architecture(
        f"efficientnet_v2_{size}",
        "EfficientNetV2",
        (3, resolution, resolution),
        partial(efficientnet_v2, size),
        _SOURCE,
        "" if size == "s" else "The paper prints the stages of S alone; these are those of the authors' code.",
    )
    for size, resolution in (("s", 384), ("m", 480), ("l", 480))
)
