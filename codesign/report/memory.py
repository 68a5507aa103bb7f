"""Activation memory in reports: a sentence, and the drawing with one rectangle a tensor."""

from __future__ import annotations

from html import escape

from codesign.planning.memory.memory_plan import MemoryPlan, Placed
from codesign.report.figures import AMBER, BLUE, GREY, Figure, Json, plot_axis, plot_layout
from codesign.report.numbers import bytes_text, integer_text, percent_text, shorten


def memory_words(memory: MemoryPlan) -> str:
    """How good the arena is, and where it is fullest: `proven least; fullest in conv1`."""
    if memory.proven:
        best = "proven least"
    else:
        best = f"at most {percent_text(memory.gap)} over the least ({bytes_text(memory.bound_bytes)})"
    order = ", in another order" if memory.reordered else ""
    fullest = f"; fullest in {shorten(memory.order[memory.peak_step], 40)}" if memory.order else ""
    return f"{best}{order}{fullest}"


def memory_figure(memory: MemoryPlan) -> Figure:
    """Steps across, bytes of the arena up; a rectangle for every tensor as long as it is needed."""
    written = {entry.output: entry.input for entry in memory.in_place}
    over = [placed for placed in memory.stored if placed.tensor in written]
    plain = [placed for placed in memory.stored if placed.tensor not in written]
    traces: list[Json] = [
        _trace(memory, "tensors", BLUE, plain, written),
        _trace(memory, "written in place", AMBER, over, written),
        _trace(memory, "scratch", GREY, list(memory.scratch), written),
    ]
    return {
        "data": [trace for trace in traces if isinstance(trace, dict) and trace["x"]],
        "layout": plot_layout(
            barmode="overlay",
            bargap=0,
            xaxis=plot_axis("step") | {"range": [0.5, max(len(memory.order), 1) + 0.5], "tickformat": "d"},
            yaxis=plot_axis("KiB") | {"range": [0, max(memory.arena_bytes, 1) / 1024]},
        ),
    }


def _trace(memory: MemoryPlan, name: str, color: str, placed: list[Placed], written: dict[str, str]) -> dict[str, Json]:
    return {
        "type": "bar",
        "name": name,
        "x": [(entry.first_step + entry.last_step) / 2 + 1 for entry in placed],
        "width": [entry.last_step - entry.first_step + 1 for entry in placed],
        "base": [entry.offset_bytes / 1024 for entry in placed],
        "y": [entry.size_bytes / 1024 for entry in placed],
        "text": [_hover(memory, entry, written) for entry in placed],
        "textposition": "none",
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"color": color, "opacity": 0.75, "line": {"color": "white", "width": 1}},
    }


def _hover(memory: MemoryPlan, placed: Placed, written: dict[str, str]) -> str:
    first, last = memory.order[placed.first_step], memory.order[placed.last_step]
    until = "" if first == last else f"<br>to {placed.last_step + 1}. {escape(shorten(last, 60))}"
    over = written.get(placed.tensor)
    return (
        f"<b>{escape(shorten(placed.tensor, 60))}</b><br>{integer_text(placed.size_bytes)} bytes at "
        f"{integer_text(placed.offset_bytes)}<br>{placed.first_step + 1}. {escape(shorten(first, 60))}{until}"
        + (f"<br>over {escape(shorten(over, 60))}" if over else "")
    )
