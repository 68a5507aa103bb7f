"""What is kept of every advice and of every compilation that confirms it, and the page docs/evidence/advice.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

LIMIT_SECONDS = 30.0
_WHAT = (
    "`codesign advise` says what every rewrite would save. The baseline, every rewrite that saves alone, and the two",
    "suggestions are compiled: `codesign compile --passes ...` reads MACs, elements moved and tile sizes back off the",
    "scheduled TIR and fails unless they are what was charged. Cycles, energy and off-chip bytes of its plan are then",
    "held against what advice predicted, digit by digit. Control: the compiled baseline held against every other",
    "prediction must differ. Seconds are processor time from the start of the process; advice remembers no search from",
    "before.",
)


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Figures(Part):
    """Of one inference."""

    cycles: int
    energy_pj: float
    dram_bytes: int

    def saving_text(self, before: Figures) -> str:
        """Cycles, energy and off-chip traffic against others: `-43.2 %, -38.9 %, -43.2 %`."""
        pairs = (
            (self.cycles, before.cycles),
            (self.energy_pj, before.energy_pj),
            (self.dram_bytes, before.dram_bytes),
        )
        return ", ".join(f"{100 * (new / old - 1):+.1f} %" if old else "-" for new, old in pairs)


class Advised(Part):
    """One run of `codesign advise`. seconds: of processor time, start included, nothing remembered from before.

    confirm: what must be compiled, by what stands behind --passes: the baseline, every rewrite that saves alone, and
    the two suggestions.
    """

    seconds: float
    tried: int
    gaining: int
    exact: str
    all: str
    confirm: dict[str, Figures]


class Compiled(Part):
    """One run of `codesign compile`: figures of plan.json, and how many layers were read back off scheduled TIR."""

    seconds: float
    layers: int
    figures: Figures


class Row(Part):
    """One command on one file and one machine. passes: what stood behind --passes; empty for `advise`."""

    file: str
    file_bytes: int
    hardware: str
    passes: str
    code: str
    day: str
    problem: str = ""
    advised: Advised | None = None
    compiled: Compiled | None = None

    @property
    def key(self) -> tuple[str, int, str, str, str]:
        """What must be the same for a row to stand."""
        return self.file, self.file_bytes, self.hardware, self.passes, self.code


class Case(Part):
    """A network on a machine: the advice, and every compilation that was to confirm it, in order."""

    advice: Row
    compiled: tuple[Row, ...]

    @property
    def faults(self) -> list[str]:
        """What does not hold."""
        where, advised = f"{self.advice.file} on {self.advice.hardware}", self.advice.advised
        if advised is None:
            return [f"{where}: {self.advice.problem}"]
        slow = [f"{where}: took {advised.seconds:.1f} s"] if advised.seconds >= LIMIT_SECONDS else []
        wrong = [(row, verdict(row, advised)) for row in self.compiled]
        return [*slow, *(f"{where}: {row.passes}: {text}" for row, text in wrong if text != "equal")]


def verdict(row: Row, advised: Advised) -> str:
    """`equal`, or what differs."""
    if row.compiled is None:
        return row.problem
    predicted, found = advised.confirm[row.passes], row.compiled.figures
    differing = [name for name in Figures.model_fields if getattr(predicted, name) != getattr(found, name)]
    return ", ".join(f"{name} {getattr(found, name):,}" for name in differing) or "equal"


def page(cases: Sequence[Case]) -> str:
    """The whole page."""
    days = sorted({row.day for case in cases for row in (case.advice, *case.compiled)})
    rows = [row for case in cases for row in case.compiled]
    equal = sum(
        case.advice.advised is not None and verdict(row, case.advice.advised) == "equal"
        for case in cases
        for row in case.compiled
    )
    layers = sum(row.compiled.layers for row in rows if row.compiled is not None)
    lines = [
        "# Advice, confirmed by compiling",
        "",
        f"{' to '.join(dict.fromkeys((days[0], days[-1])))}, written by `benchmarks/evidence_advice.py`.",
        *_WHAT,
        "",
        f"{equal} of {len(rows)} predictions equal what compiling gives, over {layers:,} scheduled layers;"
        f" {sum(_control(case) for case in cases)} of {sum(len(case.compiled) - 1 for case in cases)} controls differ.",
        "",
        "## Advice",
        "",
        "Changes of cycles, energy, off-chip bytes against the network without any pass.",
        "",
        "| network | machine | rewrites tried | that save | EXACT ones | change | all | change | seconds |",
        "|---|---|---:|---:|---|---|---|---|---:|",
        *(_advice_line(case.advice) for case in cases),
        "",
        "## Predicted and compiled",
        "",
        "| network | machine | `--passes` | cycles | energy | off-chip bytes | compiled | layers | seconds |",
        "|---|---|---|---:|---:|---:|---|---:|---:|",
        *(_compiled_line(case.advice, row) for case in cases for row in case.compiled),
        "",
    ]
    return "\n".join(lines)


def _control(case: Case) -> int:
    """How many predictions the compiled baseline does not fulfil (of those that are not the baseline's)."""
    baseline = next((row.compiled for row in case.compiled if row.passes == "none"), None)
    if baseline is None or case.advice.advised is None:
        return 0
    return sum(
        case.advice.advised.confirm[row.passes] != baseline.figures for row in case.compiled if row.passes != "none"
    )


def _advice_line(row: Row) -> str:
    name = Path(row.file).with_suffix("").as_posix()
    if row.advised is None:
        return f"| {name} | {row.hardware} | | | {row.problem} | | | | |"
    told, base = row.advised, row.advised.confirm["none"]
    changes = [told.confirm[passes].saving_text(base) for passes in (told.exact, told.all)]
    same = told.all == told.exact
    exact, everything = f"`{told.exact}`", "the same" if same else f"`{told.all}`"
    return (
        f"| {name} | {row.hardware} | {told.tried} | {told.gaining} | {exact} | {changes[0]} | {everything} "
        f"| {'' if same else changes[1]} | {told.seconds:.1f} |"
    )


def _compiled_line(advice: Row, row: Row) -> str:
    assert advice.advised is not None
    predicted = advice.advised.confirm[row.passes]
    count, seconds = ("", "") if row.compiled is None else (str(row.compiled.layers), f"{row.compiled.seconds:.0f}")
    return (
        f"| {Path(row.file).with_suffix('').as_posix()} | {row.hardware} | `{row.passes}` | {predicted.cycles:,} "
        f"| {predicted.energy_pj / 1e6:,.3f} uJ | {predicted.dram_bytes:,} | {verdict(row, advice.advised)} | {count} "
        f"| {seconds} |"
    )
