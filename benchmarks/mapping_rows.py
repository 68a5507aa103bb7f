"""Optima of the mapping problems and what other mappers printed: docs/evidence/mapping_problems.md."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from codesign.vocabulary import OperationKind
from codesign.workload.loop_nest import LoopNest

LANES = {"A_16x16_64KiB": 16, "B_32x32_512KiB": 32}  # on each of the two axes
_SIZES = ("output_rows", "output_columns", "kernel_rows", "kernel_columns", "input_channels", "output_channels")
_WHAT = (
    "Twelve layers of ResNet-18 on two machines described apart from any tool: A has 16x16 lanes and 64 KiB, B 32x32",
    "lanes and 512 KiB (`hw_profiles/reference_a.yaml`, `reference_b.yaml`). K runs on one axis, C on the other. Ours",
    "is the optimum for one objective; its cycles are the longest of compute and every port. Theirs is the best of all",
    "settings tried for that objective, with cycles raised to the port words printed beside them where they lie below",
    "(fc). Printed cycles hold ZigZag's stalls, which are not modelled here, so the factor is given twice: theirs over",
    "ours in the objective, as printed and without stalls (the longest of compute and port words). Above 1, ours is",
    "better. DRAM bytes, compulsory ones too, include padding, which counts as data in these problems.",
)
_FREE = (
    "These chose their own lanes. Ours here: K on D1 and any of C, FY and FX on D2, whose adder tree sums them.",
    "AccelForge prices partial sums at 8 bits, we at 32.",
)


@dataclass(frozen=True)
class Layer:
    """A layer of a problem. shape: output rows and columns, kernel rows and columns, inputs, outputs, stride."""

    problem: str
    name: str
    shape: tuple[int, ...]
    repeats: int
    compulsory_dram_bytes: int

    @property
    def nest(self) -> LoopNest:
        """Over stored padding: it counts as data in these problems."""
        rows, columns, tall, wide, inputs, outputs, stride = self.shape
        return LoopNest(
            OperationKind.CONVOLUTION,
            (1, 1, outputs, inputs, rows, columns, tall, wide),
            stride=(stride, stride),
            input_rows=(rows - 1) * stride + tall,
            input_columns=(columns - 1) * stride + wide,
        )

    @property
    def compute_cycles(self) -> int:
        """Steps with K on one axis and C on the other."""
        rows, columns, tall, wide, inputs, outputs, _ = self.shape
        lanes = LANES[self.problem]
        return rows * columns * tall * wide * -(-inputs // lanes) * -(-outputs // lanes)


@dataclass(frozen=True)
class Peer:
    """What another mapper printed. own_lanes: it chose what the axes run. busy_cycles: of its busiest port, or None.

    dram_bytes: None where they were not printed.
    """

    layer: Layer
    tool: str
    setting: str
    own_lanes: bool
    objective: str
    energy_pj: float
    printed_cycles: float
    busy_cycles: int | None
    dram_bytes: int | None

    @property
    def cycles(self) -> float:
        """As printed, raised to its own port words."""
        return max(self.printed_cycles, self.busy_cycles or 0)

    @property
    def cycles_without_stalls(self) -> float | None:
        """The longest of compute and port words; None where the words are not known."""
        return None if self.busy_cycles is None else max(self.layer.compute_cycles, self.busy_cycles)


@dataclass(frozen=True)
class Optimum:
    """One search of ours. free_lanes: D2 runs any of C, FY and FX. code: digest of the code that searched.

    limit: of the search, 0 for its own. gap: (found - bound) / bound. seconds: of processor time. least_dram_bytes: of
    any mapping, where the least EDP takes more than the compulsory bytes (else 0), and the EDP of one with so few.
    """

    problem: str
    layer: str
    free_lanes: bool
    objective: str
    limit: int
    code: str
    day: str = ""
    energy_pj: float = 0.0
    cycles: int = 0
    dram_bytes: int = 0
    proven: bool = False
    gap: float = 0.0
    seconds: float = 0.0
    least_dram_bytes: int = 0
    least_dram_proven: bool = False
    least_dram_edp: float = 0.0

    @property
    def edp(self) -> float:
        """pJ x cycles."""
        return self.energy_pj * self.cycles

    @property
    def key(self) -> tuple[str, str, bool, str, int, str]:
        """What must be the same for a row to be about the same search."""
        return self.problem, self.layer, self.free_lanes, self.objective, self.limit, self.code


def read_reference(path: Path) -> list[Peer]:
    """The peers' rows, in the order of the file."""
    with path.open(encoding="utf-8", newline="") as file:
        return [_peer(row) for row in csv.DictReader(file)]


def _peer(row: dict[str, str]) -> Peer:
    shape = tuple(int(row[name]) for name in (*_SIZES, "stride"))
    layer = Layer(row["problem"], row["layer"], shape, int(row["repeats"]), int(row["compulsory_dram_bytes"]))
    busy = int(row["port_busy_cycles"]) if row["port_busy_cycles"] else None
    figures = float(row["energy_pj"]), float(row["latency_cycles"]), busy
    moved = int(row["dram_bytes"]) if row["dram_bytes"] else None
    return Peer(layer, row["tool"], row["setting"], row["own_lanes"] == "yes", row["objective"], *figures, moved)


def read_cache(cache: Path) -> Iterator[Optimum]:
    """Rows of earlier runs; a last line cut short by a killed run is dropped."""
    for line in cache.read_text(encoding="utf-8").splitlines() if cache.exists() else ():
        try:
            yield Optimum(**json.loads(line))
        except (json.JSONDecodeError, TypeError):
            print(f"{cache}: a row is unreadable and is searched again", file=sys.stderr)


