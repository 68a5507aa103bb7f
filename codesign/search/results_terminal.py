"""Results of a search, and two searches side by side, on the terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, JustifyMethod
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from codesign.search.comparison import Comparison
from codesign.search.results import Outcome, Results
from codesign.search.results_words import HEADS, TEXT_COLUMNS, cells_of

_INDENT = (0, 0, 0, 2)
_MOST_ROWS = 128


def print_results(results: Results, console: Console) -> None:
    """Every candidate, group by group, and the champions; of a large space the champions alone."""
    machine, axes = results.settings["--hw"].split()[0], results.settings["--axes"]
    _heading(console, f"{len(results.outcomes)} candidates on {machine}, groups by {axes}")
    shown = results.outcomes if len(results.outcomes) <= _MOST_ROWS else results.champions
    console.print(Padding(_table(shown, grouped=True), _INDENT))
    if results.finished:
        _heading(console, "champions, from the lightest group to the heaviest")
        console.print(Padding(_table(results.champions, grouped=False), _INDENT))
    else:
        _heading(console, "the search has not ended; started again, it goes on where it was")


def print_comparison(comparison: Comparison, console: Console) -> None:
    """What two searches agree on."""
    _heading(console, comparison.sentence)
    sides = ((comparison.first.name, comparison.only_first), (comparison.second.name, comparison.only_second))
    for title, outcomes in (
        ("champions of both", comparison.both),
        *((f"of {name} alone", only) for name, only in sides),
    ):
        _heading(console, title)
        console.print(Padding(_table(outcomes, grouped=False), _INDENT) if outcomes else "  none")


def _heading(console: Console, title: str) -> None:
    console.print()
    console.print(Text(title, style="bold"), soft_wrap=True)


def _table(outcomes: Iterable[Outcome], *, grouped: bool) -> Table:
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    for number, name in enumerate(HEADS):
        justify: JustifyMethod = "left" if number in TEXT_COLUMNS else "right"
        table.add_column(name, justify=justify, no_wrap=number != 1, overflow="fold")
    last = ""
    for outcome in outcomes:
        cells = cells_of(outcome)
        if grouped and last and cells[0] != last:
            table.add_row()
        last = cells[0]
        table.add_row(*map(Text, cells))
    return table
