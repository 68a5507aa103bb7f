"""EfficientNet scaled by width, depth and resolution: B0-B7, eLite 0-9, HF 0-5, TinyNet, and B0 scaled otherwise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import nn

from codesign.networks.architecture import Architecture
from codesign.networks.blocks import (
    ConvNormAct,
    InvertedResidual,
    Padding,
    pooled_classifier,
    power_of_two,
    round_to_8,
)

BASE_RESOLUTION = 224


@dataclass(frozen=True)
class Stage:
    """Blocks of one width in B0. expansion: of the channels a block reads. stride: of the first block."""

    expansion: int
    channels: int
    repeats: int
    stride: int
    kernel: int


STEM, HEAD = 32, 1280
STAGES = (
    Stage(1, 16, 1, 1, 3),
    Stage(6, 24, 2, 2, 3),
    Stage(6, 40, 2, 2, 5),
    Stage(6, 80, 3, 2, 3),
    Stage(6, 112, 3, 1, 5),
    Stage(6, 192, 4, 2, 5),
    Stage(6, 320, 1, 1, 3),
)


@dataclass(frozen=True)
class Scaling:
    """How the sizes of B0 become those of a network.

    scaled_ends: whether width scales stem and head too. rounded_depth: repeats are rounded to the nearest, not up.
    hardware_friendly: every width a power of two, expanded ones the power of two of expansion x (input of the block
    before it became a power of two).
    """

    width: float = 1.0
    depth: float = 1.0
    hardware_friendly: bool = False
    scaled_ends: bool = True
    rounded_depth: bool = False

    def channels(self, base: int) -> int:
        """Width of a block that B0 gives `base` channels."""
        scaled = round_to_8(base * self.width)
        return power_of_two(scaled) if self.hardware_friendly else scaled

    def end(self, base: int) -> int:
        """Width of the stem or the head."""
        return self.channels(base) if self.scaled_ends else base

    def expanded(self, base: int, expansion: int, in_channels: int) -> int:
        """Width inside a block. base: B0's channels before it, in_channels: this network's."""
        if expansion == 1:
            return in_channels
        if self.hardware_friendly:
            return power_of_two(expansion * round_to_8(base * self.width))
        return expansion * in_channels

    def repeats(self, base: int) -> int:
        scaled = round(base * self.depth) if self.rounded_depth else math.ceil(base * self.depth)
        return max(1, scaled)


def build(scaling: Scaling, classes: int = 1000, channels: int = 3, padding: Padding = "same") -> nn.Sequential:
    """The network: stem, seven stages, head of a 1x1 convolution, classifier.

    Squeeze-excite has a quarter of the channels its block reads. padding: "same" is the authors' (TensorFlow);
    "symmetric" that of torchvision, of the same sizes.
    """
    conv = partial(ConvNormAct, activation=nn.SiLU, padding=padding)
    width, base = scaling.end(STEM), STEM
    layers: list[nn.Module] = [conv(channels, width, 3, 2)]
    for stage in STAGES:
        for repeat in range(scaling.repeats(stage.repeats)):
            block = InvertedResidual(
                width,
                scaling.channels(stage.channels),
                scaling.expanded(base, stage.expansion, width),
                stage.kernel,
                stage.stride if repeat == 0 else 1,
                squeezed=max(1, width // 4),
                activation=nn.SiLU,
                squeeze_activation=nn.SiLU,
                padding=padding,
            )
            layers.append(block)
            width, base = scaling.channels(stage.channels), stage.channels
    head = scaling.end(HEAD)
    return nn.Sequential(*layers, conv(width, head, 1), pooled_classifier(head, classes))


def efficientnet(
    width: float = 1.0,
    depth: float = 1.0,
    resolution: int = BASE_RESOLUTION,
    classes: int = 1000,
    channels: int = 3,
    hardware_friendly: bool = False,
    padding: Literal["same", "symmetric", "static"] = "same",
) -> nn.Sequential:
    """B0 with its widths times `width`, rounded to 8, and its repeats times `depth`, rounded up.

    padding: "static" is that of eLite, the zeros "same" puts around the input image in every layer, for which the
    resolution matters. It matters for nothing else.
    Source: Tan and Le, EfficientNet, 2019; hardware_friendly: Wang et al., EfficientNet-eLite, section 4.
    """
    zeros = resolution if padding == "static" else padding
    return build(Scaling(width, depth, hardware_friendly), classes, channels, zeros)


def efficientnet_hf(
    width: float = 1.0,
    depth: float = 1.0,
    resolution: int = 256,
    classes: int = 1000,
    channels: int = 3,
) -> nn.Sequential:
    """`efficientnet`, hardware-friendly: every width a power of two.

    With a resolution that is one too, so are all images inside, and the global average divides by shifting.
    """
    return efficientnet(width, depth, resolution, classes, channels, hardware_friendly=True, padding="same")


def efficientnet_compound(phi: float = 0.0, classes: int = 1000, channels: int = 3) -> nn.Sequential:
    """B0 scaled by one number: width 1.1^phi, depth 1.2^phi. Its image is 224 x 1.15^phi; see compound_resolution.

    Source: Tan and Le, EfficientNet, 2019, equation 3. The published B1 to B7 have coefficients near to it.
    """
    return efficientnet(1.1**phi, 1.2**phi, classes=classes, channels=channels)


def compound_resolution(phi: float) -> int:
    """Side of the image, in pixels, that goes with `efficientnet_compound(phi)`."""
    return round(BASE_RESOLUTION * math.pow(1.15, phi))


def tinynet(
    width: float = 1.0,
    depth: float = 1.0,
    resolution: int = BASE_RESOLUTION,
    classes: int = 1000,
    channels: int = 3,
) -> nn.Sequential:
    """B0 with the widths of its blocks alone times `width`, and repeats rounded to the nearest.

    Source: Han et al., Model Rubik's Cube (TinyNet), 2020, and the authors' code.
    """
    del resolution
    return build(Scaling(width, depth, scaled_ends=False, rounded_depth=True), classes, channels)


def tinynet_width(macs_ratio: float, depth: float, resolution: int) -> float:
    """The width that leaves `macs_ratio` (0 to 1) of B0's MACs at this depth and resolution: sqrt(c / (r^2 d)).

    Source: TinyNet, as the lecture prints it; r is the resolution over 224. It is the leading term: stem, head and
    classifier do not scale with it.
    """
    return math.sqrt(macs_ratio / ((resolution / BASE_RESOLUTION) ** 2 * depth))


def tinynet_formula(
    macs_ratio: float = 1.0,
    depth: float = 1.0,
    resolution: int = BASE_RESOLUTION,
    classes: int = 1000,
    channels: int = 3,
) -> nn.Sequential:
    """`tinynet` with the width of `tinynet_width`: what is left for widths of a share of B0's MACs."""
    return tinynet(tinynet_width(macs_ratio, depth, resolution), depth, resolution, classes, channels)


