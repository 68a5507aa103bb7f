"""What a family file offers: architectures with a name, and generators with parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

IMAGENET = (3, 224, 224)


@dataclass(frozen=True)
class Architecture:
    """A network somebody published, ready to be built.

    name: lower case with underscores (`efficientnet_hf0`). image: channels, rows and columns of its input. build: makes
    the module with random weights, and takes `classes` and `channels` as keywords where they are free. source: paper,
    table or section. note: what the paper leaves open and what was chosen for it; empty when it leaves nothing open.
    """

    name: str
    family: str
    image: tuple[int, int, int]
    build: Callable[..., nn.Module]
    source: str
    note: str = ""


# A function of keyword arguments that makes a module; `classes` is the size of its output and `channels` of its input,
# `resolution`, where there is one, the side of the square input in pixels.
Generator = Callable[..., "nn.Module"]
