"""Tries every exact pass on every network in a folder: equal outputs, valid, idempotent, a planted error caught.

    python benchmarks/evidence_passes.py MODELS [--only a,b] [--passes c,d] [--jobs 2] [--keep]
                                         [--largest-mebibytes N] [--output FILE.md] [--rows FILE.csv]

MODELS: a folder searched for *.onnx; the folder a file lies in is called its exporter. Rows go to FILE.csv as soon as
a file is done; those of the same file and the same code are not done again. Exit code 1 when a pass fails on a network.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib.util import find_spec
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

from pass_rows import Row, append_rows, page, read_rows
from pass_trial import Trial, read_subject, try_pass

from codesign.rewriting.catalogue import catalogue
from codesign.rewriting.graph_pass import Effect, GraphPass
from codesign.rewriting.options import text_of, variants_of
from codesign.rewriting.pipeline import resolve_pipeline

ROOT = Path(__file__).resolve().parents[1]
LARGEST_MEBIBYTES = 400
FILES_PER_POOL = 40  # then new processes, so that memory is given back
_OWN = ("codesign", "passes")


@dataclass(frozen=True)
class Task:
    """One file and the passes to try on it, as `--passes` takes them, each with the digest of its code."""

    path: Path
    file: str
    digest: str
    steps: tuple[tuple[str, str], ...]


def exact_variants(wanted: set[str]) -> list[GraphPass]:
    """Every choice of options that is exact, of these passes, or of all. Raises SystemExit for a broken pass."""
    found = catalogue()
    if found.broken or wanted - set(found.passes):
        sys.exit(f"no such pass, or broken: {', '.join(sorted({*found.broken, *(wanted - set(found.passes))}))}")
    kinds = [kind for name, kind in found.passes.items() if not wanted or name in wanted]
    return [variant for kind in kinds for variant in variants_of(kind) if variant.effect_here is Effect.EXACT]


def code_digest(step: GraphPass) -> str:
    """Of the pass's file, of what tries it, and of everything of this project that those import."""
    digest = hashlib.sha256()
    for path in sorted(imported_files(Path(sys.modules[type(step).__module__].__file__ or "")) | _trial_files()):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


@cache
def _trial_files() -> frozenset[Path]:
    here = Path(__file__).parent
    return imported_files(here / "pass_trial.py") | {here / "network_weights.py"}


def imported_files(start: Path) -> frozenset[Path]:
    """A file and all files of the project it imports, in functions too, and what those import."""
    found: set[Path] = set()
    waiting = [start]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += [file for name in _imports(path) if (file := _file_of(name)) is not None]
    return frozenset(found)


@cache
def _imports(path: Path) -> frozenset[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(name for name in names if name.split(".")[0] in _OWN)


@cache
def _file_of(name: str) -> Path | None:
    """The file of a module; None for what is no module but something in one."""
    try:
        spec = find_spec(name)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin) if spec is not None and spec.origin else None


def try_file(task: Task) -> list[Row]:
    """All passes of a task, one after the other on the same imported network. Runs in a process of its own."""
    steps = [(resolve_pipeline(text).passes[0], code) for text, code in task.steps]
    try:
        subject = read_subject(task.path)
    except Exception as error:  # onnxruntime and protobuf raise types of their own
        trial = Trial(0, {}, None, None, f"not read: {str(error).strip().splitlines()[0][:300]}", 0.0)
        return [_row(task, step, code, False, trial) for step, code in steps]
    return [_row(task, step, code, subject.enlivened, try_pass(subject, step)) for step, code in steps]


def _row(task: Task, step: GraphPass, code: str, enlivened: bool, trial: Trial) -> Row:
    return Row(
        step=text_of(step),
        file=task.file,
        digest=task.digest,
        code=code,
        day=date.today().isoformat(),
        enlivened=enlivened,
        applied=trial.applied,
        difference=trial.difference,
        control=trial.control,
        seconds=trial.seconds,
        problem=trial.problem,
        declined=trial.declined,
    )


