"""fold-scale-shift: chains of constants around every operator, by execution, and every reason it declines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from codesign.graph.graph import Graph, constant_of
from codesign.rewriting.graph_pass import Applied, Declined, Outcome, PassContext
from codesign.rewriting.pipeline import resolve_pipeline
from codesign.rewriting.runner import run_pipeline
from tests.pass_chains import Chain, chains, node, relu_to
from tests.pass_models import (
    RELATIVE_TOLERANCE,
    Shape,
    difference,
    feeds_for,
    graph_of,
    normal,
    operators,
    proto_of,
    run,
)
from tests.pass_networks import network

FOLD = resolve_pipeline("fold-scale-shift")
RANDOM = np.random.default_rng(0)
CONSTANTS = {
    "w": normal(RANDOM, 3, 3, 3, 3),
    "v": normal(RANDOM, 3, 3, 2, 2),
    "m": normal(RANDOM, 6, 6),
    "two": np.array(2.5, np.float32),
    "c": normal(RANDOM, 3, 1, 1),
    "d": normal(RANDOM, 1, 3, 1, 1),
    "columns": normal(RANDOM, 6),
    "all": normal(RANDOM, 3, 6, 6),
    "one": np.ones((1, 3, 1, 1), np.float32),
    "zero": np.zeros((), np.float32),
}
IMAGE: dict[str, Shape] = {"x": (1, 3, 6, 6)}


def graph(
    nodes: Sequence[onnx.NodeProto], inputs: dict[str, Shape] | None = None, outputs: str = "y", **more: np.ndarray
) -> Graph:
    return graph_of(proto_of(nodes, inputs or IMAGE, dict.fromkeys(outputs.split()), CONSTANTS | more))


def folded(before: Graph) -> Graph:
    """The graph after the pass, which computes the same and is not changed by a second run."""
    after, _ = run_pipeline(before, FOLD, PassContext())
    assert difference(before, after) < RELATIVE_TOLERANCE
    again, [record] = run_pipeline(after, FOLD, PassContext())
    assert record.applied == 0 and ir.to_proto(again.model) == ir.to_proto(after.model)
    return after


def told(before: Graph) -> list[Outcome]:
    folded(before)
    return FOLD.passes[0].run(before.copy(), PassContext())


def declined_reason(before: Graph) -> str:
    [outcome] = told(before)
    assert isinstance(outcome, Declined)
    return outcome.reason


@settings(max_examples=20, deadline=None)
@given(chains(), st.sampled_from([1, 2, 4]), st.booleans(), st.booleans())
def test_any_chain_behind_a_convolution(chain: Chain, group: int, transposed: bool, has_bias: bool) -> None:
    nodes, constants = chain
    constants |= {
        "k": normal(np.random.default_rng(1), 4, 4 // group, 3, 2),
        "bias": normal(np.random.default_rng(2), 4),
    }
    inputs = ["x", "k", "bias"] if has_bias else ["x", "k"]
    conv = node("ConvTranspose" if transposed else "Conv", *inputs, to="a", group=group, pads=[1] * 4)
    after = folded(graph([conv, *nodes, node("Relu", "b")], {"x": (1, 4, 6, 6)}, **constants))
    assert operators(after) == [conv.op_type, "Relu"]


@settings(max_examples=25, deadline=None)
@given(chains(), st.sampled_from([1, 2, 4]), st.booleans())
def test_any_chain_before_a_convolution(chain: Chain, group: int, padded: bool) -> None:
    """Without padding nothing is left of it; with padding one addition, if there is a shift."""
    nodes, constants = chain
    constants |= {"k": normal(np.random.default_rng(1), 4, 4 // group, 3, 2)}
    conv = node("Conv", "b", "k", group=group, pads=[1 if padded else 0] * 4)
    after = folded(graph([node("Relu", "x", to="a"), *nodes, conv], {"x": (1, 4, 6, 6)}, **constants))
    left = operators(after)[1:-1]
    single = len(nodes) == 1 and padded
    assert left in ([[], ["Add"], ["Sub"]] if single else [[], ["Add"]] if padded else [[]])


@settings(max_examples=20, deadline=None)
@given(chains())
def test_any_chain_between_operators_without_weights(chain: Chain) -> None:
    nodes, constants = chain
    after = folded(graph([node("Relu", "x", to="a"), *nodes, node("Exp", "b")], {"x": (1, 4, 6, 6)}, **constants))
    left = operators(after)[1:-1]
    assert len(left) <= min(2, len(nodes))
    assert len(nodes) <= 2 or left in ([], ["Mul"], ["Add"], ["Mul", "Add"])


GONE = {
    "two convolutions that read the result": (
        relu_to(
            node("Add", "r", "d", to="a"),
            node("Conv", "a", "w", to="b"),
            node("Conv", "a", "w", to="e"),
            node("Sub", "b", "e", to="s"),
            node("Add", "s", "b"),
        ),
        ["Relu", "Conv", "Conv", "Sub", "Add"],
    ),
    "a transposed convolution behind a scale": (
        relu_to(node("Mul", "r", "c", to="a"), node("ConvTranspose", "a", "v")),
        ["Relu", "ConvTranspose"],
    ),
    "a global average in between": (
        [node("Conv", "x", "w", to="a"), node("GlobalAveragePool", "a", to="b"), node("Mul", "b", "d")],
        ["Conv", "GlobalAveragePool"],
    ),
    "resizing and padding in between": (
        [
            node("Mul", "x", "d", to="a"),
            node("Resize", "a", "", "scales", to="b", mode="linear"),
            node("Pad", "b", "pads", to="e"),
            node("Conv", "e", "w"),
        ],
        ["Resize", "Pad", "Conv"],
    ),
    "a product with another tensor behind": (
        relu_to(
            node("Mul", "r", "two", to="a"),
            node("Sigmoid", "x", to="s"),
            node("Mul", "s", "a", to="b"),
            node("MatMul", "b", "m"),
        ),
        ["Relu", "Sigmoid", "Mul", "MatMul"],
    ),
    "a product with another tensor before": (
        [
            node("Sigmoid", "x", to="s"),
            node("MatMul", "x", "m", to="a"),
            node("Mul", "s", "a", to="b"),
            node("Mul", "b", "columns"),
        ],
        ["Sigmoid", "MatMul", "Mul"],
    ),
    "scores of an attention": (
        [
            node("MatMul", "x", "m", to="q"),
            node("Transpose", "x", to="k", perm=[0, 1, 3, 2]),
            node("MatMul", "q", "k", to="s"),
            node("Div", "s", "two", to="t"),
            node("Softmax", "t"),
        ],
        ["MatMul", "Transpose", "MatMul", "Softmax"],
    ),
    "parts of a tensor, scaled differently": (
        [
            node("Conv", "x", "w", to="a"),
            node("Slice", "a", "i0", "i1", "i1", to="p"),
            node("Gather", "a", "i1", to="q", axis=1),
            node("Slice", "a", "i2", "i9", "i1", to="o"),
            node("Mul", "p", "two", to="pm"),
            node("Add", "q", "two", to="qa"),
            node("Concat", "o", "pm", "qa", axis=1),
        ],
        ["Conv", "Slice", "Gather", "Slice", "Concat"],
    ),
    "parts of a concatenation": (
        [
            node("Conv", "x", "w", to="a", pads=[1, 0, 1, 0]),
            node("MatMul", "x", "m", to="b"),
            node("Slice", "b", "i0", "i4", "i3", to="q"),
            node("Concat", "a", "q", to="e", axis=-1),
            node("Neg", "e"),
        ],
        ["Conv", "MatMul", "Slice", "Concat"],
    ),
    "two ways back to one operator": (
        [
            node("Conv", "x", "w", to="a"),
            helper.make_node("Split", ["a", "parts"], ["p", "q"], axis=1),
            node("Concat", "q", "p", to="b", axis=1),
            node("Mul", "b", "d"),
        ],
        ["Conv", "Split", "Concat"],
    ),
    "two ways forward to one operator": (
        relu_to(node("Mul", "r", "two", to="a"), node("Mul", "a", "a", to="b"), node("Conv", "b", "w")),
        ["Relu", "Mul", "Conv"],
    ),
    "channels normalised apart, as torchvision's inception does": (
        [
            node("Sub", "x", "c", to="a"),
            *(node("Gather", "a", f"k{place}", to=f"g{place}", axis=1) for place in range(3)),
            *(node("Unsqueeze", f"g{place}", "i1", to=f"u{place}") for place in range(3)),
            node("Mul", "u0", "two", to="m0"),
            node("Add", "u1", "two", to="m1"),
            node("Concat", "m0", "m1", "u2", to="b", axis=1),
            node("Conv", "b", "w"),
        ],
        ["Gather"] * 3 + ["Unsqueeze"] * 3 + ["Concat", "Conv"],
    ),
    "the bias of a product": (
        [
            node("MatMul", "x", "m", to="a"),
            node("Add", "columns", "a", to="b"),
            node("Mul", "b", "two"),
        ],
        ["MatMul", "Add"],
    ),
    "what changes nothing": (relu_to(node("Mul", "r", "one", to="a"), node("Add", "zero", "a")), ["Relu"]),
}
MORE = {
    "scales": np.array([1, 1, 2, 2], np.float32),
    "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64),
    "parts": np.array([1, 2], np.int64),
    **{f"i{number}": np.array([number], np.int64) for number in (0, 1, 2, 3, 4, 9)},
    **{f"k{number}": np.array(number, np.int64) for number in range(3)},
}


@pytest.mark.parametrize("name", GONE)
def test_gone(name: str) -> None:
    nodes, left = GONE[name]
    after = folded(graph(nodes, **MORE))
    assert operators(after) == left
    assert [value.name for value in after.outputs] == ["y"]


def test_attention_and_layer_scale() -> None:
    """Scales of queries and keys go through Squeeze, Split, Transpose and Reshape into their columns of one product."""
    before = network("patches")
    after = folded(before)
    assert operators(after).count("Mul") == 0 and len(after.nodes) == len(before.nodes) - 3


def numbers(found: Graph) -> dict[str, np.ndarray]:
    """Every tensor by name."""
    copy = found.copy()
    copy.model.graph.outputs[:] = [value for node in copy.nodes for value in node.outputs]
    return run(copy.model, feeds_for(copy))


def test_tensors_that_keep_their_name_keep_their_numbers() -> None:
    for model in ("patches", "odd_stem", "grey_stem"):
        before, after = (numbers(found) for found in (network(model), folded(network(model))))
        kept = before.keys() & after.keys()
        assert len(kept) > len(before) // 3
        for name in kept:
            np.testing.assert_allclose(after[name], before[name], rtol=1e-3, atol=1e-4, err_msg=name)


def test_what_it_says() -> None:
    nodes = [
        node("Sub", "x", "c", to="a"),
        node("Div", "a", "d", to="b"),
        node("Conv", "b", "w", to="e", pads=[1] * 4),
        node("Relu", "e", to="f"),
        node("Neg", "f", to="g"),
        node("Mul", "g", "two", to="h"),
        node("Add", "h", "zero", to="i"),
        node("Exp", "i"),
    ]
    assert told(graph(nodes)) == [
        Applied("Sub_a, Div_b", "the scale into the weights of Conv_e; an Add stays for the shift"),
        Applied("Neg_g, Mul_h, Add_i", "3 operators became Mul"),
        Declined(
            "Sub_a.add",
            "backwards: its input x is an input of the graph; "
            "forwards: Conv_e pads with zeros, which the shift does not leave zero",
        ),
        Declined(
            "Neg_g.mul",
            "backwards: its input comes from Relu Relu_f, which has no weights; "
            "forwards: its result goes to Exp Exp_y, which has no weights",
        ),
    ]


DECLINED = {
    "used elsewhere": (
        [node("Conv", "x", "w", to="a"), node("Mul", "a", "two", to="b"), node("Add", "a", "b")],
        "backwards: the result of Conv_a is used elsewhere too; "
        "forwards: its result goes to Add Add_y, which has no weights",
    ),
    "a part used elsewhere": (
        [
            node("Conv", "x", "w", to="a"),
            node("Slice", "a", "i0", "i2", "i1", to="p"),
            node("Slice", "a", "i1", "i3", "i1", to="q"),
            node("Mul", "p", "two", to="b"),
            node("Add", "b", "q"),
        ],
        "backwards: the result of Conv_a is used elsewhere too; "
        "forwards: its result goes to Add Add_y, which has no weights",
    ),
    "another axis": (
        [node("Conv", "x", "v", to="a", pads=[1, 1, 0, 0]), node("Mul", "a", "columns")],
        "backwards: scale and shift vary along axis 3 of the result of Conv_a, whose channels lie on axis 1; "
        "forwards: its result is an output of the graph",
    ),
    "a number for every element": (
        relu_to(node("Add", "r", "all", to="a"), node("Conv", "a", "w")),
        "backwards: its input comes from Relu Relu_r, which has no weights; "
        "forwards: scale and shift vary along axis 2, 3 of the input of Conv_y, whose channels lie on axis 1",
    ),
    "a shift before a transposed convolution": (
        relu_to(node("Add", "r", "two", to="a"), node("ConvTranspose", "a", "v")),
        "backwards: its input comes from Relu Relu_r, which has no weights; "
        "forwards: outputs of ConvTranspose_y sum over different numbers of inputs",
    ),
    "a shift before an average of padded windows": (
        relu_to(
            node("Add", "r", "two", to="a"),
            node("AveragePool", "a", to="b", kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1),
            node("Conv", "b", "w"),
        ),
        "backwards: its input comes from Relu Relu_r, which has no weights; "
        "forwards: its result goes to AveragePool AveragePool_b, which has no weights",
    ),
    "a constant among the parts": (
        [node("MatMul", "x", "m", to="a"), node("Concat", "a", "big", to="b", axis=0), node("Mul", "b", "two")],
        "backwards: its input big is a constant; forwards: its result is an output of the graph",
    ),
    "a shift of a product": (
        [
            node("Transpose", "x", to="k", perm=[0, 1, 3, 2]),
            node("MatMul", "x", "k", to="s"),
            node("Add", "s", "two", to="t"),
            node("Softmax", "t"),
        ],
        "backwards: its input comes from MatMul MatMul_s, a product that is not only scaled; "
        "forwards: its result goes to Softmax Softmax_y, which has no weights",
    ),
    "nothing but an input and an output": (
        [node("Mul", "x", "one")],
        "it changes nothing, but an output of the graph needs a node that makes it",
    ),
}


@pytest.mark.parametrize("name", DECLINED)
def test_declined(name: str) -> None:
    nodes, reason = DECLINED[name]
    assert declined_reason(graph(nodes, **MORE, big=normal(np.random.default_rng(1), 2, 3, 6, 6))) == reason


def test_silent_about_what_is_no_scale_or_shift() -> None:
    """An attention's mask, a division by a tensor, a larger result, integers, and the bias of a product."""
    mask = np.where(np.tri(6, dtype=bool), 0, -np.inf).astype(np.float32)
    nodes = [
        node("MatMul", "x", "m", to="a"),
        node("Add", "a", "columns", to="b"),
        node("Add", "b", "mask", to="e"),
        node("Softmax", "e", to="f"),
        node("Exp", "f", to="p"),
        node("Div", "two", "p", to="g"),
        node("Mul", "g", "tall", to="h"),
        node("Exp", "h"),
    ]
    assert told(graph(nodes, mask=mask, tall=normal(RANDOM, 4, 1, 1, 1))) == []


def test_shared_weights_stay_whole() -> None:
    nodes = [
        node("Conv", "x", "w", to="a", pads=[1] * 4),
        node("Mul", "a", "two", to="b"),
        node("Conv", "b", "w", to="e", pads=[1] * 4),
        node("Relu", "e"),
    ]
    after = folded(graph(nodes))
    kept = [constant_of(found.inputs[1]) for found in after.nodes if found.op_type == "Conv"]
    assert any(weights is not None and np.array_equal(weights, CONSTANTS["w"]) for weights in kept)


def test_an_intermediate_output_keeps_its_numbers() -> None:
    nodes = [node("Conv", "x", "w", to="a"), node("Mul", "a", "two", to="b"), node("Exp", "b")]
    assert declined_reason(graph(nodes, outputs="a y")).startswith("backwards: the result of Conv_a is used elsewhere")


def test_a_wrong_sign_is_noticed() -> None:
    """Negative control: Sub with its operands exchanged is another function."""
    ways = [graph([node("Conv", "x", "w", to="a"), node("Sub", *pair)]) for pair in (("a", "c"), ("c", "a"))]
    assert difference(ways[0], folded(ways[1])) > 0.1
