"""Quantised networks give the same integers wherever they run: numpy, onnxruntime, library, C here, C on a Cortex-M4.

    python benchmarks/evidence_integers.py MODELS [--only NAME ...] [--output FILE.md]

MODELS: a folder with float ONNX files of the networks (stems in integer_networks.NETWORKS); the trained ones may lie in
../shared/models beside the project. A network without a file is left out, and the page says so. Rows that are in
build/evidence/integers.json are not computed again; delete it after the code has changed. Exit code 1 when a code
differs or a flipped bit is not seen.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import date
from pathlib import Path

from integer_networks import NETWORKS, quantized
from integer_readings import Reading, Readings, read_all

ROOT = Path(__file__).resolve().parents[1]
ROWS = ROOT / "build/evidence/integers.json"
COLUMNS = ("onnxruntime", "model.so", "C, gcc", "C, Cortex-M4")
FEWEST, MOST_SATURATED = 50, 0.05


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path)
    parser.add_argument("--only", nargs="*", default=list(NETWORKS))
    parser.add_argument("--output", type=Path, default=ROOT / "docs/evidence/integers.md")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    rows = _stored()
    for name in arguments.only:
        if name in rows:
            continue
        network = quantized(NETWORKS[name], arguments.models)
        if network is None:
            print(f"{name}: no file", file=sys.stderr)
            continue
        rows[name] = read_all(name, network)
        ROWS.parent.mkdir(parents=True, exist_ok=True)
        ROWS.write_text(json.dumps({key: asdict(row) for key, row in rows.items()}, indent=1), encoding="utf-8")
        print(f"{name}: {rows[name].readings}", file=sys.stderr, flush=True)
    ordered = [rows[name] for name in NETWORKS if name in rows]
    missing = [name for name in NETWORKS if name not in rows]
    arguments.output.write_text(_page(ordered, missing), encoding="utf-8")
    return 0 if all(map(_holds, ordered)) else 1


def _stored() -> dict[str, Readings]:
    if not ROWS.is_file():
        return {}
    stored = json.loads(ROWS.read_text(encoding="utf-8"))
    return {name: _row(fields) for name, fields in stored.items()}


def _row(fields: dict) -> Readings:  # type: ignore[type-arg]
    readings = {name: Reading(**reading) for name, reading in fields["readings"].items()}
    return Readings(**{**fields, "readings": readings, "notes": tuple(fields["notes"])})


def _holds(row: Readings) -> bool:
    return all(reading.differ == 0 and reading.control > 0 for reading in row.readings.values())


def _page(rows: list[Readings], missing: list[str]) -> str:
    return "\n".join([*_head(rows, missing), *_table(rows), "", *_data(rows), "", *_notes(rows)]).rstrip() + "\n"


def _head(rows: list[Readings], missing: list[str]) -> Iterator[str]:
    held = sum(map(_holds, rows))
    yield "# The same integers everywhere"
    yield ""
    yield f"{date.today().isoformat()}, by `python benchmarks/evidence_integers.py MODELS`."
    yield ""
    yield (
        f"{held} of {len(rows)} quantised networks give identical integers at every layer boundary in every reading. "
        "The reference is `codesign.numerics` (numpy, 64-bit integers); `onnxruntime` runs the QDQ file in float32 "
        "without graph optimisations, wherever sums stay below 2^24. Counted are codes, all boundaries and inputs "
        "together, as *differing / compared*; behind it, in brackets, how many differ when one bit of one weight of "
        "the first layer is flipped. The emulated C is compared on one input, everything else on two (the face "
        "detector on eight pictures)."
    )
    yield ""
    if missing:
        yield f"No file was there for: {', '.join(missing)}."
        yield ""


def _table(rows: list[Readings]) -> Iterator[str]:
    yield f"| network | {' | '.join(COLUMNS)} |"
    yield f"|---|{'---|' * len(COLUMNS)}"
    for row in rows:
        yield f"| {row.network} | {' | '.join(_cell(row.readings.get(column)) for column in COLUMNS)} |"


def _cell(reading: Reading | None) -> str:
    return "-" if reading is None else f"{reading.differ} / {reading.codes:,} ({reading.control:,})"


def _data(rows: list[Readings]) -> Iterator[str]:
    yield (
        "What was compared: boundaries, layers left in floating point, the fewest distinct values and the largest "
        "share of saturated codes (a Relu or Clip is none) in any tensor of 500 elements or more, the largest sum "
        "measured."
    )
    yield ""
    yield "| network | boundaries | in floats | fewest values | saturated | largest sum |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        few = f"**{row.fewest}**" if row.fewest < FEWEST else f"{row.fewest}"
        much = f"{row.saturated:.2%}" if row.saturated < MOST_SATURATED else f"**{row.saturated:.2%}**"
        yield f"| {row.network} | {row.tensors} | {row.floating} | {few} | {much} | {row.largest_sum:,} |"


def _notes(rows: list[Readings]) -> Iterator[str]:
    noted = [(row.network, note) for row in rows for note in row.notes]
    yield from (f"* {network}: {note}." for network, note in noted)


if __name__ == "__main__":
    sys.exit(main())
