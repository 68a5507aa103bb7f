"""`codesign explain --json`: the same as data."""

from __future__ import annotations

from collections.abc import Sequence

from codesign.mapping.objective import objective_named
from codesign.planning.explaining import ExplainedLayer, Figures, Outcome
from codesign.planning.plan import Plan
from codesign.report.explanation import outcome_text
from codesign.report.json_report import report_of
from codesign.report.schema import File, LayerReport, Part


class FiguresReport(Part):
    """What the layer costs."""

    macs: int
    cycles: int
    energy_pj: float
    off_chip_bytes: int


class ChangeReport(Part):
    """One thing changed, and what the layer costs then."""

    text: str
    """Change and effect in words: `32 input channels instead of 24: -25.0 % cycles per MAC (...)`."""
    kind: str
    """`layer`, `memory`, `buffering`, `port`, `requests`, `axis`, `unrolls` or `unit`."""
    where: str
    """Dimensions of the layer, or the dotted path of a figure of the machine."""
    before: float
    after: float
    gain: float
    """Share of the objective per MAC that is saved."""
    figures: FiguresReport
    proven: bool
    """Both schedules are proven best."""


class LayerExplanation(Part):
    """A layer as in report.json, and the changes that help it, the most helpful first."""

    layer: LayerReport
    figures: FiguresReport
    tried: int
    changes: list[ChangeReport]


class ExplanationReport(Part):
    """Why layers cost what they cost."""

    codesign: str
    model: File
    hardware: File
    objective: str
    layers: list[LayerExplanation]


def explanation_json(plan: Plan, layers: Sequence[ExplainedLayer]) -> str:
    """All explained layers as indented JSON."""
    report = report_of(plan)
    by_name = {layer.name: layer for layer in report.layers}
    explained = [
        LayerExplanation(
            layer=by_name[part.planned.layer.name],
            figures=_figures(part.before),
            tried=part.tried,
            changes=[_change(plan, outcome) for outcome in part.outcomes],
        )
        for part in layers
    ]
    whole = ExplanationReport(
        codesign=plan.codesign,
        model=report.model,
        hardware=report.hardware,
        objective=plan.objective,
        layers=explained,
    )
    return whole.model_dump_json(indent=1) + "\n"


def _figures(figures: Figures) -> FiguresReport:
    return FiguresReport(
        macs=figures.macs,
        cycles=figures.cycles,
        energy_pj=figures.energy_pj,
        off_chip_bytes=figures.off_chip_bytes,
    )


def _change(plan: Plan, outcome: Outcome) -> ChangeReport:
    objective = objective_named(plan.objective)
    change = outcome.change
    return ChangeReport(
        text=outcome_text(outcome, objective, plan.off_chip),
        kind=str(change.kind),
        where=change.where,
        before=change.before,
        after=change.after,
        gain=outcome.gain(objective),
        figures=_figures(outcome.after),
        proven=outcome.proven,
    )
