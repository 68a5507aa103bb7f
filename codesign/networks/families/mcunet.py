"""MCUNet: inverted residuals from a list of blocks, Lin et al. 2020."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import nn

from codesign.networks.architecture import Architecture, Generator
from codesign.networks.blocks import ConvNormAct, InvertedResidual, pooled_classifier, round_to_8

Block = tuple[int, int, int, int]  # channels, expansion, kernel, stride

# The configurations of mit-han-lab/tinyml (mcunet/assets/configs): what the search of the paper found.
_10FPS: tuple[Block, ...] = (
    (16, 1, 3, 1),
    *((16, 4, 5, 2), (16, 3, 3, 1), (16, 4, 3, 1)),
    *((24, 5, 7, 2), (24, 4, 5, 1), (24, 5, 5, 1)),
    *((48, 5, 7, 2), (48, 4, 5, 1), (56, 5, 3, 1), (56, 4, 5, 1), (56, 5, 3, 1)),
    *((112, 6, 3, 2), (112, 4, 5, 1), (192, 6, 3, 1)),
)
_5FPS: tuple[Block, ...] = (
    (8, 1, 3, 1),
    *((16, 4, 3, 2), (16, 3, 3, 1)),
    *((24, 3, 7, 2), (24, 5, 3, 1)),
    *((40, 5, 3, 2), (40, 4, 7, 1), (48, 4, 5, 1), (48, 3, 3, 1), (48, 4, 3, 1)),
    *((96, 5, 7, 2), (96, 4, 5, 1), (96, 4, 5, 1), (160, 6, 3, 1)),
)
_256KB: tuple[Block, ...] = (
    (8, 1, 3, 1),
    *((16, 3, 5, 2), (16, 6, 7, 1), (16, 5, 3, 1), (16, 5, 5, 1)),
    *((24, 5, 3, 2), (24, 6, 7, 1), (24, 6, 5, 1)),
    *((40, 4, 7, 2), (40, 5, 5, 1), (48, 5, 3, 1), (48, 5, 5, 1), (48, 4, 3, 1)),
    *((96, 6, 5, 2), (96, 4, 5, 1), (96, 3, 5, 1), (96, 4, 3, 1), (160, 5, 5, 1)),
)
_320KB: tuple[Block, ...] = (
    (8, 1, 3, 1),
    *((16, 3, 7, 2), (16, 5, 3, 1), (16, 5, 7, 1), (16, 4, 5, 1)),
    *((24, 5, 5, 2), (24, 5, 5, 1), (24, 5, 5, 1)),
    *((40, 5, 3, 2), (40, 6, 7, 1), (40, 4, 5, 1), (48, 5, 5, 1), (48, 5, 7, 1), (48, 5, 3, 1)),
    *((96, 6, 3, 2), (96, 5, 7, 1), (96, 4, 3, 1), (160, 5, 7, 1)),
)
_512KB: tuple[Block, ...] = (
    (16, 1, 3, 1),
    *((24, 3, 7, 2), (24, 5, 3, 1), (24, 4, 5, 1)),
    *((40, 5, 7, 2), (40, 4, 3, 1), (40, 4, 7, 1)),
    *((80, 3, 7, 2), (80, 3, 3, 1), (80, 3, 7, 1), (96, 4, 3, 1), (96, 3, 5, 1), (96, 3, 5, 1)),
    *((192, 4, 7, 2), (192, 3, 7, 1), (192, 3, 5, 1), (320, 4, 5, 1)),
)
# MobileNetV2's channels, expansion, repeats and first stride; the paper's baseline takes 0.35 of the width.
_MOBILENET_V2 = (
    (16, 1, 1, 1),
    (24, 6, 2, 2),
    (32, 6, 3, 2),
    (64, 6, 4, 2),
    (96, 6, 3, 1),
    (160, 6, 3, 2),
    (320, 6, 1, 1),
)


def mcunet(stem: int, blocks: Sequence[Block], last: int = 0, classes: int = 1000, channels: int = 3) -> nn.Sequential:
    """A 3x3 stem of stride 2, inverted residuals, pooling and one dense layer.

    stem: its channels. blocks: channels, expansion, kernel and stride of each. A block of stride 1 that keeps the
    channels adds its input. last: channels of a 1x1 before the pooling; 0 for none.
    """
    layers: list[nn.Module] = [ConvNormAct(channels, stem, 3, 2, activation=nn.ReLU6)]
    width = stem
    for out_channels, expansion, kernel, stride in blocks:
        layers.append(InvertedResidual(width, out_channels, width * expansion, kernel, stride))
        width = out_channels
    if last:
        layers.append(ConvNormAct(width, last, 1, activation=nn.ReLU6))
    return nn.Sequential(*layers, pooled_classifier(last or width, classes))


def _narrow_mobilenet(width: float) -> tuple[Block, ...]:
    return tuple(
        (round_to_8(channels * width), expansion, 3, 1 if number else stride)
        for channels, expansion, repeats, stride in _MOBILENET_V2
        for number in range(repeats)
    )


def _named(name: str, resolution: int, stem: int, blocks: Sequence[Block], last: int = 0) -> Architecture:
    source = "Lin et al., MCUNet: Tiny Deep Learning on IoT Devices, NeurIPS 2020; blocks after mit-han-lab/tinyml"
    return Architecture(name, "MCUNet", (3, resolution, resolution), partial(mcunet, stem, blocks, last), source)


ARCHITECTURES: tuple[Architecture, ...] = (
    _named("mcunet_10fps", 48, 24, _10FPS),
    _named("mcunet_5fps", 96, 16, _5FPS),
    _named("mcunet_256kb_1mb", 160, 16, _256KB),
    _named("mcunet_320kb_1mb", 176, 16, _320KB),
    _named("mcunet_512kb_2mb", 160, 32, _512KB),
    _named("mcunet_mobilenet_v2_w035", 144, 16, _narrow_mobilenet(0.35), last=448),
)
GENERATORS: dict[str, Generator] = {"mcunet": mcunet}