GENERATORS = {
    "efficientnet": efficientnet,
    "efficientnet_hf": efficientnet_hf,
    "efficientnet_compound": efficientnet_compound,
    "tinynet": tinynet,
    "tinynet_formula": tinynet_formula,
}

_ELITE_PAPER = "Wang et al., EfficientNet-eLite, table 5"
_LECTURE = "lecture on lightweight architectures, slide TinyNet (2020)"
_ELITE = (
    *((1.0, 1.0, 224), (1.0, 0.7, 224), (1.0, 0.6, 224), (0.8666, 0.7, 224), (0.8666, 0.6, 203)),
    *((0.701, 0.7, 224), (0.701, 0.6, 224), (0.701, 0.5, 203), (0.514, 0.7, 224), (0.514, 0.5, 224)),
)
_HARDWARE_FRIENDLY = (
    *((1.0, 1.0, 256), (0.8666, 0.7, 256), (1.0, 0.5, 256)),
    *((1.0, 0.7, 128), (0.8666, 0.6, 128), (1.0, 0.5, 128)),
)
_B = (
    *((1.0, 1.0, 224), (1.0, 1.1, 240), (1.1, 1.2, 260), (1.2, 1.4, 300)),
    *((1.4, 1.8, 380), (1.6, 2.2, 456), (1.8, 2.6, 528), (2.0, 3.1, 600)),
)
_TINYNET = {
    "a": (1.0, 1.2, 192),
    "b": (0.75, 1.1, 188),
    "c": (0.54, 0.85, 184),
    "d": (0.54, 0.695, 152),
    "e": (0.51, 0.6, 106),
}
# Width, depth and resolution of B0 scaled along one axis, with the conventions of TinyNet.
_SHRUNK = {
    "r070": (1.0, 1.0, 156),
    "d045": (1.0, 0.45, 224),
    "w065": (0.65, 1.0, 224),
    "r046": (1.0, 1.0, 104),
    "w038": (0.38, 1.0, 224),
}
# The compound coefficients whose MACs, with repeats rounded to the nearest, are those printed: 200 and 97 million.
_INVERSE_COMPOUND = {"minus1": -1.2, "minus2": -2.5}
_HF_NOTE = (
    "The paper prints neither coefficients nor where its rule applies. These give both printed figures of all six: "
    "stem, blocks and head rounded to 8, then to a power of two; expanded widths the power of two of 6 x the former."
)
_MISPRINT = "The paper prints 3.17 million parameters, which is HF1's figure; the MACs agree."
_INVERSE_NOTE = (
    "The lecture prints MACs alone. Read literally, phi = -1 and -2 give 246 and 132 million; this is the phi that "
    "gives the printed ones, with repeats rounded to the nearest."
)


