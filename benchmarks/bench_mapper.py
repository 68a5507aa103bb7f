"""How long the mapper takes for whole networks, and how large the spaces are that its proofs cover.

    python benchmarks/bench_mapper.py [--zigzag /path/to/python] [--output docs/evidence/mapper.md]

Every row is the fastest of three fresh Python processes that map, prove and price the distinct layers of a network; its
CPU seconds hold the start of the process. --zigzag: a Python in which zigzag-dse and six are installed; it searches the
layers of ResNet-18 on machine A beside ours. --output: writes what was printed as a page. Exit code 1 when a limit is
missed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date
from operator import itemgetter
from pathlib import Path

import numpy as np
from mapper_page import Page
from mapper_process import Outcome, Task, engine_of, machine
from mapper_space import Prices, Sample, mappings_in, priced, random_sample, spaces_of
from validation_layers import read_layers

from codesign.hardware.profile import HardwareProfile
from codesign.mapping.cost import evaluate
from codesign.mapping.counts import counts_of
from codesign.mapping.legality import problems_of
from codesign.vocabulary import MAC_KINDS
from codesign.workload.loop_nest import LoopNest

HERE = Path(__file__).resolve().parent
NETWORKS = {"ResNet-18": "resnet18", "MobileNetV2": "mobilenet_v2"}
OBJECTIVES = ("edp", "latency", "energy")
EITHER = {"reference_a": ("gb",), "reference_b": ("gb",)}
SECONDS = {False: 5.0, True: 2.0}  # CPU of a process on machine A, by perfect factors
MILLISECONDS = 10.0  # of a layer of a two-level machine, on average
PRICED = 1_000_000  # mappings, and at least so many a second
CHECKED = 100  # of those that fit, and of all
AT_ONCE = 8192
PROCESSES = 3  # the least of their times counts: other work on the machine only ever adds


@dataclass(frozen=True)
class Row:
    """Searches of one network. seconds: CPU limit of the process, or None. milliseconds: of a layer, or None."""

    network: str
    machine: str
    objective: str
    perfect: bool = False
    either: bool = False
    seconds: float | None = None
    milliseconds: float | None = None

    @property
    def limit(self) -> str:
        """As printed."""
        if self.milliseconds is not None:
            return f"{self.milliseconds:g} ms a layer"
        return "-" if self.seconds is None else f"{self.seconds:g} s"


@dataclass(frozen=True)
class Done:
    """A row that was run. cpu_seconds: of the whole process."""

    row: Row
    cpu_seconds: float
    outcomes: tuple[Outcome, ...]

    @property
    def mean_milliseconds(self) -> float:
        """Of a search."""
        return 1000 * sum(one.seconds for one in self.outcomes) / len(self.outcomes)

    @property
    def kept(self) -> bool:
        """Everything proven, within the limits."""
        slow = self.row.seconds is not None and self.cpu_seconds > self.row.seconds
        slow = slow or (self.row.milliseconds is not None and self.mean_milliseconds > self.row.milliseconds)
        return not slow and all(one.proven for one in self.outcomes)


def wanted() -> Iterator[Row]:
    """All rows of the table."""
    for network in NETWORKS:
        for name in EITHER:
            limit = SECONDS if name == "reference_a" else dict.fromkeys(SECONDS)
            yield Row(network, name, "edp", either=True, seconds=limit[False])
            yield from (Row(network, name, objective, seconds=limit[False]) for objective in OBJECTIVES)
            yield Row(network, name, "edp", perfect=True, seconds=limit[True])
    for network in NETWORKS:
        yield from (Row(network, "edge_npu", objective, milliseconds=MILLISECONDS) for objective in OBJECTIVES)
        yield Row(network, "gemmini16", "edp")


def distinct_layers(network: str, profile: HardwareProfile) -> list[tuple[str, LoopNest]]:
    """The layers that differ and that an engine of a machine runs, named after the first of their kind."""
    _, layers = read_layers(HERE / "validation" / "networks" / f"{NETWORKS[network]}.csv")
    runs = {kind for engine in profile.engines.values() for kind in engine.operations} & set(MAC_KINDS)
    first: dict[LoopNest, str] = {}
    for layer in layers:
        if layer.nest.kind in runs:
            first.setdefault(layer.nest, layer.name)
    return [(name, nest) for nest, name in first.items()]


def run(row: Row) -> Done:
    """A row: the least CPU seconds of a few fresh processes. Raises CalledProcessError when one fails."""
    either = EITHER[row.machine] if row.either else ()
    nests = distinct_layers(row.network, machine(row.machine, ()))
    fields = tuple((name, {**asdict(nest), "kind": str(nest.kind)}) for name, nest in nests)
    task = Task(row.machine, (row.objective,), row.perfect, either, fields)
    command = [sys.executable, str(HERE / "mapper_process.py")]
    output, seconds = min((process(command, json.dumps(asdict(task))) for _ in range(PROCESSES)), key=itemgetter(1))
    return Done(row, seconds, tuple(Outcome(**one) for one in json.loads(output)))


def process(command: list[str], task: str) -> tuple[str, float]:
    """Output and CPU seconds, user and system, of a command that reads a task from a file."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as output:
        path = Path(folder) / "task.json"
        path.write_text(task, encoding="utf-8")
        started = subprocess.Popen([*command, str(path)], stdout=output, stderr=subprocess.DEVNULL, cwd=folder)
        _, status, usage = os.wait4(started.pid, 0)
        started.returncode = os.waitstatus_to_exitcode(status)
        if started.returncode:
            raise subprocess.CalledProcessError(started.returncode, command)
        output.seek(0)
        return output.read(), usage.ru_utime + usage.ru_stime


