"""The face detector in int8 finds the faces the float one finds.

    python benchmarks/evidence_face_detector_int8.py [MODELS] [--output FILE.md]

MODELS: a folder with ultraface_rfb320.onnx and ultraface_frames.npz; without them there, ../shared/models beside the
project is looked at. Exit code 1 when fewer than 95 % of the faces are found or more than 5 % are extra, 0 with a line
that says so when there is no detector.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from evidence_face_detector import FRAMES, MODEL, folder_of_detector
from face_boxes import OVERLAP, SCORE, Faces, Match, faces_of, match

from codesign.graph.graph import Graph
from codesign.graph.samples import Samples
from codesign.importers.onnx_importer import load_onnx
from codesign.quantization.running import Runner, open_graph
from codesign.rewriting.graph_pass import PassContext
from codesign.rewriting.pipeline import resolve_pipeline
from codesign.rewriting.record import PassRecord
from codesign.rewriting.runner import run_pipeline

ROOT = Path(__file__).resolve().parents[1]
LEAST_OVERLAP, LEAST_FOUND, MOST_EXTRA = 0.8, 0.95, 0.05
CALIBRATION_FRAMES = 6
PIXELS = "image_mean='127',image_scale='0.0078125'"
BEST = f"outputs=float,{PIXELS}"
VARIANTS = {
    "as it comes, boxes decoded in float, pixels as input": BEST,
    "float input": "outputs=float",
    "ranges by the maximum": f"{BEST},range=maximum",
    "no equalisation": f"{BEST},equalize=false",
    "no bias correction": f"{BEST},correct_bias=false",
    "one scale for the weights of a layer": f"{BEST},weights=per-tensor",
    "all three off": f"{BEST},range=maximum,equalize=false,correct_bias=false",
    "control: boxes decoded in int8 too": PIXELS,
}


@dataclass(frozen=True)
class Detector:
    """The float detector, its frames (uint8) and what it is calibrated on."""

    graph: Graph
    frames: np.ndarray
    samples: Samples


@dataclass(frozen=True)
class Outcome:
    """One way to quantise: its faces in every frame against those of the float detector, and the pass's record."""

    frames: tuple[Match, ...]
    record: PassRecord

    @property
    def total(self) -> Match:
        """All frames together."""
        return sum(self.frames, Match(0, 0, 0))

    @property
    def is_good(self) -> bool:
        """Whether enough faces are found, and few are extra."""
        faces = self.total.found + self.total.missed
        return self.total.found >= LEAST_FOUND * faces and self.total.extra <= MOST_EXTRA * faces


def detector(folder: Path) -> Detector:
    """Calibrated on mirrored frames: the same scenes, other numbers everywhere."""
    graph = load_onnx(folder / MODEL)
    with np.load(folder / FRAMES) as arrays:
        frames = arrays["frames"]
    mirrored = tuple({"input": _as_float(frame[:, ::-1])} for frame in frames[::2][:CALIBRATION_FRAMES])
    return Detector(graph, frames, Samples(f"{len(mirrored)} mirrored frames", given=True, runs=mirrored))


def _as_float(frame: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(((frame.astype(np.float32) - 127) / 128).transpose(2, 0, 1)[None])


def quantized_outcome(found: Detector, options: str) -> Outcome:
    """The faces of the detector quantised with these options."""
    pipeline = resolve_pipeline(f"default,quantize{{{options}}}")
    after, records = run_pipeline(found.graph, pipeline, PassContext(calibration=found.samples))
    ours, theirs = (open_graph(graph, ("scores", "boxes")) for graph in (after, found.graph))
    takes_pixels = "image_mean" in options
    matches = []
    for frame in found.frames:
        pixels = np.ascontiguousarray(frame.transpose(2, 0, 1)[None]) if takes_pixels else _as_float(frame)
        matches.append(match(_faces(ours, pixels), _faces(theirs, _as_float(frame)), LEAST_OVERLAP))
    return Outcome(tuple(matches), records[-1])


def _faces(runner: Runner, image: np.ndarray) -> Faces:
    outputs = runner.run({"input": image})
    return faces_of(outputs["scores"], outputs["boxes"])


def page(outcomes: dict[str, Outcome]) -> str:
    """The whole page."""
    best = next(iter(outcomes.values()))
    faces = best.total.found + best.total.missed
    lines = ["# The face detector in int8", ""]
    lines += [
        f"{date.today().isoformat()}, written by `benchmarks/evidence_face_detector_int8.py`.",
        "",
        f"RFB-320 quantised by `--passes default,quantize{{...}}` with power-of-two scales, on its {len(best.frames)}",
        f"pictures, which hold {faces} faces by the float detector (score above {SCORE}, suppressed above an overlap",
        f"of {OVERLAP}). A face is found where a box of the int8 detector covers it with IoU > {LEAST_OVERLAP}; extra",
        f"are boxes that cover none. Calibrated on {CALIBRATION_FRAMES} of the pictures, mirrored. SQNR: of scores and",
        "boxes on the calibration data. Both detectors run in onnxruntime, its optimiser off.",
        "",
        f"**{best.total.found} of {faces} faces found ({best.total.found / faces:.1%}), {best.total.extra} extra.**",
        "",
        "| int8 | faces found | extra | SQNR of scores, boxes in dB | saturated |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, outcome in outcomes.items():
        noise = outcome.record.quantization
        assert noise is not None
        decibels = ", ".join(f"{output.sqnr_db or 0:.1f}" for output in noise.outputs)
        share = noise.saturated / noise.numbers
        lines.append(
            f"| {name} | {outcome.total.found} of {faces} | {outcome.total.extra} | {decibels} | {share:.3%} |"
        )
    lines += [
        "",
        "The network decodes its own boxes: products with priors and exponentials of tensors that hold positions and",
        "sizes at once. In int8 one step of a position is 1/128 of the picture, which no small face survives",
        "(control); `outputs=float` leaves those nodes, behind the last convolutions, in float.",
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="?")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/evidence/face_detector_int8.md")
    options = parser.parse_args()
    folder = folder_of_detector(options.models)
    if folder is None:
        print(f"skipped: there is no {MODEL} with {FRAMES}, neither in MODELS nor in ../shared/models")
        return 0
    found = detector(folder)
    outcomes = {}
    for name, variant in VARIANTS.items():
        outcomes[name] = quantized_outcome(found, variant)
        print(name, outcomes[name].total, flush=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(page(outcomes), encoding="utf-8")
    good, control = outcomes[next(iter(VARIANTS))], outcomes[list(VARIANTS)[-1]]
    return 0 if good.is_good and not control.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
