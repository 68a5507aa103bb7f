"""The main job on real networks: compile, run and verify equal onnxruntime on the original; the folder adds up."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

import codesign
from codesign.artifacts.manifest import read_manifest
from codesign.lowering.runtime import load_library
from codesign.planning.plan import Plan
from codesign.report.schema import Report
from codesign.rewriting.pipeline import find_pipeline
from codesign.settings import Build
from codesign.vocabulary import Operand
from tests.command import ROOT, Command

DIGITS = ROOT / "examples" / "digits" / "digits.onnx"
HELDOUT = ROOT / "examples" / "digits" / "heldout.npz"
SHARED = ROOT.parent / "shared" / "models"
FACES, FRAMES = SHARED / "ultraface_rfb320.onnx", SHARED / "ultraface_frames.npz"
MACHINES = ("ecnn", "edge_npu", "gemmini16")
TOLERANCE = 1e-4
FACES_IN_FRAMES = (86, 24, 35, 9, 91, 55, 64, 85, 68, 32, 16, 42)  # anchors with a score above 0.7
FILES = {
    "interface.json",
    "manifest.json",
    "mapping.yaml",
    "model.onnx",
    "model.so",
    "plan.json",
    "report.csv",
    "report.html",
    "report.json",
    "tir",
}

Arrays = dict[str, np.ndarray]
Network = Callable[[Arrays], Arrays]


def onnx_network(path: Path) -> Network:
    """An ONNX file as onnxruntime runs it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, inputs), strict=True))


def relative_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """max|a - b| / max|b|."""
    assert found.shape == expected.shape and found.dtype == expected.dtype and np.ptp(expected) > 0
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def assert_equal(network: Network, reference: Network, inputs: Arrays) -> None:
    found, expected = network(inputs), reference(inputs)
    assert found.keys() == expected.keys()
    assert all(relative_difference(found[name], expected[name]) < TOLERANCE for name in expected)


@pytest.fixture(scope="module")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Build]:
    """The digits network built for a machine, once."""
    made: dict[str, Build] = {}

    def build(machine: str) -> Build:
        if machine not in made:
            folder = tmp_path_factory.mktemp(machine)
            made[machine] = codesign.compile(DIGITS, hw=machine, output=folder / "build")
        return made[machine]

    return build


@pytest.fixture(scope="module")
def heldout() -> Arrays:
    with np.load(HELDOUT) as arrays:
        return dict(arrays)


# The digits, on every shipped machine ----------------------------------------------------------------------------


@pytest.mark.parametrize("machine", MACHINES)
def test_library_and_model_equal_onnxruntime_on_digits_never_seen(
    machine: str, builds: Callable[[str], Build], heldout: Arrays
) -> None:
    folder = builds(machine).folder
    original, rewritten, library = onnx_network(DIGITS), onnx_network(folder / "model.onnx"), load_library(folder).run
    right = dict.fromkeys(("original", "rewritten", "library"), 0)
    for image, label in zip(heldout["image"], heldout["label"], strict=True):
        inputs = {"image": image[None]}
        assert_equal(rewritten, original, inputs)
        assert_equal(library, original, inputs)
        for name, network in (("original", original), ("rewritten", rewritten), ("library", library)):
            right[name] += int(network(inputs)["logits"].argmax() == label)
    assert right == dict.fromkeys(right, 356)


@pytest.mark.parametrize("machine", MACHINES)
def test_the_folder_holds_everything_and_the_manifest_hashes_it(machine: str, builds: Callable[[str], Build]) -> None:
    folder = builds(machine).folder
    assert {path.name for path in folder.iterdir()} == FILES
    assert [path.name for path in folder.parent.iterdir()] == ["build"]
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "manifest.json"]
    assert all(path.stat().st_size > 0 for path in files)
    manifest = read_manifest(folder)
    assert manifest.files == {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }
    assert manifest.model.sha256 == hashlib.sha256(DIGITS.read_bytes()).hexdigest()
    profile = ROOT / "hw_profiles" / f"{machine}.yaml"
    assert (manifest.hardware.name, manifest.hardware.sha256) == (
        machine,
        hashlib.sha256(profile.read_bytes()).hexdigest(),
    )
    assert manifest.pipeline == str(find_pipeline("default"))
    assert manifest.packages["apache-tvm"] == "0.27.0.post1"


