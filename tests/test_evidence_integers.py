"""Three networks that need no file give the same integers in every reading; the page of evidence_integers.py."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

import evidence_integers
from emulated import missing_tools
from integer_networks import Source, quantized
from integer_readings import Reading, Readings, read_all

from tests.c_builds import needs

SOURCES = {
    "digits": Source("examples/digits/digits.onnx", trained=True),
    "DS-CNN": Source("ds_cnn"),
    "MobileNetV1 0.25": Source("mobilenet_v1_quarter"),
}


@pytest.mark.parametrize("name", SOURCES)
def test_every_reading_gives_the_same_integers(name: str, tmp_path: Path) -> None:
    needs("gcc", "make")
    network = quantized(SOURCES[name], tmp_path)
    assert network is not None
    row = read_all(name, network)
    expected = {"onnxruntime", "model.so", "C, gcc"} | ({"C, Cortex-M4"} if not missing_tools() else set())
    assert set(row.readings) == expected
    for reading in row.readings.values():
        assert reading.differ == 0 < reading.control < reading.codes
    assert row.floating == 0
    assert row.fewest >= evidence_integers.FEWEST and row.saturated < evidence_integers.MOST_SATURATED


ROW = Readings(
    "net", 3, 0, 60, 0.01, 1000, True, {"onnxruntime": Reading(900, 0, 7), "model.so": Reading(900, 0, 7)}, ()
)


def test_a_difference_or_a_blind_comparison_fails() -> None:
    assert evidence_integers._holds(ROW)
    differs = replace(ROW, readings={"model.so": Reading(900, 1, 7)})
    blind = replace(ROW, readings={"model.so": Reading(900, 0, 0)})
    assert not evidence_integers._holds(differs) and not evidence_integers._holds(blind)


def test_the_page_marks_what_says_too_little() -> None:
    page = evidence_integers._page([ROW, replace(ROW, network="dull", fewest=12, notes=("a note",))], ["absent"])
    assert "2 of 2 quantised networks" in page
    assert "No file was there for: absent." in page
    assert "| net | 0 / 900 (7) | 0 / 900 (7) | - | - |" in page
    assert "| dull | 3 | 0 | **12** | 1.00% | 1,000 |" in page
    assert "* dull: a note." in page
