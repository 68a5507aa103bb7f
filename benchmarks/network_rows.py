"""What is measured of a network, kept as JSON lines, and shown as the page docs/evidence/networks.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from network_weights import SEED
from pydantic import BaseModel, ConfigDict

TOLERANCE = 1e-4
_VERSIONS = ("apache-tvm", "onnxruntime", "onnx", "numpy")
_WHAT = (
    "Every network is compiled, and what `codesign run` gives is held against onnxruntime on the original file, on",
    f"standard normal input (seed {SEED}). Differences are max|a - b| / max|b|: the largest over all outputs, and over",
    "what convolutions and matrix products write, where the original has a tensor of that name. The control holds the",
    f"same outputs against the original with one weight of its first layer negated: it must exceed {TOLERANCE:g}.",
    "Weights scaled: untrained and so deep that only its biases reach the outputs, the same for every input. Equal",
    "outputs would prove nothing, so it was compared once more with weights scaled to the usual deviation,",
    "sqrt(2 / fan in), and everything but the column `as exported` is about that copy.",
    "On the host: layers at the end of a detector that picks boxes. Compared is what they are handed and what they",
    "make of the original's scores: untrained ones are so alike that the smallest difference picks other boxes.",
    "Seconds are processor time. Utilisation: MACs over all cycles at the machine's peak.",
)


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Comparison(Part):
    """Relative differences of one network. outputs: largest over all outputs; layers: largest over what convolutions
    and matrix products write, and worst_layer which. control: the outputs against a model with one weight negated.

    spread: least standard deviation over largest magnitude of an output.
    """

    outputs: float
    layers: float
    worst_layer: str
    control: float
    spread: float


class Measurement(Part):
    """One network. enlivened: its weights were scaled first. nodes: of the original file; layers: of the plan; mapped:
    those on an array engine; proven: those of them whose mapping is proven best; host: those on the host. *_seconds:
    of processor time. as_exported: relative difference of the outputs of the file as it is, where `compared` is about
    scaled weights."""

    enlivened: bool
    nodes: int
    layers: int
    macs: int
    mapped: int
    proven: int
    host: int
    cycles: int
    utilization: float
    import_seconds: float
    plan_seconds: float
    schedule_seconds: float
    build_seconds: float
    compared: Comparison
    as_exported: float | None = None

    @property
    def fault(self) -> str:
        """What is wrong with the numbers, or nothing."""
        found = self.compared
        if not found.outputs < TOLERANCE:
            return f"the outputs differ by {found.outputs:.1e}"
        if not found.layers < TOLERANCE:
            return f"{found.worst_layer} differs by {found.layers:.1e}"
        if self.as_exported is not None and not self.as_exported < TOLERANCE:
            return f"the outputs differ by {self.as_exported:.1e} as exported"
        if found.spread == 0:
            return "every value of an output is the same: this proves nothing"
        if not found.control > TOLERANCE:
            return f"a negated weight changes the outputs by {found.control:.1e} only: not caught"
        return ""


class Row(Part):
    """One file on one machine. code: digest of the code that did it. problem: why there is no measurement."""

    file: str
    file_bytes: int
    hardware: str
    code: str
    day: str
    problem: str = ""
    measurement: Measurement | None = None

    @property
    def key(self) -> tuple[str, int, str]:
        """What must be the same for a row to be about the same thing."""
        return self.file, self.file_bytes, self.hardware

    @property
    def network(self) -> str:
        """The file's name without its ending."""
        return Path(self.file).stem

    @property
    def exporter(self) -> str:
        """The folder the file lies in."""
        return Path(self.file).parent.name or "-"

    @property
    def failure(self) -> str:
        """Why this row does not count, or nothing."""
        return self.problem or (self.measurement.fault if self.measurement else "not measured")


def table(rows: list[tuple[Row, Measurement]]) -> Iterator[str]:
    """Lines of a Markdown table."""
    yield (
        "| network | exporter | weights | nodes | MACs | layers mapped / proven | on the host | plan s | schedule s "
        "| build s | outputs as exported | outputs compared | worst layer | one weight negated | cycles | utilisation |"
    )
    yield "|---|---|---|" + "---:|" * 13
    for row, found in rows:
        compared = found.compared
        exported = compared.outputs if not found.enlivened else found.as_exported
        as_exported = "-" if exported is None else f"{exported:.1e}"
        yield (
            f"| {row.network} | {row.exporter} | {'scaled' if found.enlivened else 'as exported'} "
            f"| {found.nodes} | {found.macs:,} | {found.mapped} / {found.proven} "
            f"| {found.host} | {found.plan_seconds:.1f} | {found.schedule_seconds:.1f} | {found.build_seconds:.1f} "
            f"| {as_exported} | {compared.outputs:.1e} | {compared.layers:.1e} | {compared.control:.1e} "
            f"| {found.cycles:,} | {found.utilization:.1%} |"
        )


def page(rows: list[Row], hardware: str) -> str:
    """The whole page: what was compared, the networks that are equal, those that failed and why."""
    good = [(row, row.measurement) for row in rows if row.measurement and not row.failure]
    bad = [row for row in rows if row.failure]
    lines = ["# Networks compiled and run against onnxruntime", "", *_origin(rows, hardware), "", *_WHAT, ""]
    lines += [*_summary(good, len(bad)), "", *table(good), ""]
    if bad:
        lines += ["## Failed", "", "| network | exporter | why |", "|---|---|---|"]
        lines += [f"| {row.network} | {row.exporter} | {_cell(row.failure)} |" for row in bad] + [""]
    return "\n".join(lines)


def _origin(rows: list[Row], hardware: str) -> Iterator[str]:
    days = sorted({row.day for row in rows})
    states = len({row.code for row in rows})
    yield f"{' to '.join(dict.fromkeys((days[0], days[-1])))}, written by `benchmarks/evidence_networks.py`."
    yield f"Machine {hardware}{f'; by {states} states of the code' if states > 1 else ''};"
    yield f"{', '.join(f'{name} {version(name)}' for name in _VERSIONS)}."


def _summary(good: list[tuple[Row, Measurement]], failed: int) -> Iterator[str]:
    names = len({row.network for row, _ in good})
    yield f"{len(good)} files of {names} networks are equal ({_per_exporter(good)}); {failed} failed."
    if good:
        worst = max(found.compared.outputs for _, found in good)
        control = min(found.compared.control for _, found in good)
        yield f"Largest difference of outputs {worst:.1e}; least of the controls {control:.1e}."


def _per_exporter(good: list[tuple[Row, Measurement]]) -> str:
    counted = Counter(row.exporter for row, _ in good)
    return ", ".join(f"{exporter} {count}" for exporter, count in sorted(counted.items()))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
