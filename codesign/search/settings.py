"""What decides the course of a search, and what of it a resumed run must share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from codesign.errors import CodesignError, Problem, did_you_mean
from codesign.search.resources import AXES
from codesign.search.tournament import Criterion, Rounds

STRATEGIES = ("tournament", "aging_evolution", "random")
_GROUP_SIZE = 4  # of the EfficientNet-eLite paper


@dataclass(frozen=True)
class SearchSettings:
    """How to search.

    axes: names of AXES that groups go by. groups: how many; None: as many as give groups of four. first_cut: name of
    the zero-cost proxy by which the worse half of every group leaves before any training; None: all are trained.
    trials: networks that aging evolution and random search train; population and sample: P and S of aging evolution.
    """

    axes: tuple[str, ...] = ("parameters", "macs")
    groups: int | None = None
    rounds: Rounds = Rounds(10, 4)
    criterion: Criterion = Criterion.AVERAGE
    strategy: str = "tournament"
    seed: int = 0
    first_cut: str | None = None
    trials: int = 16
    population: int = 8
    sample: int = 3

    def __post_init__(self) -> None:
        problems = [
            Problem("--axes", f"there is no axis {axis}", _hint(axis)) for axis in self.axes if axis not in AXES
        ]
        if len(set(self.axes)) < len(self.axes) or not self.axes:
            problems.append(Problem("--axes", "names every axis once"))
        if self.strategy not in STRATEGIES:
            hint = did_you_mean(self.strategy, STRATEGIES) or f"one of {', '.join(STRATEGIES)}"
            problems.append(Problem("--strategy", f"there is no strategy {self.strategy}", hint))
        if not 1 <= self.sample <= self.population <= self.trials and self.strategy == "aging_evolution":
            problems.append(Problem("--population", "must lie between --sample and --trials"))
        if problems:
            raise CodesignError.of(problems)

    def groups_for(self, candidates: int) -> int:
        """How many groups so many candidates make. Raises CodesignError for more groups than candidates."""
        if self.groups is None:
            return max(1, candidates // _GROUP_SIZE)
        if self.groups > candidates:
            raise CodesignError("--groups", f"{self.groups} groups of {candidates} candidates", "ask for fewer")
        return self.groups

    def identity(self) -> Mapping[str, str]:
        """By option, what must be the same for a run to go on with what another began."""
        chosen = {
            "--axes": ",".join(self.axes),
            "--groups": "" if self.groups is None else str(self.groups),
            "--epochs-per-round": str(self.rounds.epochs),
            "--rounds": str(self.rounds.count),
            "--criterion": str(self.criterion),
            "--strategy": self.strategy,
            "--seed": str(self.seed),
            "--first-cut": self.first_cut or "",
        }
        if self.strategy != "tournament":
            chosen["--trials"] = str(self.trials)
        if self.strategy == "aging_evolution":
            chosen |= {"--population": str(self.population), "--sample": str(self.sample)}
        return chosen


def _hint(axis: str) -> str:
    return did_you_mean(axis, AXES) or f"one of {', '.join(AXES)}"
