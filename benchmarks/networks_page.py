"""Writes docs/networks.md: every network of the papers, printed against measured, and what it costs on five machines.

    python benchmarks/networks_page.py [--cache FILE.jsonl] [--output FILE.md]

Printed figures: codesign/networks/published. Measured ones: rows of `benchmarks/evidence_families.py`.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from family_rows import MACHINES, Counted, Mapped, Row, read_rows

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = ROOT / "codesign/networks/published"
MILLION, GIGA = 1e6, 1e9
COMPARED = ("ecnn", "gemmini16", "edge_npu")  # where the hardware-friendly networks are held against the others
_PAPERS = {
    "survey": "Designing lightweight CNNs (survey)",
    "elite": "EfficientNet-eLite and -HF",
    "review": "Modern small networks (review)",
    "lecture": "Lightweight architectures (lecture)",
}


@dataclass(frozen=True)
class Measured:
    """A network as we have it. statistics: running means and variances."""

    origin: str
    parameters: int
    statistics: int
    macs: int
    costs: Mapped | None


@dataclass(frozen=True)
class Printed:
    """A printed figure as it stands, in its unit; and what we have, in the same unit."""

    text: str
    measured: float | None

    @property
    def verdict(self) -> str:
        """How the two agree: `as printed`, `truncated`, or the difference in percent; empty when one is missing."""
        if not self.text or self.measured is None:
            return ""
        digits = len(self.text.partition(".")[2])
        wanted = float(self.text)
        if round(self.measured, digits) == wanted:
            return "as printed"
        if int(self.measured * 10**digits) / 10**digits == wanted:
            return "cut off"
        return f"{self.measured / wanted - 1:+.1%}"

    @property
    def differs(self) -> bool:
        return "%" in self.verdict


def measured(rows: list[Row]) -> dict[str, Measured]:
    """Networks by name; of two with one name ours."""
    found: dict[str, Measured] = {}
    for row in sorted(rows, key=lambda row: row.origin != "codesign"):
        if row.stage == "imports" and isinstance(counts := row.found, Counted) and row.network not in found:
            mapped = next(
                (other.found for other in rows if other.stage == "maps" and _same(other, row) and other.found), None
            )
            costs = mapped if isinstance(mapped, Mapped) else None
            found[row.network] = Measured(row.origin, counts.parameters, counts.statistics, counts.macs, costs)
    return found


def _same(one: Row, other: Row) -> bool:
    return (one.network, one.origin) == (other.network, other.origin)


def read(name: str) -> list[dict[str, str]]:
    """Rows of a published table."""
    with (PUBLISHED / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def paper_table(paper: str, networks: dict[str, Measured]) -> Iterator[str]:
    """Lines of a Markdown table: one paper's rows."""
    yield "| table | row | top-1, printed | M parameters, printed | measured | | G MACs, printed | measured | | from | why |"
    yield "|---|---|---:|---:|---:|---|---:|---:|---|---|---|"
    for row in read("papers.csv"):
        if row["paper"] != paper:
            continue
        found = networks.get(row["network"])
        parameters = Printed(row["parameters_m"], found and found.parameters / MILLION)
        macs = Printed(row["macs_g"], found and found.macs / GIGA)
        cells = [row["table"], row["row"], row["top1_percent"]]
        for figure in (parameters, macs):
            number = "" if figure.measured is None else f"{figure.measured:.4g}"
            cells += [figure.text, number, figure.verdict]
        why = row["why"] if parameters.differs or macs.differs or found is None else ""
        if found is None and not why:
            why = "not measured yet"
        yield f"| {' | '.join([*cells, found.origin if found else '', why])} |".replace("G=C", "G=C")


def cost_table(networks: dict[str, Measured]) -> Iterator[str]:
    """Lines of a Markdown table: cycles, utilisation and energy of every network on every machine."""
    yield f"| network | from | G MACs | {' | '.join(f'{name}: M cycles | utilisation | mJ' for name in MACHINES)} |"
    yield "|---|---|---:|" + "---:|" * 3 * len(MACHINES)
    for name, found in sorted(networks.items()):
        if found.costs is None:
            continue
        cells = []
        for machine in MACHINES:
            cost = found.costs.machines[machine]
            if cost.problem:
                cells += ["does not fit", "", ""]
            else:
                star = "*" if cost.host else ""
                cells += [f"{cost.cycles / MILLION:.3g}{star}", f"{cost.utilization:.1%}", f"{cost.energy_uj / 1e3:.3g}"]
        yield f"| {name} | {found.origin} | {found.macs / GIGA:.3g} | {' | '.join(cells)} |"


