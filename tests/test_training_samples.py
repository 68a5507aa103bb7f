"""Files of samples that do not fit a network, and gradients that cannot be had: refused, word for word."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from codesign.errors import CodesignError
from codesign.rewriting.graph_pass import PassContext
from codesign.training.sensitivity import GradientOracle
from passes.round_channels import RoundChannels
from tests.pass_models import graph_of, normal, proto_of
from tests.sensitivities import need_torch, saved, scores_of, tiny, tiny_constants

IMAGES = np.zeros((2, 3, 4, 4), np.float32)
UNFIT: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "no array of that name": (
        {"image": IMAGES},
        "no array is called x, which is an input of the network\n  hint: it holds image\n"
        "FILE: image is no input of the network\n  hint: names are x, labels",
    ),
    "label": (
        {"x": IMAGES, "label": np.array([0, 1])},
        "label is no input of the network\n  hint: did you mean labels?",
    ),
    "shape": ({"x": IMAGES[0]}, "x has shape [3, 4, 4]; the network takes [any number, 3, 4, 4]"),
    "type": ({"x": IMAGES.astype(complex)}, "x is of type complex128; the network takes float32"),
    "text": ({"x": IMAGES.astype(str)}, "x is of type <U32; the network takes float32"),
    "not finite": ({"x": IMAGES + np.inf}, "x has numbers that are not finite"),
    "empty": ({"x": IMAGES[:0]}, "holds no samples"),
    "labels of floats": (
        {"x": IMAGES, "labels": np.array([0.0, 1.0])},
        "labels are of type float64; they must be integers",
    ),
    "labels of another shape": ({"x": IMAGES, "labels": np.array([0, 1, 2])}, "labels have shape [3], not [2]"),
    "labels of another network": (
        {"x": IMAGES, "labels": np.array([0, 3])},
        "labels are 0 to 3; y has classes 0 to 2",
    ),
    "pickled": (
        {"x": np.array([{}], dtype=object)},
        "is no readable .npz file of plain arrays\n  hint: write it with numpy.savez(path, **{tensor_name: array})",
    ),
}


@pytest.mark.parametrize("what", UNFIT)
def test_a_file_that_does_not_fit_is_refused(what: str, tmp_path: Path) -> None:
    arrays, message = UNFIT[what]
    path = saved(tmp_path, **arrays)
    step = RoundChannels(mode="down", criterion="taylor", data=str(path))
    with pytest.raises(CodesignError) as error:
        step.run(tiny(tiny_constants()), PassContext(sensitivity_oracle=GradientOracle()))
    assert str(error.value) == f"{path}: {message}".replace("FILE", str(path))


def test_a_file_that_is_not_there_is_refused() -> None:
    with pytest.raises(CodesignError) as error:
        scores_of(tiny(tiny_constants()), Path("missing.npz"))
    assert str(error.value) == (
        "missing.npz: no such file\n  hint: give an .npz file with one array per input, by tensor name"
    )


def test_inputs_must_agree_on_the_samples_and_outputs_on_classes(tmp_path: Path) -> None:
    constants = {"w": normal(np.random.default_rng(0), 3, 2, 1, 1)}
    nodes = [
        helper.make_node("Add", ["a", "b"], ["s"]),
        helper.make_node("Conv", ["s", "w"], ["c"]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("ReduceSum", ["p"], ["y"], keepdims=0),
    ]
    shape, x = (1, 2, 3, 3), normal(np.random.default_rng(0), 4, 2, 3, 3)
    whole = proto_of(nodes[:3], {"a": shape, "b": shape}, {"p": None}, constants)
    summed = proto_of(nodes, {"a": shape, "b": shape}, {"y": None}, constants)
    apart = proto_of(nodes[:3], {"a": shape, "b": (2, 3, 3)}, {"p": None}, constants)
    where = tmp_path / "data.npz"
    labels = np.zeros(4, np.int64)
    for proto, arrays, message in (
        (whole, {"a": x, "b": x[:3]}, f"{where}: inputs have different numbers of samples: a 4, b 3"),
        (whole, {"a": x, "b": x, "labels": labels}, f"{where}: labels have shape [4], not [4, 1, 1]"),
        (
            summed,
            {"a": x[:1], "b": x[:1], "labels": labels[:1]},
            f"{where}: labels need logits of [samples, classes, ...]; the first output, y, is float32 []",
        ),
        (apart, {}, "network: takes no samples one by one: its inputs do not share a first axis"),
    ):
        with pytest.raises(CodesignError) as error:
            scores_of(graph_of(proto), saved(tmp_path, **arrays))
        assert str(error.value) == message


def test_without_torch_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(CodesignError) as error:
        scores_of(tiny(tiny_constants()), saved(tmp_path, x=IMAGES))
    assert str(error.value) == "gradients of network: PyTorch is not installed\n  hint: pip install codesign[torch]"


@pytest.mark.parametrize(
    ("factor", "message"), [(1e20, "sample 0: the loss is inf"), (0.0, "sample 0: a gradient is not finite")]
)
def test_numbers_without_an_end_are_refused(tmp_path: Path, factor: float, message: str) -> None:
    """At zero the slope of a square root is infinite though the loss is not."""
    need_torch()
    constants = {"w": np.full((2, 3, 1, 1), factor, np.float32), "v": np.ones((2, 2, 1, 1), np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Abs", ["c"], ["a"]),
        helper.make_node("Sqrt", ["a"], ["s"]) if factor == 0 else helper.make_node("Mul", ["a", "a"], ["s"]),
        helper.make_node("Conv", ["s", "v"], ["y"]),
    ]
    graph = graph_of(proto_of(nodes, {"x": (1, 3, 4, 4)}, {"y": None}, constants))
    path = saved(tmp_path, x=IMAGES[:1] + 1)
    with pytest.raises(CodesignError) as error:
        scores_of(graph, path)
    assert str(error.value) == f"{path}: {message}"
