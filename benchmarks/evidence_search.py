"""Searches two spaces twice, with groups by MACs and by cycles, and says which champions the two have in common.

    python benchmarks/evidence_search.py [MODELS] [--workers N] [--folder FOLDER] [--output FILE.md]

Real training on the digits: some ten minutes of two cores for every space. A run that was cut off goes on where it
was. The table is docs/evidence/search.md. MODELS is not used.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from codesign.search.comparison import Comparison, compare
from codesign.search.results import Outcome, Results
from codesign.search.settings import SearchSettings
from codesign.search.store import open_store
from codesign.search.tournament import Rounds
from codesign.searching import CHECKPOINTS, Means, search_networks

ROOT = Path(__file__).resolve().parents[1]
SPACES = ("digits", "images")
AXES = ("macs", "cycles")
MACHINE = "edge_npu"
ROUNDS = Rounds(epochs=3, count=4)

_WHAT = (
    f"Tournaments on the 1,797 digits for {MACHINE}: sixteen candidates in four groups, {ROUNDS.count} rounds of",
    f"{ROUNDS.epochs} epochs. In `digits` the order by MACs and that by cycles are nearly the same;",
    "in `images` they are not: a large image with few channels has more products than a small one with many, and",
    "takes fewer cycles, as weights come in and lanes fill by channels. One seed: another can have other champions.",
)


def searched(space: str, axis: str, folder: Path, workers: int) -> Results:
    """One search, from where it was; a candidate that the first search has trained is not trained again."""
    run, first = (folder / f"{space}_by_{name}" for name in (axis, AXES[0]))
    folder.mkdir(parents=True, exist_ok=True)
    if not run.exists() and first.exists():
        with open_store(run):  # checkpoints without a store would be refused
            shutil.copytree(first / CHECKPOINTS, run / CHECKPOINTS)
    settings = SearchSettings((axis,), rounds=ROUNDS)
    return search_networks(
        ROOT / f"examples/search/{space}.yaml", MACHINE, "digits", run, settings, Means(workers=workers)
    )


def section(space: str, comparison: Comparison) -> Iterator[str]:
    """The lines of one space."""
    yield f"## {space}"
    yield ""
    yield f"{comparison.sentence}."
    yield ""
    yield "| candidate | M MACs | k cycles | group by MACs | fate | accuracy | group by cycles | fate | accuracy |"
    yield "|---|---:|---:|---:|---|---:|---:|---|---:|"
    others = {outcome.candidate: outcome for outcome in comparison.second.results.outcomes}
    for outcome in comparison.first.results.outcomes:
        resources = outcome.resources
        assert resources is not None, f"{outcome.candidate.name} does not fit"
        cells = (*_fate(outcome), *_fate(others[outcome.candidate]))
        yield (
            f"| {outcome.candidate.name} | {resources.macs / 1e6:.2f} | {resources.cycles / 1e3:.1f} "
            f"| {' | '.join(cells)} |"
        )
    yield ""


def _fate(outcome: Outcome) -> tuple[str, str, str]:
    assert outcome.grouped is not None
    fate = f"**{outcome.fate}**" if outcome.champion else outcome.fate
    return str(outcome.grouped.group), fate, f"{outcome.accuracy:.1%}" if outcome.accuracy is not None else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="?", help="not used; `make evidence` gives it to all scripts")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, default=ROOT / "build/evidence/search")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/evidence/search.md")
    options = parser.parse_args()
    lines = ["# Groups by MACs and groups by cycles", ""]
    lines += [f"{date.today().isoformat()}, written by `benchmarks/evidence_search.py`.", "", *_WHAT, ""]
    for space in SPACES:
        by_macs, by_cycles = (searched(space, axis, options.folder, options.workers) for axis in AXES)
        lines += section(space, compare(by_macs, by_cycles))
    options.output.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
