"""TinyissimoYOLO for microcontrollers, and YOLO variants of the papers that nothing at hand describes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from codesign.networks.architecture import Architecture, Generator
from codesign.networks.blocks import ConvNormAct

_BINS = 16  # of the distribution over each side of a box
# Channels of the 3x3 convolutions between maxima of 2x2.
SMALL = ((16,), (16, 16), (32, 32), (64, 64), (64, 128), (128,))
BIG = ((32,), (32, 32), (64, 64), (128, 128), (128, 128), (256,))


class BoxesAndClasses(nn.Module):
    """YOLOv8's head for one scale: boxes as 4 x 16 bins and classes, each behind two 3x3; side by side, undecoded."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        boxes = max(16, channels // 4, 4 * _BINS)
        scores = max(channels, min(classes, 100))
        self.boxes = nn.Sequential(
            ConvNormAct(channels, boxes), ConvNormAct(boxes, boxes), nn.Conv2d(boxes, 4 * _BINS, 1)
        )
        self.scores = nn.Sequential(
            ConvNormAct(channels, scores), ConvNormAct(scores, scores), nn.Conv2d(scores, classes, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.boxes(x), self.scores(x)], dim=1)


def tinyissimo_yolo(
    stages: Sequence[Sequence[int]] = SMALL, head: int = 24, classes: int = 20, channels: int = 3
) -> nn.Sequential:
    """3x3 convolutions with a maximum of 2x2 between stages, a 1x1 to `head` channels, and the head.

    stages: channels of the convolutions of each. Result: (batch, 64 + classes, rows / 32, columns / 32) for six stages.
    """
    layers: list[nn.Module] = []
    in_channels = channels
    for number, widths in enumerate(stages):
        if number:
            layers.append(nn.MaxPool2d(2))
        for width in widths:
            layers.append(ConvNormAct(in_channels, width))
            in_channels = width
    return nn.Sequential(*layers, ConvNormAct(in_channels, head, 1), BoxesAndClasses(head, classes))


_SOURCE = (
    "Moosmann et al., Ultra-Efficient On-Device Object Detection on AI-Integrated Smart Glasses with TinyissimoYOLO, "
    "arXiv 2311.01057; layers after ETH-PBL/TinyissimoYOLO, models/tinyissimo"
)
_NOTE = "The paper's abstract prints less than a million parameters. What is predicted comes out undecoded."
ARCHITECTURES: tuple[Architecture, ...] = (
    Architecture(
        "tinyissimo_yolo_v1_small", "TinyissimoYOLO", (3, 256, 256), partial(tinyissimo_yolo, SMALL), _SOURCE, _NOTE
    ),
    Architecture("tinyissimo_yolo_v1", "TinyissimoYOLO", (3, 256, 256), partial(tinyissimo_yolo, BIG), _SOURCE, _NOTE),
)
GENERATORS: dict[str, Generator] = {"tinyissimo_yolo": tinyissimo_yolo}
NO_SOURCE: tuple[tuple[str, str], ...] = (
    (
        "TinyissimoYOLO of 422 k parameters (arXiv 2306.00001)",
        "no text at hand lists its layers; those of the later paper are not the same: its head is another",
    ),
    (
        "Tinier-YOLO",
        "no text at hand prints the widths of its fire modules; the one implementation found makes a network a fourth "
        "of the 8.9 MB printed",
    ),
    (
        "YOLO-Tight",
        "it is YOLOv3 pruned by training; which channels are left depends on data and is printed nowhere",
    ),
)