def _square(side: int) -> tuple[int, int, int]:
    return (3, side, side)


def _inverse(name: str, phi: float) -> Architecture:
    scaling = Scaling(1.1**phi, 1.2**phi, rounded_depth=True)
    make = partial(build, scaling)
    image = _square(compound_resolution(phi))
    return Architecture(f"efficientnet_b_{name}", "EfficientNet", image, make, _LECTURE, _INVERSE_NOTE)


ARCHITECTURES = (
    *(
        Architecture(
            f"efficientnet_b{index}", "EfficientNet", _square(r), partial(efficientnet, w, d, r), "Tan and Le, 2019"
        )
        for index, (w, d, r) in enumerate(_B)
    ),
    *(
        Architecture(
            f"efficientnet_elite{index}",
            "EfficientNet-eLite",
            _square(r),
            partial(efficientnet, w, d, r, padding="static"),
            _ELITE_PAPER,
            _MISPRINT if index == 4 else "",
        )
        for index, (w, d, r) in enumerate(_ELITE)
    ),
    *(
        Architecture(
            f"efficientnet_hf{index}",
            "EfficientNet-HF",
            _square(r),
            partial(efficientnet_hf, w, d, r),
            _ELITE_PAPER,
            _HF_NOTE,
        )
        for index, (w, d, r) in enumerate(_HARDWARE_FRIENDLY)
    ),
    *(
        Architecture(f"tinynet_{name}", "TinyNet", _square(r), partial(tinynet, w, d, r), "Han et al., 2020")
        for name, (w, d, r) in _TINYNET.items()
    ),
    *(
        Architecture(f"efficientnet_b0_{name}", "EfficientNet", _square(r), partial(tinynet, w, d, r), _LECTURE)
        for name, (w, d, r) in _SHRUNK.items()
    ),
    *(_inverse(name, phi) for name, phi in _INVERSE_COMPOUND.items()),
)
