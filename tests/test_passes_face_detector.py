"""The face detector, rewritten by every exact pass for `ecnn`, finds the same boxes; and boxes are compared rightly."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from codesign.rewriting.graph_pass import Effect

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from evidence_face_detector import all_exact_passes, compare, folder_of_detector, page
from face_boxes import Faces, agreement, faces_of, overlaps

ANCHORS = [86, 24, 35, 9, 91, 55, 64, 85, 68, 32, 16, 42]  # above 0.7, as published with the pictures


def test_the_rewritten_detector_finds_the_same_boxes() -> None:
    folder = folder_of_detector(None)
    if folder is None:
        pytest.skip("../shared/models/ultraface_rfb320.onnx and its frames are not there")
    frames, records = compare(folder, "ecnn")
    assert [frame.faces.anchors for frame in frames] == ANCHORS
    assert all(frame.rewritten.is_same for frame in frames)
    assert sum(frame.control.is_same for frame in frames) < len(frames) / 2
    assert sum(record.applied for record in records) > 30
    assert "**12 of 12 pictures have the same boxes (IoU > 0.99)" in page(frames, records, "ecnn")


def test_the_passes_are_exact_and_each_comes_once() -> None:
    steps = all_exact_passes().passes
    assert {step.effect_here for step in steps} == {Effect.EXACT}
    assert len({step.name for step in steps}) == len(steps)


def test_overlap_of_boxes() -> None:
    boxes = np.array([[0.0, 0.0, 2.0, 2.0], [5.0, 5.0, 6.0, 6.0], [1.0, 1.0, 3.0, 3.0]])
    assert overlaps(boxes, boxes[0]) == pytest.approx([1.0, 0.0, 1 / 7])


def test_a_box_that_overlaps_a_better_one_is_suppressed() -> None:
    boxes = np.array([[[0.0, 0.0, 2.0, 2.0], [0.1, 0.0, 2.0, 2.0], [3.0, 3.0, 4.0, 4.0], [7.0, 7.0, 8.0, 8.0]]])
    scores = np.array([[[0.2, 0.8], [0.1, 0.9], [0.2, 0.8], [0.9, 0.1]]])
    found = faces_of(scores, boxes)
    assert found.anchors == 3
    assert found.boxes.tolist() == [[0.1, 0.0, 2.0, 2.0], [3.0, 3.0, 4.0, 4.0]]
    assert found.scores.tolist() == [0.9, 0.8]


@pytest.mark.parametrize(
    ("boxes", "is_same"),
    [
        ([[0, 0, 1, 1], [2, 2, 3, 3]], True),
        ([[2, 2, 3, 3.001], [0, 0, 1, 1]], True),
        ([[2, 2, 3, 3.02], [0, 0, 1, 1]], False),
        ([[2, 2, 3, 3]], False),
        ([[0, 0, 1, 1], [0, 0, 1, 1]], False),
        ([[0, 0, 1, 1], [2, 2, 3, 3], [4, 4, 5, 5]], False),
        ([], False),
    ],
)
def test_agreement_of_boxes(boxes: list[list[float]], is_same: bool) -> None:
    one = Faces(2, np.array([[0.0, 0.0, 1.0, 1.0], [2.0, 2.0, 3.0, 3.0]]), np.ones(2))
    other = Faces(len(boxes), np.array(boxes, float).reshape(-1, 4), np.ones(len(boxes)))
    assert agreement(other, one).is_same is is_same
