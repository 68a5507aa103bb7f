"""What tests of trials are made of: a tiny network that a distribution brings, tiny data, and data that kill."""

from __future__ import annotations

import os
import signal
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from codesign.search.candidate import Candidate
from codesign.search.data import ArrayData, Arrays, Augmentation, DataModule, Samples
from codesign.search.trial import Training, Trials

SIDE = 8
TRAINING = Training(batch=16, learning_rate=1e-2, warm_up_epochs=0.5)
GENERATOR = """\
    from torch import nn

    class ViewRows(nn.Module):
        def forward(self, x):
            return x.view(len(x), -1)  # refuses channels last

    def tiny(width=4, dropout=0.0, view=False, classes=10, channels=1):
        if width < 1:
            raise ValueError("width must be positive")
        return nn.Sequential(
            nn.Conv2d(channels, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1, groups=width), nn.Hardswish(), nn.Dropout(dropout),
            nn.AdaptiveAvgPool2d(2), ViewRows() if view else nn.Flatten(), nn.Linear(4 * width, classes),
        )

    GENERATORS = {"tiny": tiny}
"""


def write_distribution(folder: Path) -> None:
    """A distribution on the path of whoever has `folder` there: it brings the generator `tiny` by an entry point."""
    folder.joinpath("tiny_networks.py").write_text(textwrap.dedent(GENERATOR), encoding="utf-8")
    information = folder / "tiny_networks-1.0.dist-info"
    information.mkdir()
    information.joinpath("METADATA").write_text("Metadata-Version: 2.1\nName: tiny-networks\nVersion: 1.0\n", "utf-8")
    information.joinpath("entry_points.txt").write_text("[codesign.networks]\ntiny = tiny_networks\n", "utf-8")


def candidate(width: int, dropout: float = 0.1, channels: int = 1) -> Candidate:
    """A tiny network; `dropout` draws at random while it trains."""
    arguments = (("width", width), ("dropout", dropout))
    return Candidate(f"tiny-width={width}-dropout={dropout:g}", "tiny", arguments, (channels, SIDE, SIDE))


def halves(count: int = 96, seed: int = 3) -> ArrayData:
    """Noise of three classes: brighter above, brighter on the left, and neither; a third is held out."""
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    images = draw.random((count, 1, SIDE, SIDE)) * 0.6
    images[labels == 0, :, : SIDE // 2] += 0.4
    images[labels == 1, :, :, : SIDE // 2] += 0.4
    images, labels = images.astype(np.float32), labels.astype(np.int64)
    cut = count * 2 // 3
    train, held_out = Arrays(images[:cut], labels[:cut]), Arrays(images[cut:], labels[cut:])
    return ArrayData("halves", train, held_out, 3, Augmentation(shift=1 / 8))


def trials(folder: Path, data: DataModule | None = None, seed: int = 1, training: Training = TRAINING) -> Trials:
    """Trials on the halves: four steps an epoch."""
    return Trials(folder, data or halves(), training, seed)


@dataclass(frozen=True, eq=False)
class Deadly:
    """Data whose user is killed in the middle of an epoch, once for every marker that can be made.

    before: steps of a trial that pass unharmed.
    """

    inner: DataModule
    markers: tuple[Path, ...]
    before: int

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)

    def training(self, rows: int, columns: int) -> Samples:
        return DeadlySamples(self.inner.training(rows, columns), self.markers, [self.before])


@dataclass(frozen=True, eq=False)
class DeadlySamples:
    """See Deadly. left: steps until then."""

    inner: Samples
    markers: tuple[Path, ...]
    left: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.inner)

    def batch(self, numbers: Sequence[int]) -> tuple[Any, Any]:
        if self.left[0] == 0:
            kill_once(self.markers)
        self.left[0] -= 1
        return self.inner.batch(numbers)


class Unloadable(Deadly):
    """Data that no other process can take in."""

    def __reduce__(self) -> tuple[Any, ...]:
        return refuse, ()


def refuse() -> None:
    raise ValueError("not here")


def kill_once(markers: Sequence[Path]) -> None:
    """SIGKILL to this process, unless every marker is there already; whoever makes one is the only one."""
    for marker in markers:
        try:
            marker.touch(exist_ok=False)
        except FileExistsError:
            continue
        os.kill(os.getpid(), signal.SIGKILL)
