"""Plan -> report.csv: one row per layer, for spreadsheets and pandas. Columns are only ever added at the end."""

from __future__ import annotations

import csv
import io

from codesign.planning.plan import Plan, PlannedLayer
from codesign.report.facts import loss_lines, off_chip_bytes
from codesign.report.mapping_text import mapping_text
from codesign.vocabulary import DIMENSIONS

COLUMNS = (
    "number",
    "name",
    "op",
    "kind",
    "engine",
    *(str(dimension) for dimension in DIMENSIONS),
    "macs",
    "params",
    "cycles",
    "compute_cycles",
    "stall_cycles",
    "fill_drain_cycles",
    "utilization",
    "spatial_utilization",
    "temporal_utilization",
    "limited_by",
    "energy_pj",
    "dram_bytes",
    "on_chip_bytes",
    "bound_cycles",
    "gap",
    "proven",
    "fused_into",
    "repeats_of",
    "mapping",
    "given",
    "constrained",
    "ideal_cycles",
    "losses",
)
# A spreadsheet runs a cell that starts with one of these as a formula; names come from models nobody here made.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def report_csv(plan: Plan) -> str:
    """report.csv with a header line; ratios are plain numbers, not percentages."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for number, layer in enumerate(plan.layers, 1):
        writer.writerow(_row(plan, number, layer))
    return text.getvalue()


def _row(plan: Plan, number: int, planned: PlannedLayer) -> list[object]:
    layer, cost = planned.layer, planned.cost
    return [
        number,
        _text(layer.name),
        _text(layer.op),
        str(layer.nest.kind),
        planned.engine,
        *layer.nest.sizes,
        layer.nest.macs,
        layer.parameters,
        cost.cycles,
        cost.compute_cycles,
        cost.stall_cycles,
        cost.fill_drain_cycles,
        cost.utilization,
        cost.spatial_utilization,
        cost.temporal_utilization,
        cost.limited_by,
        cost.energy_pj,
        off_chip_bytes(plan, planned),
        cost.on_chip_bytes,
        cost.bound_cycles,
        cost.gap,
        str(cost.proven).lower(),
        _text(planned.fused_into),
        _text(planned.repeats_of),
        mapping_text(cost.mapping) if cost.mapping is not None else "",
        _text(planned.given),
        _text(planned.constrained),
        planned.ideal_cycles,
        "; ".join(loss_lines(planned)),
    ]


def _text(name: str) -> str:
    """A name no spreadsheet takes for a formula."""
    return f"'{name}" if name.startswith(_FORMULA) else name
