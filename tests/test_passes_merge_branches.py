"""merge-branches: generated branches and sequences by execution, small blocks, and every reason word for word."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.graph.graph import Graph, constant_of, shape_of
from codesign.rewriting.graph_pass import Applied, Declined, Outcome, PassContext
from codesign.rewriting.pipeline import resolve_pipeline
from codesign.rewriting.record import DeclinedRecord
from codesign.rewriting.runner import run_pipeline
from tests.pass_models import RELATIVE_TOLERANCE, difference, graph_of, normal, operators
from tests.pass_networks import network
from tests.pass_networks.branches import Block, framed_point

MERGE = resolve_pipeline("merge-branches")
Shape = dict[str, tuple[int, ...]]


def merged(proto: onnx.ModelProto) -> tuple[Graph, tuple[DeclinedRecord, ...]]:
    """The graph after the pass, which must compute the same and cost no more; and what it declined."""
    before = graph_of(proto)
    after, [record] = run_pipeline(before, MERGE, PassContext())
    assert difference(before, after) < RELATIVE_TOLERANCE
    assert macs(after) <= macs(before) and parameters(after) <= parameters(before)
    _, [again] = run_pipeline(after, MERGE, PassContext())
    assert again.applied == 0
    return after, record.declined


def macs(graph: Graph) -> int:
    """Of all convolutions."""
    found = [(node.inputs[1], node.outputs[0]) for node in graph.nodes if node.op_type == "Conv"]
    return sum(prod(shape_of(weights)) * prod(shape_of(result)[2:]) for weights, result in found if weights is not None)


def parameters(graph: Graph) -> int:
    """Floating-point constants."""
    tensors = [value.const_value for value in graph.model.graph.initializers.values() if value.const_value]
    return sum(tensor.size for tensor in tensors if tensor.dtype.is_floating_point())


def outcomes(block: Block, inputs: Shape, *outputs: str) -> list[Outcome]:
    """What the pass says, run as it is."""
    return MERGE.passes[0].run(graph_of(block.proto(inputs, *outputs)), PassContext())


def reason(block: Block, inputs: Shape, *outputs: str) -> str:
    """The one reason given."""
    _, [declined] = merged(block.proto(inputs, *outputs))
    return declined.reason


@st.composite
def geometries(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Sizes of a feature map of one or two dimensions, and strides."""
    sizes = draw(st.lists(st.integers(4, 9), min_size=1, max_size=2))
    return sizes, [draw(st.integers(1, 3)) for _ in sizes]


