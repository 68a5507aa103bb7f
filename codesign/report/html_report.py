"""Plan -> report.html: one self-contained page (plotly inlined) that opens without a network."""

from __future__ import annotations

import json
from collections.abc import Iterable
from html import escape
from importlib.resources import files
from string import Template

from codesign.planning.plan import Plan, PlannedLayer
from codesign.report.facts import (
    constrained_text,
    costliest,
    energy_by_component,
    given_text,
    host_layers,
    searched_layers,
    share_of_cycles,
    unproven_layers,
)
from codesign.report.figures import Figure, figures
from codesign.report.html_table import layer_table
from codesign.report.memory import memory_figure, memory_words
from codesign.report.numbers import (
    bytes_text,
    count_text,
    energy_text,
    integer_text,
    milliseconds_text,
    percent_text,
    shorten,
)
from codesign.report.quantization import quantization_html
from codesign.report.terminal import OBJECTIVES
from codesign.report.why import why


class PageTemplate(Template):
    """`@@name` marks what is filled in: CSS uses single @ and JavaScript uses $."""

    delimiter = "@@"


def report_html(plan: Plan) -> str:
    """report.html, about 5 MB with plotly in it. Every name from the model or the machine is escaped."""
    from plotly.offline import get_plotlyjs

    folder = files("codesign.report")
    return PageTemplate((folder / "page.html").read_text(encoding="utf-8")).substitute(
        style=(folder / "style.html").read_text(encoding="utf-8"),
        title=f"{_short(plan.model.name)} on {escape(plan.hardware.name)}",
        model=_short(plan.model.name),
        hardware=escape(plan.hardware.name),
        subtitle=_subtitle(plan),
        cards=_cards(plan),
        costliest=_costliest(plan),
        table=layer_table(plan),
        passes=_passes(plan),
        quantization=quantization_html(plan),
        assumptions=_assumptions(plan),
        roof=_roof_text(plan),
        footer=_footer(plan),
        memory=_memory(plan),
        figures=script_json(_figures(plan)),
        plotly=get_plotlyjs(),
    )


def _figures(plan: Plan) -> dict[str, Figure]:
    drawn = {} if plan.memory is None or not plan.memory.order else {"memory": memory_figure(plan.memory)}
    return figures(plan) | drawn


def _memory(plan: Plan) -> str:
    """The drawing of the arena, with what it shows; nothing for a plan without one."""
    if plan.memory is None or not plan.memory.order:
        return ""
    words = escape(f"{bytes_text(plan.memory.arena_bytes)}, {memory_words(plan.memory)}")
    note = "where every tensor lies if all share one memory; steps in the order they run"
    return (
        f"<section><h2>Activation memory <small>{note}</small></h2><p>{words}.</p>"
        '<div id="memory" class="plot"></div></section>'
    )


