"""The shipped example: its data is the real data, the network reads it, and the compiled library reads it as well."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

ROOT = Path(__file__).resolve().parents[1]
DIGITS = ROOT / "examples" / "digits"
MODEL = DIGITS / "digits.onnx"


@pytest.fixture(scope="module")
def heldout() -> dict[str, np.ndarray]:
    with np.load(DIGITS / "heldout.npz") as arrays:
        return dict(arrays)


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A fresh Python that finds the project, whatever is installed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def compile_digits(model: Path, build: Path) -> Path:
    done = run_python("-m", "codesign", "compile", str(model), "--hw", "edge_npu", "-o", str(build))
    assert done.returncode == 0, done.stderr
    return build


def accuracy(model: bytes, data: dict[str, np.ndarray]) -> float:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    predicted = [int(session.run(["logits"], {"image": image[None]})[0].argmax()) for image in data["image"]]
    return float(np.mean(np.array(predicted) == data["label"]))


def test_heldout_is_a_stratified_fifth_of_the_real_data(heldout: dict[str, np.ndarray]) -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    real = datasets.load_digits()
    labels = {image.tobytes(): int(label) for image, label in zip(real.images, real.target, strict=True)}
    images = heldout["image"][:, 0].astype(np.float64) * 16
    assert len(images) == 360
    assert len({image.tobytes() for image in images}) == 360
    assert [labels.get(image.tobytes()) for image in images] == heldout["label"].tolist()
    share = np.bincount(heldout["label"]) / np.bincount(real.target)
    assert np.all(np.abs(share - 0.2) < 0.01)


def test_model_is_small_hardware_friendly_and_keeps_its_batch_norms() -> None:
    assert MODEL.stat().st_size < 500_000
    model = onnx.load(MODEL)
    onnx.checker.check_model(model, full_check=True)
    operators = [node.op_type for node in model.graph.node]
    assert (operators.count("Conv"), operators.count("BatchNormalization")) == (5, 5)
    shapes = [tuple(weight.dims) for weight in model.graph.initializer if len(weight.dims) == 4]
    assert all(channels.bit_count() == 1 for shape in shapes for channels in shape[:2])


def test_onnxruntime_reads_the_heldout_digits(heldout: dict[str, np.ndarray]) -> None:
    assert accuracy(MODEL.read_bytes(), heldout) >= 0.98
    shuffled = heldout | {"label": np.roll(heldout["label"], 1)}
    assert accuracy(MODEL.read_bytes(), shuffled) < 0.3


def test_estimate_counts_what_the_network_does() -> None:
    done = run_python("-m", "codesign", "estimate", str(MODEL), "--hw", "edge_npu", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    # (outputs, inputs, rows and columns of the output) of every 3x3 convolution, then the 64 -> 10 classifier
    convolutions = [(16, 1, 8), (32, 16, 8), (32, 32, 8), (32, 32, 8), (64, 32, 4)]
    macs = [outputs * inputs * 9 * size * size for outputs, inputs, size in convolutions] + [640]
    assert [layer["macs"] for layer in report["layers"] if layer["macs"]] == macs
    assert report["totals"]["macs"] == sum(macs)
    assert report["totals"]["cycles"] >= sum(macs) / 1024
    folded = sum(outputs * inputs * 9 + outputs for outputs, inputs, _ in convolutions) + 650
    assert report["totals"]["params"] == folded
    assert {entry["name"]: entry["applied"] for entry in report["passes"]}["fold-batch-norm"] == 5


def test_compiled_library_equals_onnxruntime(tmp_path: Path) -> None:
    build = compile_digits(MODEL, tmp_path / "build")
    done = run_python(str(DIGITS / "evaluate.py"), str(build))
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.findall(r"(\d+)/360 right", done.stdout) == ["356", "356"]


def test_evaluate_fails_on_another_network(tmp_path: Path) -> None:
    model = onnx.load(MODEL)
    (bias,) = (tensor for tensor in model.graph.initializer if tensor.name == "classifier.bias")
    bias.CopyFrom(
        onnx.numpy_helper.from_array(
            onnx.numpy_helper.to_array(bias) + 0.5 * np.eye(10, dtype=np.float32)[3], bias.name
        )
    )
    onnx.save(model, tmp_path / "altered.onnx")
    build = compile_digits(tmp_path / "altered.onnx", tmp_path / "build")
    done = run_python(str(DIGITS / "evaluate.py"), str(build))
    assert done.returncode == 1
    assert "model.so" in done.stdout
