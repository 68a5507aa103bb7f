"""fold-batch-norm: every operator it folds into, by execution, and every reason it declines, word for word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from codesign.graph.graph import Graph, constant_of
from codesign.rewriting.graph_pass import Declined, PassContext
from codesign.rewriting.pipeline import resolve_pipeline
from codesign.rewriting.record import DeclinedRecord
from codesign.rewriting.runner import run_pipeline
from tests.pass_models import (
    RELATIVE_TOLERANCE,
    batch_norm,
    difference,
    graph_of,
    normal,
    operators,
    proto_of,
    statistics,
)

FOLD = resolve_pipeline("fold-batch-norm")


def folded(graph: Graph) -> tuple[Graph, tuple[DeclinedRecord, ...]]:
    """The graph after the pass, which must compute the same; and what it declined."""
    after, [record] = run_pipeline(graph, FOLD, PassContext())
    assert difference(graph, after) < RELATIVE_TOLERANCE
    return after, record.declined


def fully_folded(graph: Graph) -> Graph:
    """The graph after the pass, which must have left no normalisation and no statistics behind."""
    after, declined = folded(graph)
    assert declined == () and "BatchNormalization" not in operators(after)
    left = [name for name in after.model.graph.initializers if "mean" in name or "variance" in name]
    assert left == []
    assert {str(value.name) for value in after.outputs} == {str(value.name) for value in graph.outputs}
    return after


def declined_reason(nodes: Sequence[onnx.NodeProto], *arguments: object, **more: object) -> str:
    """The one reason given."""
    after, [declined] = folded(graph_of(proto_of(nodes, *arguments, **more)))  # type: ignore[arg-type]
    assert "BatchNormalization" in operators(after)
    return declined.reason


@st.composite
def convolutions(draw: st.DrawFn) -> onnx.ModelProto:
    """Convolution or transposed convolution, 1-D or 2-D, any grouping, with or without bias, and a normalisation."""
    is_transposed, has_bias, rank = draw(st.booleans()), draw(st.booleans()), draw(st.integers(1, 2))
    group = draw(st.integers(1, 3))
    inputs, outputs = group * draw(st.integers(1, 3)), group * draw(st.integers(1, 3))
    kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
    random = np.random.default_rng(draw(st.integers(0, 2**20)))
    shape = (inputs, outputs // group) if is_transposed else (outputs, inputs // group)
    constants = {"w": normal(random, *shape, *kernel), "b": normal(random, outputs), **statistics(random, outputs)}
    attributes: dict[str, Any] = {
        "group": group,
        "strides": [draw(st.integers(1, 2)) for _ in range(rank)],
        "pads": [draw(st.integers(0, 1)) if size > 1 else 0 for size in kernel] * 2,
    }
    names = ["x", "w", "b"] if has_bias else ["x", "w"]
    if not has_bias:
        del constants["b"]
    nodes = [
        helper.make_node("ConvTranspose" if is_transposed else "Conv", names, ["c"], **attributes),
        batch_norm("c", "y"),
    ]
    return proto_of(nodes, {"x": (2, inputs, *[7] * rank)}, {"y": None}, constants)


@settings(max_examples=60, deadline=None)
@given(convolutions())
def test_any_convolution_before(proto: onnx.ModelProto) -> None:
    after = fully_folded(graph_of(proto))
    assert len(after.nodes) == 1 and len(after.nodes[0].inputs) == 3


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.booleans(), st.integers(0, 2**20))
def test_any_unpadded_convolution_after(group: int, reads: int, makes: int, has_bias: bool, seed: int) -> None:
    random = np.random.default_rng(seed)
    inputs, outputs = group * reads, group * makes
    constants = {"w": normal(random, outputs, reads, 3, 2), **statistics(random, inputs)}
    if has_bias:
        constants["b"] = normal(random, outputs)
    conv = helper.make_node("Conv", ["n", "w", "b"] if has_bias else ["n", "w"], ["y"], group=group)
    proto = proto_of([batch_norm("x", "n"), conv], {"x": (1, inputs, 6, 5)}, {"y": None}, constants)
    assert operators(fully_folded(graph_of(proto))) == ["Conv"]


@settings(max_examples=40, deadline=None)
@given(
    st.booleans(), st.sampled_from([0.5, 1.0, 2.0]), st.sampled_from([0.0, 0.5, 1.0]), st.integers(0, 2), st.booleans()
)
def test_any_gemm(transpose: bool, alpha: float, beta: float, bias_rank: int, forwards: bool) -> None:
    random = np.random.default_rng(7)
    weights = normal(random, 5, 4) if transpose else normal(random, 4, 5)
    bias = normal(random, *[(), (5,), (3, 5)][bias_rank])
    constants = {"w": weights, "b": bias, **statistics(random, 4 if forwards else 5)}
    names = ["n", "y"] if forwards else ["x", "g"]
    gemm = helper.make_node("Gemm", [names[0], "w", "b"], [names[1]], alpha=alpha, beta=beta, transB=int(transpose))
    nodes = [batch_norm("x", "n"), gemm] if forwards else [gemm, batch_norm("g", "y")]
    after = fully_folded(graph_of(proto_of(nodes, {"x": (3, 4)}, {"y": (3, 5)}, constants)))
    assert operators(after) == ["Gemm"]


def test_matmul_gets_an_addition_that_takes_over_the_output_name() -> None:
    random = np.random.default_rng(1)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), batch_norm("m", "y")]
    constants = {"w": normal(random, 4, 6), **statistics(random, 6)}
    after = fully_folded(graph_of(proto_of(nodes, {"x": (3, 4)}, {"y": (3, 6)}, constants)))
    assert operators(after) == ["MatMul", "Add"]


def test_forwards_into_a_matmul_that_is_an_output() -> None:
    random = np.random.default_rng(1)
    nodes = [batch_norm("x", "n"), helper.make_node("MatMul", ["n", "w"], ["y"])]
    constants = {"w": normal(random, 4, 6), **statistics(random, 4)}
    after = fully_folded(graph_of(proto_of(nodes, {"x": (3, 4)}, {"y": (3, 6)}, constants)))
    assert operators(after) == ["MatMul", "Add"]


def test_a_bias_that_is_added_separately() -> None:
    random = np.random.default_rng(2)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Add", ["b", "m"], ["a"]),
        batch_norm("a", "y"),
    ]
    constants = {"w": normal(random, 4, 6), "b": normal(random, 6), **statistics(random, 6)}
    after = fully_folded(graph_of(proto_of(nodes, {"x": (3, 4)}, {"y": (3, 6)}, constants)))
    assert operators(after) == ["MatMul", "Add"]


def test_through_a_transposition_of_a_sequence() -> None:
    """A linear layer over tokens, normalised per feature as PyTorch's BatchNorm1d does."""
    random = np.random.default_rng(3)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Transpose", ["m"], ["t"], perm=[0, 2, 1]),
        batch_norm("t", "y"),
    ]
    constants = {"w": normal(random, 4, 6), **statistics(random, 6)}
    after = fully_folded(graph_of(proto_of(nodes, {"x": (2, 5, 4)}, {"y": (2, 6, 5)}, constants)))
    assert operators(after) == ["MatMul", "Add", "Transpose"]


