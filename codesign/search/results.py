"""What a search found, read from its store: every candidate with its figures, and the champions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from pathlib import Path
from typing import TypeVar

from codesign.errors import CodesignError
from codesign.search.candidate import Candidate
from codesign.search.resources import Resources
from codesign.search.store import Grouped, Store, read_store
from codesign.search.tournament import Elimination

PointT = TypeVar("PointT")


@dataclass(frozen=True)
class Outcome:
    """A candidate after the search.

    grouped: its place among the groups; None where it does not fit the machine, which `refusal` explains, or has not
    been priced yet. accuracies: from epoch 1, as far as it was trained. champion: whether it won its group.
    """

    candidate: Candidate
    resources: Resources | None
    grouped: Grouped | None
    accuracies: tuple[float, ...]
    elimination: Elimination | None
    proxy: float | None
    champion: bool
    refusal: str = ""

    @property
    def accuracy(self) -> float | None:
        """After the last epoch it was trained; None when it was not."""
        return self.accuracies[-1] if self.accuracies else None

    @property
    def fate(self) -> str:
        """What became of it, in a few words."""
        if self.champion:
            return "champion"
        if self.refusal:
            return "does not fit the machine"
        if self.elimination is None:
            return "trained" if self.accuracies else "not trained"
        number = self.elimination.round
        return f"left after round {number}" if number else "left in the first cut"

    @property
    def average(self) -> float | None:
        """From its first epoch to its last one."""
        return fsum(self.accuracies) / len(self.accuracies) if self.accuracies else None


@dataclass(frozen=True)
class Results:
    """A run. settings: by option, as the store keeps them. outcomes: group by group, from the lightest candidate to the
    heaviest, those without a group last. finished: whether it came to its end; there are no champions before.
    """

    folder: Path
    settings: Mapping[str, str]
    outcomes: tuple[Outcome, ...]
    finished: bool

    @property
    def champions(self) -> tuple[Outcome, ...]:
        """From the lightest group to the heaviest."""
        return tuple(outcome for outcome in self.outcomes if outcome.champion)

    @property
    def trained(self) -> tuple[Outcome, ...]:
        """Candidates with at least one epoch."""
        return tuple(outcome for outcome in self.outcomes if outcome.accuracies)

    @property
    def last_epoch(self) -> int:
        """The epoch champions are trained to."""
        return int(self.settings["--rounds"]) * int(self.settings["--epochs-per-round"])


def results_of(store: Store) -> Results:
    """Everything a store holds."""
    resources, refusals, curves = store.resources(), store.refusals(), store.curves()
    eliminations, proxies, champions = store.eliminations(), store.proxies(), store.champions()
    grouped = {one.candidate: one for one in store.groups()}
    outcomes = [
        Outcome(
            candidate,
            resources.get(candidate.name),
            grouped.get(candidate.name),
            curves.get(candidate.name, ()),
            eliminations.get(candidate.name),
            proxies.get(candidate.name),
            candidate.name in champions,
            refusals.get(candidate.name, ""),
        )
        for candidate in store.candidates()
    ]
    return Results(store.path.parent, store.settings(), tuple(sorted(outcomes, key=_order)), bool(champions))


def read_results(folder: Path) -> Results:
    """What the run in a folder found so far. Raises CodesignError where there is none."""
    with read_store(folder) as store:
        return results_of(store)


def pareto_front(outcomes: Sequence[Outcome]) -> tuple[Outcome, ...]:
    """Those no other is both at least as fast and at least as accurate as, from the fastest to the slowest.

    Of candidates equal in both the first one counts. Candidates without cycles or accuracy are left out.
    """
    known = [one for one in outcomes if one.resources is not None and one.accuracy is not None]
    return front_of(known, cycles_of, lambda one: one.accuracy or 0.0)


def front_of(
    points: Sequence[PointT], cost: Callable[[PointT], float], gain: Callable[[PointT], float]
) -> tuple[PointT, ...]:
    """Those no other costs at most as much as and gains at least as much as, the cheapest first."""
    front: list[PointT] = []
    for point in sorted(points, key=lambda one: (cost(one), -gain(one))):
        if not front or gain(point) > gain(front[-1]):
            front.append(point)
    return tuple(front)


def champions_of(results: Results) -> tuple[Outcome, ...]:
    """The champions of a run that has ended. Raises CodesignError for one that has not."""
    if not results.finished:
        raise CodesignError(str(results.folder), "its search has not ended", "start it again: it goes on where it was")
    return results.champions


def cycles_of(outcome: Outcome) -> int:
    """Cycles of one inference; 0 where they are not known."""
    return outcome.resources.cycles if outcome.resources is not None else 0


def _order(outcome: Outcome) -> tuple[bool, int, int, str]:
    place = outcome.grouped
    return (True, 0, 0, outcome.candidate.name) if place is None else (False, place.group, place.place, "")
