"""merge-branches: generated branches and sequences by execution, and small blocks of every kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.graph.graph import constant_of
from codesign.rewriting.graph_pass import Applied, PassContext
from codesign.rewriting.pipeline import resolve_pipeline
from codesign.rewriting.runner import run_pipeline
from tests.merging import MERGE, merged
from tests.pass_models import RELATIVE_TOLERANCE, difference, normal, operators
from tests.pass_networks import network
from tests.pass_networks.branches import Block, framed_point


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


@pytest.mark.parametrize("rank", [1, 2])
def test_constants_that_are_added_go_into_the_bias(rank: int) -> None:
    """Zero, as PyTorch exports `0 + branch`, one for all channels, one for each; first and last."""
    for values in (np.zeros(()), np.ones(()), np.arange(4).reshape(4, *[1] * rank)):
        block = Block(np.random.default_rng(3))
        constant = block.constant(values.astype(np.float32))
        first = block.add("Sub", constant, block.conv("x", 4, 4, *[3] * rank, pads=[1] * 2 * rank, bias=True))
        block.add("Add", block.total(first, "x"), constant, to="y")
        after, _ = merged(block.proto({"x": (1, 4, *[6] * rank)}, "y"))
        assert operators(after) == ["Conv"]


def test_a_constant_stays_where_there_is_no_bias_for_it() -> None:
    """One number more costs less than a bias for each channel."""
    block = Block(np.random.default_rng(3))
    one = block.constant(np.ones((), np.float32))
    block.add("Add", block.total(block.conv("x", 4, 4, 3, 3, pads=[1] * 4), "x"), one, to="y")
    after, _ = merged(block.proto({"x": (1, 4, 6, 6)}, "y"))
    assert operators(after) == ["Conv", "Add"]


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


def test_a_branch_that_crops() -> None:
    """Beside a 3x3 without padding: Pad with negative sizes."""
    block = Block(np.random.default_rng(12))
    inside = block.add("Pad", "x", block.constant(np.array([0, 0, -1, -1, 0, 0, -1, -1])))
    block.total(block.conv("x", 4, 4, 3, 3), block.norm(inside, 4), to="y")
    after, _ = merged(block.proto({"x": (1, 4, 6, 6)}, "y"))
    assert operators(after) == ["Conv"]


@settings(max_examples=15, deadline=None)
@given(st.integers(-6, 5), st.integers(-6, 5), st.integers(1, 2), st.booleans())
def test_a_branch_that_is_sliced(row: int, column: int, step: int, is_first: bool) -> None:
    """Any start and step, before a convolution or after one, next to one that reads everything."""
    block = Block(np.random.default_rng(13))
    bounds = [np.array(values) for values in ([row, column], [99, 99], [2, -1], [step, step])]
    bounds = [block.constant(values) for values in bounds]
    if is_first:
        sliced = block.conv(block.add("Slice", "x", *bounds), 4, 4, 1, 1)
    else:
        sliced = block.add("Slice", block.conv("x", 4, 4, 1, 1, bias=True), *bounds)
    sizes = [-(-(6 - start % 6) // step) for start in (row, column)]
    pads = [0, 0, *(max(0, (size - 1) * step + 6 - 6) for size in sizes)]
    block.total(sliced, block.conv("x", 4, 4, 6, 6, pads=pads, strides=[step, step]), to="y")
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