def search_table(lines: Page) -> tuple[bool, dict[Row, Done]]:
    """Runs and prints all rows; whether all limits were kept."""
    lines.add("| network | machine | for | tiles | layers | proven | CPU s | limit | ms a layer | longest |")
    lines.add("|---|---|---|---|---:|---:|---:|---:|---:|---:|")
    found: dict[Row, Done] = {}
    for row in wanted():
        done = found[row] = run(row)
        tiles = f"{'perfect' if row.perfect else 'imperfect'}{', held once or twice' if row.either else ''}"
        proven = sum(one.proven for one in done.outcomes)
        longest = 1000 * max(one.seconds for one in done.outcomes)
        lines.add(
            f"| {row.network} | {row.machine} | {row.objective} | {tiles} | {len(done.outcomes)} | {proven} "
            f"| {done.cpu_seconds:.2f} | {row.limit}{'' if done.kept else ' MISSED'} "
            f"| {done.mean_milliseconds:.1f} | {longest:.1f} |"
        )
    return all(done.kept for done in found.values()), found


def space_table(lines: Page, found: dict[Row, Done]) -> None:
    """Mappings that every proof of ResNet-18 on machine A is about."""
    row = Row("ResNet-18", "reference_a", "edp", either=True, seconds=SECONDS[False])
    seconds = {one.layer: one.seconds for one in found[row].outcomes}
    profile = machine(row.machine, EITHER[row.machine])
    lines.add("| layer | output x kernel, inputs, outputs | tiles of the grid | mappings | ms for search and proof |")
    lines.add("|---|---|---:|---:|---:|")
    for name, nest in distinct_layers(row.network, profile):
        spaces = spaces_of(nest, profile, engine_of(nest, profile))
        _, _, outputs, inputs, rows, columns, tall, wide = nest.sizes
        lines.add(
            f"| {name} | {rows}x{columns} x {tall}x{wide}, {inputs}, {outputs} "
            f"| {sum(space.grid.count for space in spaces):,} "
            f"| {sum(map(mappings_in, spaces)):.2e} | {1000 * seconds[name]:.0f} |"
        )


def rate(lines: Page) -> bool:
    """Prices random mappings of one layer on one core; whether they were fast enough and right."""
    profile = machine("reference_a", EITHER["reference_a"])
    name, nest = distinct_layers("ResNet-18", profile)[1]
    (space,) = spaces_of(nest, profile, engine_of(nest, profile))
    random = np.random.default_rng(0)
    seconds, count, fitting, checked = 0.0, 0, 0, 0
    wrong: list[int] = []
    while count < PRICED:
        sample = random_sample(space, AT_ONCE, random)
        began = time.process_time()
        prices = priced(sample)
        seconds += time.process_time() - began
        fits = np.flatnonzero(prices.fits)
        few = [*fits[: max(0, CHECKED - fitting)], *range(max(0, CHECKED - count))]
        wrong += [number for number in few if not agrees(sample, prices, int(number))]
        count, fitting, checked = count + AT_ONCE, fitting + len(fits), checked + len(few)
    right = checked - len(wrong)
    lines.add(
        f"{count:,} random mappings of {name} (chains of tiles, cuts in any order) priced by the mapper's own cost"
    )
    lines.add(f"functions in {seconds:.2f} s of CPU on one core: {count / seconds:,.0f} a second, limit {PRICED:,}.")
    lines.add(
        f"{fitting:,} of them fit. {checked} were priced one by one from their loops as well ({CHECKED} of all, and"
    )
    lines.add(
        f"those that fit, up to {CHECKED}): cycles, energy and whether they fit are the same for {right} of them."
    )
    return not wrong and count / seconds >= PRICED


