"""The tournament of Network Candidate Search as bookkeeping: scores, rankings, eliminations. Nothing is trained here.

After every round of some epochs the worse half of each group leaves it, until one remains, which goes on to the last
epoch. What is still together then is parted by the last round, which leaves the best alone.

Rankings are by the average accuracy from the first epoch to the current one (equation 6 of the eLite paper), or by that
of the current epoch alone. Equal candidates are ranked by the accuracy of the current epoch, then the lighter first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import fsum

Curves = Mapping[str, Sequence[float]]
Group = tuple[str, ...]

_DECIMALS = 12  # accuracies are counts over counts: what differs further behind is rounding


class Criterion(StrEnum):
    """What eliminations go by."""

    AVERAGE = "average"
    LAST = "last"


@dataclass(frozen=True)
class Rounds:
    """How long candidates train: `count` rounds of `epochs` epochs."""

    epochs: int
    count: int

    @property
    def last_epoch(self) -> int:
        """The end of the training."""
        return self.epochs * self.count

    def end(self, number: int) -> int:
        """The last epoch of a round (from 1)."""
        return self.epochs * number


@dataclass(frozen=True)
class Elimination:
    """A candidate that left its group: after which round and epoch (0: before any training), and with what score."""

    candidate: str
    round: int
    epoch: int
    score: float


def score(accuracies: Sequence[float], epoch: int, criterion: Criterion) -> float:
    """What a candidate is ranked by after an epoch (from 1)."""
    match criterion:
        case Criterion.LAST:
            return round(accuracies[epoch - 1], _DECIMALS)
        case Criterion.AVERAGE:
            return round(fsum(accuracies[:epoch]) / epoch, _DECIMALS)


def ranking(group: Group, curves: Curves, epoch: int, criterion: Criterion) -> Group:
    """A group from the best to the worst after an epoch. group: from the lightest to the heaviest."""

    def order(name: str) -> tuple[float, float, int]:
        last = round(curves[name][epoch - 1], _DECIMALS)
        return -score(curves[name], epoch, criterion), -last, group.index(name)

    return tuple(sorted(group, key=order))


def survivors(group: Group, curves: Curves, rounds: Rounds, number: int, criterion: Criterion) -> Group:
    """Who stays in a group after a round: the better half, rounded up, in the order of the group."""
    kept = 1 if number == rounds.count else kept_of(len(group))
    best = ranking(group, curves, rounds.end(number), criterion)[:kept]
    return tuple(name for name in group if name in best)


def kept_of(size: int) -> int:
    """How many of a group stay when its worse half leaves."""
    return -(-size // 2)


def eliminations(
    group: Group, curves: Curves, rounds: Rounds, number: int, criterion: Criterion
) -> tuple[Elimination, ...]:
    """Who leaves a group after a round, the best of them first."""
    epoch = rounds.end(number)
    kept = survivors(group, curves, rounds, number, criterion)
    return tuple(
        Elimination(name, number, epoch, score(curves[name], epoch, criterion))
        for name in ranking(group, curves, epoch, criterion)
        if name not in kept
    )


def matching(group: Group, curves: Curves, rounds: Rounds, criterion: Criterion) -> float:
    """The share of rounds after which a criterion ranks as the last epoch does in the end (equations 5 and 6).

    curves: accuracies of all epochs of all candidates of the group.
    """
    final = ranking(group, curves, rounds.last_epoch, Criterion.LAST)
    ranked = (ranking(group, curves, rounds.end(number), criterion) for number in range(1, rounds.count + 1))
    return sum(order == final for order in ranked) / rounds.count
