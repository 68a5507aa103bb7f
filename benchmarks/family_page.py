"""The page docs/evidence/families.md: every network from import to int8, and every family as counts of them."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

from family_rows import MACHINES, STAGES, Compiled, Counted, Mapped, Quantized, Rewritten, Row

REFERENCE = Path(__file__).resolve().parents[1] / "docs/evidence/architectures.csv"
_WHAT = (
    "Imports: layers found; MACs and parameters against those counted in the network's own package",
    "(architectures.csv), where there is one; [counts.md](counts.md) accounts for every difference of parameters.",
    "Passes: places where `default` rewrote the network, and the relative difference of its outputs by onnxruntime.",
    "Maps: machines it is costed on with every mapping proven best, and machines on which layers are left to the host.",
    "Compiles: the library for edge_npu against onnxruntime on the file itself, outputs and what every product writes.",
    "A negated weight must be seen wherever numbers are compared. int8: `default,quantize`, calibrated and judged on",
    "Gaussian noise, signal to noise of the worst output, and steps that stay in floating point. Weights are random,",
    "and were scaled first where outputs hardly depend on the input.",
    "A cell is empty where nothing was measured yet.",
)

ByStage = dict[str, Row]


def page(rows: list[Row]) -> str:
    """The whole page."""
    networks = {key: {row.stage: row for row in group} for key, group in _grouped(rows)}
    done = [stages for stages in networks.values() if "imports" in stages and not stages["imports"].failure]
    equal = [stages for stages in done if "compiles" in stages and not stages["compiles"].failure]
    days = sorted({row.day for row in rows})
    lines = ["# Families of networks, from import to int8", ""]
    lines += [
        f"{' to '.join(dict.fromkeys((days[0], days[-1])))}, written by `benchmarks/evidence_families.py`; "
        f"by {len({row.code for row in rows})} states of the code.",
        f"Machines: {', '.join(MACHINES)}. onnxruntime {version('onnxruntime')}.",
        "",
        *_WHAT,
        "",
        f"{len(done)} networks import; {len(equal)} compiled ones agree with onnxruntime.",
        "",
        *_families(networks),
        "",
        "## Networks",
        "",
        *_table(networks),
    ]
    failed = [row for row in rows if row.failure]
    if failed:
        lines += ["", "## Failed", "", "| network | from | stage | why |", "|---|---|---|---|"]
        lines += [f"| {row.network} | {row.origin} | {row.stage} | {_escaped(row.failure)} |" for row in failed]
    return "\n".join(lines) + "\n"


def _grouped(rows: list[Row]) -> Iterator[tuple[tuple[str, str, str], list[Row]]]:
    def key(row: Row) -> tuple[str, str, str]:
        return row.family, row.network, row.origin

    for found, group in groupby(sorted(rows, key=key), key):
        yield found, list(group)


def _families(networks: dict[tuple[str, str, str], ByStage]) -> Iterator[str]:
    yield f"| family | networks | {' | '.join(STAGES)} |"
    yield "|---|---:|" + "---:|" * len(STAGES)
    for family, group in groupby(networks.items(), key=lambda item: item[0][0]):
        members = [stages for _, stages in group]
        cells = []
        for stage in STAGES:
            tried = [stages[stage] for stages in members if stage in stages]
            good = sum(not row.failure for row in tried)
            cells.append("" if not tried else f"{good}" if good == len(tried) else f"{good} of {len(tried)}")
        yield f"| {family} | {len(members)} | {' | '.join(cells)} |"


def _table(networks: dict[tuple[str, str, str], ByStage]) -> Iterator[str]:
    with REFERENCE.open(encoding="utf-8", newline="") as file:
        counted = {row["name"]: row for row in csv.DictReader(file)}
    yield f"| network | from | image | MACs | parameters | {' | '.join(STAGES)} |"
    yield "|---|---|---|---:|---:|" + "---|" * len(STAGES)
    for (_, name, origin), stages in networks.items():
        first = stages["imports"].found if "imports" in stages else None
        image, macs, parameters = "", "", ""
        if isinstance(first, Counted):
            image = "x".join(map(str, first.image[1:]))
            macs, parameters = f"{first.macs:,}", f"{first.parameters:,}"
        cells = [_cell(stages.get(stage), counted.get(name, {})) for stage in STAGES]
        yield f"| {name} | {origin} | {image} | {macs} | {parameters} | {' | '.join(cells)} |"


def _cell(row: Row | None, reference: dict[str, str]) -> str:
    if row is None:
        return ""
    if row.failure:
        return "**failed**"
    match row.found:
        case Counted() as found:
            return f"{found.layers} layers{_against(found, reference)}"
        case Rewritten() as found:
            return f"{found.applied} places, {found.difference:.1e}"
        case Mapped() as found:
            hosts = sum(cost.host > 0 for cost in found.machines.values())
            return f"{len(found.machines)}" + (f", host on {hosts}" if hosts else "")
        case Compiled() as found:
            return f"{found.difference:.1e}"
        case Quantized() as found:
            level = "equal" if found.output_db is None else f"{found.output_db:.1f} dB"
            return level + (f", {found.floating} float of {found.integer + found.floating}" if found.floating else "")
    raise AssertionError(row)


def _against(found: Counted, reference: dict[str, str]) -> str:
    if not reference.get("macs_measured"):
        return ""
    macs, parameters = int(reference["macs_measured"]), int(reference["params_measured"])
    parts = [
        f"{what} {number:+,}"
        for what, number in (("MACs", found.macs - macs), ("parameters", found.parameters - parameters))
        if number
    ]
    return "; " + (", ".join(parts) if parts else "counts equal")


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")
