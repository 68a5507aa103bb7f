"""model.so against onnxruntime on this machine, both on one thread: `python benchmarks/bench_latency.py MODELS...`.

    python benchmarks/bench_latency.py MODELS [MODELS ...] [--int8 | --tune N] [--repetitions N] [--write]

MODELS: folders searched for resnet18.onnx, mobilenetv2_1.0.onnx, squeezenet1_0.onnx and ultraface_rfb320.onnx. Runs of
the two take turns, so that a busy machine slows both; a row shows the smallest and the median of each. Then one run of
every kernel is timed by itself: what share of the time is convolutions, and how near the processor's peak they are.
--int8: networks quantised by the pass `quantize`, and EfficientNet-B0 with hard activations. onnxruntime takes its turn
with the same file, with a file of its own tool (uint8 activations, what it runs best) and with the float network; the
ratio is to the fastest.
--write: the table goes into docs/performance.md, between its marks. Exit code 1: a network is missing or wrong, or the
geometric mean of the ratios is over its limit.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from int8_latency import FILES, INTEGER_NETWORKS, Files

from codesign.building import build
from codesign.compiler import plan_model
from codesign.hardware.loading import load_profile
from codesign.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "performance.md"
NETWORKS = ("resnet18", "mobilenetv2_1.0", "squeezenet1_0", "ultraface_rfb320")
LIMIT_UNTUNED, LIMIT_TUNED = 6.0, 2.5
WORST_DIFFERENCE = 1e-5
KINDS = {
    "convolution": "convolution",
    "depthwise": "depthwise",
    "pooling": "other",
    "elementwise": "other",
    "concatenation": "other",
    "requantizedconvolution": "convolution",
    "requantizeddepthwise": "depthwise",
    **dict.fromkeys(("integersum", "integerproduct", "integerlookup", "integermaximum", "integeraverage"), "other"),
    "integerconcatenation": "other",
}
DOT_PRODUCTS = 4  # of bytes, in the time of one multiply-add of float32


@dataclass(frozen=True)
class Row:
    """One network. Milliseconds: smallest and median; onnxruntime's by what it ran. shares: of the kernels' time, by
    kind. gflops: of convolutions and dense layers while they run."""

    name: str
    ours: tuple[float, float]
    theirs: dict[str, tuple[float, float]]
    difference: float
    gmacs: float
    shares: dict[str, float]
    gflops: float

    @property
    def ratio(self) -> float:
        """Of the medians, to the fastest."""
        return self.ours[1] / min(median for _, median in self.theirs.values())


def measure(files: Files, hw: str, tune: int, repetitions: int) -> Row:
    """Compile a network, compare it with onnxruntime on the same input, and time all in turns."""
    from codesign.lowering.runtime import load_library

    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(hw, threads=1, tune=tune, passes=files.passes)
        planned = plan_model(str(files.ours), settings)
        build(planned, settings, Path(folder) / "build")
        library = load_library(Path(folder) / "build")
    generator = np.random.default_rng(0)
    feed = dict(files.feed) or {
        part.name: generator.standard_normal(part.shape).astype(part.dtype) for part in library.interface.inputs
    }
    sessions = {what: _session(path) for what, path in files.theirs.items()}
    same = next(iter(sessions.values()))
    ours = library.run(feed)
    theirs = dict(zip([part.name for part in same.get_outputs()], same.run(None, feed), strict=True))
    difference = max(float(np.abs(ours[name] - theirs[name]).max() / np.abs(theirs[name]).max()) for name in theirs)
    times = _in_turns(library, list(sessions.values()), feed, repetitions)
    kernels = kernel_seconds(library, feed)
    total = sum(kernels.values())
    shares = {kind: seconds / total for kind, seconds in kernels.items()}
    dense_macs = sum(
        layer.layer.nest.macs
        for layer in planned.plan.layers
        if layer.layer.nest.has_macs and "depthwise" not in str(layer.layer.nest.kind)
    )
    gflops = 2e-9 * dense_macs / kernels["convolution"]
    gmacs = planned.plan.totals.macs * 1e-9
    found = dict(zip(sessions, times[1:], strict=True))
    return Row(files.name, times[0], found, difference, gmacs, shares, gflops)


def _session(path: Path) -> Any:
    """onnxruntime with all its optimisations, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _in_turns(
    library: Any, sessions: list[Any], feed: dict[str, np.ndarray], repetitions: int
) -> list[tuple[float, float]]:
    """Smallest and median milliseconds of each, the library first."""
    import tvm

    tensors: list[Any] = [tvm.runtime.tensor(feed[part.name]) for part in library.interface.inputs]
    main: Callable[..., Any] = library.machine["main"]
    runs: list[Callable[[], Any]] = [lambda: main(*tensors), *(partial(one.run, None, feed) for one in sessions)]
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(repetitions):
        for found, run in zip(seconds, runs, strict=True):
            start = time.perf_counter()
            run()
            found.append(time.perf_counter() - start)
    return [(1e3 * min(found), 1e3 * statistics.median(found)) for found in seconds]


