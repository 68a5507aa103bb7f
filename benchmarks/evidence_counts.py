"""Counts MACs and parameters of the networks in a folder and compares them with those measured in their own packages.

    python benchmarks/evidence_counts.py MODELS [--reference FILE.csv] [--output FILE.md] [--cache FILE.jsonl]

MODELS: a folder searched for NAME.onnx, NAME being a `name` of the reference; several files of one network (another
exporter, BatchNormalization kept or folded) are all counted. Rows done before are taken from the cache until the code
that counts changes. Exit code 1 when a difference is left that is not accounted for, element by element.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date
from itertools import groupby
from pathlib import Path

from codesign.errors import CodesignError
from codesign.graph.graph import Graph, shape_of
from codesign.graph.operators import optional_input
from codesign.importers.onnx_importer import load_onnx
from codesign.vocabulary import OperationKind
from codesign.workload import layers_of, parameters_of

ROOT = Path(__file__).resolve().parents[1]
COUNTING = ("workload", "graph", "importers")


@dataclass(frozen=True)
class Reference:
    """What the network's own package says: MACs of convolutions, dense layers and matrix products; all parameters."""

    package: str
    macs: int
    parameters: int


@dataclass(frozen=True)
class Count:
    """One file. parameters: each tensor once; used: as often as nodes read it. Of those used: constants are held by
    element-wise nodes, norms are scales and shifts of BatchNormalization, biases belong to convolutions.

    problem: why the file could not be counted. counting: digest of the code that counted.
    """

    file: str
    file_bytes: int
    counting: str
    macs: int = 0
    parameters: int = 0
    used: int = 0
    constants: int = 0
    norms: int = 0
    biases: int = 0
    problem: str = ""

    @property
    def network(self) -> str:
        """The file's name without its ending."""
        return Path(self.file).stem


def counting_version() -> str:
    """A digest of the code that counts: a row counted by other code is counted again."""
    digest = hashlib.sha256()
    for folder in COUNTING:
        for path in sorted((ROOT / "codesign" / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def read_reference(path: Path) -> dict[str, Reference]:
    """Networks by name; rows without both measurements are left out."""
    with path.open(encoding="utf-8", newline="") as file:
        return {
            row["name"]: Reference(row["impl"], int(row["macs_measured"]), int(row["params_measured"]))
            for row in csv.DictReader(file)
            if row["macs_measured"] and row["params_measured"]
        }


def count(path: Path, key: tuple[str, int, str]) -> Count:
    """Import one file and count; a file that cannot be imported is a row with its problem."""
    try:
        graph = load_onnx(path)
    except CodesignError as error:
        return Count(*key, problem=error.problems[0].problem)
    layers = layers_of(graph)
    return Count(
        *key,
        macs=sum(layer.nest.macs for layer in layers),
        parameters=parameters_of(graph),
        used=sum(layer.parameters for layer in layers),
        constants=sum(layer.parameters for layer in layers if layer.nest.kind is OperationKind.ELEMENTWISE),
        norms=sum(layer.parameters for layer in layers if layer.op == "BatchNormalization"),
        biases=sum(convolution_biases(graph)),
    )


def convolution_biases(graph: Graph) -> Iterator[int]:
    """Elements of every convolution's bias."""
    for node in graph.nodes:
        bias = optional_input(node, 2) if node.op_type in ("Conv", "ConvTranspose") else None
        if bias is not None:
            yield shape_of(bias)[0]


def count_all(models: Path, names: set[str], cache: Path) -> list[Count]:
    """All files of known networks, in order of name. What the cache holds is not counted again; new rows go there."""
    known = {(row.file, row.file_bytes, row.counting): row for row in read_cache(cache)}
    version = counting_version()
    cache.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for path in sorted(models.rglob("*.onnx"), key=lambda path: (path.stem, path)):
        if path.stem not in names:
            continue
        key = (path.relative_to(models).as_posix(), path.stat().st_size, version)
        if key not in known:
            known[key] = count(path, key)
            with cache.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(known[key])) + "\n")
            print(f"counted {key[0]}", file=sys.stderr, flush=True)
        rows.append(known[key])
    return rows


