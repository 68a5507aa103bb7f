"""The face detector, rewritten by every exact pass for a machine, finds the same boxes as the original.

    python benchmarks/evidence_face_detector.py [MODELS] [--hw ecnn] [--output FILE.md]

MODELS: a folder with ultraface_rfb320.onnx and ultraface_frames.npz; without them there, ../shared/models beside the
project is looked at. Exit code 1 when a box is another one, 0 with a line that says so when there is no detector.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from face_boxes import OVERLAP, SCORE, Agreement, Faces, agreement, faces_of
from network_weights import negate_a_weight
from pass_trial import relative_difference, run

from codesign.hardware.loading import load_profile
from codesign.importers.onnx_importer import load_onnx
from codesign.rewriting.catalogue import catalogue
from codesign.rewriting.graph_pass import Effect, PassContext
from codesign.rewriting.options import text_of
from codesign.rewriting.pipeline import Pipeline, find_pipeline
from codesign.rewriting.record import PassRecord
from codesign.rewriting.runner import run_pipeline

ROOT = Path(__file__).resolve().parents[1]
MODEL, FRAMES = "ultraface_rfb320.onnx", "ultraface_frames.npz"
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Frame:
    """One picture. faces: of the original. rewritten: against it; control: the same with one weight wrong.
    difference: of the rewritten network's outputs, relative."""

    faces: Faces
    rewritten: Agreement
    control: Agreement
    difference: float


def all_exact_passes() -> Pipeline:
    """The default pipeline, then every other pass that is exact as it comes, in alphabetical order."""
    steps = list(find_pipeline("default").passes)
    names = {step.name for step in steps}
    others = [kind() for name, kind in catalogue().passes.items() if name not in names]
    return Pipeline("exact", (*steps, *(step for step in others if step.effect_here is Effect.EXACT)))


def folder_of_detector(given: Path | None) -> Path | None:
    """Where the detector and its pictures lie, or None."""
    places = [given] if given else []
    places.append(ROOT.parent / "shared" / "models")
    return next((place for place in places if all((place / name).is_file() for name in (MODEL, FRAMES))), None)


def pictures(folder: Path) -> Iterator[np.ndarray]:
    """The frames as the detector takes them: (RGB - 127) / 128, 1 x 3 x 240 x 320."""
    with np.load(folder / FRAMES) as arrays:
        for frame in arrays["frames"].astype(np.float32):
            yield ((frame - 127) / 128).transpose(2, 0, 1)[None]


def compare(folder: Path, hardware: str) -> tuple[list[Frame], tuple[PassRecord, ...]]:
    """Original, rewritten network and control on every frame; and what the passes did."""
    original = onnx.load(folder / MODEL)
    context = PassContext(profile=load_profile(hardware).profile)
    graph, records = run_pipeline(load_onnx(folder / MODEL), all_exact_passes(), context)
    rewritten = ir.to_proto(graph.model)
    wrong = ir.to_proto(graph.model)
    negate_a_weight(wrong, 0)
    frames = []
    for picture in pictures(folder):
        feeds = {graph.inputs[0].name or "": picture}
        theirs, ours, bad = (run(proto, feeds, ["scores", "boxes"]) for proto in (original, rewritten, wrong))
        faces = _faces(theirs)
        same, control = (agreement(_faces(found), faces) for found in (ours, bad))
        frames.append(Frame(faces, same, control, relative_difference(ours, theirs)))
    return frames, records


def _faces(outputs: Arrays) -> Faces:
    return faces_of(outputs["scores"], outputs["boxes"])


def page(frames: list[Frame], records: tuple[PassRecord, ...], hardware: str) -> str:
    """The whole page."""
    lines = ["# The face detector, rewritten by every exact pass", ""]
    lines += [
        f"{date.today().isoformat()}, written by `benchmarks/evidence_face_detector.py` for the machine {hardware}.",
        "",
        f"Boxes of RFB-320 on its {len(frames)} pictures: anchors with a score above {SCORE}, suppressed where they",
        f"overlap a better one by more than {OVERLAP} (both as in the detector's own demonstration). Original file and",
        "rewritten network run in onnxruntime. Every box of one has a partner of its own in the other; IoU is the",
        "least intersection over union of a pair, 0 where there is no partner. Control: the rewritten network with one",
        "weight negated.",
        "",
        f"**{sum(frame.rewritten.is_same for frame in frames)} of {len(frames)} pictures have the same boxes (IoU > "
        f"0.99), {sum(frame.control.is_same for frame in frames)} with the wrong weight.**",
        "",
        "| picture | anchors | boxes | boxes rewritten | IoU | difference of outputs | control: boxes | IoU |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for number, frame in enumerate(frames, 1):
        ours, bad = frame.rewritten, frame.control
        lines.append(
            f"| {number} | {frame.faces.anchors} | {ours.boxes} | {ours.others} | {ours.overlap:.6f} "
            f"| {frame.difference:.1e} | {bad.others} | {bad.overlap:.3f} |"
        )
    lines += ["", "| pass | places | declined |", "|---|---:|---:|"]
    for step, record in zip(all_exact_passes().passes, records, strict=True):
        lines.append(f"| `{text_of(step)}` | {record.applied} | {len(record.declined)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="?")
    parser.add_argument("--hw", default="ecnn")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/evidence/face_detector.md")
    options = parser.parse_args()
    folder = folder_of_detector(options.models)
    if folder is None:
        print(f"skipped: there is no {MODEL} with {FRAMES}, neither in MODELS nor in ../shared/models")
        return 0
    frames, records = compare(folder, options.hw)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(page(frames, records, options.hw), encoding="utf-8")
    wrong = [str(number) for number, frame in enumerate(frames, 1) if not frame.rewritten.is_same]
    unseen = all(frame.control.is_same for frame in frames)
    print(f"{len(frames)} pictures; other boxes in: {', '.join(wrong) or 'none'}; control {'NOT ' * unseen}caught")
    return 1 if wrong or unseen else 0


if __name__ == "__main__":
    sys.exit(main())