def tasks(files: list[Path], codes: dict[str, str], options: argparse.Namespace) -> Iterator[Task]:
    """What is left to do, the smallest file first."""
    done = read_rows(options.rows)
    for path in sorted(files, key=lambda path: path.stat().st_size):
        name = path.relative_to(options.models).as_posix()
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        known = {step for step in codes if (row := done.get((step, name))) is not None and row.digest == digest}
        left = tuple(
            (step, code)
            for step, code in codes.items()
            if step not in known or done[step, name].problem or (done[step, name].code != code and not options.keep)
        )
        if left:
            yield Task(path, name, digest, left)


def run_all(left: list[Task], jobs: int, keep: Callable[[list[Row]], None]) -> None:
    """As many files at a time as there are jobs; now and then in new processes."""
    for start, end in pairwise([*range(0, len(left), FILES_PER_POOL), len(left)]):
        # Not max_tasks_per_child, with which the pool of Python 3.11 waits for ever once a process has done its share.
        with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
            futures: list[Future[list[Row]]] = [pool.submit(try_file, task) for task in left[start:end]]
            for future in as_completed(futures):
                keep(future.result())


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("--only", default="", help="networks: names without .onnx, between commas")
    parser.add_argument("--passes", default="", help="names of passes, between commas")
    parser.add_argument("--keep", action="store_true", help="rows of earlier code are not done again")
    parser.add_argument("--jobs", type=int, default=2, help="files at a time")
    parser.add_argument("--largest-mebibytes", type=int, default=LARGEST_MEBIBYTES, help="skip larger files")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/evidence/passes.md")
    parser.add_argument("--rows", type=Path, default=ROOT / "build/evidence/passes.csv")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    wanted = set(filter(None, options.only.split(",")))
    files = [path for path in options.models.rglob("*.onnx") if not wanted or path.stem in wanted]
    skipped = [path for path in files if path.stat().st_size > options.largest_mebibytes << 20]
    files = [path for path in files if path not in skipped]
    if not files:
        print(f"{options.models}: no ONNX file called {options.only or '*.onnx'}", file=sys.stderr)
        return 2
    codes = {text_of(step): code_digest(step) for step in exact_variants(set(filter(None, options.passes.split(","))))}
    left = list(tasks(files, codes, options))
    runs, finished = sum(len(task.steps) for task in left), 0

    def keep(rows: list[Row]) -> None:
        nonlocal finished
        append_rows(options.rows, rows)
        finished += len(rows)
        changed, failed = sum(row.applied > 0 for row in rows), [row for row in rows if row.problem]
        seconds = sum(row.seconds for row in rows)
        line = f"[{finished}/{runs}] {rows[0].file}: {len(rows)} passes, {changed} changed it, {seconds:.1f} s"
        print("\n  ".join([line, *(f"{row.step}: {row.problem}" for row in failed)]), file=sys.stderr, flush=True)

    options.rows.parent.mkdir(parents=True, exist_ok=True)
    run_all(left, options.jobs, keep)
    return report(options, skipped)


def report(options: argparse.Namespace, skipped: list[Path]) -> int:
    """Write the CSV file in order, without passes that are gone, and the page of all others."""
    codes = {text_of(step): code_digest(step) for step in exact_variants(set())}
    rows = [row for _, row in sorted(read_rows(options.rows).items()) if row.step in codes]
    beside = options.rows.with_suffix(".new")
    beside.unlink(missing_ok=True)
    append_rows(beside, rows)
    os.replace(beside, options.rows)
    older = sum(row.code != codes[row.step] for row in rows)
    names = [path.relative_to(options.models).as_posix() for path in skipped]
    options.output.write_text(page(rows, older, names), encoding="utf-8")
    failed = [f"{row.step} on {row.file}: {row.problem}" for row in rows if row.problem]
    print("\n".join([f"{len(rows)} runs, {len(failed)} failed", *failed]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