@pytest.mark.parametrize("machine", MACHINES)
def test_report_and_plan_say_the_same_and_add_up(machine: str, builds: Callable[[str], Build]) -> None:
    build = builds(machine)
    text = (build.folder / "plan.json").read_text(encoding="utf-8")
    assert Plan.from_json(text) == build.plan and Plan.from_json(text).to_json() == text.rstrip("\n")
    report = Report.model_validate_json((build.folder / "report.json").read_text(encoding="utf-8"))
    assert [layer.name for layer in report.layers] == [layer.layer.name for layer in build.plan.layers]
    assert report.totals.macs == sum(layer.macs for layer in report.layers) == 1_779_328
    assert report.totals.cycles == sum(layer.cycles for layer in report.layers)
    assert report.totals.energy_uj == pytest.approx(sum(layer.energy_pj for layer in report.layers) / 1e6)
    moved = [part for layer in report.layers for name, part in layer.traffic.items() if name == "dram"]
    assert report.totals.dram_bytes == sum(part.read_bytes + part.write_bytes for part in moved)
    assert report.totals.latency_ms == pytest.approx(report.totals.cycles / build.plan.clock_mhz / 1e3)
    assert report.totals.fps == pytest.approx(1e3 / report.totals.latency_ms)
    for layer in report.layers:
        assert layer.cycles >= layer.compute_cycles + layer.stall_cycles >= 0
        assert layer.proven == (layer.gap == 0)


@pytest.mark.parametrize("machine", MACHINES)
def test_every_distinct_mapped_layer_has_its_schedule(machine: str, builds: Callable[[str], Build]) -> None:
    """The text in tir/ is the program: read back, it shows the counts the plan was charged."""
    import tvm

    from codesign.lowering.counts import counts_of_function

    build = builds(machine)
    distinct = {layer.layer.nest: layer for layer in build.plan.layers if layer.cost.mapping is not None}
    files = sorted((build.folder / "tir").iterdir())
    assert len(files) == len(distinct) == 5
    read = []
    for path in files:
        text = path.read_text(encoding="utf-8")
        (function,) = [part for part in ast.parse(text).body if isinstance(part, ast.FunctionDef)]
        assert function.name == path.stem
        read.append(counts_of_function(tvm.script.from_source(text), dict.fromkeys(Operand, build.plan.off_chip)))
    assert read == [layer.cost.counts for layer in distinct.values()]


