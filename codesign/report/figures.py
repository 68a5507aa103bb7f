"""The plots of report.html as plotly figures in plain data; no plotly is imported to make them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import log10
from typing import TypeAlias

from codesign.planning.plan import Plan, PlannedLayer
from codesign.report.facts import energy_by_component, loss_lines, roof, roofline, share_of_cycles, split_of
from codesign.report.numbers import bytes_text, count_text, energy_text, percent_text, shorten

Json: TypeAlias = "dict[str, Json] | Sequence[Json] | str | float | int | bool | None"
Figure: TypeAlias = dict[str, Json]

INK, MUTED, LINE = "#1f2933", "#616e7c", "#e4e7eb"
BLUE, AMBER, GREY, GREEN, RED, VIOLET = "#3b7dd8", "#e8a33d", "#b8c2cc", "#3d9970", "#d1495b", "#7b68ae"
PALE = "#b4d0f2"
PALETTE = (BLUE, AMBER, GREEN, VIOLET, RED, "#4fb0ae", "#8d6e63", GREY)
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_NAMED_LAYERS = 24
_ROOF_POINTS = 40
_NAMED_LOSSES = 4


def figures(plan: Plan) -> dict[str, Figure]:
    """All figures by the id of the element they go into."""
    return {"time": time_figure(plan), "roofline": roofline_figure(plan), "energy": energy_figure(plan)}


def time_figure(plan: Plan) -> Figure:
    """Cycles per layer, split into useful, idle lanes, waits and stalls; utilisation per layer below."""
    hover = [_hover(plan, number, layer) for number, layer in enumerate(plan.layers, 1)]
    numbers = list(range(1, len(plan.layers) + 1))
    splits = [split_of(layer) for layer in plan.layers]
    parts = (
        ("useful", BLUE, [split.useful for split in splits]),
        ("idle lanes", PALE, [split.idle_lanes for split in splits]),
        ("stalls", AMBER, [split.stalls for split in splits]),
        ("fill, drain and refills", GREY, [split.waits for split in splits]),
    )
    bars: list[Json] = [_bar(name, color, numbers, cycles, hover) for name, color, cycles in parts]
    reached = [100 * layer.cost.utilization for layer in plan.layers]
    utilization = _bar("utilisation", GREEN, numbers, reached, hover)
    bars.append(utilization | {"yaxis": "y2", "showlegend": False})
    layout = plot_layout(
        barmode="stack",
        xaxis=_layer_axis(plan, named=len(plan.layers) <= _NAMED_LAYERS) | {"anchor": "y2"},
        yaxis=plot_axis("cycles") | {"domain": [0.42, 1]},
        yaxis2=plot_axis("utilisation, %") | {"domain": [0, 0.34], "range": [0, _ceiling_percent(plan)]},
    )
    return {"data": bars, "layout": layout}


def energy_figure(plan: Plan) -> Figure:
    """Energy per layer, stacked by component, the largest component first."""
    numbers = list(range(1, len(plan.layers) + 1))
    bars: list[Json] = []
    for rank, component in enumerate(energy_by_component(plan.layers)):
        spent = [energy_by_component([layer]).get(component, 0.0) for layer in plan.layers]
        hover = [
            f"<b>{number}. {_name(layer)}</b><br>"
            f"{escape(component)}: {energy_text(part)} of {energy_text(layer.cost.energy_pj)}"
            for number, layer, part in zip(numbers, plan.layers, spent, strict=True)
        ]
        color = PALETTE[rank % len(PALETTE)]
        bars.append(_bar(escape(component), color, numbers, [part / 1e6 for part in spent], hover))
    layout = plot_layout(barmode="stack", xaxis=_layer_axis(plan, named=False), yaxis=plot_axis("energy, uJ"))
    return {"data": bars, "layout": layout}


def roofline_figure(plan: Plan) -> Figure:
    """MACs per cycle reached over MACs per off-chip byte, both logarithmic, under the machine's roof."""
    points = roofline(plan)
    ridge = plan.peak_macs_per_cycle / plan.off_chip_bytes_per_cycle
    # Without a limit off chip the roof is flat and has no ridge.
    intensities = [value for value in (ridge, *(point.macs_per_byte for point in points)) if value > 0] or [1.0]
    low, high = min(intensities) / 3, max(intensities) * 3
    steps = [low * (high / low) ** (step / _ROOF_POINTS) for step in range(_ROOF_POINTS + 1)]
    line = sorted({*steps, ridge} - {0.0})
    hover = [
        f"{_hover(plan, point.number, point.layer)}<br>"
        f"{count_text(point.macs_per_cycle)} MACs/cycle of {count_text(point.roof_macs_per_cycle)} under the roof"
        f"<br>{count_text(point.macs_per_byte)} MACs per {escape(plan.off_chip)} byte"
        for point in points
    ]
    shares = [share_of_cycles(plan, point.layer) for point in points]
    layers: Json = {
        "type": "scatter",
        "mode": "markers",
        "name": "layers (area: time)",
        "x": [point.macs_per_byte for point in points],
        "y": [point.macs_per_cycle for point in points],
        "text": hover,
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {
            "size": [8 + 28 * share**0.5 for share in shares],
            "color": BLUE,
            "opacity": 0.7,
            "line": {"color": "white", "width": 1},
        },
    }
    ceiling: Json = {
        "type": "scatter",
        "mode": "lines",
        "name": "roof",
        "x": line,
        "y": [roof(plan, intensity) for intensity in line],
        "hoverinfo": "skip",
        "line": {"color": INK, "width": 2},
    }
    slowest = min([roof(plan, low), *(point.macs_per_cycle for point in points)])
    layout = plot_layout(
        xaxis=plot_axis(f"MACs per {escape(plan.off_chip)} byte") | _decades(low, high),
        yaxis=plot_axis("MACs per cycle") | _decades(slowest / 2, plan.peak_macs_per_cycle * 2),
    )
    return {"data": [ceiling, layers], "layout": layout}


