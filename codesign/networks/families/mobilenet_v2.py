"""MobileNetV2: inverted residuals, with width and resolution multipliers, compound scaling and channel attention."""

from __future__ import annotations

import math
from functools import partial

from torch import nn

from codesign.networks.architecture import Architecture
from codesign.networks.blocks import (
    ConvNormAct,
    EfficientChannelAttention,
    InvertedResidual,
    Padding,
    pooled_classifier,
    round_to_8,
)

STEM, HEAD = 32, 1280
STAGES = (  # expansion, channels, repeats, stride of the first
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_ONE_CHANNEL_UP_TO = 96


def mobilenet_v2(
    width: float = 1.0,
    depth: float = 1.0,
    resolution: int = 224,
    classes: int = 1000,
    channels: int = 3,
    padding: Padding = "same",
) -> nn.Sequential:
    """Widths times `width`, rounded to 8, the head's never below 1280; repeats times `depth`, rounded up.

    Nothing in it depends on the resolution. padding: "same" is the authors' (TensorFlow); "symmetric" torchvision's.
    Source: Sandler et al., MobileNetV2, 2018, table 2; depth: Tan and Le, EfficientNet, 2019, table 3.
    """
    del resolution
    conv = partial(ConvNormAct, activation=nn.ReLU6, padding=padding)
    wide = round_to_8(STEM * width)
    layers: list[nn.Module] = [conv(channels, wide, 3, 2)]
    for expansion, base, repeats, stride in STAGES:
        for repeat in range(max(1, math.ceil(repeats * depth))):
            out = round_to_8(base * width)
            first = stride if repeat == 0 else 1
            layers.append(InvertedResidual(wide, out, expansion * wide, 3, first, padding=padding))
            wide = out
    head = round_to_8(HEAD * max(1.0, width))
    return nn.Sequential(*layers, conv(wide, head, 1), pooled_classifier(head, classes))


def eca_mobilenet_v2(
    width: float = 1.0,
    depth: float = 1.0,
    resolution: int = 224,
    classes: int = 1000,
    channels: int = 3,
    padding: Padding = "symmetric",
) -> nn.Sequential:
    """MobileNetV2 with an attention behind every block: of 3 channels where it ends in over 96, else of 1.

    Source: Wang et al., ECA-Net, 2020; where the attention stands and how wide it is: the authors' own code.
    """
    made = mobilenet_v2(width, depth, resolution, classes, channels, padding)
    ends = [base for _, base, repeats, _ in STAGES for _ in range(max(1, math.ceil(repeats * depth)))]
    blocks = [part for part in made if isinstance(part, InvertedResidual)]
    for block, base in zip(blocks, ends, strict=True):
        block.layers.append(EfficientChannelAttention(3 if base > _ONE_CHANNEL_UP_TO else 1))
    return made


GENERATORS = {"mobilenet_v2": mobilenet_v2, "eca_mobilenet_v2": eca_mobilenet_v2}

_ATTENTION_SOURCE = "Wang et al., ECA-Net, 2020, and the authors' code"
_SOURCE = "Sandler et al., MobileNetV2, 2018, table 2"
_COMPOUND_NOTE = (
    "The survey prints d=1.4, w=1.2, r=1.3 and no more. Widths are rounded to 8, repeats rounded up, the image is 291: "
    "1.44 G, 10 % above the printed 1.3 G. Repeats rounded to the nearest give 1.12 G."
)

ARCHITECTURES = (
    Architecture("mobilenet_v2", "MobileNetV2", (3, 224, 224), mobilenet_v2, _SOURCE),
    *(
        Architecture(
            f"mobilenet_v2_{round(100 * width):03}", "MobileNetV2", (3, 224, 224), partial(mobilenet_v2, width), _SOURCE
        )
        for width in (0.35, 0.5, 0.75, 1.4)
    ),
    Architecture(
        "mobilenet_v2_compound",
        "MobileNetV2",
        (3, 291, 291),
        partial(mobilenet_v2, 1.2, 1.4),
        "survey, table 5.6",
        _COMPOUND_NOTE,
    ),
    Architecture("eca_mobilenet_v2", "MobileNetV2", (3, 224, 224), eca_mobilenet_v2, _ATTENTION_SOURCE),
)
