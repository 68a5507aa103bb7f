"""merge-branches: where it declines, word for word, and where it has nothing to say."""

from __future__ import annotations

import numpy as np
import onnx

from codesign.rewriting.graph_pass import Declined, Outcome, PassContext
from tests.merging import MERGE, merged
from tests.pass_models import graph_of, operators
from tests.pass_networks.branches import Block, framed_point

Shape = dict[str, tuple[int, ...]]


def outcomes(block: Block, inputs: Shape, *outputs: str) -> list[Outcome]:
    """What the pass says, run as it is."""
    return MERGE.passes[0].run(graph_of(block.proto(inputs, *outputs)), PassContext())


def reason(block: Block, inputs: Shape, *outputs: str) -> str:
    """The one reason given."""
    _, [declined] = merged(block.proto(inputs, *outputs))
    return declined.reason


IMAGE: Shape = {"x": (1, 4, 6, 6)}


def block() -> Block:
    """An empty one."""
    return Block(np.random.default_rng(10))


def test_silent_about_an_ordinary_residual_block_and_sums_without_convolutions() -> None:
    b = block()
    inner = b.conv(b.add("Relu", b.conv("x", 4, 4, 3, 3, pads=[1] * 4)), 4, 4, 3, 3, pads=[1] * 4)
    b.total("x", inner, to="y")
    b.total(b.norm("x", 4), "x", to="z")
    assert outcomes(b, IMAGE, "y", "z") == []


def test_declined_where_it_would_turn_depthwise_into_dense() -> None:
    b = block()
    b.total(b.conv("x", 4, 1, 3, 3, group=4, pads=[1] * 4), b.conv("x", 4, 4, 1, 1), to="y")
    assert reason(b, IMAGE, "y") == (
        "one convolution for Conv_0 and Conv_1 would take 5,184 MACs and 144 parameters "
        "instead of 1,872 MACs and 52 parameters"
    )


def test_declined_where_a_bottleneck_is_cheaper() -> None:
    b = block()
    b.conv(b.conv("x", 1, 4, 1, 1), 4, 1, 3, 3, pads=[1] * 4, to="y")
    assert reason(b, IMAGE, "y") == (
        "one convolution for Conv_0 and Conv_1 would take 5,184 MACs and 144 parameters "
        "instead of 1,440 MACs and 40 parameters"
    )


def test_declined_where_weights_are_shared() -> None:
    """Merging would store them twice."""
    b = block()
    wide = b.conv("x", 4, 4, 3, 3, pads=[1] * 4)
    weights = b.nodes[-1].input[1]
    b.total("x", wide, to="y")
    b.add("Conv", b.add("Relu", "y"), weights, to="z", pads=[1] * 4)
    assert reason(b, IMAGE, "y", "z") == (
        "one convolution for the identity and Conv_0 would take 5,184 MACs and 144 parameters "
        "instead of 5,184 MACs and 0 parameters"
    )


def test_declined_where_a_branch_is_read_elsewhere() -> None:
    b = block()
    wide = b.conv("x", 4, 4, 3, 3, pads=[1] * 4)
    b.total("x", wide, to="y")
    b.add("Relu", wide, to="z")
    assert reason(b, IMAGE, "y", "z") == "the result of Conv_0 is used elsewhere too"


def test_declined_where_a_step_is_an_output() -> None:
    b = block()
    b.conv(b.conv("x", 4, 4, 1, 1, to="c"), 4, 4, 3, 3, pads=[1] * 4, to="y")
    assert reason(b, IMAGE, "c", "y") == "the result of Conv_0 is used elsewhere too"


def test_the_other_branches_are_merged_without_one_that_cannot() -> None:
    b = block()
    wide, point = b.conv("x", 4, 4, 3, 3, pads=[1] * 4), b.conv("x", 4, 4, 1, 1)
    b.total(wide, point, "x", to="y")
    b.add("Relu", point, to="z")
    after, [declined] = merged(b.proto(IMAGE, "y", "z"))
    assert sorted(operators(after)) == ["Add", "Conv", "Conv", "Relu"]
    assert declined.reason == "the result of Conv_1 is used elsewhere too"


