"""ChamNet A to F: inverted residuals of MobileNetV2 with widths, depths and resolutions adapted to a phone.

Source: Dai et al., ChamNet, 2019; blocks, parameters and MACs as in its authors' public repository of mobile networks.
"""

from __future__ import annotations

from functools import partial
from itertools import chain

from torch import nn

from codesign.networks.architecture import Architecture, Generator
from codesign.networks.blocks import ConvNormAct, InvertedResidual, pooled_classifier

# Expansion, channels, how many blocks, stride of the first of them.
Blocks = tuple[tuple[int, int, int, int], ...]


def chamnet(stem: int, blocks: Blocks, head: int, classes: int = 1000, channels: int = 3) -> nn.Sequential:
    """A 3x3 convolution, inverted residuals with 3x3 kernels, a 1x1 convolution to `head` channels, a classifier.

    A block has its first 1x1 convolution even where it expands by 1: so the authors' MACs come out.
    """
    layers: list[nn.Module] = [ConvNormAct(channels, stem, 3, 2)]
    width = stem
    for expansion, out_channels, repeats, stride in blocks:
        for step in chain((stride,), (1,) * (repeats - 1)):
            inner = width * expansion
            layers.append(InvertedResidual(width, out_channels, inner, 3, step, activation=nn.ReLU, always_expand=True))
            width = out_channels
    return nn.Sequential(*layers, ConvNormAct(width, head, 1), pooled_classifier(head, classes))


_A = ((1, 24, 1, 1), (4, 40, 2, 2), (6, 48, 3, 2), (4, 96, 4, 2), (4, 160, 3, 1), (4, 248, 3, 2), (6, 480, 1, 1))
_B = ((1, 16, 1, 1), (5, 40, 2, 2), (6, 40, 3, 2), (6, 92, 3, 2), (6, 104, 3, 1), (5, 200, 3, 2), (6, 384, 1, 1))
_C = ((1, 16, 1, 1), (4, 24, 1, 2), (4, 32, 3, 2), (5, 64, 2, 2), (6, 96, 3, 1), (6, 160, 3, 2), (4, 256, 1, 1))
_D = ((1, 8, 1, 1), (6, 24, 1, 2), (4, 32, 2, 2), (6, 40, 4, 2), (6, 80, 3, 1), (5, 160, 3, 2), (6, 224, 1, 1))
_E = ((1, 8, 1, 1), (4, 24, 1, 2), (4, 32, 3, 2), (6, 64, 1, 2), (6, 64, 3, 1), (6, 96, 2, 2), (4, 128, 1, 1))
_F = ((1, 8, 1, 1), (4, 24, 1, 2), (4, 32, 3, 2), (4, 40, 1, 2), (4, 64, 3, 1), (4, 128, 2, 2), (4, 192, 1, 1))


def _architecture(letter: str, resolution: int, stem: int, blocks: Blocks, head: int, figures: str) -> Architecture:
    return Architecture(
        f"chamnet_{letter}",
        "ChamNet",
        (3, resolution, resolution),
        partial(chamnet, stem, blocks, head),
        f"Dai et al., ChamNet, 2019, ChamNet-{letter.upper()}; its authors' table of trained networks",
        figures,
    )


ARCHITECTURES = (
    _architecture("a", 224, 32, _A, 2016, "6.284 M parameters (printed 6.2), 552.9 M MACs (printed 552.9)."),
    _architecture("b", 192, 24, _B, 1984, "5.198 M parameters (printed 5.2), 323.3 M MACs (printed 323.3)."),
    _architecture("c", 224, 16, _C, 1520, "3.381 M parameters (printed 3.4), 211.6 M MACs (printed 211.6)."),
    _architecture("d", 192, 8, _D, 1600, "3.281 M parameters (printed 3.3), 120.0 M MACs (printed 120.0)."),
    _architecture("e", 160, 8, _E, 1600, "2.298 M parameters (printed 2.3), 53.7 M MACs (printed 53.7)."),
    _architecture("f", 128, 8, _F, 1280, "2.022 M parameters (printed 2.0), 30.8 M MACs (printed 30.8)."),
)
GENERATORS: dict[str, Generator] = {"chamnet": chamnet}
