"""GreedyNAS-B: inverted residuals with and without squeeze-excite, one of 13 kinds per place, as a search chose."""

from __future__ import annotations

from torch import nn

from codesign.networks.architecture import IMAGENET, Architecture
from codesign.networks.blocks import ConvNormAct, InvertedResidual, pooled_classifier, round_to_8

# Per stage: channels, stride of the first block, and kernel, expansion and squeeze-excite of each block.
Stage = tuple[int, int, tuple[tuple[int, int, bool], ...]]
STAGES_B: tuple[Stage, ...] = (
    (16, 1, ((3, 1, False),)),
    (32, 2, ((5, 3, True), (5, 3, True), (5, 3, True))),
    (40, 2, ((5, 3, True), (7, 3, True), (5, 3, True), (3, 3, False))),
    (80, 2, ((5, 6, False), (7, 3, True), (7, 3, True))),
    (96, 1, ((3, 3, True), (5, 3, False), (5, 3, False), (7, 3, True))),
    (192, 2, ((5, 6, True), (7, 3, True), (3, 3, True), (7, 3, True))),
    (320, 1, ((7, 6, True),)),
)


def greedynas(stages: tuple[Stage, ...] = STAGES_B, classes: int = 1000, channels: int = 3) -> nn.Sequential:
    """A 3x3 convolution, the blocks, a 1x1 convolution to 1280 channels, a classifier."""
    layers: list[nn.Module] = [ConvNormAct(channels, 32, 3, 2)]
    width = 32
    for out_channels, first_stride, blocks in stages:
        for number, (kernel, expansion, squeeze) in enumerate(blocks):
            inner = width * expansion
            block = InvertedResidual(
                width,
                out_channels,
                inner,
                kernel,
                first_stride if number == 0 else 1,
                squeezed=round_to_8(inner / 4) if squeeze else 0,
                activation=nn.Hardswish,
                squeeze_activation=nn.Hardswish,
                gate=nn.Hardsigmoid,
            )
            layers.append(block)
            width = out_channels
    return nn.Sequential(*layers, ConvNormAct(width, 1280, 1), pooled_classifier(1280, classes))


ARCHITECTURES = (
    Architecture(
        "greedynas_b",
        "GreedyNAS",
        IMAGENET,
        greedynas,
        "You et al., GreedyNAS, 2020, GreedyNAS-B; its blocks as in a public reimplementation",
        "Widths, activations and the width of squeeze-excite are the reimplementation's. 5.215 M parameters (printed "
        "5.2), 323.5 M MACs (printed 324).",
    ),
)
_SMALLER = "a network of the smaller search space, whose blocks stand in no text or code at hand"
NO_SOURCE = (("GreedyNAS (FLOPs <= 322M)", _SMALLER), ("GreedyNAS (latency <= 80ms)", _SMALLER))