def agrees(sample: Sample, prices: Prices, number: int) -> bool:
    """Whether the cost model and the legality check say the same of the loops of one mapping, but for rounding."""
    space, mapping = sample.space, sample.mapping(number)
    cost = evaluate(space.nest, mapping, space.profile, counts_of(space.nest, mapping, space.profile))
    same = np.allclose(
        [cost.latency_cycles, cost.energy_pj], [prices.latency[number], prices.energy[number]], rtol=1e-12, atol=0
    )
    return bool(same) and (not problems_of(space.nest, mapping, space.profile)) == bool(prices.fits[number])


def zigzag_table(lines: Page, python: Path, found: dict[Row, Done]) -> None:
    """The layers of ResNet-18 on machine A, searched by ZigZag as well."""
    layers = distinct_layers("ResNet-18", machine("reference_a", ()))
    shapes = []
    for name, nest in layers:
        _, _, outputs, inputs, rows, columns, tall, wide = nest.sizes
        shapes.append([name, [rows, columns, tall, wide, inputs, outputs, nest.stride[0]]])
    nests = dict(layers)
    output, seconds = process([str(python), str(HERE / "zigzag" / "search.py")], json.dumps(shapes))
    theirs = {row["name"]: row for row in map(json.loads, output.splitlines())}
    ours = found[Row("ResNet-18", "reference_a", "edp", seconds=SECONDS[False])]
    version = next(iter(theirs.values()))["version"]
    lines.add(f"ZigZag {version}, LOMA, loop factors up to 6: {seconds:.1f} s of CPU; ours {ours.cpu_seconds:.2f} s.")
    lines.add(
        "Its cycles count stalls, ours are the longest of compute and every port. Where it prints fewer cycles than"
    )
    lines.add("compute or a port needs for every byte once (the dense layer: 60,950), they are raised to that.")
    lines.add("")
    lines.add("| layer | ZigZag's CPU s | µJ | cycles | pJ x cycles | our CPU s | µJ | cycles | pJ x cycles | factor |")
    lines.add("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for one in ours.outcomes:
        row = theirs[one.layer]
        cycles = max(row["cycles"], least_cycles(nests[one.layer]))
        edp = row["energy_pj"] * cycles
        lines.add(
            f"| {one.layer} | {row['cpu_seconds']:.2f} | {row['energy_pj'] / 1e6:.2f} | {cycles:,.0f} "
            f"| {edp:.3e} | {one.seconds:.3f} | {one.energy_pj / 1e6:.2f} | {one.cycles:,} | {one.edp:.3e} "
            f"| {edp / one.edp:.3f} |"
        )


def least_cycles(nest: LoopNest) -> float:
    """Cycles on machine A that compute or a port takes for every element once: no mapping takes fewer."""
    (space,) = spaces_of(nest, machine("reference_a", ()), "array")
    return float(space.compulsory[:-1].max())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="?", help="not read: `make bench` gives every script its folder of models")
    parser.add_argument("--zigzag", type=Path, help="a Python with zigzag-dse and six")
    parser.add_argument("--output", type=Path, help="a page to write")
    options = parser.parse_args()
    page = Page()
    page.add("# The mapper's time")
    page.add()
    page.add(f"{date.today().isoformat()}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}; written by")
    page.add("`benchmarks/bench_mapper.py`.")
    page.section("Whole networks", *_SEARCHES, "")
    kept, found = search_table(page)
    page.section("Mappings of the declared space", *_SPACE, "")
    space_table(page, found)
    page.section("Mappings priced")
    kept = rate(page) and kept
    if options.zigzag:
        page.section("ZigZag beside it")
        zigzag_table(page, options.zigzag, found)
    if options.output:
        options.output.write_text("\n".join(page.lines) + "\n", encoding="utf-8")
    return 0 if kept else 1


_SEARCHES = (
    "The distinct layers of a network, mapped, proven and priced by a fresh Python process, the fastest of three. CPU",
    "s: user and system, of the whole process, its start included. ms a layer: of the search and its pricing alone, on",
    "average. Imperfect: tile sizes are not divisors alone. Held once or twice: the mapper also chooses the buffering",
    "of every tile in `gb`. Nothing is read from disk but the machine and the layers.",
)
_SPACE = (
    "ResNet-18 on reference_a, tiles imperfect. A mapping gives each of 7 cuts (an operand leaving a memory) a tile;",
    "orders of loops that cost the same count once, copies of a tile are not counted. Those that do not fit are: the",
    "search has to tell them apart.",
)

if __name__ == "__main__":
    sys.exit(main())
