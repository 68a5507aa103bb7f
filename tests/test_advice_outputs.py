"""How far outputs move, judged by numpy and onnxruntime; and what is never called comparable."""

from __future__ import annotations

from math import log10
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from codesign.advice.advice import OutputChange
from codesign.advice.outputs import Judge
from codesign.errors import CodesignError
from codesign.graph.graph import Graph
from codesign.graph.samples import Samples, given, resized, shuffled, synthetic
from codesign.rewriting.graph_pass import PassContext
from codesign.rewriting.pipeline import resolve_pipeline
from codesign.rewriting.runner import run_pipeline
from tests.command import Command
from tests.pass_models import graph_of, normal, proto_of, run
from tests.pass_networks import network
from tests.refusals import assert_refused
from tests.refusals import command as command  # the fixture

SHAPE = (1, 3, 8, 8)


def scaled(factor: float, bias: float = 0.0, shape: tuple[int, ...] = SHAPE) -> Graph:
    """y = factor * x + bias, channel by channel."""
    weights = np.zeros((3, 3, 1, 1), np.float32)
    weights[range(3), range(3)] = factor
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["y"])]
    constants = {"w": weights, "b": np.full(3, bias, np.float32)}
    return graph_of(proto_of(nodes, {"x": shape}, {"y": shape}, constants))


def changed(before: Graph, after: Graph, samples: Samples | None = None) -> OutputChange:
    [change] = Judge(before, samples or synthetic(before)).changes(after)
    return change


def test_a_scale_changes_the_size_alone() -> None:
    change = changed(scaled(1.0), scaled(1.1))
    assert change.cosine == pytest.approx(1, abs=1e-9)
    assert change.sqnr_db == pytest.approx(20, abs=1e-3)
    assert change.note == ""


def test_figures_are_those_of_numpy_over_all_samples() -> None:
    before, after = network("conv_norm"), network("conv_norm", seed=1)
    data = normal(np.random.default_rng(3), 6, 3, 12, 12)
    change = changed(before, after, given(before, {"x": data}, "data.npz"))
    a, b = (
        np.concatenate([run(graph.model, {"x": part})["y"].ravel() for part in np.split(data, 3)]).astype(np.float64)
        for graph in (after, before)
    )
    assert change.cosine == pytest.approx(a @ b / np.sqrt((a @ a) * (b @ b)))
    assert change.sqnr_db == pytest.approx(10 * log10((b @ b) / ((a - b) @ (a - b))))


def test_an_output_that_does_not_depend_on_the_input_proves_nothing() -> None:
    """As of an untrained network: its biases alone reach the output, and any rewrite of the weights would look fine."""
    change = changed(scaled(1e-6, bias=1.0), scaled(2e-6, bias=1.0))
    assert (change.cosine, change.sqnr_db) == (None, None)
    assert change.note.startswith("proves nothing: another input changes it by 1.")
    assert change.note.endswith("e-06 of its size")
    assert changed(scaled(0.0), scaled(0.0)).note == "proves nothing: another input changes it by 0.0e+00 of its size"


def test_an_output_that_hardly_depends_on_the_input_is_qualified() -> None:
    """The bias is 99 % of the output: a cosine near 1 although the part that matters is gone."""
    change = changed(scaled(0.01, bias=1.0), scaled(-0.01, bias=1.0))
    assert change.cosine is not None and change.cosine > 0.999
    assert change.note.startswith("changed more than by another input (1.")


def test_equal_outputs_are_said_to_be_equal() -> None:
    change = changed(scaled(2.0), scaled(2.0))
    assert change == OutputChange("y", 1.0, None, "the same numbers in floating point")


def test_numbers_that_are_not_finite() -> None:
    assert changed(scaled(1.0), scaled(np.inf)).note == "it holds numbers that are not finite"


