"""What every pass did to every network, kept as a CSV file, and shown as the page docs/evidence/passes.md."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, fields
from importlib.metadata import version
from pathlib import Path

from network_weights import SEED
from pass_trial import TOLERANCE

_VERSIONS = ("onnxruntime", "onnx", "onnx_ir", "numpy")
_WHAT = (
    "Every choice of options of every pass that is EXACT, alone, on every file; no machine is given to them. The",
    "rewritten network and the original file run in onnxruntime, its own rewrites off, on standard normal input",
    f"(seed {SEED}); the difference is max|a - b| / max|b|, the largest over all outputs, and must be below",
    f"{TOLERANCE:g}. The rewritten network passes the ONNX checker with shape inference, and a second run of the",
    "pass applies nowhere and leaves every byte as it was. Control: one weight of the first layer that the pass",
    "wrote is negated (of the first layer of all, if it wrote none); the same comparison must then exceed",
    f"{TOLERANCE:g}. Where the outputs of an untrained network hardly depend on its first layer, its weights were",
    "scaled to the usual deviation, sqrt(2 / fan in), first. Means and variances of BatchNormalization are random",
    "in all files. Reasons are grouped, without names and numbers; build/evidence/passes.csv has every row of the run.",
)


@dataclass(frozen=True)
class Row:
    """One pass on one file. digest: of the file; code: of all code the result depends on. declined: reason -> times.

    step: the pass as `--passes` takes it. seconds: of processor time. problem: why the row does not count, or nothing.
    """

    step: str
    file: str
    digest: str
    code: str
    day: str
    enlivened: bool
    applied: int
    difference: float | None
    control: float | None
    seconds: float
    problem: str
    declined: Mapping[str, int]

    @property
    def key(self) -> tuple[str, str]:
        """What the row is about."""
        return self.step, self.file

    @property
    def network(self) -> str:
        """The file's name without its ending."""
        return Path(self.file).stem

    @property
    def exporter(self) -> str:
        """The folder the file lies in."""
        return Path(self.file).parent.name or "-"

    @classmethod
    def header(cls) -> list[str]:
        """Names of the columns."""
        return [field.name for field in fields(cls)]

    def cells(self) -> list[object]:
        """As the CSV file has it."""
        values = list(astuple(self))
        values[5] = int(self.enlivened)
        values[7:10] = [None if value is None else f"{value:.2g}" for value in values[7:10]]
        return [*values[:-1], json.dumps(self.declined) if self.declined else ""]

    @classmethod
    def of(cls, cells: list[str]) -> Row:
        """Back from the CSV file. Raises ValueError for a line cut short."""
        step, file, digest, code, day, enlivened, applied, difference, control, seconds, problem, declined = cells
        return cls(
            step,
            file,
            digest,
            code,
            day,
            bool(int(enlivened)),
            int(applied),
            float(difference) if difference else None,
            float(control) if control else None,
            float(seconds),
            problem,
            json.loads(declined) if declined else {},
        )


def read_rows(path: Path) -> dict[tuple[str, str], Row]:
    """Rows of earlier runs, the last one about a thing; a line cut short by a killed run is dropped."""
    if not path.exists():
        return {}
    found: dict[tuple[str, str], Row] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for cells in csv.reader(file):
            if cells == Row.header():
                continue
            try:
                row = Row.of(cells)
            except ValueError:
                continue
            found[row.key] = row
    return found


def append_rows(path: Path, rows: Iterable[Row]) -> None:
    """Add lines at the end, below a header in a new file."""
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows(([Row.header()] if is_new else []) + [row.cells() for row in rows])