@pytest.mark.parametrize("machine", MACHINES)
def test_nodes_of_the_model_carry_their_costs(machine: str, builds: Callable[[str], Build]) -> None:
    build = builds(machine)
    costs = {layer.layer.name: layer for layer in build.plan.layers}
    model = onnx.load(build.folder / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    for node in model.graph.node:
        shown = {entry.key: entry.value for entry in node.metadata_props}
        assert shown["codesign.cycles"] == str(costs[node.name].cost.cycles)
        assert shown["codesign.engine"] == costs[node.name].engine
    assert not any(node.op_type == "BatchNormalization" for node in model.graph.node)


def timeless(text: str) -> Any:
    """JSON with the seconds of the passes left out."""
    content = json.loads(text)
    for record in content["passes"]:
        record.pop("seconds")
    return content


def test_compiling_again_gives_the_same_and_another_machine_replaces_it_whole(
    builds: Callable[[str], Build], command: Command
) -> None:
    first = builds("edge_npu").folder
    assert command("compile", DIGITS, "--hw", "edge_npu").code == 0
    second = command.folder / "build"
    for name in ("report.json", "plan.json"):
        assert timeless((first / name).read_text("utf-8")) == timeless((second / name).read_text("utf-8"))
    for name in ("model.onnx", "interface.json", "report.csv", *(f"tir/{path.name}" for path in second.glob("tir/*"))):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    (second / "notes.txt").write_text("of the first build")
    assert command("compile", DIGITS, "--hw", "ecnn").code == 0
    assert {path.name for path in second.iterdir()} == FILES
    assert [path.name for path in command.folder.iterdir()] == ["build"]
    assert read_manifest(second).hardware.name == "ecnn"


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize("machine", MACHINES)
def test_verify_holds_and_one_flipped_weight_fails(
    machine: str, builds: Callable[[str], Build], command: Command
) -> None:
    """Negative control: the sign of one weight of one artifact."""
    folder = builds(machine).folder
    done = command("verify", folder)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1] == "verified: 12 comparisons hold"
    path = folder / "model.onnx"
    whole = path.read_bytes()
    model = onnx.load(path)
    weight = next(tensor for tensor in model.graph.initializer if list(tensor.dims) == [64, 32, 3, 3])
    array = onnx.numpy_helper.to_array(weight).copy()
    array.flat[np.abs(array).argmax()] *= -1
    weight.CopyFrom(onnx.numpy_helper.from_array(array, weight.name))
    onnx.save(model, path)
    try:
        done = command("verify", folder)
    finally:
        path.write_bytes(whole)
    assert (done.code, done.err) == (1, "")
    lines = done.out.splitlines()
    assert lines[1] == "changed since it was built: model.onnx" and lines[-1] == "FAILED: 2 of 12 comparisons fail"
    wrong = [line.split()[1] for line in lines if line.endswith("DIFFERS")]
    assert wrong == ["logits", "/reduce/norm/BatchNormalization_output_0"]


# The face detector, on every shipped machine ---------------------------------------------------------------------


def frames() -> np.ndarray:
    """The 12 frames as the detector takes them: (RGB - 127) / 128, 12 x 1 x 3 x 240 x 320."""
    with np.load(FRAMES) as arrays:
        pictures = arrays["frames"].astype(np.float32)
    return ((pictures - 127) / 128).transpose(0, 3, 1, 2)[:, None]


@pytest.mark.parametrize("machine", MACHINES)
def test_the_face_detector_equals_onnxruntime_on_all_frames(machine: str, command: Command) -> None:
    if not (FACES.is_file() and FRAMES.is_file()):
        pytest.skip("../shared/models/ultraface_rfb320.onnx and its frames are not there")
    done = command("compile", FACES, "--hw", machine)
    assert (done.code, done.err) == (0, "")
    original, library = onnx_network(FACES), load_library(command.folder / "build").run
    counts = []
    for frame in frames():
        inputs = {"input": frame}
        assert_equal(library, original, inputs)
        counts.append(int((library(inputs)["scores"][0, :, 1] > 0.7).sum()))
    assert tuple(counts) == FACES_IN_FRAMES
    np.savez(command.folder / "frame.npz", input=frames()[0])
    done = command("run", "build", "--input", "frame.npz", "--output", "found.npz")
    assert (done.code, done.err, done.out) == (0, "", "scores: float32 1x4420x2\nboxes: float32 1x4420x4\n")
    with np.load(command.folder / "found.npz") as arrays:
        assert_equal(lambda _: dict(arrays), original, {"input": frames()[0]})
    plan = Plan.from_json((command.folder / "build" / "plan.json").read_text(encoding="utf-8"))
    assert all(traffic_covers_weights(layer) for layer in plan.layers if layer.cost.mapping is not None)


def traffic_covers_weights(layer: Any) -> bool:
    """Every weight leaves dram at least once."""
    parts = [part for part in layer.cost.traffic if part.memory == "dram" and part.operand is Operand.WEIGHTS]
    read = sum(part.read_bytes for part in parts)
    return bool(read >= layer.layer.nest.elements(Operand.WEIGHTS))
