"""What quantisation did stands in every report: the data, SQNR of outputs and worst tensors, saturation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import codesign
from codesign.planning.plan import Plan
from codesign.report.html_report import report_html
from codesign.report.json_report import report_of
from codesign.report.quantization import quantization_html, quantization_lines, quantization_of
from tests.command import Command

DIGITS = Path(__file__).resolve().parents[1] / "examples" / "digits"
PASSES = "default,quantize"


@pytest.fixture(scope="module")
def plan() -> Plan:
    """The digits on real data, one digit."""
    return codesign.estimate(DIGITS / "digits.onnx", hw="edge_npu", passes=PASSES, calibration=DIGITS / "digit.npz")


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command line in an empty folder."""
    return Command(tmp_path, monkeypatch, capsys)


def test_the_terminal_tells_the_data_the_outputs_and_the_worst(plan: Plan) -> None:
    lines = quantization_lines(plan)
    record = quantization_of(plan)
    assert record is not None
    assert lines[0].startswith("measured on ") and lines[0].endswith("digit.npz, 1 sample")
    assert lines[1] == f"output logits: {record.outputs[0].sqnr_db:.1f} dB"
    assert lines[2].endswith(" numbers saturated")
    assert lines[3] == f"signal to noise, the {len(record.worst)} worst of {len(record.layers)} tensors:"
    assert lines[4].startswith(f"   {record.worst[0].layer}: {record.worst[0].sqnr_db:.1f} dB, ")


def test_json_holds_every_tensor(plan: Plan) -> None:
    record, found = quantization_of(plan), report_of(plan).passes[-1].quantization
    assert record is not None and found is not None
    assert [layer.tensor for layer in found.layers] == [layer.tensor for layer in record.layers]
    assert found.layers[1].sqnr_db == record.layers[1].sqnr_db
    assert (found.worst[0], found.saturated) == (record.worst[0].tensor, record.saturated)
    assert all(step.quantization is None for step in report_of(plan).passes[:-1])
    assert Plan.from_json(plan.to_json()) == plan


def test_html_has_a_row_for_every_tensor(plan: Plan) -> None:
    record = quantization_of(plan)
    assert record is not None
    section = quantization_html(plan)
    assert section in report_html(plan)
    assert section.count("<tr>") == 1 + len(record.layers)
    first_row = section.split("<tr>")[2]
    assert record.worst[0].tensor in first_row or record.worst[0].layer in first_row


def test_without_quantisation_nothing_is_said() -> None:
    plan = codesign.estimate(DIGITS / "digits.onnx", hw="edge_npu")
    assert quantization_of(plan) is None
    assert quantization_lines(plan) == [] and quantization_html(plan) == ""


def test_the_command_takes_data_and_marks_what_is_made_up(command: Command) -> None:
    words = ["estimate", DIGITS / "digits.onnx", "--hw", "edge_npu", "--passes", PASSES]
    made_up = command(*words, "--calibration", "synthetic", "--json")
    assert made_up.code == 0
    found = json.loads(made_up.out)["passes"][-1]["quantization"]
    assert found["synthetic"] is True and found["calibration"] == "synthetic data (standard normal, seed 0)"
    text = command(*words, "--calibration", "synthetic").out
    assert "NOT REAL DATA" in text and "output logits" in text
    assert "NOT REAL DATA" not in command(*words, "--calibration", DIGITS / "digit.npz").out


def test_the_command_without_data_says_what_to_give(command: Command) -> None:
    done = command("estimate", DIGITS / "digits.onnx", "--hw", "edge_npu", "--passes", PASSES)
    assert done.code == 2
    assert "quantize: it measures activations on calibration data, and there is none" in done.err
    assert "--calibration FILE.npz, or --calibration synthetic" in done.err