def test_declined_where_an_average_divides_by_less_at_the_border() -> None:
    for more in ({"pads": [1] * 4}, {"pads": [0] * 4, "ceil_mode": 1, "strides": [2, 2]}):
        b = block()
        steps = {"strides": more["strides"]} if "strides" in more else {}
        average = b.add("AveragePool", "x", kernel_shape=[3, 3], **more)
        b.total(b.conv("x", 4, 4, 3, 3, pads=[0, 0, 1, 1] if steps else [1] * 4, **steps), average, to="y")
        assert reason(b, IMAGE, "y") == "AveragePool_0 divides by fewer elements at the border"


def test_declined_where_zeros_are_padded_instead_of_the_bias() -> None:
    b = block()
    b.conv(b.conv("x", 4, 4, 1, 1, bias=True), 4, 4, 3, 3, pads=[1] * 4, to="y")
    assert reason(b, IMAGE, "y") == "Conv_1 pads with zeros, and Conv_0 makes something else of zeros"


def test_declined_where_the_padding_is_another_number() -> None:
    b = block()
    pads, value = b.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1])), b.constant(np.float32(0.5))
    padded = b.add("Pad", b.conv("x", 4, 4, 1, 1, bias=True), pads, value)
    b.conv(padded, 4, 4, 3, 3, to="y")
    assert reason(b, IMAGE, "y") == "Pad_1 pads with values of its own, and Conv_0 makes something else of zeros"


def test_declined_where_the_input_itself_is_padded_with_numbers() -> None:
    b = block()
    pads, value = b.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1])), b.constant(np.float32(0.5))
    padded = b.conv(b.add("Pad", "x", pads, value), 4, 4, 3, 3)
    b.total(padded, "x", to="y")
    assert reason(b, IMAGE, "y") == "Pad_0 pads with values of its own, and a convolution makes something else of zeros"


def test_declined_where_a_border_differs_within_a_channel() -> None:
    b = Block(np.random.default_rng(11))
    framed = framed_point(b, "x", 4, 4)
    updates = b.nodes[-1].input[2]
    b.constants[updates][0, 0, 3] += 1
    b.conv(framed, 4, 4, 3, 3, to="y")
    assert reason(b, {"x": (1, 4, 8, 8)}, "y") == "Pad_1 pads a channel with more than one value"


def test_declined_where_padding_is_padded() -> None:
    """At the border the second sees zeros where the first would still see the picture."""
    b = block()
    b.total(b.conv(b.conv("x", 4, 4, 3, 3, pads=[1] * 4), 4, 4, 3, 3, pads=[1] * 4), "x", to="y")
    found = outcomes(b, IMAGE, "y")
    assert found[0] == Declined("Add_2", "Conv_1 pads what Conv_0 makes, which reads padding itself")


def test_declined_where_strides_differ() -> None:
    b = block()
    valid = b.conv("x", 4, 4, 4, 4)
    b.total(valid, b.conv("x", 4, 4, 1, 1, strides=[2, 2]), to="y")
    assert reason(b, IMAGE, "y") == "Conv_0 and Conv_1 have different strides"


def test_declined_when_float16_overflows() -> None:
    b = block()
    half = _cast(b, "x", "h")
    names = [b.constant(np.full((4, 4, 1, 1), 6e4, np.float16)) for _ in range(2)]
    terms = [b.add("Conv", half, name) for name in names]
    _cast(b, b.total(*terms), "y", onnx.TensorProto.FLOAT)
    assert outcomes(b, IMAGE, "y") == [Declined("Add_3", "the merged weights do not fit float16")]


def _cast(b: Block, x: str, to: str, kind: int = onnx.TensorProto.FLOAT16) -> str:
    b.nodes.append(onnx.helper.make_node("Cast", [x], [to], name=f"Cast_{len(b.nodes)}", to=kind))
    return to
