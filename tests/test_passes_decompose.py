"""decompose-softmax and decompose-layer-norm: the same numbers in every form; on which machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from codesign.graph.graph import Graph
from codesign.hardware.loading import load_profile
from codesign.hardware.profile import HardwareProfile
from codesign.rewriting.graph_pass import Applied, Declined, Outcome, PassContext
from codesign.rewriting.pipeline import resolve_pipeline
from codesign.rewriting.runner import run_pipeline
from codesign.workload.layers import layers_of
from tests.pass_machines import machine
from tests.pass_models import difference, feeds_for, graph_of, normal, operators, proto_of, run
from tests.pass_networks import network

node = helper.make_node
FORMS = [f"reductions={form},division={way}" for form in ("auto", "pool") for way in ("reciprocal", "divide")]
BOTH = "decompose-softmax{OPTIONS},decompose-layer-norm{OPTIONS}"


def graph(nodes: Sequence[onnx.NodeProto], shape: Sequence[int], opset: int = 21, **constants: np.ndarray) -> Graph:
    proto = proto_of(nodes, {"x": shape}, {"y": shape}, constants, opset=opset)
    return graph_of(proto)


def softmax(kind: str, axis: int, shape: Sequence[int], opset: int = 21) -> Graph:
    return graph([node(kind, ["x"], ["y"], axis=axis, name="norm")], shape, opset)


def layer_norm(
    shape: Sequence[int], axis: int, kind: str = "LayerNormalization", opset: int = 21, **attributes: Any
) -> Graph:
    random = np.random.default_rng(0)
    scale, shift = normal(random, *shape[axis:]), normal(random, *shape[axis:])
    names = ["x", "scale", "shift"][: 2 if kind == "RMSNormalization" else 3]
    constants = {"scale": scale, "shift": shift} if len(names) == 3 else {"scale": scale}
    return graph([node(kind, names, ["y"], axis=axis, name="norm", **attributes)], shape, opset, **constants)


def decomposed(
    before: Graph, options: str = "reductions=auto", profile: HardwareProfile | None = None
) -> tuple[Graph, list[Outcome]]:
    pipeline = resolve_pipeline(BOTH.replace("OPTIONS", options))
    context = PassContext(profile)
    after, _ = run_pipeline(before, pipeline, context)
    return after, [outcome for step in pipeline.passes for outcome in step.run(before.copy(), context)]


ELEMENT = ("elementwise", "activation")
REDUCES = machine("reduction", *ELEMENT)
POOLS = machine("max_pool", "average_pool", *ELEMENT)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple),
    st.sampled_from(FORMS),
    st.sampled_from(["Softmax", "LogSoftmax", "LayerNormalization"]),
    st.data(),
)
def test_any_shape_and_axis_in_any_form(shape: tuple[int, ...], options: str, kind: str, data: st.DataObject) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    before = layer_norm(shape, axis) if kind == "LayerNormalization" else softmax(kind, axis, shape)
    after, [outcome] = decomposed(before, options)
    if "pool" in options and kind != "LayerNormalization" and axis != len(shape) - 1:
        assert outcome == Declined(
            "norm", f"it goes along axis {axis}, which is not the last and so no window of a pooling"
        )
    else:
        assert isinstance(outcome, Applied) and kind not in operators(after)
    feeds = feeds_for(before)
    wanted, found = run(before.model, feeds)["y"], run(after.model, feeds)["y"]
    assert np.allclose(found, wanted, rtol=1e-5, atol=1e-5), "absolute: over one element the logarithm is all zeros"


def test_large_numbers_do_not_overflow() -> None:
    """exp(200) is infinite in float32: without the maximum taken away the sum would be."""
    shift = np.array([200.0], np.float32)
    nodes = [node("Add", ["x", "shift"], ["a"]), node("Softmax", ["a"], ["y"])]
    before = graph(nodes, (3, 7), shift=shift)
    assert difference(before, decomposed(before)[0]) < 1e-5


@pytest.mark.parametrize("options", FORMS)
def test_group_and_instance_normalisations(options: str) -> None:
    before = network("norms")
    after, outcomes = decomposed(before, options.replace("pool", "auto"))
    assert [type(outcome) for outcome in outcomes] == [Applied] * 4
    assert difference(before, after) < 1e-5
    assert {"InstanceNormalization", "GroupNormalization", "LogSoftmax"}.isdisjoint(operators(after))
    assert operators(after).count("Mul") - operators(before).count("Mul") == 3 + 2 + (
        0 if "divide" in options else 3
    ), "three squares, two scales (the exported group normalisation has none), three reciprocals"


def test_rms_normalisation() -> None:
    """onnxruntime has the operator from set 23 on."""
    before = layer_norm((2, 3, 8), 2, "RMSNormalization", 23, epsilon=1e-2)
    after, [outcome] = decomposed(before)
    assert outcome == Applied("norm", "RMSNormalization over 8 became reductions and element-wise work")
    assert "Sub" not in operators(after) and difference(before, after) < 1e-5


def test_what_becomes_of_it() -> None:
    after, [outcome] = decomposed(softmax("Softmax", -1, (2, 7)))
    assert outcome == Applied("norm", "Softmax over 7 became reductions and element-wise work")
    assert operators(after) == ["ReduceMax", "Sub", "Exp", "ReduceSum", "Reciprocal", "Mul"]
    pooled, _ = decomposed(softmax("Softmax", -1, (2, 3, 7)), "reductions=pool,division=divide")
    pool = [
        "Reshape",
        "GlobalMaxPool",
        "Reshape",
        "Sub",
        "Exp",
        "Reshape",
        "GlobalAveragePool",
        "Reshape",
        "Mul",
        "Div",
    ]
    assert operators(pooled) == pool


@pytest.mark.parametrize(("profile", "form"), [(REDUCES, "reductions"), (POOLS, "poolings")])
def test_no_part_is_left_to_the_host(profile: HardwareProfile, form: str) -> None:
    after, outcomes = decomposed(network("normalised_tokens"), profile=profile)
    assert [outcome.detail for outcome in outcomes if isinstance(outcome, Applied)] == [
        f"Softmax over 16 became {form} and element-wise work",
        f"LayerNormalization over 6 became {form} and element-wise work",
        f"LayerNormalization over 6 became {form} and element-wise work",
    ]
    unit = profile.vector_unit
    assert unit is not None
    left = {layer.op for layer in layers_of(after) if not (layer.nest.has_macs or layer.nest.kind in unit.operations)}
    assert left == {"Reshape", "Transpose", "BatchNormalization"}, "what stood there before"


REASONS = {
    "edge_npu does Softmax itself": machine("softmax", *ELEMENT),
    "edge_npu does not do all of its parts: it lacks ReduceMax, ReduceSum; or else GlobalMaxPool, GlobalAveragePool": (
        machine(*ELEMENT)
    ),
    "edge_npu does not do all of its parts: it lacks Exp, Reciprocal; or else "
    "GlobalMaxPool, GlobalAveragePool, Exp, Reciprocal": machine("reduction", *ELEMENT, activation=("Relu",)),
}


@pytest.mark.parametrize("reason", REASONS)
def test_the_machine_decides(reason: str) -> None:
    before = softmax("Softmax", -1, (2, 7))
    after, outcomes = decomposed(before, profile=REASONS[reason])
    assert outcomes == [Declined("norm", reason)]
    assert operators(after) == ["Softmax"]


def test_a_machine_that_normalises_keeps_its_operator() -> None:
    profile = load_profile("edge_npu").profile
    assert decomposed(layer_norm((2, 7), 1), profile=profile)[1] == [
        Declined("norm", "edge_npu does LayerNormalization itself")
    ]
    reason = "edge_npu does not do all of its parts: it lacks GlobalAveragePool"
    assert decomposed(layer_norm((2, 7), 1), "reductions=pool", REDUCES)[1] == [Declined("norm", reason)]


def test_a_deviation_that_is_read_keeps_the_operator() -> None:
    nodes = [
        node("LayerNormalization", ["x", "scale"], ["n", "mean", "inverse"], name="norm"),
        node("Add", ["n", "inverse"], ["y"]),
    ]
    before = graph(nodes, (2, 4), scale=np.ones(4, np.float32))
    assert decomposed(before)[1] == [Declined("norm", "its mean or deviation is read too")]


def test_a_computed_scale_per_channel_keeps_the_operator() -> None:
    nodes = [
        node("ReduceMean", ["x", "axes"], ["scale"], keepdims=0),
        node("InstanceNormalization", ["x", "scale", "scale"], ["y"], name="norm"),
    ]
    before = graph(nodes, (2, 3, 5), axes=np.array([0, 2], np.int64))
    assert decomposed(before)[1] == [Declined("norm", "its scale or shift is not constant")]


def test_half_precision_keeps_the_operator() -> None:
    nodes = [
        node("Cast", ["x"], ["h"], to=onnx.TensorProto.FLOAT16),
        node("LayerNormalization", ["h", "scale"], ["n"], name="norm"),
        node("Cast", ["n"], ["y"], to=onnx.TensorProto.FLOAT),
    ]
    before = graph(nodes, (2, 4), scale=np.ones(4, np.float16))
    assert decomposed(before)[1] == [Declined("norm", "it computes in another precision than its input's, FLOAT16")]


def test_a_scale_of_one_and_a_shift_of_zero_are_left_out() -> None:
    nodes = [node("LayerNormalization", ["x", "scale", "shift"], ["y"])]
    before = graph(nodes, (2, 4), scale=np.ones(4, np.float32), shift=np.zeros(4, np.float32))
    after, _ = decomposed(before)
    assert operators(after)[-2:] == ["Reciprocal", "Mul"] and difference(before, after) < 1e-5


def test_another_epsilon_is_noticed() -> None:
    """Negative control: the comparison sees a part that is wrong."""
    small, large = (layer_norm((2, 4), 1, epsilon=epsilon) for epsilon in (1e-5, 1e-2))
    assert difference(large, decomposed(small)[0]) > 1e-4
