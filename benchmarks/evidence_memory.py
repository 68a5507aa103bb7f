"""Plans the activation memory of published networks, runs every plan, and writes docs/evidence/memory.md.

    python benchmarks/evidence_memory.py MODELS [--jobs N] [--output FILE.md] [--cache FILE.jsonl]

MODELS: a folder searched for *.onnx, smallest first; the folder a file lies in is called its exporter. Activations are
priced as int8, after the default passes, each layer a step of its own. Files done before by the same code are taken
from the cache. Exit code 1 when a plan does not run, or a wrong one passes the check.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import date
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from resumable import rows_of

from codesign.importers.model import load_model
from codesign.planning.memory.checking import check_plan
from codesign.planning.memory.memory_plan import MemoryPlan
from codesign.planning.memory.of_network import MemoryRules, problem_of_layers
from codesign.planning.memory.planning import Effort, plan_memory
from codesign.planning.memory.problem import MemoryProblem
from codesign.rewriting.graph_pass import PassContext
from codesign.rewriting.pipeline import resolve_pipeline
from codesign.rewriting.runner import run_pipeline
from codesign.workload.layers import layers_of
from codesign.workload.storage import storage_of

ROOT = Path(__file__).resolve().parents[1]
BITS = 8
WITHIN = 0.01
COUNTED = ("codesign/planning/memory", "codesign/workload")


class Row(BaseModel):
    """One file. given: the bound of the order in the file; plain: the arena without depthwise convolutions in place.

    faults: what the check says of the plan; control: what it says of the plan with one tensor moved.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    file_bytes: int
    code: str
    day: str
    steps: int
    arena_bytes: int
    bound_bytes: int
    reordered: bool
    given_bytes: int
    plain_bytes: int
    seconds: float
    solver: bool
    faults: list[str]
    control: int

    @property
    def gap(self) -> float:
        """(arena - bound) / bound."""
        return (self.arena_bytes - self.bound_bytes) / self.bound_bytes

    @property
    def failure(self) -> str:
        """Why the row does not count, or nothing."""
        return "; ".join(self.faults[:2]) or ("" if self.control else "a tensor moved onto another was not seen")


