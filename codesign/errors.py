"""The one error type that reaches a user: where, what, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Self

EXIT_DOES_NOT_FIT = 1
EXIT_BAD_INPUT = 2
_LEAST_PREFIX = 3  # shorter beginnings say too little about what was meant
_CUTOFF = 0.65


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: `where: problem`, then a hint on a line of its own."""

    where: str
    problem: str
    hint: str = ""

    def __str__(self) -> str:
        line = f"{self.where}: {self.problem}"
        return f"{line}\n  hint: {self.hint}" if self.hint else line


class CodesignError(Exception):
    """Bad input: printed without a traceback, exit code 2, nothing written.

    `where` is `file:line:col` for text files and `file: node NAME` for models.
    """

    exit_code = EXIT_BAD_INPUT

    def __init__(self, where: str, problem: str, hint: str = "") -> None:
        self.problems: tuple[Problem, ...] = (Problem(where, problem, hint),)
        super().__init__(str(self))

    @classmethod
    def of(cls, problems: Iterable[Problem]) -> Self:
        """All problems at once, in the order given (at least one)."""
        found = tuple(problems)
        error = cls(found[0].where, found[0].problem, found[0].hint)
        error.problems = found
        error.args = (str(error),)
        return error

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


class DoesNotFitError(CodesignError):
    """The input is good, but something does not fit or a check failed: exit code 1."""

    exit_code = EXIT_DOES_NOT_FIT


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`did you mean X?` for the nearest known name, or nothing."""
    close = nearest(name, known)
    return f"did you mean {close}?" if close else ""


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that `name` begins or misspells, or nothing."""
    lower = {candidate.lower(): candidate for candidate in reversed(tuple(known))}
    begun = [candidate for candidate in lower if len(name) >= _LEAST_PREFIX and candidate.startswith(name.lower())]
    close = begun[-1:] or get_close_matches(name.lower(), lower, n=1, cutoff=_CUTOFF)
    return lower[close[0]] if close else ""