def test_another_shape_is_never_compared() -> None:
    before, after = scaled(1.0), scaled(1.0)
    narrow = proto_of(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        {"x": SHAPE},
        {"y": (1, 2, 8, 8)},
        {"w": np.ones((2, 3, 1, 1), np.float32)},
    )
    change = changed(before, graph_of(narrow))
    assert change == OutputChange("y", None, None, "not comparable: it was 1x3x8x8 and is 1x2x8x8 now")
    assert changed(before, after).cosine == 1


def test_integers_are_counted() -> None:
    def highest(sign: float) -> Graph:
        nodes = [helper.make_node("Mul", ["x", "s"], ["m"]), helper.make_node("ArgMax", ["m"], ["y"], axis=1)]
        proto = proto_of(nodes, {"x": (1, 4)}, {"y": None}, {"s": np.array(sign, np.float32)})
        proto.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
        return graph_of(proto)

    assert changed(highest(1), highest(1)).note == "100.0% of its int64 values are the same"
    assert changed(highest(1), highest(-1)).note == "0.0% of its int64 values are the same"


def test_what_onnxruntime_cannot_run_is_told() -> None:
    broken = scaled(1.0)
    broken.nodes[0].attributes["kernel_shape"] = ir.AttrInt64s("kernel_shape", [5, 5])
    change = changed(scaled(1.0), broken)
    assert change.cosine is None
    assert change.note.startswith("onnxruntime cannot run it: ")


# ---- another resolution


def at_resolution(graph: Graph, size: int) -> Graph:
    after, _ = run_pipeline(graph, resolve_pipeline(f"fix-resolution{{size={size}}}"), PassContext())
    return after


def test_synthetic_data_are_not_resized() -> None:
    before = network("classifier")
    change = changed(before, at_resolution(before, 16))
    assert change.note == "not comparable: the input was 1x3x8x8 and is 1x3x16x16 now; give pictures with --data"


def test_given_pictures_are_resized() -> None:
    before = network("classifier")
    ramp = np.linspace(-1, 1, 3 * 8 * 8, dtype=np.float32).reshape(SHAPE)
    change = changed(before, at_resolution(before, 16), given(before, {"x": ramp}, "ramp.npz"))
    assert change.note == "on data resized from 1x3x8x8 to 1x3x16x16"
    assert change.cosine is not None and change.cosine > 0.99, "averages of a ramp stay where they were"


@pytest.mark.parametrize("size", [(8, 8), (16, 5), (7, 9)])
def test_pictures_are_resized_as_onnx_resizes(size: tuple[int, int]) -> None:
    x = normal(np.random.default_rng(0), 2, 3, 8, 6)
    sizes = np.array((2, 3, *size), np.int64)
    node = helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], mode="linear")
    expected = run(proto_of([node], {"x": x.shape}, {"y": (2, 3, *size)}, {"sizes": sizes}), {"x": x})["y"]
    found = resized({"x": x}, scaled(1.0, shape=(2, 3, *size)))
    assert found is not None
    np.testing.assert_allclose(found["x"], expected, atol=1e-6)


def test_more_than_rows_and_columns_is_not_resized() -> None:
    assert resized({"x": np.zeros((1, 4, 8, 8), np.float32)}, scaled(1.0)) is None


# ---- data


def test_synthetic_data_are_the_same_every_time() -> None:
    graph = scaled(1.0)
    first, second = synthetic(graph), synthetic(graph)
    assert first.source == "synthetic data (standard normal, seed 0)"
    np.testing.assert_array_equal(first.runs[0]["x"], second.runs[0]["x"])
    other = shuffled(first.runs[0])["x"]
    assert (other != first.runs[0]["x"]).any()
    np.testing.assert_array_equal(np.sort(other.ravel()), np.sort(first.runs[0]["x"].ravel()))


