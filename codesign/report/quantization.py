"""What quantisation did to the numbers, in words and as a table."""

from __future__ import annotations

from html import escape

from codesign.planning.plan import Plan
from codesign.report.numbers import count_text, percent_text, shorten
from codesign.rewriting.record import QuantizationRecord, TensorNoise


def quantization_of(plan: Plan) -> QuantizationRecord | None:
    """Of the first pass that quantised, or None."""
    return next((record.quantization for record in plan.passes if record.quantization is not None), None)


def calibration_text(record: QuantizationRecord) -> str:
    """What activations were measured on; made-up data says so."""
    warning = "; NOT REAL DATA: these figures say nothing about real inputs" if record.synthetic else ""
    return f"measured on {shorten(record.calibration, 120)}{warning}"


def quantization_lines(plan: Plan) -> list[str]:
    """For the terminal: the data, outputs, saturation, and the worst layers."""
    record = quantization_of(plan)
    if record is None:
        return []
    outputs = [f"output {shorten(noise.tensor, 60)}: {sqnr_text(noise)}" for noise in record.outputs]
    worst = [f"   {shorten(noise.layer, 60)}: {sqnr_text(noise)}, {saturation_text(noise)}" for noise in record.worst]
    numbers = f"{count_text(record.saturated)} of {count_text(record.numbers)} numbers saturated"
    heading = [f"signal to noise, the {len(worst)} worst of {len(record.layers)} tensors:"] if worst else []
    return [calibration_text(record), *outputs, numbers, *heading, *worst]


def quantization_html(plan: Plan) -> str:
    """A section with one row for every quantised tensor, the worst first; nothing without quantisation."""
    record = quantization_of(plan)
    if record is None:
        return ""
    outputs = "".join(f"<li><b>{escape(noise.tensor)}</b>: {sqnr_text(noise)}</li>" for noise in record.outputs)
    order = {noise.tensor: at for at, noise in enumerate(record.worst)}
    rows = [_row(noise) for noise in sorted(record.layers, key=lambda noise: order.get(noise.tensor, len(order)))]
    numbers = "".join(f'<th class="number">{name}</th>' for name in ("bits", "fraction bits", "SQNR", "saturated"))
    table = (
        f"<table><thead><tr><th>layer</th><th>tensor</th>{numbers}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )
    text = f"<p>Signal to quantisation noise (SQNR), {escape(calibration_text(record))}.</p><ul>{outputs}</ul>"
    return f'<section><h2>Quantisation</h2>{text}<div class="scroll">{table}</div></section>'


def _row(noise: TensorNoise) -> str:
    names = f"<td>{escape(shorten(noise.layer, 60))}</td><td>{escape(shorten(noise.tensor, 60))}</td>"
    figures = (str(noise.bits), str(noise.fraction_bits), sqnr_text(noise), percent_text(_share(noise)))
    return f"<tr>{names}{''.join(f'<td class=number>{figure}</td>' for figure in figures)}</tr>"


def sqnr_text(noise: TensorNoise) -> str:
    """`31.4 dB`."""
    return "exact" if noise.sqnr_db is None else f"{noise.sqnr_db:.1f} dB"


def saturation_text(noise: TensorNoise) -> str:
    """`0.1 % saturated`."""
    return f"{percent_text(_share(noise))} saturated"


def _share(noise: TensorNoise) -> float:
    return noise.saturated / noise.numbers if noise.numbers else 0.0
