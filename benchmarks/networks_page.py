"""The page docs/networks.md: every network of the papers, printed against measured, and its cost on five machines.

Printed figures: codesign/networks/published. Measured ones: rows of `benchmarks/evidence_families.py`, which writes it.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import geometric_mean

from family_rows import MACHINES, Cost, Counted, Mapped, Row
from networks_plot import Point

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

_WHAT = (
    "What four papers print of the networks they compare, what the networks have when they are counted, and what no",
    "paper gives: cycles, utilisation and energy on five machines. `from` is where the network comes from: `codesign`",
    "is a generator of ours (`codesign networks list`), the others are packages it was exported from. Accuracies are",
    "those the papers print, on ImageNet; none is ours. Papers say FLOPs and mean multiply-accumulates. Parameters are",
    "learned ones, without running means and variances; the eLite paper counts those too. As printed: equal in the",
    "printed digits; cut off: equal when further digits are dropped, not rounded.",
)

_SAME = 0.05  # a row's accuracy is a network's when its printed size is within this share of the counted one
PLOT, PLOTTED_ON = "img/networks.svg", "edge_npu"
_PLOT_ALT = f"printed accuracy against cycles on {PLOTTED_ON}"
_PLOTTED = (
    "Accuracies as the papers print them, on ImageNet, by training schemes that differ; cycles of one image as counted",
    f"here on {PLOTTED_ON}. The line joins networks no other is both faster and more accurate than. A row",
    f"is left out where the size it prints is more than {_SAME:.0%} from what its network has: such an accuracy is",
    "that of another network.",
)

_FRIENDLY = (
    "The paper calls its HF networks friendly to hardware: all widths powers of two, images of 128 or 256. Here every",
    "one stands beside the eLite network of the nearest MACs, and what a machine takes for every MAC of the one is",
    "divided by what it takes for every MAC of the other: below 1 the claim holds. Powers of two fill the lanes of",
    "dense layers; but an image of 256 has a third more pixels than one of 224, and depthwise layers, means and",
    "products of squeeze-excite go by pixels. The last columns say how much of the cycles is dense layers' at all.",
)


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
    costs = {(row.network, row.origin): mapped for row in rows if isinstance(mapped := row.found, Mapped)}
    found: dict[str, Measured] = {}
    for row in sorted(rows, key=lambda row: row.origin != "codesign"):
        if isinstance(counts := row.found, Counted) and row.network not in found:
            cost = costs.get((row.network, row.origin))
            found[row.network] = Measured(row.origin, counts.parameters, counts.statistics, counts.macs, cost)
    return found


def read(name: str) -> list[dict[str, str]]:
    """Rows of a published table."""
    with (PUBLISHED / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def paper_table(paper: str, networks: dict[str, Measured]) -> Iterator[str]:
    """Lines of a Markdown table: one paper's rows."""
    yield (
        "| table | row | top-1, printed | M parameters, printed | measured | | G MACs, printed | measured | "
        "| from | why |"
    )
    yield "|---|---|---:|---:|---:|---|---:|---:|---|---|---|"
    for row in read("papers.csv"):
        if row["paper"] != paper:
            continue
        found = networks.get(row["network"])
        parameters = Printed(row["parameters_m"], found.parameters / MILLION if found else None)
        macs = Printed(row["macs_g"], found.macs / GIGA if found else None)
        cells = [row["table"], row["row"], row["top1_percent"]]
        for figure in (parameters, macs):
            number = "" if figure.measured is None else f"{figure.measured:.4g}"
            cells += [figure.text, number, figure.verdict]
        why = row["why"] if parameters.differs or macs.differs or found is None else ""
        if found is None and not why:
            why = "not measured yet"
        yield f"| {' | '.join([*cells, found.origin if found else '', why])} |"


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
                millijoule = cost.energy_uj / 1e3
                cells += [f"{cost.cycles / MILLION:.3g}{star}", f"{cost.utilization:.1%}", f"{millijoule:.3g}"]
        yield f"| {name} | {found.origin} | {found.macs / GIGA:.3g} | {' | '.join(cells)} |"


@dataclass(frozen=True)
class Pair:
    """A hardware-friendly network and the other of the nearest MACs."""

    friendly: str
    other: str
    ours: Measured
    theirs: Measured

    def per_mac(self, machine: str) -> tuple[float, float]:
        """Cycles and energy for every MAC, as ratios: below 1 where the hardware-friendly network is better."""
        one, other = self._costs(machine)
        share = self.theirs.macs / self.ours.macs
        return one.cycles / other.cycles * share, one.energy_uj / other.energy_uj * share

    def line(self, machine: str, top: dict[str, str]) -> str:
        """One line of the table."""
        one, other = self._costs(machine)
        cycles, energy = self.per_mac(machine)
        share = self.theirs.macs / self.ours.macs
        return (
            f"| {self.friendly} | {self.other} | {self.ours.macs / MILLION:.1f}, {self.theirs.macs / MILLION:.1f} "
            f"| {top.get(self.friendly, '')}, {top.get(self.other, '')} | {machine} "
            f"| {one.cycles / MILLION:.2f}, {other.cycles / MILLION:.2f} | {one.cycles / other.cycles:.2f} "
            f"| **{cycles:.2f}** | {one.utilization:.1%}, {other.utilization:.1%} "
            f"| {one.energy_uj / 1e3:.2f}, {other.energy_uj / 1e3:.2f} | {one.energy_uj / other.energy_uj:.2f} "
            f"| **{energy:.2f}** | {one.dense_cycles / other.dense_cycles * share:.2f} "
            f"| {one.dense_cycles / one.cycles:.0%}, {other.dense_cycles / other.cycles:.0%} |"
        )

    def _costs(self, machine: str) -> tuple[Cost, Cost]:
        assert self.ours.costs and self.theirs.costs
        return self.ours.costs.machines[machine], self.theirs.costs.machines[machine]


