"""What `codesign stream` prints: every stage, the slowest one, images a second, and what was not counted."""

from __future__ import annotations

from codesign.folding.fastest import Choice
from codesign.folding.pipeline import Passing, StreamingPipeline
from codesign.hardware.fit_listing import aligned
from codesign.hardware.resources import RESOURCES, Amounts

_HEADINGS = ("layer", "operator", "PE", "SIMD", "cycles", "DSP", "RAM 18 Kb", "LUT", "")
_NOT_COUNTED = "queues between stages, thresholds, layers without multipliers, the interface to memory"


def pipeline_text(pipeline: StreamingPipeline, clock_mhz: float) -> str:
    """The table of stages and the summary, lines of plain text. clock_mhz: of all stages."""
    target, interval = pipeline.target, pipeline.interval_cycles
    slowest = next(choice for choice in pipeline.choices if choice.cycles == interval)
    rows = [_row(pipeline, stage, stage is slowest) for stage in pipeline.stages]
    rows += [("total", "", "", "", f"{interval:,}", *_cells(pipeline.amounts), "")]
    rows += [("budget", "", "", "", "", *_cells(pipeline.budget), "")]
    weights = sum(choice.stage.weights for choice in pipeline.choices)
    how = "several narrow products" if target.how.packed else "one product"
    return "\n".join(
        [
            f"{pipeline.name} on {target.board.name}: weights and activations of {target.bits} bits",
            "",
            *aligned([_HEADINGS, *rows], left=(0, 1, len(_HEADINGS) - 1)),
            "",
            f"one image every {interval:,} cycles, {clock_mhz * 1e6 / interval:,.0f} a second at {clock_mhz:g} MHz; "
            f"no folding within the budget is faster",
            f"slowest: {slowest.stage.layer.name}; weights on chip: {weights:,} x {target.bits} bits",
            f"assumed: {how} in a DSP slice; LUTs: {_luts(pipeline)}",
            f"not counted: {_NOT_COUNTED}",
        ]
    )


def _luts(pipeline: StreamingPipeline) -> str:
    if pipeline.target.board.lut_inputs == 6:
        return "formulas of FINN-R"
    return f"not counted, the formulas of FINN-R are for 6 inputs; {pipeline.amounts.storage_bits:,} {RESOURCES[3]}"


def _row(pipeline: StreamingPipeline, stage: Choice | Passing, slowest: bool) -> tuple[str, ...]:
    if isinstance(stage, Passing):
        width = pipeline.width(stage)
        note = f"{width:,} a cycle: {stage.note}" if stage.elements else stage.note
        return (stage.layer.name, stage.layer.op, "", "", "", *_cells(Amounts()), note)
    folding, note = stage.folding, ""
    if slowest:
        note = "slowest" if stage.cycles == stage.stage.unit_cycles(folding) else "slowest: its window generator"
    figures = (f"{folding.pe:,}", f"{folding.simd:,}", f"{stage.cycles:,}")
    return (stage.stage.layer.name, stage.stage.layer.op, *figures, *_cells(stage.amounts), note)


def _cells(amounts: Amounts) -> tuple[str, str, str]:
    """DSP slices, block RAMs, LUTs."""
    dsp_slices, rams, luts, _ = (f"{amount:,}" if amount else "-" for amount in amounts.all)
    return dsp_slices, rams, luts
