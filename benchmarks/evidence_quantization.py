"""What least-squares ranges, equalisation and bias correction bring: signal to noise of quantised networks.

    python benchmarks/evidence_quantization.py MODELS [--draws 3] [--output FILE.md]

MODELS: a folder with resnet18.onnx, mobilenetv2_1.0.onnx and efficientnet_b0.onnx, BatchNorm kept, weights random.
Every network gets weights that let it feel its input (network_weights) and uneven BatchNorm statistics
(uneven_statistics), drawn anew for every draw. Calibration and measurement are on different images. Rows that are in
build/evidence/quantization.json are not computed again.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from statistics import mean

import numpy as np
import onnx
from network_weights import enliven
from uneven_statistics import make_uneven

from codesign.graph.graph import Graph, shape_of
from codesign.graph.samples import Samples
from codesign.importers.onnx_importer import import_proto
from codesign.quantization.noise import Fed, output_noise
from codesign.rewriting.graph_pass import PassContext
from codesign.rewriting.pipeline import resolve_pipeline
from codesign.rewriting.runner import run_pipeline

ROOT = Path(__file__).resolve().parents[1]
ROWS = ROOT / "build/evidence/quantization.json"
NETWORKS = {
    "resnet18": ("ResNet-18", "default"),
    "mobilenetv2_1.0": ("MobileNetV2", "default"),
    "efficientnet_b0": ("EfficientNet-B0", "default"),
    "efficientnet_b0 hard": ("EfficientNet-B0, hard activations", "hard-activations,default"),
}
STEPS = {
    "maximum": "range=maximum,equalize=false,correct_bias=false",
    "least squares": "equalize=false,correct_bias=false",
    "+ equalisation": "correct_bias=false",
    "+ bias correction": "correct_bias=true",
    "least squares + bias correction": "equalize=false",
}
SCALES = ("per-channel", "per-tensor")
SPREAD, GAIN, IMAGES = 0.7, 1.0, 4


@dataclass(frozen=True)
class Row:
    """One quantised network. output_db: at the output, on images that were not calibrated on. tensors_db: mean of all
    tensors, on the calibration images. saturated: share of numbers."""

    network: str
    draw: int
    scales: str
    step: str
    output_db: float
    tensors_db: float
    saturated: float


def network(folder: Path, name: str, passes: str, draw: int) -> Graph:
    """One draw of a network, folded, in float."""
    model = onnx.load(folder / f"{name.split()[0]}.onnx")
    enliven(model, GAIN)
    make_uneven(model, SPREAD, seed=draw)
    graph, _ = run_pipeline(import_proto(model, name=name, sha256="0" * 64), resolve_pipeline(passes), PassContext())
    return graph


def images(graph: Graph, seed: int) -> Samples:
    """Gaussian noise, as the statistics were taken on."""
    random = np.random.default_rng(seed)
    [value] = graph.inputs
    shape = shape_of(value)
    runs = tuple({str(value.name): random.standard_normal(shape).astype(np.float32)} for _ in range(IMAGES))
    return Samples(f"{IMAGES} images of Gaussian noise, seed {seed}", given=True, runs=runs)


def measure(graph: Graph, name: str, draw: int, scales: str, step: str) -> Row:
    """Quantise and measure."""
    pipeline = resolve_pipeline(f"quantize{{weights={scales},{STEPS[step]}}}")
    after, [record] = run_pipeline(graph, pipeline, PassContext(calibration=images(graph, 10)))
    others = images(graph, 20).runs
    [noise] = output_noise(Fed(graph, others), Fed(after, others)).values()
    found = record.quantization
    assert found is not None and noise.sqnr_db is not None
    tensors_db = mean(layer.sqnr_db for layer in found.layers if layer.sqnr_db is not None)
    return Row(name, draw, scales, step, noise.sqnr_db, tensors_db, found.saturated / found.numbers)


def rows_of(folder: Path, draws: int) -> list[Row]:
    """All rows, those done before as they are stored."""
    rows = [Row(**row) for row in json.loads(ROWS.read_text())] if ROWS.is_file() else []
    done = {(row.network, row.draw, row.scales, row.step) for row in rows}
    for draw in range(draws):
        for name, (_, passes) in NETWORKS.items():
            wanted = [(scales, step) for scales in SCALES for step in STEPS if (name, draw, scales, step) not in done]
            graph = network(folder, name, passes, draw) if wanted else None
            for scales, step in wanted:
                assert graph is not None
                rows.append(measure(graph, name, draw, scales, step))
                print(rows[-1], flush=True)
                ROWS.parent.mkdir(parents=True, exist_ok=True)
                ROWS.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    return [row for row in rows if row.draw < draws]


def page(rows: list[Row]) -> str:
    """The whole page."""
    draws = 1 + max(row.draw for row in rows)
    lines = ["# What each step of quantisation brings", ""]
    lines += [
        f"{date.today().isoformat()}, written by `benchmarks/evidence_quantization.py`.",
        "",
        f"Signal to quantisation noise (SQNR, dB) at the output, on {IMAGES} images that were not calibrated on;",
        f"behind it the mean over all quantised tensors, on the {IMAGES} calibration images. BatchNorm statistics were",
        f"drawn {draws} time(s); brackets hold the least and the greatest of several draws. Weights are random;",
        f"every normalisation has the statistics of what it reads and scales exp({SPREAD} x normal), so that channels,",
        "those of depthwise layers above all, have ranges as uneven as a trained network's. Networks are folded by the",
        "passes `default` (`hard-activations` before where the name says so), then quantised: int8, powers of two.",
        "",
        "Equalisation passes Relu, and Relu6 within calibrated ranges. Between SiLU and the next layer there is none:",
        "EfficientNet-B0 has pairs only where a projection feeds the next expansion. On a trained network see the face",
        "detector in [face_detector_int8.md](face_detector_int8.md). With few draws, small differences say little.",
    ]
    for scales in SCALES:
        lines += ["", f"## Weights {scales}", "", f"| network | {' | '.join(STEPS)} |", f"|---|{'---:|' * len(STEPS)}"]
        for name, (title, _) in NETWORKS.items():
            cells = [
                _cell([row for row in rows if (row.network, row.scales, row.step) == (name, scales, step)])
                for step in STEPS
            ]
            lines.append(f"| {title} | {' | '.join(cells)} |")
    worst = max(row.saturated for row in rows)
    lines += ["", f"At most {worst:.3%} of all numbers of a network saturate."]
    return "\n".join(lines) + "\n"


def _cell(rows: list[Row]) -> str:
    outputs = [row.output_db for row in rows]
    tensors = mean(row.tensors_db for row in rows)
    ends = f" ({min(outputs):.1f} to {max(outputs):.1f})" if len(outputs) > 1 else ""
    return f"**{mean(outputs):.1f}**{ends}; {tensors:.1f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--output", type=Path, default=ROOT / "docs/evidence/quantization.md")
    options = parser.parse_args()
    rows = rows_of(options.models, options.draws)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(page(rows), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
