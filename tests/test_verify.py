"""Verification finds what differs, names it, and never takes silence for agreement."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from codesign.artifacts.manifest import write_manifest
from codesign.artifacts.verification import random_inputs, relative_difference, verify
from codesign.errors import CodesignError
from codesign.graph.graph import Graph
from codesign.importers.onnx_importer import load_onnx
from codesign.lowering.library import write_library
from codesign.lowering.network import build_network
from codesign.lowering.runtime import load_library
from codesign.planning.plan import Identity, Plan
from codesign.rewriting.record import PassRecord
from tests.plans import sample_plan
from tests.small_networks import CONVOLUTION_WEIGHTS, CONVOLUTIONS, input_of, write_network

LAYERS = ("a", "c", "d", "e", "f")


def plan_of(graph: Graph, passes: tuple[PassRecord, ...] = ()) -> Plan:
    """A plan that names this model (its costs are another network's and nothing here reads them)."""
    return replace(sample_plan(), model=Identity(graph.name, graph.sha256), passes=passes)


def build_folder(folder: Path, graph: Graph, passes: tuple[PassRecord, ...] = (), built: Graph | None = None) -> Path:
    """What compile writes, as far as verification reads it. built: what passes made of the graph."""
    target = folder / "build"
    target.mkdir()
    compiled = built or graph
    plan = plan_of(graph, passes)
    write_library(build_network(compiled), target)
    ir.save(compiled.model, target / "model.onnx")
    (target / "plan.json").write_text(plan.to_json(), encoding="utf-8")
    write_manifest(target, plan, None, "none", graph.source)
    return target


def scale_weight(path: Path, name: str, factor: float) -> None:
    """Multiply one element of one weight in an ONNX file."""
    model = onnx.load(path)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    array = onnx.numpy_helper.to_array(tensor).copy()
    array.flat[0] *= factor
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, name))
    onnx.save(model, path)


@pytest.fixture
def graph(tmp_path: Path) -> Graph:
    """A network with five convolutions."""
    return load_onnx(write_network(tmp_path / "net.onnx", CONVOLUTIONS, (2, 3, 11, 9), CONVOLUTION_WEIGHTS))


def test_a_sound_build_holds_output_by_output_and_layer_by_layer(graph: Graph, tmp_path: Path) -> None:
    report = verify(build_folder(tmp_path, graph), None, None)
    assert report.ok
    assert report.notes == ("data: random (seed 0), because none was given",)
    for artifact in ("model.onnx", "model.so"):
        mine = [d for d in report.differences if d.artifact == artifact]
        assert [(d.tensor, d.is_output) for d in mine] == [("y", True), *((name, False) for name in LAYERS)]
        assert {d.reference for d in mine} == {"the original"}
        assert all(d.value < 1e-5 and d.constant is None for d in mine)
    assert str(report).splitlines()[-1] == "verified: 12 comparisons hold"


def test_given_data_is_used(graph: Graph, tmp_path: Path) -> None:
    report = verify(build_folder(tmp_path, graph), input_of(graph), None)
    assert report.ok and report.notes == ("data: given",)


def test_a_changed_weight_in_the_model_is_found_and_placed(graph: Graph, tmp_path: Path) -> None:
    folder = build_folder(tmp_path, graph)
    scale_weight(folder / "model.onnx", "wc", -1.0)
    report = verify(folder, None, None)
    assert not report.ok
    wrong = {(d.artifact, d.tensor) for d in report.differences if not d.ok}
    assert wrong == {("model.onnx", name) for name in ("y", "c", "d", "e")}
    assert report.notes[1] == "changed since it was built: model.onnx"
    assert str(report).splitlines()[-1] == "FAILED: 4 of 12 comparisons fail"


def test_a_library_of_other_weights_is_found(graph: Graph, tmp_path: Path) -> None:
    folder = build_folder(tmp_path, graph)
    assert graph.source is not None
    altered = tmp_path / "altered.onnx"
    altered.write_bytes(graph.source.read_bytes())
    scale_weight(altered, "wf", 1.1)
    write_library(build_network(load_onnx(altered)), folder)
    wrong = {(d.artifact, d.tensor) for d in verify(folder, None, None).differences if not d.ok}
    assert wrong == {("model.so", "y"), ("model.so", "f")}


def test_a_build_that_changes_numbers_is_held_against_its_own_model(graph: Graph, tmp_path: Path) -> None:
    assert graph.source is not None
    altered = tmp_path / "altered.onnx"
    altered.write_bytes(graph.source.read_bytes())
    scale_weight(altered, "wa", 100.0)
    record = PassRecord("round-weights", "APPROXIMATE", 1, (), 0.1)
    folder = build_folder(tmp_path, graph, (record,), load_onnx(altered))
    report = verify(folder, None, None)
    assert report.ok
    assert report.notes[1] == "round-weights change the numbers: model.onnx is expected to differ from the original"
    by_pair = {(d.artifact, d.reference, d.tensor): d for d in report.differences}
    against_original = by_pair["model.so", "the original", "y"]
    assert against_original.value > 1e-3 and against_original.verdict == "expected to differ"
    assert by_pair["model.so", "model.onnx", "y"].value < 1e-5
    scale_weight(folder / "model.onnx", "wf", 2.0)
    assert not verify(folder, None, None).ok