def value(objective: str, energy_pj: float, cycles: float) -> float:
    """Energy, latency or their product."""
    return {"energy": energy_pj, "latency": cycles, "edp": energy_pj * cycles}[objective]


def factor(row: Optimum, peer: Peer, cycles: float) -> float:
    """Theirs, in so many cycles, over ours in the objective."""
    return value(row.objective, peer.energy_pj, cycles) / value(row.objective, row.energy_pj, row.cycles)


def best_peer(row: Optimum, peers: list[Peer]) -> Peer | None:
    """The best of those that searched the same layer under the same rules; for EDP, whatever they searched it for."""
    same = [
        peer
        for peer in peers
        if (peer.layer.problem, peer.layer.name, peer.own_lanes) == (row.problem, row.layer, row.free_lanes)
        and row.objective in ("edp", peer.objective)
    ]
    return min(same, key=lambda peer: value(row.objective, peer.energy_pj, peer.cycles), default=None)


def page(rows: list[Optimum], peers: list[Peer], reference: str) -> str:
    """The whole page: one table a problem, then the rows with lanes of their own choice."""
    layers = {(peer.layer.problem, peer.layer.name): peer.layer for peer in peers}
    proven = sum(row.proven for row in rows)
    seconds = [row.seconds for row in rows]
    effort = f"{sum(seconds):.1f} s of processor time, the longest {max(seconds):.1f} s"
    days = sorted({row.day for row in rows})
    lines = [
        "# Optima of the mapping problems against other mappers",
        "",
        f"{' to '.join(dict.fromkeys((days[0], days[-1])))}, written by `benchmarks/evidence_mapping_problems.py`.",
        f"Other mappers' figures: `{reference}`.",
        "",
        *_WHAT,
        "",
        f"{len(rows)} searches, {proven} proven; {effort}.",
        "",
    ]
    for problem in LANES:
        fixed = [row for row in rows if row.problem == problem and not row.free_lanes]
        if fixed:
            totals = list(_totals(fixed, peers, layers))
            lines += [f"## {problem}", "", *_table(fixed, peers, layers), "", *totals, *([""] if totals else [])]
    free = [row for row in rows if row.free_lanes]
    if free:
        lines += ["## Lanes of their own choice", "", *_FREE, "", *_free_table(free, peers), ""]
    return "\n".join(lines)


def _table(rows: list[Optimum], peers: list[Peer], layers: dict[tuple[str, str], Layer]) -> Iterator[str]:
    yield (
        "| layer | for | µJ | cycles | DRAM bytes | compulsory | proven | ZigZag's best | µJ | cycles "
        "| factor | without stalls |"
    )
    yield "|---|---|---:|---:|---:|---:|---|---|---:|---:|---:|---:|"
    for row in rows:
        compulsory = layers[row.problem, row.layer].compulsory_dram_bytes
        peer = best_peer(row, peers)
        theirs = "| | | | | |"
        if peer is not None:
            without = peer.cycles_without_stalls
            alone = "-" if without is None else f"{factor(row, peer, without):.3f}"
            printed = f"{peer.setting} | {peer.energy_pj / 1e6:,.2f} | {peer.cycles:,.0f}"
            theirs = f"| {printed} | {factor(row, peer, peer.cycles):.3f} | {alone} |"
        yield (
            f"| {row.layer} | {row.objective} | {row.energy_pj / 1e6:,.2f} | {row.cycles:,} | {row.dram_bytes:,} "
            f"| {compulsory:,} | {_proof(row)} {theirs}"
        )


def _proof(row: Optimum) -> str:
    return "yes" if row.proven else f"no, gap {row.gap:.1%}"


def _totals(rows: list[Optimum], peers: list[Peer], layers: dict[tuple[str, str], Layer]) -> Iterator[str]:
    """Of the network, each layer as often as it occurs, where all layers were searched for EDP and have a peer."""
    pairs = [(row, best_peer(row, peers)) for row in rows if row.objective == "edp"]
    known = [(row, peer, layers[row.problem, row.layer].repeats) for row, peer in pairs if peer is not None]
    if len(known) < sum(layer.problem == rows[0].problem for layer in layers.values()):
        return
    energy = sum(times * row.energy_pj for row, _, times in known) / 1e6
    cycles = sum(times * row.cycles for row, _, times in known)
    dram_bytes = sum(times * row.dram_bytes for row, _, times in known)
    theirs = sum(times * peer.energy_pj for _, peer, times in known) / 1e6
    their_cycles = sum(times * peer.cycles for _, peer, times in known)
    yield "ResNet-18, each layer at its least EDP and as often as it occurs:"
    yield f"ours {energy:,.1f} µJ, {cycles:,} cycles, {dram_bytes:,} DRAM bytes;"
    yield f"ZigZag's best {theirs:,.1f} µJ, {their_cycles:,.0f} cycles."


def _free_table(rows: list[Optimum], peers: list[Peer]) -> Iterator[str]:
    yield "| problem | layer | for | µJ | cycles | DRAM bytes | proven | theirs | µJ | cycles | factor |"
    yield "|---|---|---|---:|---:|---:|---|---|---:|---:|---:|"
    for row in rows:
        asked = (row.problem, row.layer, row.objective)
        for peer in peers:
            if peer.own_lanes and (peer.layer.problem, peer.layer.name, peer.objective) == asked:
                yield (
                    f"| {row.problem} | {row.layer} | {row.objective} | {row.energy_pj / 1e6:,.2f} | {row.cycles:,} "
                    f"| {row.dram_bytes:,} | {_proof(row)} | {peer.tool}, {peer.setting} | {peer.energy_pj / 1e6:,.2f} "
                    f"| {peer.cycles:,.0f} | {factor(row, peer, peer.cycles):.3f} |"
                )