def hardware_friendly(networks: dict[str, Measured]) -> Iterator[str]:
    """Lines: every HF network against the eLite network of the nearest MACs, on three machines."""
    friendly = {name: found for name, found in networks.items() if name.startswith("efficientnet_hf") and found.costs}
    others = {name: found for name, found in networks.items() if name.startswith("efficientnet_elite") and found.costs}
    if not friendly or not others:
        yield "Not measured yet."
        return
    yield (
        "| HF | eLite | M MACs | top-1, printed | machine | M cycles | ratio | cycles per MAC, ratio | utilisation | mJ "
        "| ratio | energy per MAC, ratio |"
    )
    yield "|---|---|---|---|---|---|---:|---:|---|---|---:|---:|"
    top = {row["name"]: row["top1_percent"] for row in read("elite.csv")}
    for name, ours in sorted(friendly.items()):
        near = min(others, key=lambda other: abs(others[other].macs / ours.macs - 1))
        theirs = others[near]
        assert ours.costs and theirs.costs
        for machine in COMPARED:
            one, other = ours.costs.machines[machine], theirs.costs.machines[machine]
            share = theirs.macs / ours.macs
            cycles, energy = one.cycles / other.cycles, one.energy_uj / other.energy_uj
            yield (
                f"| {name} | {near} | {ours.macs / MILLION:.1f}, {theirs.macs / MILLION:.1f} "
                f"| {top.get(name, '')}, {top.get(near, '')} | {machine} "
                f"| {one.cycles / MILLION:.2f}, {other.cycles / MILLION:.2f} | {cycles:.2f} | **{cycles * share:.2f}** "
                f"| {one.utilization:.1%}, {other.utilization:.1%} "
                f"| {one.energy_uj / 1e3:.2f}, {other.energy_uj / 1e3:.2f} | {energy:.2f} | **{energy * share:.2f}** |"
            )


def page(rows: list[Row]) -> str:
    """The whole page."""
    networks = measured(rows)
    lines = ["# Networks", "", f"{date.today().isoformat()}, written by `benchmarks/networks_page.py`.", ""]
    lines += [
        "What four papers print of the networks they compare, what the networks have when they are counted, and what no",
        "paper gives: cycles, utilisation and energy on five machines. `from` is where the network comes from: `codesign`",
        "is a generator of ours (`codesign networks list`), the others are packages it was exported from. Accuracies are",
        "those the papers print, on ImageNet; none is ours. Papers say FLOPs and mean multiply-accumulates. Parameters are",
        "learned ones, without running means and variances; the eLite paper counts those too. As printed: equal in the",
        "printed digits; cut off: equal when further digits are dropped, not rounded.",
        "",
    ]
    for paper, title in _PAPERS.items():
        lines += [f"## {title}", ""]
        if paper == "elite":
            lines += [*elite_table(networks), ""]
        lines += [*paper_table(paper, networks), ""]
    lines += ["## Hardware-friendly networks against the others", "", *hardware_friendly(networks), ""]
    lines += [
        "## Cycles, utilisation, energy",
        "",
        "Least latency, every mapping proven best; passes `default`. A star: some layers run on the host, and the cycles",
        "include them.",
        "",
        *cost_table(networks),
    ]
    return "\n".join(lines) + "\n"


def elite_table(networks: dict[str, Measured]) -> Iterator[str]:
    """Lines of a Markdown table: eLite 0 to 9 and HF 0 to 5, running statistics counted as the paper does."""
    yield "| network | width, depth, resolution | top-1, printed | M parameters, printed | measured | | M MACs, printed | measured | | why |"
    yield "|---|---|---:|---:|---:|---|---:|---:|---|---|"
    for row in read("elite.csv"):
        found = networks.get(row["name"])
        counted = found and (found.parameters + found.statistics) / MILLION
        parameters = Printed(row["parameters_m"], counted)
        macs = Printed(row["macs_m"], found and found.macs / MILLION)
        numbers = [f"{figure.measured:.4g}" if figure.measured else "" for figure in (parameters, macs)]
        yield (
            f"| {row['name']} | {row['width']}, {row['depth']}, {row['resolution']} | {row['top1_percent']} "
            f"| {parameters.text} | {numbers[0]} | {parameters.verdict} | {macs.text} | {numbers[1]} | {macs.verdict} "
            f"| {row['why'] if parameters.differs or macs.differs else ''} |"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, default=ROOT / "build/evidence/families.jsonl")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/networks.md")
    options = parser.parse_args()
    rows = list({row.key: row for row in read_rows(options.cache)}.values())
    options.output.write_text(page(rows), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
