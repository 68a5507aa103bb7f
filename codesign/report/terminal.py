"""Plan -> terminal: a table of the layers that fits 100 columns, and a closing summary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

from rich.console import Console
from rich.text import Text

from codesign.planning.plan import Plan, PlannedLayer
from codesign.report.facts import (
    alike,
    constrained_text,
    costliest,
    energy_by_component,
    gap_text,
    given_text,
    host_layers,
    share_of_cycles,
    unproven_layers,
)
from codesign.report.memory import memory_words
from codesign.report.numbers import (
    bytes_text,
    count_text,
    energy_text,
    integer_text,
    milliseconds_text,
    percent_text,
    shorten,
)
from codesign.report.quantization import quantization_lines
from codesign.report.why import why

MANY_LAYERS = 40
SHORTEST_NAME = 16
OBJECTIVES = {"edp": "energy-delay product"}
_HEADINGS = ("layer", "op", "engine", "MACs", "cycles", "time", "util", "limited by", "gap")
_TO_THE_LEFT = frozenset({"layer", "op", "engine", "limited by"})
_NAMED_HOST_LAYERS = 5


@dataclass(frozen=True)
class Cell:
    """A field of a line and its style (dropped where the console is no terminal)."""

    text: str
    style: str = ""


def print_report(plan: Plan, console: Console) -> None:
    """The table and the summary, as wide as the console where names and sentences allow it."""
    print_layers(plan, console)
    print_summary(plan, console)


# ---- the table


def print_layers(plan: Plan, console: Console) -> None:
    """One line per layer that takes cycles, in network order; when there are many, identical layers share a line."""
    busy = [layer for layer in plan.layers if layer.cost.cycles]
    groups = alike(busy) if len(busy) > MANY_LAYERS else tuple((layer,) for layer in busy)
    if groups:
        _print_table([_line(plan, group) for group in groups], [_title(group) for group in groups], console)
    for note in _notes(plan, groups):
        console.print(Text(note, style="dim"), soft_wrap=True)
    console.print()


def _title(group: Sequence[PlannedLayer]) -> tuple[str, str]:
    """Name, and ` x3` where it stands for several."""
    return group[0].layer.name, f" x{len(group)}" if len(group) > 1 else ""


def _line(plan: Plan, group: Sequence[PlannedLayer]) -> list[Cell]:
    """All cells behind the name."""
    first, cost = group[0], group[0].cost
    macs = sum(layer.layer.nest.macs for layer in group)
    cycles = sum(layer.cost.cycles for layer in group)
    share = cycles / plan.totals.cycles
    return [
        Cell(shorten(first.layer.op, 12), "dim"),
        Cell(shorten(first.engine, 12), "dim"),
        Cell(count_text(macs) if macs else "-"),
        Cell(count_text(cycles)),
        Cell(percent_text(share), "bold" if share >= 0.1 else ""),
        Cell(percent_text(cost.utilization), _utilization_style(cost.utilization)) if macs else Cell("-"),
        Cell(shorten(cost.limited_by, 20)),
        Cell(gap_text(first, "-")),
    ]


def _print_table(lines: list[list[Cell]], titles: list[tuple[str, str]], console: Console) -> None:
    """Columns as wide as their cells; the names get what is left of the console's width."""
    widths = [max(map(len, column)) for column in zip(_HEADINGS[1:], *_texts(lines), strict=True)]
    left = console.width - sum(widths) - len(widths)
    longest = max(len(name) + len(times) for name, times in titles)
    name_width = max(min(left, longest), SHORTEST_NAME)
    names = [shorten(name, name_width - len(times)) + times for name, times in titles]
    _print_line([Cell(heading, "bold") for heading in _HEADINGS], [name_width, *widths], console)
    console.print(Text("-" * (name_width + sum(widths) + len(widths)), style="dim"), soft_wrap=True)
    for name, cells in zip(names, lines, strict=True):
        _print_line([Cell(name), *cells], [name_width, *widths], console)


def _texts(lines: list[list[Cell]]) -> list[list[str]]:
    return [[cell.text for cell in cells] for cells in lines]


def _print_line(cells: Sequence[Cell], widths: Sequence[int], console: Console) -> None:
    line = Text()
    for heading, cell, width in zip(_HEADINGS, cells, widths, strict=True):
        text = cell.text.ljust(width) if heading in _TO_THE_LEFT else cell.text.rjust(width)
        line.append(text + " ", style=cell.style)
    line.rstrip()
    console.print(line, soft_wrap=True)


def _utilization_style(utilization: float) -> str:
    if utilization >= 0.6:
        return "green"
    return "yellow" if utilization >= 0.2 else "red"


def _notes(plan: Plan, groups: Sequence[Sequence[PlannedLayer]]) -> list[str]:
    notes = []
    quiet = sum(1 for layer in plan.layers if not layer.cost.cycles)
    if quiet:
        more = "1 more layer takes" if quiet == 1 else f"{quiet} more layers take"
        notes.append(f"{more} no cycles (fused into another, or nothing to do)")
    if any(len(group) > 1 for group in groups):
        notes.append("xN: N identical layers; MACs, cycles and time of all of them")
    return notes


# ---- the summary


