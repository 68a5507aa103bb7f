"""The script that confirms advice: what it compiles, what it calls equal, and that it goes on where it was."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import codesign
from codesign.report.advice_json import advice_json
from tests.refusals import convolution

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import evidence_advice
from advice_rows import Advised, Case, Compiled, Figures, Row, page, verdict
from resumable import rows_of

from tests.importers.models import save

BASE = Figures(cycles=1000, energy_pj=2e6, dram_bytes=400)
LESS = Figures(cycles=600, energy_pj=1e6, dram_bytes=400)


def row(passes: str, **found: object) -> Row:
    return Row(file="bn/a.onnx", file_bytes=9, hardware="ecnn", passes=passes, code="c", day="2026-01-02", **found)  # type: ignore[arg-type]


def case(found: Figures, seconds: float = 3.0) -> Case:
    told = Advised(seconds=seconds, tried=5, gaining=1, exact="fold", all="fold", confirm={"none": BASE, "fold": LESS})
    compiled = (
        row("none", compiled=Compiled(seconds=20, layers=7, figures=BASE)),
        row("fold", compiled=Compiled(seconds=21, layers=7, figures=found)),
    )
    return Case(advice=row("", advised=told), compiled=compiled)


def test_a_prediction_that_holds() -> None:
    held = case(LESS)
    assert held.faults == []
    text = page([held])
    assert "2 of 2 predictions equal what compiling gives, over 14 scheduled layers; 1 of 1 controls differ." in text
    assert "| bn/a | ecnn | 5 | 1 | `fold` | -40.0 %, -50.0 %, +0.0 % | the same |  | 3.0 |" in text
    assert "| bn/a | ecnn | `fold` | 600 | 1.000 uJ | 400 | equal | 7 | 21 |" in text


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"cycles": 601}, "cycles 601"),
        ({"energy_pj": 1e6 + 1}, "energy_pj 1,000,001.0"),
        ({"cycles": 599, "dram_bytes": 401}, "cycles 599, dram_bytes 401"),
    ],
)
def test_a_prediction_that_does_not_hold(change: dict[str, float], told: str) -> None:
    wrong = case(LESS.model_copy(update=change))
    assert wrong.faults == [f"bn/a.onnx on ecnn: fold: {told}"]
    assert wrong.advice.advised is not None
    assert verdict(wrong.compiled[0], wrong.advice.advised) == "equal"
    assert "1 of 2 predictions" in page([wrong])


def test_slow_advice_and_failed_commands_are_faults() -> None:
    assert case(LESS, seconds=30.1).faults == ["bn/a.onnx on ecnn: took 30.1 s"]
    failed = Case(advice=row("", problem="x: no such file"), compiled=())
    assert failed.faults == ["bn/a.onnx on ecnn: x: no such file"]
    assert "x: no such file" in page([failed])


def in_this_process(words: Sequence[str], *_: object) -> tuple[str, float]:
    """What the command would do; nothing is lowered, only the plan written."""
    model, hw = words[1], words[3]
    if words[0] == "advise":
        return advice_json(codesign.advise(model, hw=hw)), 1.0
    folder = Path(words[-1])
    folder.mkdir()
    plan = codesign.estimate(model, hw=hw, passes=words[5])
    (folder / "plan.json").write_text(plan.to_json(), encoding="utf-8")
    return "", 2.0


def test_it_runs_and_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models, cache = tmp_path / "models", tmp_path / "rows.jsonl"
    models.mkdir()
    save(convolution(), models, "small.onnx")
    words = ["x", str(models), "--hw", "edge_npu", "--only", "small", "--output", str(tmp_path / "page.md")]
    monkeypatch.setattr(sys, "argv", [*words, "--cache", str(cache)])
    monkeypatch.setattr(evidence_advice, "command", in_this_process)
    assert evidence_advice.main() == 0
    rows = list(rows_of(cache, Row))
    assert [(part.passes, part.problem) for part in rows] == [("", ""), ("none", "")]
    cache.write_text(cache.read_text("utf-8") + '{"file": "cut sh')
    monkeypatch.setattr(evidence_advice, "command", lambda *_: pytest.fail("done before"))
    assert evidence_advice.main() == 0
    assert "1 of 1 predictions equal" in (tmp_path / "page.md").read_text("utf-8")
