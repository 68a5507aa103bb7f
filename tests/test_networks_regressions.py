"""Patterns of published networks that once went wrong on their way through the compiler, each as a tiny network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import parser

from codesign.artifacts.onnx_runner import open_model
from codesign.artifacts.verification import verify
from codesign.compiler import compile
from codesign.lowering.runtime import load_library

PADDED_POOL = """
<ir_version: 8, opset_import: ["" : 18]>
padded_pool (float[1, 2, 5, 5] x) => (float[1, 2, 5, 5] y)
<int64[8] pads = {0, 0, 0, 0, 0, 0, 1, 1}> {
    padded = Pad (x, pads)
    y = MaxPool <kernel_shape = [2, 2], strides = [1, 1]> (padded)
}
"""


def test_a_pool_after_zero_padding_sees_the_zeros(tmp_path: Path) -> None:
    """YOLOv3-tiny: below all-negative features the last row and column are zeros, not the features' maximum.

    onnxruntime's optimiser gets this wrong: it moves the Pad into MaxPool, whose own padding is minus infinity.
    """
    path = tmp_path / "padded_pool.onnx"
    onnx.save(parser.parse_model(PADDED_POOL), path)
    compile(str(path), hw="edge_npu", output=tmp_path / "build")
    x = -np.random.default_rng(4).uniform(0.5, 2, (1, 2, 5, 5)).astype(np.float32)
    found = load_library(tmp_path / "build").run({"x": x})["y"]
    windows = np.stack([x[..., :4, :4], x[..., :4, 1:], x[..., 1:, :4], x[..., 1:, 1:]])
    expected = np.zeros_like(x)
    expected[..., :4, :4] = windows.max(axis=0)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(open_model(path).run({"x": x})[0]["y"], expected)
    assert verify(tmp_path / "build", {"x": x}, None).ok
