"""`benchmarks/evidence_passes.py` sees what a pass may do wrong, and does again only what it must."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from codesign.graph.graph import Graph, constant_of
from codesign.rewriting.catalogue import find_pass
from codesign.rewriting.edit import set_constant
from codesign.rewriting.graph_pass import Applied, Effect, GraphPass, Outcome, PassContext
from tests.pass_networks import NETWORKS

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import evidence_passes
from pass_rows import Row, append_rows, page, read_rows
from pass_trial import Subject, read_subject, try_pass

ROW = Row(
    "a-pass{mode=up}", "ts/net.onnx", "d" * 12, "c" * 12, "2026-01-02", False, 3, 1.5e-7, 0.25, 0.5, "", {"x, y": 2}
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two small networks, as two exporters write them."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("ts/conv_norm", "dynamo/classifier"):
        path = folder / f"{name}.onnx"
        path.parent.mkdir()
        onnx.save(NETWORKS[path.stem](np.random.default_rng(0)), path)
    return folder


@pytest.fixture(scope="module")
def subject(models: Path) -> Subject:
    return read_subject(models / "ts" / "conv_norm.onnx")


@dataclass(frozen=True)
class Doing(GraphPass):
    """Does whatever a test wants to the first weights."""

    name: ClassVar[str] = "doing"
    effect: ClassVar[Effect] = Effect.EXACT
    change: Callable[[np.ndarray], np.ndarray]
    says: bool = True

    def run(self, graph: Graph, context: PassContext) -> list[Outcome]:
        node = graph.nodes[0]
        weights = constant_of(node.inputs[1])
        assert weights is not None
        set_constant(graph, node, 1, self.change(weights), "weight")
        return [Applied("there", "done")] if self.says else []


def cut(weights: np.ndarray) -> np.ndarray:
    """One filter less than the next node reads."""
    return weights[:-1]


@pytest.mark.parametrize(
    ("step", "problem"),
    [
        (Doing(lambda weights: weights * np.float32(1.001)), "the outputs differ by"),
        (Doing(lambda weights: weights), "a second run applied it again, at there: done"),
        (Doing(lambda weights: weights * np.float32(2), says=False), "it applied nowhere and changed the graph"),
        (Doing(lambda weights: weights * np.float32("nan")), "the outputs differ by inf"),
        (Doing(cut), "the ONNX checker refuses the graph"),
        (Doing(lambda weights: weights.reshape(7)), "ValueError: cannot reshape"),
    ],
)
def test_what_a_pass_does_wrong_is_a_problem(subject: Subject, step: GraphPass, problem: str) -> None:
    assert try_pass(subject, step).problem.startswith(problem)


def test_a_good_pass_has_none(subject: Subject) -> None:
    trial = try_pass(subject, find_pass("fold-batch-norm")())
    assert (trial.problem, trial.applied, trial.declined) == ("", 2, {})
    assert trial.difference is not None and trial.difference < 1e-5
    assert trial.control is not None and trial.control > 1e-3


def test_a_subject_is_left_as_it_was(subject: Subject) -> None:
    before = ir.to_proto(subject.graph.model)
    try_pass(subject, find_pass("fold-batch-norm")())
    assert ir.to_proto(subject.graph.model) == before


def test_rows_survive_the_file_and_a_line_cut_short_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    rows = [ROW, replace(ROW, file="bn/net.onnx", applied=0, difference=None, control=None, declined={})]
    append_rows(path, rows[:1])
    append_rows(path, rows[1:])
    path.write_text(path.read_text() + "a-pass{mode=up},ts/oth")
    assert read_rows(path) == {row.key: row for row in rows}


def test_a_failure_is_on_the_page() -> None:
    text = page([ROW, replace(ROW, file="bn/other.onnx", problem="the outputs differ by 1.0e+00")], 3, ["ts/huge.onnx"])
    assert "**1 pass variants x 2 files of 2 networks**" in text and "2 of them changed the network, 1 failed" in text
    assert "| `a-pass{mode=up}` | bn/other.onnx | the outputs differ by 1.0e+00 |" in text
    assert "| x, y | 4 | 2 | net, other |" in text
    assert "3 rows are of earlier states of the code." in text and "too large: ts/huge.onnx." in text


def test_a_digest_is_of_the_pass_and_what_it_imports() -> None:
    file = sys.modules[find_pass("fold-batch-norm").__module__].__file__
    assert file is not None
    found = {path.name for path in evidence_passes.imported_files(Path(file))}
    assert {"fold_batch_norm.py", "linear.py", "edit.py", "operators.py"} <= found
    assert "shift_average_pool.py" not in found and "catalogue.py" not in found


def test_a_second_run_does_nothing_again(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, output = tmp_path / "passes.csv", tmp_path / "passes.md"
    command = [
        "evidence_passes",
        str(models),
        "--rows",
        str(rows),
        "--output",
        str(output),
        "--passes",
        "fold-batch-norm",
    ]
    monkeypatch.setattr(sys, "argv", command)
    monkeypatch.setattr(evidence_passes, "run_all", in_this_process)
    assert evidence_passes.main() == 0
    assert capsys.readouterr().err.count("passes, 1 changed it") == 2
    text, page_text = rows.read_text(), output.read_text()
    assert "**1 pass variants x 2 files of 2 networks** (dynamo 1, ts 1" in page_text
    assert evidence_passes.main() == 0
    assert capsys.readouterr().err == ""
    assert (rows.read_text(), output.read_text()) == (text, page_text)
    found = next(iter(read_rows(rows).values()))
    rows.write_text(text.replace(found.code, "0" * 12))
    assert evidence_passes.main() == 0
    assert capsys.readouterr().err.count("passes, 1 changed it") == 2


def in_this_process(left: list[evidence_passes.Task], jobs: int, keep: Callable[[list[Row]], None]) -> None:
    """As `run_all`, but quicker to start."""
    for task in left:
        keep(evidence_passes.try_file(task))
