"""Trained networks in int8 do their work: the digits, through the command line's own path, and the face detector."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from codesign.compiler import calibration_of
from codesign.errors import CodesignError
from codesign.graph.graph import Graph
from codesign.importers.onnx_importer import load_onnx
from codesign.quantization.running import open_graph
from codesign.rewriting.graph_pass import PassContext
from codesign.rewriting.pipeline import resolve_pipeline
from codesign.rewriting.runner import run_pipeline

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from evidence_face_detector import folder_of_detector
from evidence_face_detector_int8 import BEST, PIXELS, detector, quantized_outcome
from face_boxes import Faces, Match, match

DIGITS = Path(__file__).resolve().parents[1] / "examples" / "digits"


def accuracy(graph: Graph) -> float:
    """Share of the held-out digits that are read rightly."""
    runner = open_graph(graph, ["logits"])
    with np.load(DIGITS / "heldout.npz") as arrays:
        images, labels = arrays["image"], arrays["label"]
    read = [int(runner.run({"image": image[None]})["logits"].argmax()) for image in images]
    return float(np.mean(np.array(read) == labels))


def int8_digits(options: str = "") -> Graph:
    graph = load_onnx(DIGITS / "digits.onnx")
    context = PassContext(calibration=calibration_of(graph, DIGITS / "calibration.npz"))
    return run_pipeline(graph, resolve_pipeline(f"default,quantize{options}"), context)[0]


def test_int8_digits_are_read_as_well_as_float_ones() -> None:
    floats = accuracy(load_onnx(DIGITS / "digits.onnx"))
    after = int8_digits()
    assert floats > 0.95
    assert accuracy(after) >= floats - 0.005
    weights = next(
        value for name, value in after.model.graph.initializers.items() if name.endswith("first.conv.weight_quantized")
    )
    broken = weights.const_value.numpy().copy()  # type: ignore[union-attr]
    broken[: len(broken) // 2] *= -1
    weights.const_value = ir.tensor(broken, name=weights.name)
    assert accuracy(after) < floats - 0.05, "half of the filters of a layer with the wrong sign are seen"


def test_the_int8_face_detector_finds_the_faces() -> None:
    folder = folder_of_detector(None)
    if folder is None:
        pytest.skip("../shared/models/ultraface_rfb320.onnx and its frames are not there")
    found = detector(folder)
    found = replace(found, samples=replace(found.samples, runs=found.samples.runs[:3]))
    outcome = quantized_outcome(found, BEST)
    assert outcome.total.found + outcome.total.missed == 192
    assert outcome.is_good, outcome.total
    assert not quantized_outcome(found, f"{PIXELS},range=maximum,correct_bias=false,equalize=false").is_good


def test_faces_are_matched_once_and_counted() -> None:
    theirs = Faces(2, np.array([[0.0, 0.0, 1.0, 1.0], [2.0, 2.0, 3.0, 3.0]]), np.ones(2))
    boxes = np.array([[0.0, 0.0, 1.0, 0.9], [0.0, 0.0, 1.0, 1.0], [2.0, 2.0, 3.0, 2.7]])
    assert match(Faces(3, boxes, np.ones(3)), theirs, 0.8) == Match(1, 1, 2)
    assert match(theirs, theirs, 0.8) + Match(1, 0, 0) == Match(3, 0, 0)
    assert match(Faces(0, np.zeros((0, 4)), np.zeros(0)), theirs, 0.8) == Match(0, 2, 0)


# ---- where calibration data come from


def test_an_iterator_gives_the_same_as_a_file() -> None:
    graph = load_onnx(DIGITS / "digits.onnx")
    with np.load(DIGITS / "calibration.npz") as arrays:
        images = arrays["image"][:3]
    samples = calibration_of(graph, (image[None] for image in images))
    named = calibration_of(graph, [{"image": image[None]} for image in images])
    assert samples is not None and named is not None
    assert (samples.source, samples.given, len(samples.runs)) == ("the iterator, 3 samples", True, 3)
    for one, other, image in zip(samples.runs, named.runs, images, strict=True):
        np.testing.assert_array_equal(one["image"], image[None])
        np.testing.assert_array_equal(one["image"], other["image"])


def test_synthetic_data_only_when_asked_for() -> None:
    graph = load_onnx(DIGITS / "digits.onnx")
    assert calibration_of(graph, None) is None
    samples = calibration_of(graph, "synthetic")
    assert samples is not None and not samples.given and len(samples.runs) == 8


@pytest.mark.parametrize(
    ("items", "where", "problem"),
    [
        ([], "the iterator", "it gave nothing"),
        (
            [np.zeros((1, 1, 4, 4))],
            "the iterator, item 1",
            "image has the shape 1x1x4x4, and the network takes 1x1x8x8",
        ),
        ([{"other": np.zeros((1, 1, 8, 8))}], "the iterator, item 1", "no array for the input image"),
    ],
)
def test_what_an_iterator_gives_is_checked(items: list[object], where: str, problem: str) -> None:
    with pytest.raises(CodesignError) as caught:
        calibration_of(load_onnx(DIGITS / "digits.onnx"), items)  # type: ignore[arg-type]
    assert (caught.value.problems[0].where, caught.value.problems[0].problem) == (where, problem)
