"""Two searches over one space: which champions they share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from codesign.errors import CodesignError
from codesign.search.results import Outcome, Results, champions_of, cycles_of


@dataclass(frozen=True)
class Side:
    """One of the two. name: of its folder. axes: what its groups go by."""

    name: str
    axes: str
    results: Results


@dataclass(frozen=True)
class Comparison:
    """Champions of both searches and of either alone, from the fewest cycles to the most.

    Outcomes of `both` and `only_first` are the first search's.
    """

    first: Side
    second: Side
    both: tuple[Outcome, ...]
    only_first: tuple[Outcome, ...]
    only_second: tuple[Outcome, ...]

    @property
    def overlap(self) -> float:
        """Champions of both over champions of either (Jaccard): 1 where the searches agree."""
        return len(self.both) / (len(self.both) + len(self.only_first) + len(self.only_second))

    @property
    def sentence(self) -> str:
        """The overlap in words."""
        ours, theirs = len(self.first.results.champions), len(self.second.results.champions)
        return (
            f"{self.first.name} (groups by {self.first.axes}, {ours} champions) and {self.second.name} "
            f"(groups by {self.second.axes}, {theirs} champions) share {len(self.both)}: overlap {self.overlap:.0%}"
        )


def compare(first: Results, second: Results) -> Comparison:
    """The champions of two searches. Raises CodesignError when one has not ended, or they share no candidate."""
    ours = {one.candidate: one for one in champions_of(first)}
    theirs = {one.candidate: one for one in champions_of(second)}
    if not {one.candidate for one in first.outcomes} & {one.candidate for one in second.outcomes}:
        raise CodesignError(str(second.folder), f"has no candidate in common with {first.folder}", "search one space")
    names = _names(first.folder, second.folder)
    return Comparison(
        Side(names[0], first.settings["--axes"], first),
        Side(names[1], second.settings["--axes"], second),
        _sorted(ours[candidate] for candidate in ours if candidate in theirs),
        _sorted(ours[candidate] for candidate in ours if candidate not in theirs),
        _sorted(theirs[candidate] for candidate in theirs if candidate not in ours),
    )


def _sorted(outcomes: Iterable[Outcome]) -> tuple[Outcome, ...]:
    return tuple(sorted(outcomes, key=lambda one: (cycles_of(one), one.candidate.name)))


def _names(first: Path, second: Path) -> tuple[str, str]:
    """What to call the two: their folders' names, or all of their paths where those are the same."""
    if first.resolve().name != second.resolve().name:
        return first.resolve().name, second.resolve().name
    return str(first), str(second)
