"""MobileNetV3 large and small, with width and resolution multipliers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from torch import nn

from codesign.networks.architecture import Architecture
from codesign.networks.blocks import ConvNormAct, InvertedResidual, Padding, round_to_8

STEM = 16
_EPSILON = 1e-3


@dataclass(frozen=True)
class Row:
    """A row of the paper's tables. expanded: channels inside. squeezes: squeeze-excite. hard: h-swish, not ReLU."""

    kernel: int
    expanded: int
    channels: int
    squeezes: bool
    hard: bool
    stride: int


@dataclass(frozen=True)
class Size:
    """Rows, the convolution behind them, and the dense layer before the classifier."""

    rows: Sequence[Row]
    last: int
    head: int


SIZES = {
    "large": Size(
        (
            Row(3, 16, 16, False, False, 1),
            Row(3, 64, 24, False, False, 2),
            Row(3, 72, 24, False, False, 1),
            Row(5, 72, 40, True, False, 2),
            Row(5, 120, 40, True, False, 1),
            Row(5, 120, 40, True, False, 1),
            Row(3, 240, 80, False, True, 2),
            Row(3, 200, 80, False, True, 1),
            Row(3, 184, 80, False, True, 1),
            Row(3, 184, 80, False, True, 1),
            Row(3, 480, 112, True, True, 1),
            Row(3, 672, 112, True, True, 1),
            Row(5, 672, 160, True, True, 2),
            Row(5, 960, 160, True, True, 1),
            Row(5, 960, 160, True, True, 1),
        ),
        last=960,
        head=1280,
    ),
    "small": Size(
        (
            Row(3, 16, 16, True, False, 2),
            Row(3, 72, 24, False, False, 2),
            Row(3, 88, 24, False, False, 1),
            Row(5, 96, 40, True, True, 2),
            Row(5, 240, 40, True, True, 1),
            Row(5, 240, 40, True, True, 1),
            Row(5, 120, 48, True, True, 1),
            Row(5, 144, 48, True, True, 1),
            Row(5, 288, 96, True, True, 2),
            Row(5, 576, 96, True, True, 1),
            Row(5, 576, 96, True, True, 1),
        ),
        last=576,
        head=1024,
    ),
}


def mobilenet_v3(
    size: str = "large",
    width: float = 1.0,
    resolution: int = 224,
    classes: int = 1000,
    channels: int = 3,
    padding: Padding = "same",
) -> nn.Sequential:
    """size: large or small. Widths times `width`, rounded to 8; the dense layer before the classifier never narrower.

    Expanded widths keep their ratio to what the block reads. Squeeze-excite has a quarter of the expanded channels.
    Nothing depends on the resolution. padding: "same" is the authors' (TensorFlow); "symmetric" torchvision's.
    Source: Howard et al., Searching for MobileNetV3, 2019, tables 1 and 2.
    """
    del resolution
    chosen = SIZES[size]
    conv = partial(ConvNormAct, activation=nn.Hardswish, padding=padding, epsilon=_EPSILON)
    base, wide = STEM, round_to_8(STEM * width)
    layers: list[nn.Module] = [conv(channels, wide, 3, 2)]
    for row in chosen.rows:
        layers.append(_block(row, base, wide, width, padding))
        base, wide = row.channels, round_to_8(row.channels * width)
    last, head = round_to_8(chosen.last * width), round_to_8(chosen.head * max(1.0, width))
    layers += [conv(wide, last, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(last, head), nn.Hardswish()]
    return nn.Sequential(*layers, nn.Linear(head, classes))


def _block(row: Row, base: int, wide: int, width: float, padding: Padding) -> InvertedResidual:
    """base: the channels the paper's block reads; wide: those this one reads."""
    expanded = round_to_8(row.expanded / base * wide)
    return InvertedResidual(
        wide,
        round_to_8(row.channels * width),
        expanded,
        row.kernel,
        row.stride,
        squeezed=round_to_8(expanded / 4) if row.squeezes else 0,
        activation=nn.Hardswish if row.hard else nn.ReLU,
        gate=nn.Hardsigmoid,
        padding=padding,
        epsilon=_EPSILON,
    )


GENERATORS = {"mobilenet_v3": mobilenet_v3}

_SOURCE = "Howard et al., Searching for MobileNetV3, 2019, tables 1 and 2"

ARCHITECTURES = tuple(
    Architecture(
        f"mobilenet_v3_{size}{suffix}", "MobileNetV3", (3, 224, 224), partial(mobilenet_v3, size, width), _SOURCE
    )
    for size in SIZES
    for suffix, width in (("", 1.0), ("_075", 0.75))
)