def print_summary(plan: Plan, console: Console) -> None:
    """Latency, rates, energy and traffic per frame; what costs most and why; what is on the host; what is unproven."""
    objective = OBJECTIVES.get(plan.objective, plan.objective)
    console.print(Text(f"{shorten(plan.model.name, 50)} on {plan.hardware.name}", style="bold"), soft_wrap=True)
    console.print(Text(f"precision: {plan.precision}; scheduled for least {objective}"), soft_wrap=True)
    console.print()
    for name, value, detail in _facts(plan):
        line = Text.assemble((f"{name:<18}", "dim"), (f"{value:>9}", "bold"), f"  {detail}")
        line.rstrip()
        console.print(line, soft_wrap=True)
    for heading, lines in _paragraphs(plan):
        console.print()
        console.print(Text(heading, style="bold"))
        for sentence in lines:
            _print_wrapped(sentence, console)


def _print_wrapped(line: str, console: Console) -> None:
    """A line two spaces in; what does not fit goes on five spaces in."""
    for part in wrap(line, console.width, initial_indent="  ", subsequent_indent="     ", break_on_hyphens=False):
        console.print(Text(part), soft_wrap=True)


def _facts(plan: Plan) -> list[tuple[str, str, str]]:
    """(name, value, detail)."""
    totals = plan.totals
    parts = energy_by_component(plan.layers)
    whole = sum(parts.values())
    biggest = [f"{shorten(name, 20)} {percent_text(part / whole)}" for name, part in list(parts.items())[:3] if whole]
    peak = f"{integer_text(plan.peak_macs_per_cycle)} MACs/cycle"
    cycles = f"{count_text(totals.cycles)} cycles at {plan.clock_mhz:g} MHz"
    rate = f"{bytes_text(totals.dram_bytes * totals.fps)}/s at the full frame rate"
    memory = plan.memory
    activations = [] if memory is None else [("activations", bytes_text(memory.arena_bytes), memory_words(memory))]
    return [
        ("latency", milliseconds_text(totals.latency_ms), cycles),
        ("frames per second", count_text(totals.fps), ""),
        ("utilisation", percent_text(totals.utilization), f"{count_text(totals.macs)} MACs, peak {peak}"),
        ("energy per frame", energy_text(totals.energy_uj * 1e6), ", ".join(biggest)),
        (f"{shorten(plan.off_chip, 8)} per frame", bytes_text(totals.dram_bytes), rate),
        ("peak on chip", bytes_text(totals.peak_sram_bytes), f"{count_text(totals.params)} parameters"),
        *activations,
    ]


def _paragraphs(plan: Plan) -> list[tuple[str, list[str]]]:
    """Headings with their lines; those with nothing to say are left out."""
    paragraphs = [
        ("what costs most", _costliest_lines(plan)),
        ("on the host", _host_lines(plan)),
        ("given mappings", [given_text(plan)] if given_text(plan) else []),
        ("constraints", [constrained_text(plan)] if constrained_text(plan) else []),
        ("not proven best", _unproven_lines(plan)),
        ("passes", _passes_lines(plan)),
        ("quantisation", quantization_lines(plan)),
    ]
    return [(heading, lines) for heading, lines in paragraphs if lines]


def _costliest_lines(plan: Plan) -> list[str]:
    lines = []
    for rank, group in enumerate(costliest(plan), 1):
        first = group[0]
        share = percent_text(share_of_cycles(plan, first))
        each = f"{len(group)} alike, {share} of the time each" if len(group) > 1 else f"{share} of the time"
        lines += [f"{rank}. {shorten(first.layer.name, 60)}: {each}", f"   {shorten(why(plan, first), 300)}"]
    return lines


def _host_lines(plan: Plan) -> list[str]:
    layers = sorted(host_layers(plan), key=lambda layer: -layer.cost.cycles)
    named, rest = layers[:_NAMED_HOST_LAYERS], layers[_NAMED_HOST_LAYERS:]
    lines = [
        f"{shorten(layer.layer.name, 60)} ({shorten(layer.layer.op, 30)}): "
        f"{percent_text(share_of_cycles(plan, layer))} of the time"
        for layer in named
    ]
    if rest:
        share = sum(share_of_cycles(plan, layer) for layer in rest)
        lines.append(f"and {len(rest)} more: {percent_text(share)} of the time together")
    return lines


def _unproven_lines(plan: Plan) -> list[str]:
    layers = unproven_layers(plan)
    if not layers:
        return []
    gap = f"the largest gap to the bound is {percent_text(layers[0].cost.gap)}, of {shorten(layers[0].layer.name, 60)}"
    return [f"{len(layers)} of {len(plan.layers)} layers; {gap}"]


def _passes_lines(plan: Plan) -> list[str]:
    ran = [line for index in range(len(plan.passes)) for line in _pass_lines(plan, index)]
    return [f"pipeline: {shorten(plan.pipeline, 200)}", *ran] if plan.pipeline else ran


def _pass_lines(plan: Plan, index: int) -> list[str]:
    """What a pass did, and the first reason where it declined."""
    record = plan.passes[index]
    line = f"{shorten(record.name, 40)} ({record.effect}): applied {_times(record.applied)}"
    if not record.declined:
        return [line]
    first = record.declined[0]
    return [
        f"{line}, declined {_times(len(record.declined))}",
        f"   {shorten(first.where, 40)}: {shorten(first.reason, 200)}",
    ]


def _times(count: int) -> str:
    return {0: "nowhere", 1: "once"}.get(count, f"{count} times")
