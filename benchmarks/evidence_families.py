"""Takes every network from import to int8: the catalogue of codesign, and the files of a folder.

    python benchmarks/evidence_families.py [MODELS] [--only a,b] [--stages imports,maps] [--limit-seconds N] [--again]
                                           [--jobs N] [--output FILE.md] [--networks FILE.md] [--cache FILE.jsonl]

MODELS: a folder searched for *.onnx; of two files with one name the first in alphabetical order counts. The networks
of `codesign networks list` are written to build/evidence/exported first. Every stage of every network has a process of
its own that ends after N seconds; smallest files first. What was done before is kept; --again does it again where the
code has changed since. Exit code 1 when a stage fails. The table is docs/evidence/families.md, and docs/networks.md is
written with it.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from itertools import takewhile
from pathlib import Path
from threading import Lock

import onnx
from evidence_networks import code_version
from family_page import REFERENCE, page
from family_rows import STAGES, Row, Stage
from networks_page import PLOT, PLOTTED_ON, measured, points
from networks_page import page as networks_page
from networks_plot import plot
from resumable import ROOT, ChildError, answer_of, rows_of

EXPORTED = ROOT / "build/evidence/exported"
LIMIT_SECONDS = 900
OURS = "codesign"


@dataclass(frozen=True)
class Subject:
    """A network to try. origin: the package it comes from."""

    name: str
    family: str
    origin: str
    path: Path


def exported(only: set[str]) -> Iterator[Subject]:
    """The networks of the catalogue, as files. only: names, or none for all."""
    from codesign.networks.catalogue import catalogue
    from codesign.networks.export import export

    EXPORTED.mkdir(parents=True, exist_ok=True)
    for name, architecture in catalogue().architectures.items():
        if only and name not in only:
            continue
        path = EXPORTED / f"{name}.onnx"
        if not path.exists():
            export(name, path)
        yield Subject(name, architecture.family, OURS, path)


def given(models: Path) -> Iterator[Subject]:
    """The files of a folder, and the package each comes from: as architectures.csv says, or the file itself."""
    with REFERENCE.open(encoding="utf-8", newline="") as file:
        known = {row["name"]: row for row in csv.DictReader(file)}
    families = {_stem(name): row["family"] for name, row in reversed(known.items())}
    seen: set[str] = set()
    for path in sorted(models.rglob("*.onnx")):
        name = path.stem
        if name not in seen:
            seen.add(name)
            if row := known.get(name):
                yield Subject(name, row["family"], row["impl"], path)
            else:
                yield Subject(name, families.get(_stem(name), _stem(name)), _package(path), path)


def _stem(name: str) -> str:
    """What a network and its larger sisters are called: the letters a name begins with."""
    return "".join(takewhile(str.isalpha, name))


def _package(path: Path) -> str:
    """The package `codesign networks export` took a network from; a dash for files of unknown origin."""
    written = {entry.key: entry.value for entry in onnx.load(path, load_external_data=False).metadata_props}
    return written.get("codesign.network", "").partition(":")[0] or "-"


def run(subject: Subject, stage: Stage, limit_seconds: int, code: str) -> Row:
    """One stage of one network in a process of its own."""
    command = [sys.executable, str(Path(__file__).with_name("family_stages.py")), stage, str(subject.path)]
    start = time.monotonic()
    problem, answer = "", ""
    try:
        answer = answer_of(command, limit_seconds)
    except ChildError as error:
        problem = error.said[-1].replace(f"{subject.path.parent}{os.sep}", "")
    row = Row(
        network=subject.name,
        family=subject.family,
        origin=subject.origin,
        stage=stage,
        file_bytes=subject.path.stat().st_size,
        code=code,
        day=date.today().isoformat(),
        seconds=round(time.monotonic() - start, 1),
        problem=problem,
    )
    return row if problem else row.model_validate({**row.model_dump(), "outcome": json.loads(answer.splitlines()[-1])})


def run_all(subjects: list[Subject], options: argparse.Namespace) -> None:
    """Fill the cache."""
    code = code_version()
    known = {row.key: row for row in rows_of(options.cache, Row)}
    options.cache.parent.mkdir(parents=True, exist_ok=True)
    wanted: list[tuple[Subject, Stage]] = []
    for subject in sorted(subjects, key=lambda subject: subject.path.stat().st_size):
        for stage in options.stages:
            before = known.get((subject.name, subject.origin, stage, subject.path.stat().st_size))
            if before is None or (before.code != code and (options.again or before.failure)):
                wanted.append((subject, stage))
    lock = Lock()

    def work(task: tuple[Subject, Stage]) -> None:
        row = run(*task, options.limit_seconds, code)
        with lock:
            with options.cache.open("a", encoding="utf-8") as file:
                file.write(row.model_dump_json() + "\n")
            print(f"{row.network} {row.stage}: {row.failure or 'done'} ({row.seconds} s)", file=sys.stderr, flush=True)

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(work, wanted))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="?", default=None)
    parser.add_argument("--only", default="", help="names between commas")
    parser.add_argument("--stages", default=",".join(STAGES), type=lambda text: tuple(text.split(",")))
    parser.add_argument("--limit-seconds", type=int, default=LIMIT_SECONDS, help="for one stage of one network")
    parser.add_argument("--again", action="store_true", help="do rows of earlier code again")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/evidence/families.md")
    parser.add_argument("--networks", type=Path, default=ROOT / "docs/networks.md")
    parser.add_argument("--cache", type=Path, default=ROOT / "build/evidence/families.jsonl")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    only = set(filter(None, options.only.split(",")))
    others = given(options.models) if options.models else ()
    run_all([*exported(only), *(subject for subject in others if not only or subject.name in only)], options)
    rows = list({row.key: row for row in rows_of(options.cache, Row)}.values())
    options.output.write_text(page(rows), encoding="utf-8")
    networks = measured(rows)
    options.networks.write_text(networks_page(networks), encoding="utf-8")
    if plotted := points(networks, PLOTTED_ON):
        (options.networks.parent / PLOT).write_text(plot(plotted, PLOTTED_ON), encoding="utf-8")
    failed = [f"{row.network} {row.stage}" for row in rows if row.failure]
    print(f"{len(rows)} rows; failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
