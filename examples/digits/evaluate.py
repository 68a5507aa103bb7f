"""Accuracy of a compiled digits network beside onnxruntime's, on the held-out digits.

`python examples/digits/evaluate.py BUILD_DIR`; exit code 1 when the library and onnxruntime disagree on any digit.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime

from codesign.lowering.runtime import load_library

HERE = Path(__file__).resolve().parent
TOLERANCE = 1e-4

Network = Callable[[np.ndarray], np.ndarray]


def original(path: Path) -> Network:
    """The ONNX file run by onnxruntime: (1, 1, 8, 8) -> (1, 10)."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda image: session.run(["logits"], {"image": image})[0]


def compiled(path: Path) -> Network:
    """The compiled library: (1, 1, 8, 8) -> (1, 10)."""
    library = load_library(path)
    return lambda image: library.run({"image": image})["logits"]


def logits(network: Network, images: np.ndarray) -> np.ndarray:
    """Logits (N, 10) of images (N, 1, 8, 8), one at a time as the chip would take them."""
    return np.concatenate([network(image[None]) for image in images])


def main() -> int:
    parser = argparse.ArgumentParser(description="Accuracy of a compiled digits network beside onnxruntime's.")
    parser.add_argument("build", type=Path, help="output folder of codesign compile")
    build: Path = parser.parse_args().build

    heldout = np.load(HERE / "heldout.npz")
    images, labels = heldout["image"], heldout["label"]
    expected = logits(original(HERE / "digits.onnx"), images)
    found = logits(compiled(build / "model.so"), images)

    difference = float(np.abs(found - expected).max() / np.abs(expected).max())
    disagreements = int((found.argmax(1) != expected.argmax(1)).sum())
    print(f"held-out digits          {len(labels)}")
    for name, values in (("onnxruntime, digits.onnx", expected), ("model.so", found)):
        right = int((values.argmax(1) == labels).sum())
        print(f"{name:<24} {right}/{len(labels)} right = {right / len(labels):.2%}")
    print(f"relative difference      {difference:.1e} (at most {TOLERANCE:.0e})")
    return 0 if disagreements == 0 and difference <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