def window(draw: st.DrawFn, sizes: list[int], strides: list[int], kernel: list[int]) -> dict[str, Any]:
    """Strides, dilations and pads of a window that stops once for every stride."""
    dilations = [draw(st.integers(1, 2)) for _ in sizes]
    begins, ends = [], []
    for size, stride, dilation, taps in zip(sizes, strides, dilations, kernel, strict=True):
        reach = ((size - 1) // stride) * stride + dilation * (taps - 1) + 1
        begins.append(draw(st.integers(0, max(0, reach - size))))
        ends.append(max(0, reach - size) - begins[-1])
    return {"strides": strides, "dilations": dilations, "pads": begins + ends}


def branch(draw: st.DrawFn, block: Block, channels: int, sizes: list[int], strides: list[int]) -> str:
    """One of the kinds of branches, from x."""
    is_plain = strides == [1] * len(sizes)
    kinds = ["conv", "conv", "norm", "point_average", "sequence", *(["identity", "scaled"] if is_plain else [])]
    kind = draw(st.sampled_from(kinds))
    kernel, point = [draw(st.integers(1, 3)) for _ in sizes], [1] * len(sizes)
    group = draw(st.sampled_from([group for group in (1, 2, 4) if channels % group == 0]))
    match kind:
        case "conv" | "norm":
            more = window(draw, sizes, strides, kernel) | {"group": group}
            has_bias = draw(st.booleans())
            result = block.conv("x", channels, channels // group, *kernel, bias=has_bias, **more)
            return block.norm(result, channels) if kind == "norm" else result
        case "point_average":
            more = window(draw, sizes, strides, kernel)
            del more["dilations"]
            reach = [((n - 1) // s) * s + k - n for n, s, k in zip(sizes, strides, kernel, strict=True)]
            more["pads"] = [0] * len(sizes) + [max(0, extra) for extra in reach]
            result = block.conv("x", channels, channels // group, *point, group=group)
            return block.add("AveragePool", result, kernel_shape=kernel, count_include_pad=1, **more)
        case "sequence":
            inner = group * draw(st.integers(1, 3))
            result = block.conv("x", inner, channels // group, *point, group=group)
            more = window(draw, sizes, strides, kernel) | {"group": group}
            return block.conv(result, channels, inner // group, *kernel, bias=True, **more)
        case "scaled":
            scale = normal(block.random, channels, *[1] * len(sizes))
            return block.add("Sub", block.add("Mul", "x", block.constant(scale)), block.constant(scale))
    return "x"


def summed(draw: st.DrawFn, block: Block, terms: list[str]) -> None:
    """An addition of terms in any order, by one Sum, or by Add and Sub in a row."""
    terms = draw(st.permutations(terms))
    if draw(st.booleans()):
        block.add("Sum", *terms, to="y")
        return
    result = terms[0]
    for number, term in enumerate(terms[1:], 2):
        operator, pair = draw(st.sampled_from([("Add", 0), ("Add", 1), ("Sub", 0), ("Sub", 1)]))
        operands = (term, result) if pair else (result, term)
        result = block.add(operator, *operands, to="y" if number == len(terms) else "")


@st.composite
def blocks(draw: st.DrawFn, with_hull: bool) -> onnx.ModelProto:
    """Two to five branches. with_hull: one of them is dense and reads all the others can reach."""
    block = Block(np.random.default_rng(draw(st.integers(0, 2**20))))
    sizes, strides = draw(geometries())
    channels = draw(st.sampled_from([1, 2, 4]))
    terms = [branch(draw, block, channels, sizes, strides) for _ in range(draw(st.integers(1 if with_hull else 2, 4)))]
    if with_hull:
        reach = [((n - 1) // s) * s + 9 - n for n, s in zip(sizes, strides, strict=True)]
        more = {"strides": strides, "pads": [4] * len(sizes) + [max(0, extra - 4) for extra in reach]}
        terms.append(block.conv("x", channels, channels, *[9] * len(sizes), **more))
    summed(draw, block, terms)
    return block.proto({"x": (2, channels, *sizes)}, "y")


@settings(max_examples=40, deadline=None)
@given(blocks(with_hull=True))
def test_any_branches_a_large_one_covers_become_one_convolution(proto: onnx.ModelProto) -> None:
    after, declined = merged(proto)
    assert operators(after) == ["Conv"] and declined == ()


@settings(max_examples=40, deadline=None)
@given(blocks(with_hull=False))
def test_any_branches_compute_the_same_and_cost_no_more(proto: onnx.ModelProto) -> None:
    merged(proto)


@st.composite
def sequences(draw: st.DrawFn) -> onnx.ModelProto:
    """Two convolutions with anything linear between them; what may be padded is."""
    block = Block(np.random.default_rng(draw(st.integers(0, 2**20))))
    sizes, group = draw(geometries())[0], draw(st.sampled_from([1, 2]))
    wide = [draw(st.integers(1, 4)) * 2 for _ in range(3)]
    first, second = ([draw(st.integers(1, 2)) for _ in sizes] for _ in range(2))
    steps = {"strides": [draw(st.integers(1, 2)) for _ in sizes]}
    other = draw(st.sampled_from([1, 2]))
    x = block.conv("x", wide[1], wide[0] // group, *first, group=group, bias=draw(st.booleans()), **steps)
    padding = [0] * len(sizes)
    match draw(st.sampled_from(["nothing", "norm", "scale", "pad"])):
        case "norm":
            x = block.norm(x, wide[1])
        case "scale":
            x = block.add("Div", x, block.constant(np.float32(1.7)))
        case "pad" if first == [1] * len(sizes) and not block.nodes[-1].input[2:]:
            padding = [1] * len(sizes)
    small = [min(kernel, (size - 1) // 2) for kernel, size in zip(second, sizes, strict=True)]
    block.conv(x, wide[2], wide[1] // other, *small, group=other, bias=True, to="y", pads=padding * 2)
    return block.proto({"x": (1, wide[0], *sizes)}, "y")


@settings(max_examples=40, deadline=None)
@given(sequences())
def test_any_sequence_computes_the_same_and_is_one_where_that_costs_no_more(proto: onnx.ModelProto) -> None:
    after, declined = merged(proto)
    assert operators(after) == ["Conv"] or (len(declined) == 1 and "would take" in declined[0].reason)


@pytest.mark.parametrize(("name", "count"), [("repvgg", 3), ("mobileone", 2), ("acnet", 1), ("diverse", 1)])
def test_a_block_becomes_one_convolution(name: str, count: int) -> None:
    after, _ = run_pipeline(network(name), MERGE, PassContext())
    assert {"Conv", "Relu"} >= set(operators(after)) and operators(after).count("Conv") == count
    assert {node.op_type for node in after.nodes} <= {"Conv", "Relu"}


@pytest.mark.parametrize("order", ["merge-branches,fold-batch-norm", "fold-batch-norm,merge-branches,fold-batch-norm"])
@pytest.mark.parametrize("name", ["repvgg", "mobileone", "acnet", "diverse"])
def test_before_or_after_the_normalisations_are_folded(name: str, order: str) -> None:
    before = network(name)
    after, _ = run_pipeline(before, resolve_pipeline(order), PassContext())
    assert difference(before, after) < RELATIVE_TOLERANCE
    assert set(operators(after)) <= {"Conv", "Relu"}


def test_what_it_says_about_a_block() -> None:
    found = MERGE.passes[0].run(network("acnet"), PassContext())
    assert found == [
        Applied(
            "Sum_6",
            "3 branches into one 3x3 convolution Conv_0: "
            "14,175 MACs and 285 parameters become 8,505 MACs and 140 parameters",
        )
    ]


def test_the_groups_of_a_block_stay() -> None:
    """Depthwise, four groups and two: two are the finest that hold all, and the identity fits."""
    block = Block(np.random.default_rng(1))
    terms = [block.conv("x", 8, 8 // group, 3, 3, pads=[1] * 4, group=group) for group in (8, 4, 2)]
    block.total(*terms, "x", to="y")
    after, _ = merged(block.proto({"x": (1, 8, 6, 6)}, "y"))
    assert operators(after) == ["Conv"] and after.nodes[0].attributes.get_int("group") == 2


def test_dilated_branches_stay_dilated() -> None:
    block = Block(np.random.default_rng(2))
    wide = block.conv("x", 4, 4, 3, 3, pads=[12] * 4, dilations=[12, 12])
    point = block.conv("x", 4, 4, 1, 1)
    block.total(wide, point, "x", to="y")
    after, _ = merged(block.proto({"x": (1, 4, 16, 16)}, "y"))
    [conv] = after.nodes
    assert conv.attributes.get_ints("dilations") == (12, 12) and conv.attributes.get_ints("kernel_shape") == (3, 3)


def test_other_terms_are_still_added() -> None:
    """A residual of something else, and two groups of branches in one sum."""
    block = Block(np.random.default_rng(3))
    skip = block.add("Relu", block.conv("z", 4, 3, 1, 1))
    a, b = block.conv("x", 4, 4, 3, 3, pads=[1] * 4), block.conv("x", 4, 4, 1, 1)
    c, d = block.conv("x", 4, 1, 5, 5, pads=[2] * 4, group=4), block.conv("x", 4, 1, 3, 3, pads=[1] * 4, group=4)
    block.add("Sub", block.total(a, skip, c), block.total(b, d), to="y")
    after, _ = merged(block.proto({"x": (1, 4, 6, 6), "z": (1, 3, 6, 6)}, "y"))
    assert operators(after).count("Conv") == 3
    assert sorted(operators(after)) == ["Add", "Add", "Conv", "Conv", "Conv", "Relu"]


def test_a_block_inside_a_branch() -> None:
    """FastViT's mixer: x + scale (branches(x) - norm(x))."""
    block = Block(np.random.default_rng(4))
    mixer = block.total(block.conv_norm("x", 4, 1, 3, 3, pads=[1] * 4, group=4), block.norm("x", 4))
    inner = block.add("Sub", mixer, block.norm("x", 4))
    scaled = block.add("Mul", inner, block.constant(normal(block.random, 4, 1, 1)))
    block.add("Add", "x", scaled, to="y")
    after, _ = merged(block.proto({"x": (1, 4, 6, 6)}, "y"))
    assert operators(after) == ["Conv"]


def test_padding_with_the_bias_by_a_shift_before_and_after() -> None:
    """Pad(conv(x) - b) + b pads with b."""
    block = Block(np.random.default_rng(5))
    point = block.conv("x", 4, 4, 1, 1, bias=True)
    bias = block.constant(block.constants[block.nodes[-1].input[2]].reshape(4, 1, 1))
    zeros = block.add("Pad", block.add("Sub", point, bias), block.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1])))
    block.conv(block.add("Add", zeros, bias), 5, 4, 3, 3, to="y")
    after, _ = merged(block.proto({"x": (1, 4, 6, 6)}, "y"))
    assert operators(after) == ["Conv"]


@pytest.mark.parametrize("transposed", [False, True])
def test_a_border_overwritten_with_the_bias(transposed: bool) -> None:
    block = Block(np.random.default_rng(6))
    block.conv(framed_point(block, "x", 3, 3, transposed=transposed), 5, 3, 3, 3, to="y")
    after, _ = merged(block.proto({"x": (1, 3, 8, 8)}, "y"))
    assert operators(after) == ["Conv"]


def test_numbers_are_rounded_once() -> None:
    block = Block(np.random.default_rng(7))
    names = [block.nodes[-1].input[1] for _ in range(3) if block.conv("x", 2, 2, 1, 1)]
    block.total(*[node.output[0] for node in block.nodes], to="y")
    after, _ = merged(block.proto({"x": (1, 2, 3, 3)}, "y"))
    found = constant_of(after.nodes[0].inputs[1])
    exact = np.sum([block.constants[name].astype(np.float64) for name in names], axis=0)
    assert found is not None and np.array_equal(found, exact.astype(np.float32))


def test_weights_that_others_read_are_not_changed() -> None:
    block = Block(np.random.default_rng(8))
    wide = block.conv("x", 4, 4, 3, 3, pads=[1] * 4)
    shared = block.nodes[-1].input[1]
    x = block.add("Relu", block.total(wide, block.conv("x", 4, 4, 3, 3, pads=[1] * 4)))
    block.add("Conv", x, shared, to="y", pads=[1] * 4)
    after, _ = merged(block.proto({"x": (1, 4, 6, 6)}, "y"))
    kept = constant_of(after.nodes[-1].inputs[1])
    assert kept is not None and np.array_equal(kept, block.constants[shared])


@pytest.mark.parametrize("opset", [9, 13, 20])
def test_other_opsets(opset: int) -> None:
    block = Block(np.random.default_rng(9))
    block.total(block.conv_norm("x", 4, 4, 3, 3, pads=[1] * 4), block.norm("x", 4), to="y")
    after, _ = merged(block.proto({"x": (1, 4, 6, 6)}, "y", opset=opset))
    assert operators(after) == ["Conv"]


def test_a_kernel_one_place_off_would_be_noticed() -> None:
    before = network("acnet")
    after, _ = run_pipeline(before, MERGE, PassContext())
    after.nodes[0].attributes["pads"] = ir.AttrInt64s("pads", [0, 1, 2, 1])
    assert difference(before, after) > RELATIVE_TOLERANCE


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