def script_json(value: object) -> str:
    """JSON that may stand inside a <script> element: no `</script>`, `<!--` or line separator in it."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _short(name: str) -> str:
    return escape(shorten(name, 60))


def _subtitle(plan: Plan) -> str:
    objective = OBJECTIVES.get(plan.objective, plan.objective)
    peak = integer_text(plan.peak_macs_per_cycle)
    machine = f"{peak} MACs per cycle at {plan.clock_mhz:g} MHz"
    return " · ".join(escape(part) for part in (plan.precision, f"scheduled for least {objective}", machine))


def _cards(plan: Plan) -> str:
    totals = plan.totals
    parts = energy_by_component(plan.layers)
    biggest = next(iter(parts), "")
    energy_note = f"{percent_text(parts[biggest] / sum(parts.values()))} {biggest}" if sum(parts.values()) else ""
    cards = (
        ("Latency", milliseconds_text(totals.latency_ms), f"{count_text(totals.cycles)} cycles"),
        ("Frames per second", count_text(totals.fps), f"at {plan.clock_mhz:g} MHz"),
        ("Utilisation", percent_text(totals.utilization), f"{count_text(totals.macs)} MACs"),
        ("Energy per frame", energy_text(totals.energy_uj * 1e6), energy_note),
        ("DRAM per frame", bytes_text(totals.dram_bytes), f"{plan.off_chip}, read and written"),
        ("Peak on chip", bytes_text(totals.peak_sram_bytes), f"{count_text(totals.params)} parameters"),
    )
    return "\n".join(
        f'<div class="card"><div class="label">{escape(label)}</div><div class="value">{escape(value)}</div>'
        f'<div class="note">{escape(note)}</div></div>'
        for label, value, note in cards
    )


def _costliest(plan: Plan) -> str:
    items = []
    for group in costliest(plan):
        first = group[0]
        share = percent_text(share_of_cycles(plan, first))
        alike = f" each, {len(group)} alike" if len(group) > 1 else ""
        name = f"<b>{_short(first.layer.name)}</b> <em>{share}{alike}</em>"
        items.append(f"<li>{name}<br>{escape(why(plan, first))}</li>")
    return f'<ol class="costliest">{"".join(items)}</ol>' if items else "<p>No layer takes any cycles.</p>"


def _passes(plan: Plan) -> str:
    named = f"<p>Pipeline: {escape(shorten(plan.pipeline, 200))}.</p>" if plan.pipeline else ""
    if not plan.passes:
        return f"{named}<p>No pass ran.</p>"
    rows = []
    for record in plan.passes:
        reasons = "".join(f"<li><b>{_short(d.where)}</b>: {escape(d.reason)}</li>" for d in record.declined)
        declined = f"<details><summary>{len(record.declined)}</summary><ul>{reasons}</ul></details>" if reasons else "0"
        rows.append(
            f'<tr><td>{escape(record.name)}</td><td><span class="tag">{escape(record.effect)}</span></td>'
            f'<td class="number">{record.applied}</td><td>{declined}</td>'
            f'<td class="number">{record.seconds:.3f}</td></tr>'
        )
    applied, seconds = (f'<th class="number">{name}</th>' for name in ("applied", "seconds"))
    head = f"<th>pass</th><th>effect</th>{applied}<th>declined</th>{seconds}"
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'{named}<div class="scroll">{table}</div>'


def _assumptions(plan: Plan) -> str:
    """Precision, mappings not proven best, host layers, and what layers note."""
    items = [f"Precision: {escape(plan.precision)}."]
    unproven = unproven_layers(plan)
    searched, given = len(searched_layers(plan)), given_text(plan)
    kind = "searched" if given else "mapped"
    if given:
        items.append(f"{escape(given)}.")
    if constrained_text(plan):
        items.append(f"{escape(constrained_text(plan))}.")
    if unproven:
        named = _listed(f"{_short(layer.layer.name)} ({percent_text(layer.cost.gap)})" for layer in unproven)
        items.append(f"{len(unproven)} of {searched} {kind} layers are not proven best; gap to the bound: {named}")
    elif searched:
        items.append(f"All {searched} {kind} layers are proven best within the declared space of mappings.")
    host = host_layers(plan)
    if host:
        share = percent_text(sum(share_of_cycles(plan, layer) for layer in host))
        named = _listed(_host_text(plan, layer) for layer in host)
        layers = "1 layer runs" if len(host) == 1 else f"{len(host)} layers run"
        items.append(f"{layers} on the host, {share} of the time: {named}")
    noted = [layer for layer in plan.layers if layer.note and layer not in host]
    notes = [f"{_short(layer.layer.name)}: {escape(layer.note)}" for layer in noted]
    if notes:
        items.append(f"Notes: {_listed(notes)}")
    return "<ul>" + "".join(f"<li>{item}</li>" for item in items) + "</ul>"


def _host_text(plan: Plan, layer: PlannedLayer) -> str:
    share = percent_text(share_of_cycles(plan, layer))
    note = f", {escape(layer.note)}" if layer.note else ""
    return f"{_short(layer.layer.name)} ({_short(layer.layer.op)}, {share}{note})"


def _listed(items: Iterable[str]) -> str:
    """A list; a long one is folded up."""
    lines = [f"<li>{item}</li>" for item in items]
    listed = f"<ul>{''.join(lines)}</ul>"
    return listed if len(lines) <= 8 else f"<details><summary>{len(lines)} layers</summary>{listed}</details>"


def _roof_text(plan: Plan) -> str:
    bandwidth = f"{plan.off_chip_bytes_per_cycle:g} bytes per cycle of {plan.off_chip}"
    return escape(f"roof: {integer_text(plan.peak_macs_per_cycle)} MACs per cycle, {bandwidth}")


def _footer(plan: Plan) -> str:
    model = f"{shorten(plan.model.name, 60)} {plan.model.sha256[:12]}"
    return escape(f"codesign {plan.codesign} · {model} · {plan.hardware.name} {plan.hardware.sha256[:12]}")
