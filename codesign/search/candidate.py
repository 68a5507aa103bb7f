"""What a search is about: candidates, the training asked of them, and the pool that does it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

Value: TypeAlias = bool | int | float | str


@dataclass(frozen=True)
class Candidate:
    """One network of a space.

    name: unique in its space, made of its arguments, and fit for a file name. generator: a name of
    `codesign.networks.catalogue.generator`. arguments: its keyword arguments but `classes` and `channels`, which follow
    from the data. image: channels, rows and columns of the input.
    """

    name: str
    generator: str
    arguments: tuple[tuple[str, Value], ...]
    image: tuple[int, int, int]


@dataclass(frozen=True)
class Task:
    """Train a candidate from the epoch it has reached up to `last_epoch` (counted from 1, inclusive)."""

    candidate: Candidate
    last_epoch: int


class Pool(Protocol):
    """Trains candidates, one after another or side by side."""

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, tuple[float, ...]]]:
        """Each task as it ends, with the validation accuracies (0 to 1) of the epochs 1 to its last one.

        A pool finds how far a candidate has come in the checkpoints of the run's folder. Accuracies depend on the seed,
        the candidate, the data and the epoch alone: never on the order of tasks, or on how many run beside each other.
        """
        ...