def main() -> int:
    """Plan what is not in the cache, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "evidence" / "memory.md")
    parser.add_argument("--cache", type=Path, default=ROOT / "build" / "evidence" / "memory.jsonl")
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    code = code_version()
    done = {(row.file, row.file_bytes, row.code): row for row in rows_of(options.cache, Row)}
    options.cache.parent.mkdir(parents=True, exist_ok=True)
    paths = sorted(options.models.rglob("*.onnx"), key=lambda path: (path.stat().st_size, str(path)))
    files = {path: (str(path.relative_to(options.models)), path.stat().st_size, code) for path in paths}
    missing = [path for path in paths if files[path] not in done]
    with ProcessPoolExecutor(options.jobs) as pool, options.cache.open("a", encoding="utf-8") as cache:
        for row in pool.map(measure, missing, [files[path][0] for path in missing], [code] * len(missing)):
            done[row.file, row.file_bytes, row.code] = row
            print(row.model_dump_json(), file=cache, flush=True)
            print(f"{row.file}: {row.gap:.1%} over the bound, {row.seconds:.2f} s {row.failure}", file=sys.stderr)
    rows = [done[key] for key in files.values()]
    options.output.write_text("\n".join(page(rows)) + "\n", encoding="utf-8")
    print(f"{options.output}: {len(rows)} files, {sum(bool(row.failure) for row in rows)} failed")
    return int(any(row.failure for row in rows))


def measure(path: Path, file: str, code: str) -> Row:
    """One file planned, with and without depthwise convolutions in place, and checked."""
    graph, _ = run_pipeline(load_model(path, {}, None), resolve_pipeline("default"), PassContext())
    layers, storage = [[layer] for layer in layers_of(graph)], storage_of(graph, BITS)
    problem = problem_of_layers(layers, storage)
    plain = problem_of_layers(layers, storage, MemoryRules(depthwise_in_place=False))
    sys.modules.pop("ortools", None)
    started = time.process_time()
    plan = plan_memory(problem)
    seconds = time.process_time() - started
    return Row(
        file=file,
        file_bytes=path.stat().st_size,
        code=code,
        day=str(date.today()),
        steps=len(problem.steps),
        arena_bytes=plan.arena_bytes,
        bound_bytes=plan.bound_bytes,
        reordered=plan.reordered,
        given_bytes=plan_memory(problem, Effort(reorder=False, solved=0)).bound_bytes,
        plain_bytes=plan_memory(plain).arena_bytes,
        seconds=seconds,
        solver="ortools" in sys.modules,
        faults=check_plan(problem, plan),
        control=len(check_plan(problem, spoiled(problem, plan))),
    )


def spoiled(problem: MemoryProblem, plan: MemoryPlan) -> MemoryPlan:
    """A wrong plan: of two tensors that are in memory in the fullest step, the second begins where the first does."""
    in_parts = {name for part in problem.parts for name in (part.tensor, part.whole)}
    pair = {entry.output for entry in plan.in_place} | {entry.input for entry in plan.in_place}
    for step in sorted(range(len(plan.order)), key=lambda step: (step != plan.peak_step, step)):
        whole = [placed for placed in plan.live(step) if placed in plan.stored and placed.tensor not in in_parts | pair]
        if len(whole) > 1:
            first, second = whole[:2]
            moved = replace(second, offset_bytes=first.offset_bytes)
            return replace(plan, stored=tuple(moved if placed == second else placed for placed in plan.stored))
    return replace(plan, arena_bytes=plan.arena_bytes // 2)


def code_version() -> str:
    """A digest of the code that plans: a row of other code is done again."""
    digest = hashlib.sha256()
    for path in sorted(path for folder in COUNTED for path in (ROOT / folder).rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


_WHAT = (
    "Activations priced as int8, after the default passes, every layer a step of its own ([rules](../memory.md)).",
    "The bound is what no order of the layers and no placement goes below. Every plan is checked by running it on an",
    "arena whose bytes remember whose they are; as a control the same check must refuse the plan with one tensor moved",
    "onto another. `in the file's order`: the most that is live at once if layers run as they stand. Seconds are",
    "processor time; the solver is loaded where first fit does not reach the bound.",
)
_HEADINGS = (
    *("network", "exporter", "steps", "arena KiB", "over the bound", "in the file's order KiB"),
    *("depthwise not in place KiB", "seconds"),
)


def page(rows: list[Row]) -> Iterator[str]:
    """Lines of the page."""
    good, bad = [row for row in rows if not row.failure], [row for row in rows if row.failure]
    yield "# Activation memory of published networks\n"
    yield f"{' to '.join(sorted({row.day for row in rows}))}, written by `benchmarks/evidence_memory.py`.\n"
    yield from _WHAT
    yield ""
    yield from _summary(good, len(bad))
    yield f"\n| {' | '.join(_HEADINGS)} |"
    yield "|---|---|" + "---:|" * (len(_HEADINGS) - 2)
    for row in sorted(good, key=lambda row: (Path(row.file).stem, row.file)):
        path = Path(row.file)
        over = "proven least" if row.arena_bytes == row.bound_bytes else f"{row.gap:.2%}"
        yield (
            f"| {path.stem} | {path.parent.name or '-'} | {row.steps} | {row.arena_bytes / 1024:,.1f} | {over} "
            f"| {row.given_bytes / 1024:,.1f} | {row.plain_bytes / 1024:,.1f} | {row.seconds:.2f} |"
        )
    if bad:
        yield "\n## Failed\n"
        yield from (f"* {row.file}: {row.failure}" for row in bad)


def _summary(good: list[Row], failed: int) -> Iterator[str]:
    wide = [row for row in good if row.gap > WITHIN]
    proven = sum(row.arena_bytes == row.bound_bytes for row in good)
    reordered = [row for row in good if row.reordered]
    saved = max((1 - row.bound_bytes / row.given_bytes for row in reordered), default=0.0)
    seconds = sorted(row.seconds for row in good) or [0.0]
    yield f"* {len(good)} files of {len({Path(row.file).stem for row in good})} networks; {failed} failed."
    yield f"* {proven} arenas are as small as the bound, so proven least; {len(good) - proven} are not."
    yield f"* {len(wide)} of {len(good)} are more than {WITHIN:.0%} over the bound{named(wide)}."
    yield f"* In {len(reordered)} the layers run in another order, which lowers the bound by up to {saved:.0%}."
    yield f"* The solver was asked in {sum(row.solver for row in good)}."
    yield f"* Planning took {seconds[len(seconds) // 2] * 1e3:.0f} ms in the middle and {seconds[-1]:.1f} s at most."


def named(rows: list[Row]) -> str:
    """`: a (2.1%), b (3.0%)`, or nothing."""
    found = ", ".join(f"{row.file} ({row.gap:.1%})" for row in sorted(rows, key=lambda row: -row.gap))
    return f": {found}" if found else ""


if __name__ == "__main__":
    sys.exit(main())
