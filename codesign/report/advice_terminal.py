"""`codesign advise` on the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from codesign.advice.advice import Advice
from codesign.report.advice_words import (
    RANKING,
    change_texts,
    cosine_text,
    figure_names,
    left_lines,
    objective_text,
    price_text,
    row_note,
    size_text,
    sqnr_text,
    standing_word,
    suggestion_texts,
    worst,
)
from codesign.report.numbers import shorten

_INDENT = (0, 0, 0, 2)


def print_advice(advice: Advice, console: Console, *, reasons: bool = False) -> None:
    """Ranked tables, what is left out, and what to take. reasons: every place a ranked rewrite declined as well."""
    console.print(Text(f"{shorten(advice.model.name, 60)} on {advice.hardware.name}", style="bold"), soft_wrap=True)
    base = advice.base or "no pass"
    console.print(Text(f"  baseline ({base}): {price_text(advice, advice.baseline)}"), soft_wrap=True)
    if advice.ranked:
        _heading(console, f"what each saves (wanted: least {objective_text(advice)})")
        console.print(Padding(_savings(advice), _INDENT))
        _heading(console, "what each does to the network")
        console.print(Padding(_changes(advice), _INDENT))
        _lines(console, _notes(advice))
    for title, lines in left_lines(advice):
        _section(console, title, lines)
    if reasons:
        _section(console, "declined", _declined(advice))
    _section(console, "take the EXACT ones that gain", suggestion_texts(advice, advice.exact))
    same = advice.all.rewrites == advice.exact.rewrites
    everything = ("the same",) if same else suggestion_texts(advice, advice.all)
    _section(console, "take everything that gains", everything)


def _savings(advice: Advice) -> Table:
    names = figure_names(advice)
    alone, on_top = ([f"{what}\n{name}" for name in names] for what in ("alone", "on top"))
    table = _table(1, "#", "rewrite", *alone, "", *on_top, "")
    effect = ""
    for number, ranked in enumerate(advice.ranked, 1):
        trial = ranked.trial
        if trial.effect != effect:
            effect = trial.effect
            table.add_row("", Text(effect, style="dim"))
        before = change_texts(advice, trial.price, advice.baseline)
        after = change_texts(advice, ranked.after, ranked.before)
        table.add_row(str(number), Text(trial.text), *before, "", *after, standing_word(ranked))
    return table


def _changes(advice: Advice) -> Table:
    table = _table(2, "#", "rewrite", "applied /\ndeclined", "parameters", "MACs", "cosine", "SQNR")
    for number, ranked in enumerate(advice.ranked, 1):
        trial, shown = ranked.trial, worst(ranked.trial.outputs)
        price = trial.price or advice.baseline
        table.add_row(
            str(number),
            Text(trial.text),
            f"{trial.applied} / {len(trial.record.declined) if trial.record else 0}",
            size_text(price.parameters, advice.baseline.parameters),
            size_text(price.macs, advice.baseline.macs),
            cosine_text(shown),
            sqnr_text(shown),
        )
    return table


def _notes(advice: Advice) -> Iterator[str]:
    """On single rewrites, then on how it was ranked and on what outputs were compared."""
    for number, ranked in enumerate(advice.ranked, 1):
        note = row_note(advice, ranked)
        if note:
            yield f"{number}: {note}"
    yield from RANKING
    if any(ranked.trial.outputs for ranked in advice.ranked):
        yield f"Outputs against the baseline's, on {advice.data}."


def _declined(advice: Advice) -> Iterator[str]:
    for trial in (*(ranked.trial for ranked in advice.ranked), *advice.neutral, *advice.unused):
        for part in trial.record.declined if trial.record else ():
            yield f"{trial.text}: {part.where}: {part.reason}"


def _section(console: Console, title: str, lines: Iterable[str]) -> None:
    found = list(lines)
    if found:
        _heading(console, title)
        _lines(console, found)


def _heading(console: Console, title: str) -> None:
    console.print()
    console.print(Text(title, style="bold"))


def _lines(console: Console, lines: Iterable[str]) -> None:
    for line in lines:
        console.print(Text(f"  {line}"), soft_wrap=True)


def _table(gap: int, *headings: str) -> Table:
    """Columns `gap` apart, without lines; rewrites and what became of them are words, all others numbers."""
    table = Table(box=None, padding=(0, gap, 0, 0), show_edge=False, header_style="bold", pad_edge=False)
    for heading in headings:
        words = heading in ("rewrite", "")
        table.add_column(heading, justify="left" if words else "right", overflow="fold", no_wrap=not words)
    return table