def page(rows: list[Row], old: int, skipped: list[str]) -> str:
    """The whole page. rows: sorted. old: how many of them are of earlier code. skipped: too large files."""
    by_step: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_step[row.step].append(row)
    bad = [row for row in rows if row.problem]
    lines = ["# Exact passes on published networks", "", *_origin(rows), "", *_WHAT, "", *_summary(rows, by_step), ""]
    if old:
        lines += [f"{old} rows are of earlier states of the code.", ""]
    if skipped:
        lines += [f"Skipped, because they are too large: {', '.join(skipped)}.", ""]
    lines += [*_overview(by_step), ""]
    if bad:
        lines += ["## Failed", "", "| pass | file | why |", "|---|---|---|"]
        lines += [f"| `{row.step}` | {row.file} | {_cell(row.problem)} |" for row in bad] + [""]
    for step, found in by_step.items():
        lines += [f"## {step}", "", *_by_exporter(found), "", *_declined(found)]
    return "\n".join(lines).rstrip("\n") + "\n"


def _origin(rows: list[Row]) -> Iterator[str]:
    days = sorted({row.day for row in rows})
    yield f"{' to '.join(dict.fromkeys((days[0], days[-1])))}, written by `benchmarks/evidence_passes.py`;"
    yield f"{', '.join(f'{name} {version(name)}' for name in _VERSIONS)}."


def _summary(rows: list[Row], by_step: Mapping[str, list[Row]]) -> Iterator[str]:
    files = {row.file: row for row in rows}
    exporters = Counter(row.exporter for row in files.values())
    failed = sum(bool(row.problem) for row in rows)
    applied = [row for row in rows if row.difference is not None and row.control is not None]
    yield (
        f"**{len(by_step)} pass variants x {len(files)} files of {len({row.network for row in rows})} networks** "
        f"({', '.join(f'{name} {count}' for name, count in sorted(exporters.items()))}; weights scaled in "
        f"{sum(row.enlivened for row in files.values())}): {len(rows)} runs, {len(applied)} of them changed the "
        f"network, {failed} failed."
    )
    if applied:
        yield (
            f"Largest difference {max(row.difference or 0.0 for row in applied):.1e}; least of the controls "
            f"{min(row.control or 0.0 for row in applied):.1e}."
        )


def _overview(by_step: Mapping[str, list[Row]]) -> Iterator[str]:
    yield "| pass | " + _HEADER.removeprefix("| exporter | ")
    yield _RULE
    for step, rows in by_step.items():
        yield _line(f"`{step}`", rows)


_HEADER = (
    "| exporter | files | changed | networks changed | places | declined | largest difference | least control "
    "| seconds a file |"
)
_RULE = "|---|" + "---:|" * 8


def _by_exporter(rows: list[Row]) -> Iterator[str]:
    yield _HEADER
    yield _RULE
    for exporter in sorted({row.exporter for row in rows}):
        yield _line(exporter, [row for row in rows if row.exporter == exporter])


def _line(title: str, rows: list[Row]) -> str:
    """A line of a table, with the files the extremes come from."""
    changed = [row for row in rows if row.applied]
    declined = sum(sum(row.declined.values()) for row in rows)
    return (
        f"| {title} | {len(rows)} | {len(changed)} | {len({row.network for row in changed})} "
        f"| {sum(row.applied for row in rows):,} | {declined:,} "
        f"| {_extreme({row.file: row.difference for row in changed}, 1)} "
        f"| {_extreme({row.file: row.control for row in changed}, -1)} "
        f"| {sum(row.seconds for row in rows) / len(rows):.2f} |"
    )


def _extreme(values: Mapping[str, float | None], sign: int) -> str:
    known = {file: value for file, value in values.items() if value is not None}
    if not known:
        return "-"
    file = max(known, key=lambda name: sign * known[name])
    return f"{known[file]:.1e} {file.removesuffix('.onnx')}"


def _declined(rows: list[Row]) -> Iterator[str]:
    """Reasons, commonest first, with the networks; places counted in all files."""
    places: Counter[str] = Counter()
    networks: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        for reason, times in row.declined.items():
            text = re.sub(r"\b\d+(\.\d+)?(x\d+)*\b", "N", reason)
            places[text] += times
            networks[text].add(row.network)
    if not places:
        yield from ("It declined nowhere.", "")
        return
    yield from ("| declined, because | places | networks | which |", "|---|---:|---:|---|")
    for reason, times in places.most_common():
        names = sorted(networks[reason])
        yield f"| {_cell(reason)} | {times:,} | {len(names)} | {', '.join(names)} |"
    yield ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
