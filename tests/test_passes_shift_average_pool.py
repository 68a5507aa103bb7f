"""shift-average-pool: what it marks, and every reason it declines, word for word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from codesign.graph.graph import Graph, shape_of
from codesign.rewriting.graph_pass import Applied, Declined, Outcome, PassContext
from codesign.rewriting.pipeline import resolve_pipeline
from codesign.rewriting.runner import run_pipeline
from tests.pass_models import difference, graph_of, normal, proto_of, run

SHIFT = resolve_pipeline("shift-average-pool")
WEIGHTS = {"w": normal(np.random.default_rng(0), 4, 3, 3, 3), "two": np.array([2, 3], np.int64)}


def image(side: int, *nodes: onnx.NodeProto, columns: int = 0, opset: int = 17) -> Graph:
    """A network over a picture of side x columns (default: square)."""
    return graph_of(proto_of(nodes, {"x": (1, 3, side, columns or side)}, {"y": None}, WEIGHTS, opset=opset))


def outcomes(graph: Graph) -> list[Outcome]:
    """What the pass says; the graph it ran on computes the same, and carries a mark exactly where it says so."""
    after, [record] = run_pipeline(graph, SHIFT, PassContext())
    assert difference(graph, after) == 0
    found = SHIFT.passes[0].run(graph.copy(), PassContext())
    assert record.applied == sum(isinstance(outcome, Applied) for outcome in found)
    marked = {node.name for node in after.nodes if "codesign.division" in node.metadata_props}
    assert marked == {outcome.where for outcome in found if isinstance(outcome, Applied)}
    return found


def pool(kernel: Sequence[int], x: str = "x", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node("AveragePool", [x], ["y"], name="pool", kernel_shape=kernel, **attributes)


MARKED = {
    "2x2": (image(8, pool([2, 2], strides=[2, 2])), 2),
    "2x4 counting its padding": (image(8, pool([2, 4], pads=[1, 0, 0, 2], count_include_pad=1)), 3),
    "global 8x16": (image(8, helper.make_node("GlobalAveragePool", ["x"], ["y"], name="pool"), columns=16), 7),
    "1x1": (image(8, pool([1, 1])), 0),
    "rows and columns, axes as an attribute": (
        image(4, helper.make_node("ReduceMean", ["x"], ["y"], name="pool", axes=[2, 3], keepdims=0)),
        4,
    ),
    "rows and columns, axes as an input": (
        image(4, helper.make_node("ReduceMean", ["x", "two"], ["y"], name="pool"), opset=18),
        4,
    ),
    "ceil_mode that reaches nowhere": (image(8, pool([2, 2], strides=[2, 2], ceil_mode=1)), 2),
}


@pytest.mark.parametrize("name", MARKED)
def test_marked(name: str) -> None:
    graph, shift = MARKED[name]
    assert outcomes(graph) == [Applied("pool", f"divides by {1 << shift} with a shift of {shift}")]
    after, _ = run_pipeline(graph, SHIFT, PassContext())
    assert after.nodes[0].metadata_props["codesign.division"] == f"shift:{shift}"


@pytest.mark.parametrize("name", MARKED)
def test_the_mark_states_the_divisor(name: str) -> None:
    """A picture of ones at the centre of the first window: the output there is the sum over the window >> shift."""
    graph, shift = MARKED[name]
    shape = shape_of(graph.inputs[0])
    total = np.zeros(shape, np.float32)
    total[:, :, shape[2] // 2, shape[3] // 2] = 2**shift
    assert run(graph.model, {"x": total})["y"].max() == 1


def stem(stride: int, pad: int) -> onnx.NodeProto:
    return helper.make_node("Conv", ["x", "w"], ["c"], strides=[stride] * 2, pads=[pad] * 4)


GLOBAL = helper.make_node("GlobalAveragePool", ["c"], ["y"], name="pool")
REASONS = {
    "a 7x7 window divides by 49, no power of two; an input of 256x256 instead of 224x224 would make it 8x8": image(
        224, stem(32, 1), GLOBAL
    ),
    "a 5x5 window divides by 25, no power of two; an input of 128x128 instead of 160x160 would make it 4x4": image(
        160,
        stem(32, 1),
        helper.make_node("Add", ["c", "c"], ["z"]),
        helper.make_node("GlobalAveragePool", ["z"], ["y"]),
    ),
    "a 3x3 window divides by 9, no power of two; no input resolution changes that": image(8, pool([3, 3])),
    "a 12x12 window divides by 144, no power of two; no nearby input resolution makes it one": image(
        14, stem(1, 0), GLOBAL
    ),
    "its padding is not counted, so the divisor differs at the border": image(8, pool([2, 2], pads=[1, 1, 0, 0])),
    "its last window reaches beyond the padding (ceil_mode), so the divisor differs at the border": image(
        9, pool([2, 2], strides=[2, 2], ceil_mode=1)
    ),
}


@pytest.mark.parametrize("reason", REASONS)
def test_declined(reason: str) -> None:
    [outcome] = outcomes(REASONS[reason])
    assert isinstance(outcome, Declined) and outcome.reason == reason


def test_the_resolution_it_names_makes_it_exact() -> None:
    graph = image(224, stem(32, 1), GLOBAL)
    larger, _ = run_pipeline(graph, resolve_pipeline("fix-resolution{size=256},shift-average-pool"), PassContext())
    assert larger.nodes[1].metadata_props["codesign.division"] == "shift:6"


def test_a_mark_that_no_longer_holds_is_corrected_or_removed() -> None:
    graph = image(8, helper.make_node("GlobalAveragePool", ["x"], ["y"], name="pool"))
    for size, expected in ((16, "shift:8"), (12, None), (8, "shift:6")):
        pipeline = resolve_pipeline(f"fix-resolution{{size={size}}},shift-average-pool")
        graph, [_, record] = run_pipeline(graph, pipeline, PassContext())
        assert record.applied == 1
        assert graph.nodes[0].metadata_props.get("codesign.division") == expected


def test_averages_over_channels_are_no_pooling() -> None:
    mean = helper.make_node("ReduceMean", ["x"], ["y"], axes=[1])
    assert outcomes(image(8, mean)) == []
