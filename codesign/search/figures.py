"""The plots of a search as plotly figures in plain data; no plotly is imported to make them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from codesign.report.figures import BLUE, GREY, INK, PALETTE, RED, Figure, Json, plot_axis, plot_layout
from codesign.report.numbers import bytes_text, count_text, percent_text
from codesign.search.comparison import Comparison
from codesign.search.results import Outcome, Results, cycles_of, pareto_front

_SMALLEST, _LARGEST = 7, 15


def pareto_figure(results: Results) -> Figure:
    """Accuracy against cycles: a mark per trained candidate, larger with more epochs, and the front of all of them."""
    data: list[Json] = [_front(pareto_front(_to_the_end(results)), "front of those trained to the end")]
    groups = sorted({one.grouped.group for one in results.trained if one.grouped is not None})
    for group in groups:
        members = [one for one in results.trained if one.grouped is not None and one.grouped.group == group]
        sizes: list[Json] = [_size(one, results.last_epoch) for one in members]
        marks = _marks(members, f"group {group}", PALETTE[(group - 1) % len(PALETTE)])
        marks["marker"] = {**_dictionary(marks["marker"]), "size": sizes, "symbol": [_symbol(one) for one in members]}
        data.append(marks)
    return {"data": data, "layout": plot_layout(xaxis=plot_axis("cycles"), yaxis=_accuracy_axis())}


def curves_figure(results: Results) -> Figure:
    """Accuracy after every epoch, in the colours of the groups; champions thick, the others thin."""
    data: list[Json] = [
        {
            "type": "scatter",
            "mode": "lines",
            "name": escape(one.candidate.name),
            "showlegend": False,
            "x": list(range(1, len(one.accuracies) + 1)),
            "y": [100 * accuracy for accuracy in one.accuracies],
            "text": _hover(one),
            "hovertemplate": "%{text}<br>%{y:.2f} % after epoch %{x}<extra></extra>",
            "line": {"color": _color(one), "width": 3 if one.champion else 1},
        }
        for one in results.trained
    ]
    return {"data": data, "layout": plot_layout(xaxis=plot_axis("epoch"), yaxis=_accuracy_axis())}


def overlap_figure(comparison: Comparison) -> Figure:
    """All candidates of the first search by MACs and cycles, and the champions of both and of either alone."""
    pool = [one for one in comparison.first.results.outcomes if one.resources is not None]
    sets = (
        ("no champion", pool, GREY, 6, "circle"),
        (f"{comparison.first.name} alone", comparison.only_first, BLUE, 13, "diamond"),
        (f"{comparison.second.name} alone", comparison.only_second, RED, 13, "square"),
        ("champion of both", comparison.both, INK, 13, "star"),
    )
    data: list[Json] = []
    for name, members, color, size, symbol in sets:
        marks = _marks(members, name, color)
        marks["x"] = [one.resources.macs for one in members if one.resources is not None]
        marks["y"] = [cycles_of(one) for one in members]
        marks["marker"] = {**_dictionary(marks["marker"]), "size": size, "symbol": symbol}
        data.append(marks)
    return {"data": data, "layout": plot_layout(xaxis=plot_axis("MACs"), yaxis=plot_axis("cycles"))}


def _to_the_end(results: Results) -> tuple[Outcome, ...]:
    return tuple(one for one in results.trained if len(one.accuracies) == results.last_epoch)


def _front(front: Sequence[Outcome], name: str) -> dict[str, Json]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": [cycles_of(one) for one in front],
        "y": [100 * (one.accuracy or 0.0) for one in front],
        "hoverinfo": "skip",
        "line": {"color": INK, "width": 1.5, "dash": "dot", "shape": "hv"},
    }


def _marks(members: Sequence[Outcome], name: str, color: str) -> dict[str, Json]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": escape(name),
        "x": [cycles_of(one) for one in members],
        "y": [100 * (one.accuracy or 0.0) for one in members],
        "text": [_hover(one) for one in members],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"color": color, "line": {"color": "white", "width": 1}},
    }


def _hover(outcome: Outcome) -> str:
    lines = [f"<b>{escape(outcome.candidate.name)}</b>", outcome.fate]
    if outcome.accuracy is not None:
        lines.append(f"{percent_text(outcome.accuracy)} after epoch {len(outcome.accuracies)}")
    if outcome.resources is not None:
        figures = outcome.resources
        lines.append(f"{count_text(figures.cycles)} cycles, {count_text(figures.macs)} MACs")
        lines.append(f"{count_text(figures.parameters)} parameters, {bytes_text(figures.sram_bytes)} of activations")
    return "<br>".join(lines)


def _size(outcome: Outcome, last_epoch: int) -> float:
    return _SMALLEST + (_LARGEST - _SMALLEST) * len(outcome.accuracies) / last_epoch


def _symbol(outcome: Outcome) -> str:
    return "star" if outcome.champion else "circle"


def _color(outcome: Outcome) -> str:
    return GREY if outcome.grouped is None else PALETTE[(outcome.grouped.group - 1) % len(PALETTE)]


def _accuracy_axis() -> dict[str, Json]:
    return plot_axis("validation accuracy in %")


def _dictionary(value: Json) -> dict[str, Json]:
    assert isinstance(value, dict)
    return value