def test_through_a_concatenation_of_convolutions() -> None:
    random = np.random.default_rng(4)
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"]),
        helper.make_node("Conv", ["x", "w2"], ["c2"]),
        helper.make_node("Concat", ["c1", "c2"], ["c"], axis=-3),
        batch_norm("c", "y"),
    ]
    constants = {"w1": normal(random, 2, 3, 1, 1), "w2": normal(random, 5, 3, 1, 1), **statistics(random, 7)}
    after = fully_folded(graph_of(proto_of(nodes, {"x": (1, 3, 4, 4)}, {"y": (1, 7, 4, 4)}, constants)))
    assert operators(after) == ["Conv", "Conv", "Concat"]


def test_flattened_on_the_way_back_and_forth() -> None:
    """Conv to 1x1 -> Flatten -> norm folds back; norm -> Flatten of 2x2 -> Gemm folds forward."""
    random = np.random.default_rng(5)
    back = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Flatten", ["c"], ["f"]),
        batch_norm("f", "y"),
    ]
    constants = {"w": normal(random, 6, 3, 4, 4), **statistics(random, 6)}
    fully_folded(graph_of(proto_of(back, {"x": (2, 3, 4, 4)}, {"y": (2, 6)}, constants)))
    forth = [
        batch_norm("x", "n"),
        helper.make_node("Flatten", ["n"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["y"]),
    ]
    constants = {"w": normal(random, 12, 5), **statistics(random, 3)}
    fully_folded(graph_of(proto_of(forth, {"x": (2, 3, 2, 2)}, {"y": (2, 5)}, constants)))


def test_two_normalisations_in_a_row_need_several_sweeps() -> None:
    random = np.random.default_rng(6)
    nodes = [batch_norm("x", "n", "n1"), batch_norm("n", "m", "n2"), helper.make_node("Conv", ["m", "w"], ["y"])]
    constants = {"w": normal(random, 4, 3, 2, 2), **statistics(random, 3, "n1"), **statistics(random, 3, "n2")}
    assert operators(fully_folded(graph_of(proto_of(nodes, {"x": (1, 3, 4, 4)}, {"y": None}, constants)))) == ["Conv"]


def test_shared_weights_and_statistics_are_not_corrupted() -> None:
    """Two convolutions with one weight, both normalised (with the same statistics), and a third left as it was."""
    random = np.random.default_rng(8)
    constants = {"w": normal(random, 3, 3, 3, 3), "b": normal(random, 3), **statistics(random, 3)}
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c1"], pads=[1] * 4),
        batch_norm("c1", "n1"),
        helper.make_node("Conv", ["n1", "w", "b"], ["c2"], pads=[1] * 4),
        batch_norm("c2", "n2"),
        helper.make_node("Conv", ["n2", "w", "b"], ["y"], pads=[1] * 4),
    ]
    after = fully_folded(graph_of(proto_of(nodes, {"x": (1, 3, 5, 5)}, {"y": (1, 3, 5, 5)}, constants)))
    kept = constant_of(after.nodes[2].inputs[1])
    assert kept is not None and np.array_equal(kept, constants["w"])


