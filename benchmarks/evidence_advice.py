"""Asks `codesign advise` about networks on machines and compiles every rewrite that it says saves something.

    python benchmarks/evidence_advice.py MODELS... [--hw a,b,c] [--only a,b] [--limit-seconds N]
                                         [--output FILE.md] [--cache FILE.jsonl]

MODELS: folders searched for NAME.onnx. Every command is a process of its own that ends after N seconds. Rows done
before by the same code are taken from the cache. Exit code 1 when a prediction is not what compiling gives, or when
advice takes 30 seconds of processor time or more.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from advice_rows import Advised, Case, Compiled, Figures, Row, page
from evidence_networks import code_version
from resumable import ChildError, answer_of, rows_of

ROOT = Path(__file__).resolve().parents[1]
NETWORKS = "mobilenetv2_1.0,efficientnet_b0,ultraface_rfb320"
MACHINES = "ecnn,edge_npu,ethos_u55_128"
LIMIT_SECONDS = 1800


class CommandError(Exception):
    """A command that failed or took too long."""


@dataclass
class Runs:
    """Rows by what they are about; new ones go into the cache as soon as they are done."""

    cache: Path
    limit_seconds: int
    code: str
    known: dict[tuple[str, int, str, str, str], Row]

    def row(self, name: str, path: Path, hardware: str, passes: str) -> Row:
        """The row of advice (no passes) or of one compilation, done now unless it was done before."""
        about = Row(
            file=name,
            file_bytes=path.stat().st_size,
            hardware=hardware,
            passes=passes,
            code=self.code,
            day=date.today().isoformat(),
        )
        if about.key in self.known:
            return self.known[about.key]
        try:
            if passes:
                row = about.model_copy(update={"compiled": compiled(path, hardware, passes, self.limit_seconds)})
            else:
                row = about.model_copy(update={"advised": advised(path, hardware, self.limit_seconds)})
        except CommandError as error:
            row = about.model_copy(update={"problem": str(error).replace(f"{path.parent}{os.sep}", "")})
        self.known[about.key] = row
        with self.cache.open("a", encoding="utf-8") as file:
            file.write(row.model_dump_json() + "\n")
        print(f"{name} on {hardware}: {passes or 'advice'}: {row.problem or 'done'}", file=sys.stderr, flush=True)
        return row


def advised(path: Path, hardware: str, limit_seconds: int) -> Advised:
    """One run of `codesign advise`, with no search remembered."""
    words = ["advise", str(path), "--hw", hardware, "--json"]
    text, seconds = command(words, limit_seconds, {"CODESIGN_CACHE": "off"})
    report = json.loads(text)
    base, ranked = report["baseline"], report["ranked"]
    gaining = [part["rewrite"] for part in ranked if _in_order(part["rewrite"]["price"]) < _in_order(base)]
    prices = {"none": base, **{part["passes"]: part["price"] for part in gaining}}
    prices |= {report[kind]["passes"]: report[kind]["price"] for kind in ("exact", "all")}
    parts = [*(part["rewrite"] for part in ranked), *report["neutral"], *report["unused"], *report["refused"]]
    return Advised(
        seconds=seconds,
        tried=sum(1 + len(part["alike"]) for part in parts),
        gaining=len(gaining),
        exact=report["exact"]["passes"],
        all=report["all"]["passes"],
        confirm={passes: figures(price) for passes, price in prices.items()},
    )


def _in_order(price: dict[str, float]) -> tuple[float, ...]:
    return tuple(price[name] for name in ("score", "cycles", "energy_pj", "dram_bytes"))


def figures(price: dict[str, float]) -> Figures:
    """Of a price as JSON has it."""
    return Figures(cycles=int(price["cycles"]), energy_pj=price["energy_pj"], dram_bytes=int(price["dram_bytes"]))


def compiled(path: Path, hardware: str, passes: str, limit_seconds: int) -> Compiled:
    """One run of `codesign compile`, which fails when scheduled code and plan disagree."""
    from codesign.planning.plan import Plan

    with tempfile.TemporaryDirectory() as folder:
        words = ["compile", str(path), "--hw", hardware, "--passes", passes, "-o", f"{folder}/build"]
        _, seconds = command(words, limit_seconds, {})
        plan = Plan.from_json(Path(folder, "build", "plan.json").read_text(encoding="utf-8"))
    energy_pj = sum(planned.cost.energy_pj for planned in plan.layers)
    assert energy_pj / 1e6 == plan.totals.energy_uj
    return Compiled(
        seconds=seconds,
        layers=sum(planned.cost.mapping is not None for planned in plan.layers),
        figures=Figures(cycles=plan.totals.cycles, energy_pj=energy_pj, dram_bytes=plan.totals.dram_bytes),
    )


def command(words: Sequence[str], limit_seconds: int, environment: dict[str, str]) -> tuple[str, float]:
    """What a `codesign` command prints, and its seconds of processor time. Raises CommandError."""
    before = _processor_seconds()
    try:
        answer = answer_of([sys.executable, "-m", "codesign", *words], limit_seconds, environment)
    except ChildError as error:
        raise CommandError(error.said[0]) from None
    return answer, _processor_seconds() - before


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--hw", default=MACHINES, help="machines, between commas")
    parser.add_argument("--only", default=NETWORKS, help="names without .onnx, between commas")
    parser.add_argument("--limit-seconds", type=int, default=LIMIT_SECONDS, help="for one command")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/evidence/advice.md")
    parser.add_argument("--cache", type=Path, default=ROOT / "build/evidence/advice.jsonl")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    wanted = options.only.split(",")
    files = {
        path.relative_to(folder).as_posix(): path
        for folder in options.models
        for path in sorted(folder.rglob("*.onnx"))
        if path.stem in wanted
    }
    if not files:
        print(f"{', '.join(map(str, options.models))}: no ONNX file called {options.only}", file=sys.stderr)
        return 2
    options.cache.parent.mkdir(parents=True, exist_ok=True)
    runs = Runs(
        options.cache, options.limit_seconds, code_version(), {row.key: row for row in rows_of(options.cache, Row)}
    )
    cases = []
    for name, path in sorted(files.items(), key=lambda item: (wanted.index(item[1].stem), item[0])):
        for hardware in options.hw.split(","):
            advice = runs.row(name, path, hardware, "")
            confirm = advice.advised.confirm if advice.advised is not None else {}
            cases.append(
                Case(advice=advice, compiled=tuple(runs.row(name, path, hardware, passes) for passes in confirm))
            )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(page(cases), encoding="utf-8")
    faults = [fault for case in cases for fault in case.faults]
    print("\n".join(faults) or f"{len(cases)} advices, all confirmed")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