def pairs(networks: dict[str, Measured]) -> list[Pair]:
    """Every HF network with the eLite network of the nearest MACs."""
    costed = {name: found for name, found in networks.items() if found.costs}
    others = {name: found for name, found in costed.items() if name.startswith("efficientnet_elite")}
    found = []
    for name, ours in sorted(costed.items()):
        if name.startswith("efficientnet_hf") and others:
            near = min(others, key=lambda other, macs=ours.macs: abs(others[other].macs / macs - 1))  # type: ignore[misc]
            found.append(Pair(name, near, ours, others[near]))
    return found


def hardware_friendly(networks: dict[str, Measured]) -> Iterator[str]:
    """Lines: a verdict per machine, then every pair on every machine."""
    found = pairs(networks)
    if not found:
        yield "Not measured yet."
        return
    yield from _FRIENDLY
    yield ""
    top = {row["name"]: row["top1_percent"] for row in read("elite.csv")}
    for machine in COMPARED:
        ratios = [pair.per_mac(machine) for pair in found]
        worse = [pair.friendly for pair, (cycles, _) in zip(found, ratios, strict=True) if cycles >= 1]
        yield (
            f"* {machine}: fewer cycles for every MAC in {len(found) - len(worse)} of {len(found)} pairs"
            f"{', not with ' + ', '.join(worse) if worse else ''}; geometric means of the ratios "
            f"{geometric_mean(cycles for cycles, _ in ratios):.2f} (cycles for every MAC) and "
            f"{geometric_mean(energy for _, energy in ratios):.2f} (energy for every MAC)."
        )
    yield ""
    yield (
        "| HF | eLite | M MACs | top-1, printed | machine | M cycles | ratio | cycles per MAC, ratio | utilisation "
        "| mJ | ratio | energy per MAC, ratio | cycles of dense layers per MAC, ratio | their share of all cycles |"
    )
    yield "|---|---|---|---|---|---|---:|---:|---|---|---:|---:|---:|---|"
    for pair in found:
        for machine in COMPARED:
            yield pair.line(machine, top)


def points(networks: dict[str, Measured], machine: str) -> list[Point]:
    """Printed accuracies over cycles, a dot for each network; rows whose printed size is another network's are out."""
    found: dict[str, Point] = {}
    printed = [
        *(
            (row["network"], row["top1_percent"], row["parameters_m"], row["macs_g"], GIGA)
            for row in read("papers.csv")
        ),
        *((row["name"], row["top1_percent"], row["parameters_m"], row["macs_m"], MILLION) for row in read("elite.csv")),
    ]
    for name, top1_percent, parameters, macs, unit in printed:
        network = networks.get(name)
        if network is None or network.costs is None or not top1_percent:
            continue
        cost = network.costs.machines[machine]
        learned = (network.parameters / MILLION, (network.parameters + network.statistics) / MILLION)
        same = (
            min(_apart(parameters, counted) for counted in learned) < _SAME
            and _apart(macs, network.macs / unit) < _SAME
        )
        if same and not cost.problem:
            found.setdefault(name, Point(name, cost.cycles, float(top1_percent)))
    return list(found.values())


def _apart(printed: str, counted: float) -> float:
    """How far a printed figure is from what was counted, as a share; 0 when nothing is printed."""
    return abs(counted / float(printed) - 1) if printed else 0.0


def page(networks: dict[str, Measured]) -> str:
    """The whole page."""
    lines = ["# Networks", "", f"{date.today().isoformat()}, written by `benchmarks/evidence_families.py`.", ""]
    lines += [*_WHAT, ""]
    for paper, title in _PAPERS.items():
        lines += [f"## {title}", ""]
        if paper == "elite":
            lines += [*elite_table(networks), ""]
        lines += [*paper_table(paper, networks), ""]
    lines += ["## Printed accuracies against cycles", "", *_PLOTTED, "", f"![{_PLOT_ALT}]({PLOT})", ""]
    lines += ["## Hardware-friendly networks against the others", "", *hardware_friendly(networks), ""]
    lines += [
        "## Cycles, utilisation, energy",
        "",
        "Least latency, every mapping proven best; passes `default`. A star: some layers run on the host; the cycles",
        "include them.",
        "",
        *cost_table(networks),
    ]
    return "\n".join(lines) + "\n"


def elite_table(networks: dict[str, Measured]) -> Iterator[str]:
    """Lines of a Markdown table: eLite and HF, running statistics counted as the paper does."""
    yield (
        "| network | width, depth, resolution | top-1, printed | M parameters, printed | measured | "
        "| M MACs, printed | measured | | why |"
    )
    yield "|---|---|---:|---:|---:|---|---:|---:|---|---|"
    for row in read("elite.csv"):
        found = networks.get(row["name"])
        counted = (found.parameters + found.statistics) / MILLION if found else None
        parameters = Printed(row["parameters_m"], counted)
        macs = Printed(row["macs_m"], found.macs / MILLION if found else None)
        numbers = [f"{figure.measured:.4g}" if figure.measured else "" for figure in (parameters, macs)]
        yield (
            f"| {row['name']} | {row['width']}, {row['depth']}, {row['resolution']} | {row['top1_percent']} "
            f"| {parameters.text} | {numbers[0]} | {parameters.verdict} | {macs.text} | {numbers[1]} | {macs.verdict} "
            f"| {row['why'] if parameters.differs or macs.differs else ''} |"
        )