def test_float64_arithmetic_is_cast_once() -> None:
    random = np.random.default_rng(9)
    constants = {"w": normal(random, 4, 3, 1, 1), **statistics(random, 4)}
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), batch_norm("c", "y")]
    after = fully_folded(graph_of(proto_of(nodes, {"x": (1, 3, 2, 2)}, {"y": None}, constants)))
    wide = {name: array.astype(np.float64) for name, array in constants.items()}
    expected = wide["w"] * (wide["bn_scale"] / np.sqrt(wide["bn_variance"] + np.float32(1e-5))).reshape(-1, 1, 1, 1)
    found = constant_of(after.nodes[0].inputs[1])
    assert found is not None and found.dtype == np.float32
    # Half a unit in the last place of float32: one rounding, not several.
    assert (np.abs(found - expected) <= np.spacing(np.abs(found)) * 0.5001).all()


CONSTANTS = {
    "w": normal(np.random.default_rng(10), 3, 3, 3, 3),
    "v": normal(np.random.default_rng(11), 3, 2, 3, 3),
    **statistics(np.random.default_rng(12), 3),
}
IMAGE = {"x": (1, 3, 6, 6)}


def test_declined_when_the_convolution_has_other_readers() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        batch_norm("c", "n"),
        helper.make_node("Add", ["c", "n"], ["y"]),
    ]
    assert declined_reason(nodes, IMAGE, {"y": None}, CONSTANTS) == (
        "backwards: the result of Conv_0 is used elsewhere too; "
        "forwards: its result goes to Add Add_2, which has no weights"
    )


def test_declined_when_the_convolution_is_an_output() -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), batch_norm("c", "y")]
    assert declined_reason(nodes, IMAGE, {"c": None, "y": None}, CONSTANTS) == (
        "backwards: the result of Conv_0 is used elsewhere too; forwards: its result is an output of the graph"
    )


