"""Merges the branches of the networks branch_networks.py wrote, and holds them against what they should merge into.

    python benchmarks/evidence_merging.py MODELS [--only repvgg_a0,dbb] [--keep]
                                          [--output FILE.md] [--cache FILE.jsonl]

MODELS: a folder with expected.json and ts/, bn/ and dynamo/; without expected.json there is nothing to do. One network
at a time, each in a process of its own. Rows done before by the same code are taken from the cache, with --keep good
rows of earlier code as well. Exit code 1 when a network is not what was expected.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from codesign.graph.graph import Graph
    from codesign.rewriting.record import PassRecord

ROOT = Path(__file__).resolve().parents[1]
EXPORTERS = ("ts", "bn", "dynamo")
TOLERANCE = 1e-4
PIPELINE = "merge-branches,fold-batch-norm"
LIMIT_SECONDS = 1200
COUNTED = ("codesign", "passes")


class _Figures(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Expected(_Figures):
    """What a network should merge into. before: convolutions with branches. same_parameters: those are held as well."""

    network: str
    before: int
    convolutions: int
    parameters: int
    source: str
    same_parameters: bool


class Size(_Figures):
    """Convolutions, their MACs for one image, and all floating-point constants of a graph."""

    convolutions: int
    macs: int
    parameters: int


class Measurement(_Figures):
    """One file before and after. norms: normalisations left. again: whether a second run changed anything.

    difference: of the outputs, max|a - b| / max|b|. control: the same with one merged weight changed.
    """

    before: Size
    after: Size
    norms: int
    applied: int
    declined: tuple[str, ...]
    again: bool
    difference: float
    control: float
    seconds: float


class Row(_Figures):
    """One file. problem: why there is no measurement."""

    network: str
    exporter: str
    file_bytes: int
    code: str
    day: str
    expected: Expected
    measurement: Measurement | None
    problem: str

    @property
    def failures(self) -> list[str]:
        """What is not as it should be."""
        if self.measurement is None:
            return [self.problem]
        found, wanted = self.measurement, self.expected
        checks = {
            f"{found.after.convolutions} convolutions, expected {wanted.convolutions}": (
                found.after.convolutions != wanted.convolutions
            ),
            f"{found.after.parameters} parameters, expected {wanted.parameters}": (
                wanted.same_parameters and found.after.parameters != wanted.parameters
            ),
            f"outputs differ by {found.difference:.1e}": not found.difference <= TOLERANCE,
            f"a changed weight changes them by {found.control:.1e} only": not found.control > TOLERANCE,
            "a second run changed the graph": found.again,
        }
        return [text for text, failed in checks.items() if failed]


def measure(path: Path) -> Measurement:
    """Merge one network, and run it and the original on the same data."""
    from codesign.importers.model import load_model
    from codesign.rewriting.graph_pass import PassContext
    from codesign.rewriting.pipeline import resolve_pipeline
    from codesign.rewriting.runner import run_pipeline

    graph = load_model(path, {}, None)
    start = time.process_time()
    after, records = run_pipeline(graph, resolve_pipeline(PIPELINE), PassContext())
    seconds = time.process_time() - start
    merging: PassRecord = records[0]
    _, second = run_pipeline(after, resolve_pipeline(PIPELINE), PassContext())
    before_size, after_size = size_of(graph), size_of(after)
    norms = sum(node.op_type == "BatchNormalization" for node in after.nodes)
    truth = outputs_of(graph)
    difference = relative_difference(outputs_of(after), truth)
    change_a_weight(after)
    return Measurement(
        before=before_size,
        after=after_size,
        norms=norms,
        applied=merging.applied,
        declined=tuple(outcome.reason for outcome in merging.declined),
        again=any(record.applied for record in second),
        difference=difference,
        control=relative_difference(outputs_of(after), truth),
        seconds=seconds,
    )


def size_of(graph: Graph) -> Size:
    """Counted by hand, not by the pass."""
    from math import prod

    from codesign.graph.graph import shape_of

    convolutions = [node for node in graph.nodes if node.op_type == "Conv"]
    weights = [(node.inputs[1], node.outputs[0]) for node in convolutions]
    macs = sum(prod(shape_of(w)) * prod(shape_of(y)[2:]) for w, y in weights if w is not None)
    constants = [value.const_value for value in graph.model.graph.initializers.values() if value.const_value]
    floats = sum(tensor.size for tensor in constants if tensor.dtype.is_floating_point())
    return Size(convolutions=len(convolutions), macs=macs, parameters=floats)


def outputs_of(graph: Graph) -> dict[str, object]:
    """From onnxruntime, its own rewrites off, on standard normal data."""
    import numpy as np
    import onnx_ir as ir
    import onnxruntime

    from codesign.graph.graph import shape_of

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    data = ir.to_proto(graph.model).SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    feeds = {str(value.name): random.standard_normal(shape_of(value), np.float32) for value in graph.inputs}
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


def relative_difference(found: dict[str, object], truth: dict[str, object]) -> float:
    """The largest max|a - b| / max|b| over the outputs, which have the same names."""
    import numpy as np

    arrays = [(np.asarray(found[name]), np.asarray(value)) for name, value in truth.items()]
    return max(float(np.abs(ours - theirs).max() / np.abs(theirs).max()) for ours, theirs in arrays)


def change_a_weight(graph: Graph) -> None:
    """Negate the largest weight of a convolution in the middle."""
    import numpy as np
    import onnx_ir as ir

    convolutions = [node for node in graph.nodes if node.op_type == "Conv"]
    value = convolutions[len(convolutions) // 2].inputs[1]
    assert value is not None and value.const_value is not None
    weights = value.const_value.numpy().copy()
    weights.flat[np.abs(weights).argmax()] *= -1
    value.const_value = ir.tensor(weights, name=value.name)


def in_own_process(path: Path) -> Measurement | str:
    """The measurement of one file, or why there is none."""
    command = [sys.executable, __file__, str(path.parent), "--measure", path.name]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, env=environment)
    except subprocess.TimeoutExpired:
        return f"not done within {LIMIT_SECONDS} s"
    if done.returncode:
        return ([line for line in done.stderr.splitlines() if line.strip()] or [f"ended with {done.returncode}"])[-1]
    return Measurement.model_validate_json(done.stdout.splitlines()[-1])


def code_version() -> str:
    """A digest of the code: a row of other code is done again."""
    digest = hashlib.sha256()
    for path in sorted([Path(__file__), *(path for name in COUNTED for path in (ROOT / name).rglob("*.py"))]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def read_cache(cache: Path, keep: bool) -> dict[tuple[str, str, int], Row]:
    """Rows of this code by network, exporter and size of the file; with keep, good ones of earlier code as well."""
    lines = cache.read_text(encoding="utf-8").splitlines() if cache.exists() else []
    rows, code = map(Row.model_validate_json, lines), code_version()
    kept = (row for row in rows if row.code == code or (keep and not row.failures))
    return {(row.network, row.exporter, row.file_bytes): row for row in kept}


def run_all(models: Path, expected: list[Expected], cache: Path, keep: bool) -> list[Row]:
    """A row for every file that is there; what is not is told."""
    code, known = code_version(), read_cache(cache, keep)
    cache.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for wanted in expected:
        for exporter in EXPORTERS:
            path = models / exporter / f"{wanted.network}.onnx"
            if not path.exists():
                print(f"{path}: not there, left out", file=sys.stderr)
                continue
            row = known.get((wanted.network, exporter, path.stat().st_size))
            rows.append(row if row is not None and row.expected == wanted else run(path, wanted, code, cache))
    return rows


def run(path: Path, expected: Expected, code: str, cache: Path) -> Row:
    """Do one file, and keep it."""
    found = in_own_process(path)
    row = Row(
        network=expected.network,
        exporter=path.parent.name,
        file_bytes=path.stat().st_size,
        code=code,
        day=date.today().isoformat(),
        expected=expected,
        measurement=found if isinstance(found, Measurement) else None,
        problem=found if isinstance(found, str) else "",
    )
    with cache.open("a", encoding="utf-8") as file:
        file.write(row.model_dump_json() + "\n")
    print(f"{row.network} {row.exporter}: {'; '.join(row.failures) or 'as expected'}", file=sys.stderr, flush=True)
    return row


def page(rows: list[Row]) -> str:
    """The page docs/evidence/merging.md."""
    done = [row.measurement for row in rows if row.measurement is not None]
    good = [row for row in rows if not row.failures]
    networks = len({row.network for row in rows})
    versions = ", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "onnx", "numpy"))
    states = len({row.code for row in rows})
    references = sorted({row.expected.source for row in rows})
    declined = sum(bool(found.declined) for found in done)
    lines = [
        "# Branches merged, against the networks their authors deploy",
        "",
        f"{max(row.day for row in rows)}, written by `benchmarks/evidence_merging.py`; the networks by",
        f"`benchmarks/branch_networks.py`; by {states} state{'s' * (states > 1)} of the code. {versions}.",
        "",
        "Every file is a network as training leaves it, with all its branches. `merge-branches` and then",
        "`fold-batch-norm` rewrite it. Convolutions and parameters are held against the same network after",
        f"re-parameterisation by others ({', '.join(references)}); outputs against the file itself, by onnxruntime",
        "with its own rewrites off, 224x224, standard normal input: max|a - b| / max|b|. The control is the same",
        "difference with one merged weight negated: it must exceed 0.0001. A second run must change nothing. MACs are",
        "those of convolutions. Seconds are processor time of the two passes with the checks after each.",
        "",
        "`ts`: TorchScript exporter, BatchNormalization folded by PyTorch where it follows a convolution; `bn`: all of",
        "it kept; `dynamo`: the dynamo exporter. Parameters in brackets need not be equal: there timm also fuses what",
        "is no branch, such as two classifiers, and keeps scales that are folded here.",
        "",
        f"{len(good)} files of {networks} networks are as expected; {len(rows) - len(good)} are not.",
        f"Largest difference of outputs {max(found.difference for found in done):.1e}; least of the controls "
        f"{min(found.control for found in done):.1e}. In {declined} files something was declined.",
        "",
        "| network | exporter | convolutions | merged | expected | parameters | merged | expected | MACs | merged | "
        "outputs | one weight negated | s | declined | verdict |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|",
        *map(_line, rows),
        "",
        "## Declined",
        "",
        *_reasons(rows),
    ]
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    verdict, wanted, found = "; ".join(row.failures) or "as expected", row.expected, row.measurement
    if found is None:
        return f"| {row.network} | {row.exporter} |{' |' * 12} {verdict} |"
    before, after = found.before, found.after
    cells = [
        *(row.network, row.exporter, before.convolutions, after.convolutions, wanted.convolutions),
        *(f"{number:,}" for number in (before.parameters, after.parameters)),
        f"{wanted.parameters:,}" if wanted.same_parameters else f"({wanted.parameters:,})",
        *(f"{number:,}" for number in (before.macs, after.macs)),
        *(f"{found.difference:.1e}", f"{found.control:.1e}", f"{found.seconds:.1f}", len(found.declined), verdict),
    ]
    return f"| {' | '.join(map(str, cells))} |"


def _reasons(rows: list[Row]) -> list[str]:
    """One example for every network, of the first exporter that has one."""
    found: dict[str, str] = {}
    for row in rows:
        if row.measurement is not None and row.measurement.declined:
            more = f" ({len(row.measurement.declined)} places in all)"
            found.setdefault(row.network, f"* {row.network}, {row.exporter}: {row.measurement.declined[0]}{more}")
    return list(found.values()) or ["Nothing was."]


def read_expected(models: Path, only: str) -> list[Expected]:
    """What expected.json says; nothing when it is not there."""
    path = models / "expected.json"
    if not path.exists():
        return []
    wanted = set(filter(None, only.split(",")))
    found = [Expected.model_validate(item) for item in json.loads(path.read_text(encoding="utf-8")).values()]
    return [item for item in found if not wanted or item.network in wanted]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("--only", default="", help="names between commas")
    parser.add_argument("--keep", action="store_true", help="keep good rows of earlier code")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/evidence/merging.md")
    parser.add_argument("--cache", type=Path, default=ROOT / "build/evidence/merging.jsonl")
    parser.add_argument("--measure", default="", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    options = arguments()
    if options.measure:
        print(measure(options.models / options.measure).model_dump_json())
        return 0
    rows = run_all(options.models, read_expected(options.models, options.only), options.cache, options.keep)
    if not rows:
        print(f"{options.models}: no expected.json and networks of branch_networks.py; nothing done", file=sys.stderr)
        return 0
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(page(rows), encoding="utf-8")
    failed = [f"{row.network} {row.exporter}" for row in rows if row.failures]
    print(f"{len(rows)} files; not as expected: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
