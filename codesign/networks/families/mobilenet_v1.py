"""MobileNet: depthwise separable convolutions, with width and resolution multipliers and compound scaling."""

from __future__ import annotations

import math
from functools import partial

from torch import nn

from codesign.networks.architecture import Architecture
from codesign.networks.blocks import ConvNormAct, Padding, pooled_classifier, round_to_8

STEM = 32
STAGES = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2))  # channels, repeats, stride of the first


def mobilenet_v1(
    width: float = 1.0,
    depth: float = 1.0,
    resolution: int = 224,
    classes: int = 1000,
    channels: int = 3,
    padding: Padding = "same",
) -> nn.Sequential:
    """All widths times `width`, rounded to 8; repeats of every stage times `depth`, rounded up.

    Nothing in it depends on the resolution. padding: "same" is the authors' (TensorFlow).
    Source: Howard et al., MobileNets, 2017, table 1; depth: Tan and Le, EfficientNet, 2019, table 3.
    """
    del resolution
    conv = partial(ConvNormAct, padding=padding)
    wide = round_to_8(STEM * width)
    layers: list[nn.Module] = [conv(channels, wide, 3, 2)]
    for base, repeats, stride in STAGES:
        for repeat in range(max(1, math.ceil(repeats * depth))):
            layers.append(conv(wide, wide, 3, stride if repeat == 0 else 1, groups=wide))
            layers.append(conv(wide, round_to_8(base * width), 1))
            wide = round_to_8(base * width)
    return nn.Sequential(*layers, pooled_classifier(wide, classes))


GENERATORS = {"mobilenet_v1": mobilenet_v1}

_SOURCE = "Howard et al., MobileNets, 2017, tables 1 and 6"
_COMPOUND_NOTE = (
    "The survey prints d=1.4, w=1.2, r=1.3 and no more. Widths are rounded to 8, repeats rounded up, the image is 291: "
    "2.47 G, 7 % above the printed 2.3 G. Repeats rounded to the nearest give 2.18 G."
)

ARCHITECTURES = (
    Architecture("mobilenet_v1", "MobileNetV1", (3, 224, 224), mobilenet_v1, _SOURCE),
    *(
        Architecture(
            f"mobilenet_v1_{round(100 * width):03}", "MobileNetV1", (3, 224, 224), partial(mobilenet_v1, width), _SOURCE
        )
        for width in (0.75, 0.5, 0.25)
    ),
    Architecture(
        "mobilenet_v1_compound",
        "MobileNetV1",
        (3, 291, 291),
        partial(mobilenet_v1, 1.2, 1.4),
        "survey, table 5.6",
        _COMPOUND_NOTE,
    ),
)