def kernel_seconds(library: Any, feed: dict[str, np.ndarray], repetitions: int = 15) -> dict[str, float]:
    """Seconds in kernels by kind, the smallest of some runs for every kernel."""
    import tvm

    tensors = [tvm.runtime.tensor(feed[part.name]) for part in library.interface.inputs]
    best: dict[int, float] = {}
    kinds: dict[int, str] = {}
    state = {"number": 0, "start": 0.0}

    def watch(_: Any, name: str, before: bool, __: Any, *___: Any) -> None:
        if before:
            state["start"] = time.perf_counter()
            return
        number = int(state["number"])
        state["number"] = number + 1
        best[number] = min(best.get(number, np.inf), time.perf_counter() - state["start"])
        kinds[number] = KINDS.get(name.rsplit("_", 1)[0], "borders and TVM's own")

    library.machine.set_instrument(watch)
    for _ in range(repetitions):
        state["number"] = 0
        library.machine["main"](*tensors)
    found: dict[str, float] = defaultdict(float)
    for number, seconds in best.items():
        found[kinds[number]] += seconds
    return dict(found)


def table(rows: list[Row], hw: str, int8: bool) -> str:
    """The rows as a Markdown table, and the geometric mean."""
    profile = load_profile(hw).profile
    peak = 2e-3 * profile.peak_macs_per_cycle * profile.clock_mhz * (DOT_PRODUCTS if int8 else 1)
    unit = "GOP/s" if int8 else "GFLOP/s"
    columns = [
        "network",
        "GMAC",
        "ms: least, median",
        *rows[0].theirs,
        "ratio",
        "difference",
        "convolutions",
        "time in",
    ]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for row in rows:
        shares = ", ".join(
            f"{kind} {share:.0%}"
            for kind, share in sorted(row.shares.items(), key=lambda item: -item[1])
            if share >= 0.01
        )
        times = " | ".join(f"{least:.2f}, {median:.2f}" for least, median in (row.ours, *row.theirs.values()))
        rate = f"{row.gflops:.0f} {unit} ({row.gflops / peak:.0%} of peak)"
        lines.append(
            f"| {row.name} | {row.gmacs:.2f} | {times} | {row.ratio:.2f} | {row.difference:.0e} | {rate} | {shares} |"
        )
    mean = statistics.geometric_mean(row.ratio for row in rows)
    return "\n".join([*lines, "", f"Geometric mean of the ratios of medians: {mean:.2f}."]) + "\n"


def write_section(text: str, mark: str) -> None:
    """Put text between two marks of the page."""
    begin, end = f"<!-- {mark} -->\n", f"<!-- end of {mark} -->\n"
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    PAGE.write_text(before + begin + text + end + after, encoding="utf-8")


def main() -> int:
    """Measure, print, compare with the limits."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--hw", default="host_cpu")
    parser.add_argument("--tune", type=int, default=0)
    parser.add_argument("--int8", action="store_true")
    parser.add_argument("--repetitions", type=int, default=100)
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    found = {path.stem: path for folder in given.models for path in sorted(folder.rglob("*.onnx"))}
    names = INTEGER_NETWORKS if given.int8 else NETWORKS
    missing = [name for name in names if name not in found]
    if missing:
        print(
            f"bench_latency: no {', '.join(f'{name}.onnx' for name in missing)} in the folders given", file=sys.stderr
        )
    rows = []
    for name in names:
        if name in found:
            with tempfile.TemporaryDirectory() as folder:
                files = FILES[given.int8](found[name], Path(folder))
                rows.append(measure(files, given.hw, given.tune, given.repetitions))
            print(f"{name}: ratio {rows[-1].ratio:.2f}", file=sys.stderr, flush=True)
    if not rows:
        return 1
    text = table(rows, given.hw, given.int8)
    if given.write:
        tuned = f", tuned with {given.tune} trials a layer" if given.tune else ""
        mark = "int8" if given.int8 else "tuned" if tuned else "untuned"
        write_section(f"Measured {time.strftime('%Y-%m-%d')} on {processor_name()}{tuned}:\n\n{text}", mark)
    print(text)
    wrong = [row.name for row in rows if row.difference > WORST_DIFFERENCE]
    mean = statistics.geometric_mean(row.ratio for row in rows)
    limit = LIMIT_TUNED if given.tune else LIMIT_UNTUNED
    if wrong:
        print(f"bench_latency: {', '.join(wrong)}: outputs differ", file=sys.stderr)
    return int(bool(missing or wrong or mean > limit))


def processor_name() -> str:
    """What this machine's processor calls itself."""
    for line in (
        Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    ):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


if __name__ == "__main__":
    sys.exit(main())
