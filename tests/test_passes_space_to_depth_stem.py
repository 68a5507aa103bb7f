"""space-to-depth-stem: any stride, kernel, padding and size, by execution; every reason it declines, word for word."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from codesign.errors import CodesignError
from codesign.graph.graph import Graph, shape_of
from codesign.graph.operators import Convolution
from codesign.lowering.library import write_library
from codesign.lowering.network import build_network
from codesign.lowering.runtime import load_library
from codesign.rewriting.graph_pass import Applied, Declined, Outcome, PassContext
from codesign.rewriting.pipeline import resolve_pipeline
from codesign.rewriting.runner import run_pipeline
from codesign.workload.layers import layers_of
from tests.pass_models import RELATIVE_TOLERANCE, difference, feeds_for, graph_of, normal, operators, proto_of, run


def conv(x: str = "x", y: str = "y", w: str = "w", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node("Conv", [x, w], [y], name=f"conv_{y}", **attributes)


def stem(size: Sequence[int], kernel: Sequence[int], channels: int = 3, **attributes: Any) -> Graph:
    """One convolution on an image of `size`."""
    weights = normal(np.random.default_rng(0), 4, channels // attributes.get("group", 1), *kernel)
    return graph_of(proto_of([conv(**attributes)], {"x": (2, channels, *size)}, {"y": None}, {"w": weights}))


def rewritten(graph: Graph, factor: int = 0) -> tuple[Graph, list[Outcome]]:
    """The graph after the pass, which must compute the same; and what the pass said."""
    pipeline = resolve_pipeline(f"space-to-depth-stem{{factor={factor}}}")
    after, _ = run_pipeline(graph, pipeline, PassContext())
    assert difference(graph, after) < RELATIVE_TOLERANCE
    return after, pipeline.passes[0].run(graph.copy(), PassContext())


def declined_reason(graph: Graph, factor: int = 0) -> str:
    after, [outcome] = rewritten(graph, factor)
    assert ir.to_proto(after.model) == ir.to_proto(graph.model)
    assert isinstance(outcome, Declined)
    return outcome.reason


@st.composite
def stems(draw: st.DrawFn) -> tuple[Graph, int]:
    """Different kernels, strides, pads and sizes for rows and columns, and a factor that divides the strides."""
    factor = draw(st.integers(2, 4))
    kernel = [draw(st.integers(1, 12)), draw(st.integers(2, 12))]
    strides = [factor * draw(st.integers(1, 2)) for _ in kernel]
    # Less than the kernel, and the first window reads more than zeros.
    pads = [draw(st.integers(0, length - 1)) for length in kernel * 2]
    least = [max(factor, length - pads[axis] - pads[axis + 2]) for axis, length in enumerate(kernel)]
    size = [length + draw(st.integers(0, 13)) for length in least]
    return stem(size, kernel, draw(st.integers(1, 3)), strides=strides, pads=pads), factor


@settings(max_examples=50, deadline=None)
@given(stems())
def test_any_strided_convolution(case: tuple[Graph, int]) -> None:
    graph, factor = case
    after, [outcome] = rewritten(graph, factor)
    assert isinstance(outcome, Applied)
    before, view = (Convolution.of(found.nodes[-1]) for found in (graph, after))
    assert before is not None and view is not None
    assert view.in_channels == before.in_channels * factor**2
    assert view.kernel == tuple(-(-size // factor) for size in before.kernel), "no kernel is larger than it must be"
    assert view.strides == tuple(stride // factor for stride in before.strides)


PUBLISHED = {
    "resnet 7x7": ((224, 224), (7, 7), 2, [3] * 4, ["SpaceToDepth"], (4, 4), (2, 2, 1, 1)),
    "mobilenet 3x3": ((224, 224), (3, 3), 2, [1] * 4, ["SpaceToDepth"], (2, 2), (1, 1, 0, 0)),
    "efficientnet 3x3, odd image": ((225, 225), (3, 3), 2, [1] * 4, ["Pad", "SpaceToDepth"], (2, 2), (1, 1, 0, 0)),
    "tensorflow 3x3, padded at the end": ((224, 224), (3, 3), 2, [0, 0, 1, 1], ["SpaceToDepth"], (2, 2), (0, 0, 1, 1)),
    "inception 3x3": ((299, 299), (3, 3), 2, [0] * 4, ["Pad", "SpaceToDepth"], (2, 2), (0, 0, 0, 0)),
    "alexnet 11x11": ((224, 224), (11, 11), 4, [2] * 4, ["Pad", "SpaceToDepth"], (3, 3), (0, 0, 0, 0)),
    "convnext 4x4": ((224, 224), (4, 4), 4, [0] * 4, ["SpaceToDepth"], (1, 1), (0, 0, 0, 0)),
    "2x2 that never reads the last row": ((225, 224), (2, 2), 2, [0] * 4, ["Slice", "SpaceToDepth"], (1, 1), (0,) * 4),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_stems(name: str) -> None:
    size, kernel, stride, pads, movements, new_kernel, new_pads = PUBLISHED[name]
    after, _ = rewritten(stem(size, kernel, strides=[stride] * 2, pads=pads))
    assert operators(after) == [*movements, "Conv"]
    view = Convolution.of(after.nodes[-1])
    assert view is not None
    assert (view.kernel, view.pads, view.strides) == (new_kernel, new_pads, (1, 1))


def test_cut_rows_and_padded_columns_together() -> None:
    after, _ = rewritten(stem((9, 9), (2, 11), strides=[4, 4], pads=[0, 2, 0, 2]))
    assert operators(after) == ["Slice", "Pad", "SpaceToDepth", "Conv"]


def test_what_it_says_and_what_it_costs() -> None:
    graph = stem((224, 224), (7, 7), strides=[2, 2], pads=[3] * 4)
    after, outcomes = rewritten(graph)
    assert outcomes == [
        Applied("conv_y", "7x7 stride 2x2 on 3 channels became 4x4 stride 1x1 on 12; MACs x 1.31"),
    ]
    before_macs, after_macs = (sum(layer.nest.macs for layer in layers_of(found)) for found in (graph, after))
    assert after_macs / before_macs == 64 / 49
    moved = layers_of(after)[0].nest
    assert (moved.input_elements, moved.output_elements) == (2 * 3 * 224 * 224,) * 2, "the image is moved, and charged"


def test_auto_pad_becomes_numbers() -> None:
    for mode in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        after, _ = rewritten(stem((13, 14), (5, 5), strides=[2, 2], auto_pad=mode))
        assert "auto_pad" not in after.nodes[-1].attributes


def test_a_patch_embedding_when_asked_for() -> None:
    graph = stem((32, 32), (16, 16), strides=[16, 16])
    assert declined_reason(graph) == "its stride is 16x16: 768 channels of 3; factor=16 asks for it"
    after, _ = rewritten(graph, 16)
    assert shape_of(after.nodes[-1].inputs[1]) == (4, 768, 1, 1)  # type: ignore[arg-type]


def test_two_stems_share_their_blocks_and_weights_stay_whole() -> None:
    """Both read the same blocks, one of them twice removed by a normalisation; the third is not a first convolution."""
    nodes = [
        conv(y="a", strides=[2, 2], pads=[1] * 4),
        conv(y="b", strides=[2, 2], pads=[1] * 4),
        conv("a", "c", w="v", strides=[2, 2]),
        conv("b", "d", w="v", strides=[2, 2]),
        helper.make_node("Add", ["c", "d"], ["y"]),
    ]
    random = np.random.default_rng(1)
    constants = {"w": normal(random, 5, 3, 3, 3), "v": normal(random, 2, 5, 3, 3)}
    after, outcomes = rewritten(graph_of(proto_of(nodes, {"x": (1, 3, 17, 17)}, {"y": None}, constants)))
    assert [outcome.where for outcome in outcomes] == ["conv_a", "conv_b"]
    assert operators(after) == ["Pad", "SpaceToDepth", "Conv", "Conv", "Conv", "Conv", "Add"]


def test_behind_a_normalisation_and_a_change_of_layout() -> None:
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Mul", ["t", "s"], ["m"]),
        conv("m", strides=[2, 2]),
    ]
    constants = {"w": normal(np.random.default_rng(2), 4, 3, 3, 3), "s": np.array(0.1, np.float32)}
    after, _ = rewritten(graph_of(proto_of(nodes, {"x": (1, 8, 8, 3)}, {"y": None}, constants)))
    assert operators(after) == ["Transpose", "Mul", "SpaceToDepth", "Conv"]


DECLINED = {
    "stride 1": (stem((8, 8), (3, 3)), 0, "its stride is 1x1, which leaves no block of pixels to read at once"),
    "strides without a common divisor": (
        stem((8, 8), (3, 3), strides=[2, 1]),
        0,
        "its stride is 2x1, which leaves no block of pixels to read at once",
    ),
    "another factor": (stem((8, 8), (3, 3), strides=[2, 2]), 4, "its stride is 2x2, no multiple of 4"),
    "groups": (
        stem((8, 8), (3, 3), 4, group=2, strides=[2, 2]),
        0,
        "its 2 groups read channels of their own",
    ),
    "dilation": (stem((8, 8), (3, 3), strides=[2, 2], dilations=[1, 2]), 0, "its kernel is dilated by 1x2"),
    "many channels": (
        stem((8, 8), (3, 3), 9, strides=[2, 2]),
        0,
        "it reads 9 channels; more than 8 are not few",
    ),
    "one dimension": (stem((8,), (3,), strides=[2]), 0, "it has one spatial dimension, and blocks need two"),
    "1x1": (
        stem((8, 8), (1, 1), strides=[2, 2]),
        0,
        "a 1x1 kernel would be multiplied with all the positions it leaves out",
    ),
    "a small image": (
        stem((8, 3), (3, 3), strides=[4, 4], pads=[0, 1, 0, 1]),
        0,
        "its input of 8x3 is smaller than a block of 4x4",
    ),
}


@pytest.mark.parametrize("name", DECLINED)
def test_declined(name: str) -> None:
    graph, factor, reason = DECLINED[name]
    assert declined_reason(graph, factor) == reason


def test_declined_when_no_convolution_comes_first() -> None:
    """A pooling computes; an image behind it is no longer the input."""
    nodes = [helper.make_node("MaxPool", ["x"], ["p"], kernel_shape=[1, 1]), conv("p", strides=[2, 2])]
    graph = graph_of(proto_of(nodes, {"x": (1, 3, 8, 8)}, {"y": None}, {"w": np.ones((4, 3, 3, 3), np.float32)}))
    assert declined_reason(graph) == "no convolution reads it before anything else is computed"


def test_declined_when_the_weights_are_computed() -> None:
    nodes = [helper.make_node("Relu", ["v"], ["w"]), conv(strides=[2, 2])]
    graph = graph_of(proto_of(nodes, {"x": (1, 3, 8, 8), "v": (4, 3, 3, 3)}, {"y": None}, {}))
    assert declined_reason(graph) == "its weights are not constant"


@pytest.mark.parametrize("factor", [1, -2])
def test_a_factor_that_makes_no_blocks(factor: int) -> None:
    with pytest.raises(CodesignError, match=f"factor must be 0 or at least 2, not {factor}"):
        resolve_pipeline(f"space-to-depth-stem{{factor={factor}}}")


def test_lead_zeros_are_needed() -> None:
    """Negative control: the kernel put one place further on is another function."""
    graph = stem((8, 8), (3, 3), strides=[2, 2], pads=[1] * 4)
    after, _ = rewritten(graph)
    node = after.nodes[-1]
    weights = node.inputs[1].const_value.numpy()  # type: ignore[union-attr]
    node.inputs[1].const_value = ir.tensor(np.roll(weights, 3, axis=1), name="w")  # type: ignore[union-attr]
    assert difference(graph, after) > 0.1


def test_it_is_lowered(tmp_path: Path) -> None:
    """Slice, Pad, SpaceToDepth and the new convolution as a library compute what onnxruntime finds on the original."""
    graph = stem((9, 9), (2, 11), strides=[4, 4], pads=[0, 2, 0, 2])
    after, _ = rewritten(graph)
    write_library(build_network(after), tmp_path)
    feeds = feeds_for(graph)
    found, expected = load_library(tmp_path).run(feeds)["y"], run(graph.model, feeds)["y"]
    assert np.abs(found - expected).max() < RELATIVE_TOLERANCE * np.abs(expected).max()
