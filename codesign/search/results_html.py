"""results.html and the page that compares two searches: self-contained, plotly inlined."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from importlib.resources import files

from codesign import __version__
from codesign.report.figures import Figure
from codesign.report.html_report import PageTemplate, script_json
from codesign.search.comparison import Comparison
from codesign.search.figures import curves_figure, overlap_figure, pareto_figure
from codesign.search.results import Outcome, Results
from codesign.search.results_words import HEADS, TEXT_COLUMNS, cells_of

_FRONT_NOTE = "stars: champions; larger marks: more epochs"


def results_html(results: Results) -> str:
    """The page of one search: accuracy against cycles, learning curves, all candidates. Every name is escaped."""
    machine, axes = results.settings["--hw"], results.settings["--axes"]
    sections = (
        _section("Accuracy against cycles", _FRONT_NOTE, '<div id="pareto" class="plot"></div>'),
        _section("Learning curves", "thick: champions", '<div id="curves" class="plot"></div>'),
        _section("Candidates", "group by group, from the lightest", _table(results.outcomes)),
        _section("Settings", "", _settings(results.settings)),
    )
    trained = sum(len(one.accuracies) for one in results.outcomes)
    subtitle = f"{len(results.outcomes)} candidates, groups by {axes}, {trained} epochs trained"
    state = "" if results.finished else "; the search has not ended"
    drawn = {"pareto": pareto_figure(results), "curves": curves_figure(results)}
    return _page(f"Search on {machine.split()[0]}", subtitle + state, sections, drawn)


def comparison_html(comparison: Comparison) -> str:
    """The page of two searches: all candidates by MACs and cycles, champions of both and of either alone."""
    parts = (
        ("Champions of both", comparison.both),
        (f"Champions of {comparison.first.name} alone", comparison.only_first),
        (f"Champions of {comparison.second.name} alone", comparison.only_second),
    )
    sections = (
        _section("Cycles against MACs", "", '<div id="overlap" class="plot"></div>'),
        *(_section(title, "", _table(outcomes) if outcomes else "<p>None.</p>") for title, outcomes in parts),
    )
    title = f"{comparison.first.name} and {comparison.second.name}"
    return _page(title, comparison.sentence, sections, {"overlap": overlap_figure(comparison)})


def _page(title: str, subtitle: str, sections: Iterable[str], drawn: Mapping[str, Figure]) -> str:
    from plotly.offline import get_plotlyjs

    return PageTemplate((files("codesign.search") / "page.html").read_text(encoding="utf-8")).substitute(
        style=(files("codesign.report") / "style.html").read_text(encoding="utf-8"),
        title=escape(title),
        subtitle=escape(subtitle),
        sections="\n".join(sections),
        footer=escape(f"codesign {__version__}"),
        figures=script_json(drawn),
        plotly=get_plotlyjs(),
    )


def _section(title: str, note: str, content: str) -> str:
    small = f" <small>{escape(note)}</small>" if note else ""
    return f"<section><h2>{escape(title)}{small}</h2>{content}</section>"


def _table(outcomes: Iterable[Outcome]) -> str:
    numbers = [number not in TEXT_COLUMNS for number in range(len(HEADS))]
    classes = [" class=number" if is_number else "" for is_number in numbers]
    head = "".join(f"<th{kind}>{name}</th>" for name, kind in zip(HEADS, classes, strict=True))
    rows, last = [], -1
    for outcome in outcomes:
        group = 0 if outcome.grouped is None else outcome.grouped.group
        kinds = " ".join([*(["champion"] if outcome.champion else []), *(["first"] if group != last else [])])
        last = group
        rows.append(f'<tr class="{kinds}">{_cells(outcome)}</tr>')
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<div class="scroll" tabindex="0">{table}</div>'


def _cells(outcome: Outcome) -> str:
    """A candidate's row; why it does not fit shows when it is pointed at."""
    kinds = {1: "name"} | {number: "number" for number in range(len(HEADS)) if number not in TEXT_COLUMNS}
    hint = f' title="{escape(outcome.refusal)}"' if outcome.refusal else ""
    return "".join(
        f'<td class="{kinds.get(number, "")}"{hint}>{escape(text)}</td>'
        for number, text in enumerate(cells_of(outcome))
    )


def _settings(settings: Mapping[str, str]) -> str:
    items = "".join(f"<li><b>{escape(name)}</b> {escape(value)}</li>" for name, value in settings.items() if value)
    return f"<ul>{items}</ul>"
