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
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from itertools import groupby
from pathlib import Path

import onnx_ir as ir

from codesign.errors import CodesignError
from codesign.graph.graph import Graph, constant_of
from codesign.graph.operators import optional_input
from codesign.importers.onnx_importer import load_onnx
from codesign.workload.layers import layers_of, parameters_of
from codesign.workload.operators import convolution, elementwise, matrix
from codesign.workload.operators.table import OPERATORS
from codesign.workload.tensors import elements

ROOT = Path(__file__).resolve().parents[1]
COUNTING = ("workload", "graph", "importers")
PRODUCTS = {*convolution.ENTRIES, *matrix.ENTRIES}


@dataclass(frozen=True)
class Reference:
    """What the network's own package says: MACs of convolutions, dense layers and matrix products; all parameters."""

    package: str
    macs: int
    parameters: int


@dataclass(frozen=True)
class Count:
    """One file. parameters: each tensor once; used: as often as nodes read it, which is the sum of four roles.

    weights: of convolutions and matrix products; biases: theirs; norms: scales and shifts of BatchNormalization; rest:
    all other. zeros: elements of biases and of the rest that are 0 throughout. constants: sizes of the distinct tensors
    beside activations of element-wise nodes. problem: why the file could not be counted. counting: digest of the code.
    """

    file: str
    file_bytes: int
    counting: str
    macs: int = 0
    parameters: int = 0
    used: int = 0
    weights: int = 0
    biases: int = 0
    norms: int = 0
    rest: int = 0
    zeros: int = 0
    constants: tuple[int, ...] = ()
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
    roles: Counter[str] = Counter()
    for node in graph.nodes:
        for value, role in learned_values(node):
            roles[role] += elements(value)
            roles["zeros"] += elements(value) if role in ("biases", "rest") and is_zero(value) else 0
    return Count(
        *key,
        macs=sum(layer.nest.macs for layer in layers),
        parameters=parameters_of(graph),
        used=sum(layer.parameters for layer in layers),
        constants=tuple(elements(value) for value in elementwise_constants(graph)),
        weights=roles["weights"],
        biases=roles["biases"],
        norms=roles["norms"],
        rest=roles["rest"],
        zeros=roles["zeros"],
    )


def learned_values(node: ir.Node) -> Iterator[tuple[ir.Value, str]]:
    """Distinct learned values of a node and their role."""
    for value in dict.fromkeys(OPERATORS[node.op_type].learned(node) if node.op_type in OPERATORS else ()):
        if node.op_type == "BatchNormalization":
            yield value, "norms"
        elif node.op_type in PRODUCTS:
            yield value, "biases" if value is optional_input(node, 2) else "weights"
        else:
            yield value, "rest"


def elementwise_constants(graph: Graph) -> dict[ir.Value, None]:
    """Distinct values that count as learned and stand beside an activation."""
    beside = [node for node in graph.nodes if node.op_type in elementwise.ENTRIES]
    return dict.fromkeys(value for node in beside for value, _ in learned_values(node))


def is_zero(value: ir.Value) -> bool:
    """Whether a constant is 0 throughout."""
    number = constant_of(value)
    return number is not None and not number.any()


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
            row = json.loads(line)
            yield Count(**(row | {"constants": tuple(row["constants"])}))
        except (json.JSONDecodeError, KeyError, TypeError):
            print(f"{cache}: a row is unreadable and is counted again", file=sys.stderr)


def account(row: Count, wanted: Reference, others: list[Count]) -> str:
    """Why the parameters differ, when every element of the difference is accounted for; else nothing."""
    if row.problem:
        return ""
    if row.parameters == wanted.parameters:
        return "equal"
    if row.used == wanted.parameters:
        return f"equal as used: the exporter stored {row.used - row.parameters:,} elements of equal tensors once"
    if is_sum_of(row.constants, row.parameters - wanted.parameters):
        surplus = row.parameters - wanted.parameters
        return f"{surplus:,} elements of constants beside activations (anchors, input scaling) were not learned"
    return next((text for other in others if (text := exporter_changes(row, other, wanted))), "")


def is_sum_of(sizes: Sequence[int], total: int) -> bool:
    """Whether some of the sizes add up to the total."""
    reached = {0}
    for size in sizes:
        reached |= {before + size for before in reached if before + size <= total}
    return total in reached and total > 0


def exporter_changes(row: Count, other: Count, wanted: Reference) -> str:
    """What an exporter changed, role by role, against another file of the network that is accounted for.

    All weights must be there, and biases and the rest may only lack what is 0 throughout (as in an untrained network)
    or took up a folded BatchNormalization. The numbers printed add up to the difference.
    """
    surplus = other.parameters - wanted.parameters
    folded = other.norms - row.norms
    added = row.biases + row.rest - other.biases - other.rest
    stored_once = (row.used - row.parameters) - (other.used - other.parameters)
    parts = {
        "not learned (anchors, input scaling)": surplus,
        "BatchNormalization folded": -folded,
        "biases made" if added > 0 else "biases of zeros left out": added,
        "equal tensors stored once": -stored_once,
    }
    is_known = surplus == 0 or is_sum_of(other.constants, surplus)
    is_plausible = folded >= 0 and -other.zeros <= added <= folded // 2 and row.weights == other.weights
    if not is_known or not is_plausible or sum(parts.values()) != row.parameters - wanted.parameters:
        return ""
    return "exporter: " + ", ".join(f"{what} {number:+,}" for what, number in parts.items() if number)


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


def page(first: list[tuple[Count, Reference, str]], others: list[tuple[Count, Reference, str]], reference: str) -> str:
    """The whole page: totals, one row a network, then the other files of the same networks."""
    equal = sum(row.macs == wanted.macs and why == "equal" for row, wanted, why in first)
    macs = sum(row.macs == wanted.macs for row, wanted, _ in first)
    lines = [
        "# MACs and parameters against the networks' own packages",
        "",
        f"{date.today().isoformat()}, written by `benchmarks/evidence_counts.py`. Reference: macs_measured and",
        f"params_measured of `{reference}`, whose impl and impl_name name the package and the network in it. MACs:",
        "convolutions, dense layers, matrix products of attention. Parameters: each tensor once, without running means",
        "and variances. The file shown is the one of a network that comes closest.",
        "",
        f"{len(first)} networks: MACs and parameters equal for {equal}, MACs for {macs}.",
        "",
        *table(first),
        "",
        *(["## Other files of the same networks", "", *table(others), ""] if others else []),
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
    options.output.write_text(page(first, others, options.reference.name), encoding="utf-8")
    left = [row.file for row, wanted, why in (*first, *others) if not why or row.macs != wanted.macs]
    print(f"{len(first)} networks, {len(rows)} files; not accounted for: {', '.join(left) or 'nothing'}")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
