"""The per-layer table of report.html; the page's own script sorts it."""

from __future__ import annotations

from html import escape

from codesign.planning.plan import Plan, PlannedLayer
from codesign.report.facts import gap_text, loss_lines, off_chip_bytes, share_of_cycles, split_of
from codesign.report.mapping_text import mapping_text
from codesign.report.numbers import bytes_text, count_text, energy_text, integer_text, percent_text, shorten
from codesign.vocabulary import DIMENSIONS
from codesign.workload.loop_nest import LoopNest


def layer_table(plan: Plan) -> str:
    """One row per layer; every numeric cell carries the exact number for sorting and as a tooltip."""
    heads = [
        ("#", True),
        ("layer", False),
        ("op", False),
        ("engine", False),
        ("loops", False),
        ("MACs", True),
        ("cycles", True),
        ("time", True),
        ("where they go", True),
        ("stalls", True),
        ("utilisation", True),
        ("spatial", True),
        ("limited by", False),
        (plan.off_chip, True),
        ("energy", True),
        ("gap", True),
        ("mapping", False),
    ]
    head = "".join(
        f'<th{" class=number" if numeric else ""}><button type="button">{escape(name)}</button></th>'
        for name, numeric in heads
    )
    rows = "".join(_row(plan, number, layer) for number, layer in enumerate(plan.layers, 1))
    return f'<table id="layers"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def loops_text(nest: LoopNest) -> str:
    """The loops that run more than once: `K 16 C 3 OY 64 OX 64 FY 3 FX 3 /2` (stride 2)."""
    loops = [f"{dimension} {size}" for dimension, size in zip(DIMENSIONS, nest.sizes, strict=True) if size > 1]
    stride = f"/{max(nest.stride)}" if max(nest.stride) > 1 else ""
    return " ".join([*loops, stride]).strip()


def _row(plan: Plan, number: int, planned: PlannedLayer) -> str:
    layer, cost = planned.layer, planned.cost
    macs = layer.nest.macs
    share = share_of_cycles(plan, planned)
    moved = off_chip_bytes(plan, planned)
    limit = f"fused into {planned.fused_into}" if planned.fused_into else cost.limited_by
    mapping = mapping_text(cost.mapping) if cost.mapping is not None else ""
    cells = (
        _number(number, str(number)),
        _text(layer.name, 40, "name"),
        _text(layer.op, 20),
        _text(planned.engine, 20),
        f'<td class="code">{escape(loops_text(layer.nest))}</td>',
        _number(macs, count_text(macs) if macs else "–"),
        _number(cost.cycles, count_text(cost.cycles)),
        _number(share, _meter(share, "time"), percent_text(share)),
        _split(planned),
        _number(cost.stall_cycles, count_text(cost.stall_cycles)),
        _number(cost.utilization, _meter(cost.utilization, "use") if macs else "–", percent_text(cost.utilization)),
        _number(cost.spatial_utilization, percent_text(cost.spatial_utilization) if macs else "–"),
        _text(limit, 40),
        _number(moved, bytes_text(moved)),
        _number(cost.energy_pj, energy_text(cost.energy_pj)),
        _number(cost.gap, gap_text(planned, "–")),
        f'<td class="code">{escape(mapping)}</td>',
    )
    return f"<tr>{''.join(cells)}</tr>"


def _split(planned: PlannedLayer) -> str:
    """A bar of useful cycles, idle lanes, stalls and waits; all losses as a tooltip. Sorts by the cycles lost."""
    cycles, split = planned.cost.cycles, split_of(planned)
    parts = (("useful", split.useful), ("idle", split.idle_lanes), ("stall", split.stalls), ("wait", split.waits))
    bars = "".join(f'<i class="{name}" style="width:{100 * part / cycles:.1f}%"></i>' for name, part in parts if part)
    title = escape("\n".join((f"{integer_text(split.useful)} cycles useful", *loss_lines(planned))))
    lost = cycles - split.useful
    return f'<td class="number" data-value="{lost}" title="{title}"><span class="split">{bars}</span></td>'


def _number(value: float, shown: str, title: str = "") -> str:
    exact = integer_text(value) if isinstance(value, int) else f"{value:.6g}"
    return f'<td class="number" data-value="{value!r}" title="{title or exact}">{shown}</td>'


def _text(text: str, width: int, kind: str = "") -> str:
    marked = f' class="{kind}"' if kind else ""
    return f'<td{marked} title="{escape(text)}">{escape(shorten(text, width))}</td>'


def _meter(ratio: float, kind: str) -> str:
    """A percentage with a small bar behind it."""
    bar = f'<i style="width:{min(ratio, 1) * 100:.1f}%"></i>'
    return f'<span class="meter {kind}">{bar}<b>{percent_text(ratio)}</b></span>'
