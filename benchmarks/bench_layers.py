"""One convolution at a time on one thread of this machine: `python benchmarks/bench_layers.py [--hw NAME] [--write]`.

3x3, stride 1, as many channels in as out; in float32 and in int8, with the mapper's own blocks, the smallest of some
runs; the fastest and the slowest of some loads, which scatter on a shared machine. --write: the table goes into
docs/performance.md, between its marks.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from bench_latency import DOT_PRODUCTS, kernel_seconds, processor_name, write_section
from onnx import TensorProto, helper, numpy_helper

from codesign.building import build
from codesign.compiler import plan_model
from codesign.hardware.loading import load_profile
from codesign.settings import Settings

LAYERS = ((64, 56), (64, 28), (128, 28), (256, 14), (512, 7))  # channels, rows and columns
LOADS, REPETITIONS = 5, 200


def convolution(channels: int, size: int, int8: bool) -> onnx.ModelProto:
    """A network of one convolution, between codes if int8."""
    generator = np.random.default_rng(0)
    shape = (channels, channels, 3, 3)
    nodes, constants = [], {}
    if int8:
        constants["w_codes"] = generator.integers(-127, 128, shape).astype(np.int8)
        constants |= {f"{name}_scale": np.float32(2.0**power) for name, power in (("x", -5), ("w", -10), ("y", -4))}
        constants["zero"] = np.int8(0)
        for name, where in (("x", "image"), ("y", "sum")):
            nodes.append(helper.make_node("QuantizeLinear", [where, f"{name}_scale", "zero"], [f"{name}_codes"]))
        for name in ("x", "w", "y"):
            made = "result" if name == "y" else name
            nodes.append(helper.make_node("DequantizeLinear", [f"{name}_codes", f"{name}_scale", "zero"], [made]))
        inputs, output = ["x", "w"], "sum"
    else:
        constants["w"] = generator.standard_normal(shape).astype(np.float32)
        inputs, output = ["image", "w"], "result"
    conv = helper.make_node("Conv", inputs, [output], "conv", pads=[1, 1, 1, 1])
    ordered = [nodes[0], nodes[2], nodes[3], conv, nodes[1], nodes[4]] if int8 else [conv]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, size, size])
        for name in ("image", "result")
    ]
    arrays = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(ordered, "convolution", ends[:1], ends[1:], arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def seconds(channels: int, size: int, int8: bool, hw: str) -> tuple[float, float]:
    """Of the convolution's kernel: of the fastest load and of the slowest."""
    from codesign.lowering.runtime import load_library

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "convolution.onnx"
        onnx.save(convolution(channels, size, int8), path)
        settings = Settings(hw, threads=1, passes="none")
        build(plan_model(str(path), settings), settings, Path(folder) / "build")
        libraries = [load_library(Path(folder) / "build") for _ in range(LOADS)]
    image = np.random.default_rng(1).standard_normal((1, channels, size, size)).astype(np.float32)
    found = [kernel_seconds(library, {"image": image}, REPETITIONS)["convolution"] for library in libraries]
    return min(found), max(found)


def table(hw: str) -> str:
    """All layers as a Markdown table."""
    profile = load_profile(hw).profile
    peak = 2e6 * profile.peak_macs_per_cycle * profile.clock_mhz
    lines = ["| channels, size | MMAC | float32 ms | GFLOP/s | int8 ms | GOP/s |", "|---|---|---|---|---|---|"]
    for channels, size in LAYERS:
        macs = channels * channels * 9 * size * size
        cells = []
        for int8 in (False, True):
            least, most = seconds(channels, size, int8, hw)
            rate, whole = 2 * macs / least, peak * (DOT_PRODUCTS if int8 else 1)
            cells.append(f"{1e3 * least:.3f} to {1e3 * most:.3f} | {1e-9 * rate:.0f} ({rate / whole:.0%})")
        lines.append(f"| {channels}, {size}x{size} | {1e-6 * macs:.0f} | {' | '.join(cells)} |")
        print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hw", default="host_cpu")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    text = table(given.hw)
    if given.write:
        write_section(f"Measured {time.strftime('%Y-%m-%d')} on {processor_name()}:\n\n{text}", "layers")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