def test_several_samples_in_one_array() -> None:
    data = normal(np.random.default_rng(0), 4, 3, 8, 8).astype(np.float64)
    samples = given(scaled(1.0), {"x": data, "unused": data}, "data.npz")
    assert samples.source == "data.npz, 4 samples"
    assert [part["x"].shape for part in samples.runs] == [SHAPE] * 4
    assert samples.runs[2]["x"].dtype == np.float32
    np.testing.assert_array_equal(samples.runs[2]["x"], data[2:3].astype(np.float32))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"z": (1, 3, 8, 8)}, "d.npz: no array for the input x\n  hint: it holds z"),
        (
            {"x": (3, 8, 8)},
            "d.npz: x has the shape 3x8x8, and the network takes 1x3x8x8\n"
            "  hint: the first dimension may be a multiple, for several samples",
        ),
        (
            {"x": (0, 3, 8, 8)},
            "d.npz: x has the shape 0x3x8x8, and the network takes 1x3x8x8\n"
            "  hint: the first dimension may be a multiple, for several samples",
        ),
    ],
)
def test_data_of_another_form_are_refused(arrays: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(CodesignError) as refused:
        given(scaled(1.0), {name: np.zeros(shape, np.float32) for name, shape in arrays.items()}, "d.npz")
    assert str(refused.value) == message


def test_data_of_another_kind_are_refused() -> None:
    with pytest.raises(CodesignError) as refused:
        given(scaled(1.0), {"x": np.zeros(SHAPE, np.complex64)}, "d.npz")
    assert str(refused.value) == "d.npz: x holds complex64, and the network takes float32"
    with pytest.raises(CodesignError) as refused:
        given(scaled(1.0), {"x": np.full(SHAPE, np.nan, np.float32)}, "d.npz")
    assert str(refused.value) == "d.npz: x holds numbers that are not finite"


def two_inputs() -> onnx.ModelProto:
    return proto_of([helper.make_node("Add", ["a", "b"], ["y"])], {"a": (1, 4), "b": (1, 4)}, {"y": (1, 4)}, {})


def test_inputs_need_as_many_samples_each() -> None:
    arrays = {"a": np.zeros((2, 4), np.float32), "b": np.zeros((3, 4), np.float32)}
    with pytest.raises(CodesignError) as refused:
        given(graph_of(two_inputs()), arrays, "d.npz")
    assert str(refused.value) == (
        "d.npz: 2 and 3 samples for different inputs\n  hint: the first dimension of every array must hold as many"
    )


# ---- the command


def test_one_array_for_two_inputs_is_refused(command: Command) -> None:
    onnx.save(two_inputs(), command.folder / "two.onnx")
    np.save(command.folder / "d.npy", np.zeros((1, 4), np.float32))
    message = """
d.npy: one array, and the network has the inputs a, b
  hint: give an .npz file with one array per input, by tensor name"""
    assert_refused(command, 2, message, "advise", "two.onnx", "--hw", "edge_npu", "--data", "d.npy")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("no.npy", None, "no.npy: no such file\n  hint: give an .npy file with one array"),
        (
            "no.npz",
            None,
            "no.npz: no such file\n  hint: give an .npz file with one array per input, by tensor name",
        ),
        (
            "bad.npy",
            b"text",
            "bad.npy: is no readable .npy file of a plain array\n  hint: write it with numpy.save(path, array)",
        ),
    ],
)
def test_data_that_cannot_be_read_are_refused(command: Command, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (command.folder / name).write_bytes(content)
    assert_refused(command, 2, message, "advise", "good.onnx", "--hw", "edge_npu", "--data", name)


def test_an_archive_is_no_single_array(command: Command) -> None:
    (command.folder / "good.npz").rename(command.folder / "good.npy")
    message = "good.npy: holds several arrays\n  hint: name it .npz"
    assert_refused(command, 2, message, "advise", "good.onnx", "--hw", "edge_npu", "--data", "good.npy")


def test_given_data_of_either_file(command: Command, tmp_path: Path) -> None:
    with np.load(command.folder / "good.npz") as arrays:
        np.save(command.folder / "good.npy", arrays["x"])
    shown = [
        command("advise", "good.onnx", "--hw", "edge_npu", "--json", "--data", name)
        for name in ("good.npz", "good.npy")
    ]
    assert [done.code for done in shown] == [0, 0]
    assert '"data": "good.npz, 1 sample"' in shown[0].out
    assert shown[0].out.replace("good.npz", "good.npy") == shown[1].out