def _decades(low: float, high: float) -> dict[str, Json]:
    """A logarithmic axis; ticks at 1, 2 and 5 over a few decades, at powers of ten over many."""
    first, last = log10(low), log10(high)
    return {"type": "log", "range": [first, last], "dtick": "D2" if last - first < 3.5 else 1}


def _ceiling_percent(plan: Plan) -> float:
    """100, or less where every layer's utilisation is so low that its bar would not be seen."""
    best = 100 * max((layer.cost.utilization for layer in plan.layers), default=0.0)
    return best * 1.2 if 0 < best < 20 else 100


def _bar(name: str, color: str, numbers: list[int], heights: Sequence[float], hover: list[str]) -> dict[str, Json]:
    return {
        "type": "bar",
        "name": name,
        "x": numbers,
        "y": heights,
        "text": hover,
        "textposition": "none",
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"color": color, "line": {"width": 0}},
    }


def _hover(plan: Plan, number: int, layer: PlannedLayer) -> str:
    """What a layer says when pointed at. Plotly reads a subset of HTML, so names are escaped."""
    cost = layer.cost
    lines = [
        f"<b>{number}. {_name(layer)}</b>",
        f"{escape(shorten(layer.layer.op, 30))} on {escape(layer.engine)}",
        f"{count_text(cost.cycles)} cycles, {percent_text(share_of_cycles(plan, layer))} of the time",
        f"{bytes_text(cost.on_chip_bytes)} on chip, limited by {escape(cost.limited_by)}",
    ]
    if layer.layer.nest.macs:
        lines.insert(2, f"{count_text(layer.layer.nest.macs)} MACs at {percent_text(cost.utilization)} utilisation")
    lines += [escape(line) for line in loss_lines(layer)[:_NAMED_LOSSES]]
    return "<br>".join(lines)


def _name(layer: PlannedLayer) -> str:
    return escape(shorten(layer.layer.name, 60))


def _layer_axis(plan: Plan, *, named: bool) -> dict[str, Json]:
    """Layers by number, or by number and name where there is room."""
    count = len(plan.layers)
    axis: dict[str, Json] = {"showgrid": False, "zeroline": False, "linecolor": LINE, "automargin": True}
    axis |= {"range": [0.4, count + 0.6], "title": {"text": "" if named else "layer"}}
    if not named:
        return axis | {"tickformat": "d"} | ({"dtick": 1} if count <= _NAMED_LAYERS else {})
    names = [f"{number} {escape(shorten(layer.layer.name, 15))}" for number, layer in enumerate(plan.layers, 1)]
    return axis | {
        "tickvals": list(range(1, count + 1)),
        "ticktext": names,
        "tickangle": -45,
        "ticklabeloverflow": "allow",
    }


def plot_axis(title: str) -> dict[str, Json]:
    return {"title": {"text": title}, "gridcolor": LINE, "zeroline": False, "automargin": True}


def plot_layout(**parts: Json) -> dict[str, Json]:
    return {
        "font": {"family": FONT, "size": 12, "color": MUTED},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "margin": {"l": 64, "r": 16, "t": 36, "b": 48},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "traceorder": "normal"},
        "hoverlabel": {"bgcolor": "white", "bordercolor": LINE, "font": {"color": INK}, "align": "left"},
        "bargap": 0.25,
        **parts,
    }
