"""A candidate as one row of a table: the same words on the terminal and on a page."""

from __future__ import annotations

from codesign.report.numbers import bytes_text, count_text, energy_text, percent_text
from codesign.search.results import Outcome

HEADS = ("group", "candidate", "parameters", "MACs", "cycles", "energy", "SRAM", "epochs", "accuracy", "average", "")
TEXT_COLUMNS = frozenset({1, 10})  # the others are numbers


def cells_of(outcome: Outcome) -> tuple[str, ...]:
    """One text per head."""
    figures = outcome.resources
    costs = (
        ("-",) * 5
        if figures is None
        else (
            count_text(figures.parameters),
            count_text(figures.macs),
            count_text(figures.cycles),
            energy_text(figures.energy_uj * 1e6),
            bytes_text(figures.sram_bytes),
        )
    )
    accuracies = ("-" if value is None else percent_text(value) for value in (outcome.accuracy, outcome.average))
    group = "-" if outcome.grouped is None else str(outcome.grouped.group)
    return group, outcome.candidate.name, *costs, str(len(outcome.accuracies)), *accuracies, outcome.fate