def test_outputs_that_prove_nothing_do_not_pass(tmp_path: Path) -> None:
    graph = load_onnx(write_network(tmp_path / "dead.onnx", "a = Abs(x) b = Neg(a) y = Relu(b)", (1, 8), {}))
    report = verify(build_folder(tmp_path, graph), None, None)
    assert not report.ok
    assert {d.verdict for d in report.differences} == {"proves nothing: every value is 0"}
    assert str(report).splitlines()[-1] == "FAILED: nothing was proven"


def test_the_original_must_be_the_one_the_build_was_made_of(graph: Graph, tmp_path: Path) -> None:
    folder = build_folder(tmp_path, graph)
    assert graph.source is not None
    moved = graph.source.rename(tmp_path / "moved.onnx")
    with pytest.raises(CodesignError) as error:
        verify(folder, None, None)
    assert str(error.value).splitlines() == [
        f"{graph.source}: the original model is not there",
        "  hint: say where it is with --model FILE",
    ]
    assert verify(folder, None, moved).ok
    scale_weight(moved, "wa", 2.0)
    with pytest.raises(CodesignError) as error:
        verify(folder, None, moved)
    assert str(error.value).splitlines()[0] == (
        f"{moved}: is not the model this build was made of: its content differs"
    )


def test_data_of_another_shape_is_refused(graph: Graph, tmp_path: Path) -> None:
    folder = build_folder(tmp_path, graph)
    with pytest.raises(CodesignError) as error:
        verify(folder, {"x": np.zeros((1, 3, 11, 9), np.float32)}, None)
    assert str(error.value).splitlines() == [
        f"{folder}: input 'x' is float32 1x3x11x9",
        "  hint: it takes x (float32 2x3x11x9)",
    ]


def test_relative_difference_against_numpy() -> None:
    a, b = np.array([1.0, -4.0, 2.0]), np.array([1.0, -5.0, 2.5])
    assert relative_difference(a, b) == np.abs(a - b).max() / np.abs(b).max() == 0.2
    assert relative_difference(b, b) == 0.0
    assert relative_difference(np.array([np.nan, np.inf, 1.0]), np.array([np.nan, np.inf, 1.0])) == 0.0
    for other in ([np.nan, 1.0], [1.0, np.inf], [1.0, 2.0, 3.0]):
        assert relative_difference(np.array(other), np.array([1.0, 2.0])) == np.inf
    assert relative_difference(np.array([0.0, 1e-9]), np.zeros(2)) == np.inf
    assert relative_difference(np.zeros((0, 4)), np.zeros((0, 4))) == 0.0


def detector(folder: Path) -> Graph:
    """Scores, of which the host picks those above a limit; the limit is the largest score, so that none is."""
    nodes = """
        s = Conv(x, w)  flat = Reshape(s, shape)  best = ReduceMax<keepdims = 0>(flat, last)
        hot = Greater(best, limit)  where = NonZero(hot)
        picked = Cast<to = 1>(where)  y = Concat<axis = 1>(picked, one)
    """
    path = write_network(folder / "detector.onnx", nodes.replace("\n", " "), (2, 3, 2, 2), {"w": (3, 3, 1, 1)})
    model = onnx.load(path)
    weights = onnx.numpy_helper.to_array(model.graph.initializer[0])[:, :, 0, 0]
    x = np.random.default_rng(0).standard_normal((2, 3, 2, 2)).astype(np.float32)
    limit = np.einsum("kc,bcyx->bkyx", weights.astype(np.float64), x).max()
    constants = {
        "last": np.array([2]),
        "limit": np.float32(limit * (1 + 1e-6)),
        "one": np.array([[1], [2]], np.float32),
    }
    for name, array in constants.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    onnx.save(model, path)
    return load_onnx(path)


@pytest.mark.parametrize(("factor", "sound"), [(1 + 4e-6, True), (1.01, False)])
def test_the_host_picks_from_the_same_scores_for_all(tmp_path: Path, factor: float, sound: bool) -> None:
    """Scores that are larger by a few roundings pass the limit, which is no fault; larger by a hundredth is one."""
    graph = detector(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    larger = detector(other)
    weight = larger.model.graph.initializers["w"]
    assert weight.const_value is not None
    weight.const_value = ir.Tensor((weight.const_value.numpy() * factor).astype(np.float32), name="w")
    folder = build_folder(tmp_path, graph, built=larger)
    library = load_library(folder)
    assert library.run(random_inputs(library.interface))["y"].shape == (2, 2)  # one picked beside the constant
    report = verify(folder, None, None)
    assert report.ok is sound
    failed = {d.tensor for d in report.differences if d.artifact == "model.so" and not d.ok}
    assert ("best" in failed, "y" in failed) == (not sound, False)
    assert report.notes[-1] == "host_tail.onnx is given what the reference hands it"