def test_declined_before_a_padded_convolution_but_not_when_the_shift_is_zero() -> None:
    nodes = [batch_norm("x", "n"), helper.make_node("Conv", ["n", "w"], ["y"], pads=[1] * 4)]
    assert declined_reason(nodes, IMAGE, {"y": None}, CONSTANTS) == (
        "backwards: its input x is an input of the graph; "
        "forwards: Conv_1 pads with zeros, which the shift does not leave zero"
    )
    without = CONSTANTS | {"bn_shift": np.zeros(3, np.float32), "bn_mean": np.zeros(3, np.float32)}
    fully_folded(graph_of(proto_of(nodes, IMAGE, {"y": None}, without)))


def test_declined_before_a_transposed_convolution() -> None:
    nodes = [batch_norm("x", "n"), helper.make_node("ConvTranspose", ["n", "v"], ["y"])]
    assert declined_reason(nodes, IMAGE, {"y": None}, CONSTANTS) == (
        "backwards: its input x is an input of the graph; "
        "forwards: outputs of ConvTranspose_1 sum over different numbers of inputs"
    )


def test_declined_when_channels_become_rows() -> None:
    """BatchNormalization after a MatMul over rank 3 normalises tokens, not features."""
    random = np.random.default_rng(13)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), batch_norm("m", "y")]
    constants = {"w": normal(random, 4, 6), **statistics(random, 5)}
    assert declined_reason(nodes, {"x": (2, 5, 4)}, {"y": None}, constants) == (
        "backwards: scale and shift vary along axis 1 of the result of MatMul_0, whose channels lie on axis 2; "
        "forwards: its result is an output of the graph"
    )


def test_declined_when_a_flatten_mixes_channels_with_space() -> None:
    random = np.random.default_rng(14)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Flatten", ["c"], ["f"]),
        batch_norm("f", "y"),
    ]
    constants = {"w": CONSTANTS["w"], **statistics(random, 48)}
    assert declined_reason(nodes, IMAGE, {"y": None}, constants) == (
        "backwards: scale and shift vary along axis 2, 3 of the result of Conv_0, whose channels lie on axis 1; "
        "forwards: its result is an output of the graph"
    )


def test_declined_when_statistics_are_computed() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", "bn_scale", "bn_shift", "bn_mean", "s"], ["y"], name="norm"),
    ]
    graph = graph_of(proto_of(nodes, IMAGE | {"s": (3,)}, {"y": None}, CONSTANTS))
    [outcome] = FOLD.passes[0].run(graph.copy(), PassContext())
    assert outcome == Declined("norm", "its statistics are not constants")


def test_declined_when_a_variance_is_negative() -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), batch_norm("c", "y")]
    bad = CONSTANTS | {"bn_variance": np.array([1, -1, 1], np.float32)}
    [outcome] = FOLD.passes[0].run(graph_of(proto_of(nodes, IMAGE, {"y": None}, bad)), PassContext())
    assert outcome == Declined("norm_y", "a variance is not positive")


def test_declined_in_training_mode() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node(
            "BatchNormalization",
            ["c", "bn_scale", "bn_shift", "bn_mean", "bn_variance"],
            ["y", "running_mean", "running_variance"],
            name="norm",
            training_mode=1,
        ),
    ]
    outputs = {"y": None, "running_mean": None, "running_variance": None}
    [outcome] = FOLD.passes[0].run(graph_of(proto_of(nodes, IMAGE, outputs, CONSTANTS)), PassContext())
    assert outcome == Declined("norm", "it is in training mode")


def test_declined_when_float16_overflows() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], to=onnx.TensorProto.FLOAT16),
        helper.make_node("Conv", ["h", "w"], ["c"]),
        batch_norm("c", "n"),
        helper.make_node("Cast", ["n"], ["y"], to=onnx.TensorProto.FLOAT),
    ]
    half = {name: array.astype(np.float16) for name, array in CONSTANTS.items()}
    half["bn_scale"] = np.full(3, 6e4, np.float16)
    [outcome] = FOLD.passes[0].run(graph_of(proto_of(nodes, IMAGE, {"y": None}, half)), PassContext())
    assert isinstance(outcome, Declined)
    assert outcome.reason.startswith("backwards: the folded weights of Conv_1 do not fit float16")


@pytest.mark.parametrize("opset", [9, 13, 15, 21])
def test_other_opsets(opset: int) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"]), batch_norm("c", "y")]
    fully_folded(graph_of(proto_of(nodes, IMAGE, {"y": None}, CONSTANTS, opset=opset)))
