"""What a search is about: candidates, the work asked for them, and the pool that does it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

if TYPE_CHECKING:
    from codesign.search.trial import Trials

Value: TypeAlias = bool | int | float | str
T = TypeVar("T")
Work: TypeAlias = "Callable[[Trials, Candidate], T]"  # a function a module defines, or a partial of one


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
    """Works on candidates, one after another or side by side."""

    def each(self, work: Work[T], candidates: Sequence[Candidate]) -> Iterator[tuple[Candidate, T]]:
        """Each candidate as it ends, with what `work` makes of the run's trials and it."""
        ...

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, tuple[float, ...]]]:
        """Each task as it ends, with the validation accuracies (0 to 1) of the epochs 1 to its last one.

        A pool finds how far a candidate has come in the checkpoints of the run's folder. Accuracies depend on the seed,
        the candidate, the data and the epoch alone: never on the order of tasks, or on how many run beside each other.
        """
        ...