def read_cache(cache: Path) -> Iterator[Count]:
    """Rows of earlier runs; a last line cut short by a killed run is dropped."""
    for line in cache.read_text(encoding="utf-8").splitlines() if cache.exists() else ():
        try:
            yield Count(**json.loads(line))
        except (json.JSONDecodeError, TypeError):
            print(f"{cache}: a row is unreadable and is counted again", file=sys.stderr)


def account(row: Count, wanted: Reference, others: list[Count]) -> str:
    """Why the parameters differ, when every element of the difference is accounted for; else nothing."""
    if row.problem:
        return ""
    if row.parameters == wanted.parameters:
        return "equal"
    if row.used == wanted.parameters:
        return f"equal as used: the exporter stored {row.used - row.parameters:,} elements of equal tensors once"
    if row.used - row.constants == wanted.parameters:
        return f"{row.constants:,} elements of constants beside activations (anchors, input scaling) were not learned"
    for other in others:
        folded, made = other.norms - row.norms, row.biases - other.biases
        if other.used - wanted.parameters in (0, other.constants) and row.used == other.used - folded + made:
            return f"{folded:,} scales and shifts of BatchNormalization folded by the exporter, {made:,} biases made"
    return ""


def best(rows: list[Count], wanted: Reference) -> Count:
    """The file closest to the reference: parameters first, then MACs."""
    return min(
        rows, key=lambda row: (bool(row.problem), abs(row.parameters - wanted.parameters), abs(row.macs - wanted.macs))
    )


def table(rows: list[tuple[Count, Reference, str]]) -> Iterator[str]:
    """Lines of a Markdown table."""
    yield "| network | from | file | MACs here | reference | parameters here | reference | |"
    yield "|---|---|---|---:|---:|---:|---:|---|"
    for row, wanted, why in rows:
        macs = "" if row.macs == wanted.macs else f"; MACs differ by {row.macs - wanted.macs:+,}"
        verdict = row.problem or f"{why or f'parameters differ by {row.parameters - wanted.parameters:+,}'}{macs}"
        yield (
            f"| {row.network} | {wanted.package} | {row.file} | {row.macs:,} | {wanted.macs:,} "
            f"| {row.parameters:,} | {wanted.parameters:,} | {verdict} |"
        )


def page(first: list[tuple[Count, Reference, str]], others: list[tuple[Count, Reference, str]]) -> str:
    """The whole page: totals, one row a network, then the other files of the same networks."""
    equal = sum(row.macs == wanted.macs and why == "equal" for row, wanted, why in first)
    macs = sum(row.macs == wanted.macs for row, wanted, _ in first)
    lines = [
        "# MACs and parameters against the networks' own packages",
        "",
        f"{date.today().isoformat()}, written by `benchmarks/evidence_counts.py`. Reference: `architectures.csv` here",
        "(macs_measured and params_measured; impl and impl_name name the package and the network in it). MACs:",
        "convolutions, dense layers, matrix products of attention. Parameters: each tensor once, without running means",
        "and variances.",
        "",
        f"{len(first)} networks: MACs and parameters equal for {equal}, MACs for {macs}.",
        "",
        *table(first),
        "",
        "## Other files of the same networks",
        "",
        *table(others),
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("--reference", type=Path, default=ROOT / "docs/evidence/architectures.csv")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/evidence/counts.md")
    parser.add_argument("--cache", type=Path, default=ROOT / "build/evidence/counts.jsonl")
    options = parser.parse_args()
    reference = read_reference(options.reference)
    rows = count_all(options.models, set(reference), options.cache)
    if not rows:
        print(f"{options.models}: no NAME.onnx of a network in {options.reference}", file=sys.stderr)
        return 2
    first: list[tuple[Count, Reference, str]] = []
    others: list[tuple[Count, Reference, str]] = []
    for name, group in groupby(rows, key=lambda row: row.network):
        files, wanted = list(group), reference[name]
        chosen = best(files, wanted)
        for row in files:
            entry = (row, wanted, account(row, wanted, [other for other in files if other is not row]))
            (first if row is chosen else others).append(entry)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(page(first, others), encoding="utf-8")
    left = [row.file for row, wanted, why in (*first, *others) if not why or row.macs != wanted.macs]
    print(f"{len(first)} networks, {len(rows)} files; not accounted for: {', '.join(left) or 'nothing'}")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
