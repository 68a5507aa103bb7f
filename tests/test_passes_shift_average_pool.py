"""shift-average-pool: what it marks, and every reason it declines, word for word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from codesign.errors import CodesignError
from codesign.graph.graph import Graph, shape_of
from codesign.rewriting.edit import set_constant
from codesign.rewriting.graph_pass import Applied, Declined, Outcome, PassContext
from codesign.rewriting.pipeline import resolve_pipeline
from codesign.rewriting.runner import run_pipeline
from codesign.vocabulary import OperationKind
from codesign.workload.layers import layers_of
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


def approximated(graph: Graph, bits: int = 8) -> tuple[Graph, list[Outcome]]:
    """After a run that approximates, checked; and what it says."""
    pipeline = resolve_pipeline(f"shift-average-pool{{approximate=true,bits={bits}}}")
    after, _ = run_pipeline(graph, pipeline, PassContext())
    return after, pipeline.passes[0].run(graph.copy(), PassContext())


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 16))
def test_the_approximation_is_as_near_as_stated(rows: int, columns: int, bits: int) -> None:
    """onnxruntime computes with the factor; integers divided as marked are off by as much, and one for the shift."""
    graph = image(rows, helper.make_node("GlobalAveragePool", ["x"], ["y"], name="pool"), columns=columns)
    after, [outcome] = approximated(graph, bits)
    assert isinstance(outcome, Applied)
    count = rows * columns
    error = difference(graph, after)
    assert error <= 2.0**-bits + 1e-6
    carrier = after.nodes[-1]
    mark = dict(part.split(":") for part in carrier.metadata_props["codesign.division"].split(","))
    multiplier, shift = int(mark.get("multiply", 1)), int(mark["shift"])
    assert multiplier < 1 << bits or count & (count - 1) == 0
    assert error == pytest.approx(abs(multiplier * count / 2**shift - 1), abs=1e-6)
    sums = np.random.default_rng(bits).integers(0, 127 * count, 100)
    assert (np.abs((sums * multiplier >> shift) - sums / count) <= sums / count * 2.0**-bits + 1).all()


def test_what_the_approximation_leaves() -> None:
    graph = image(7, helper.make_node("GlobalAveragePool", ["x"], ["y"], name="pool"))
    after, outcomes = approximated(graph)
    assert outcomes == [Applied("pool", "divides by 49 as x 167 >> 13, off by 0.11%")]
    pool, division = after.nodes
    assert (pool.op_type, division.op_type, division.outputs[0].name) == ("GlobalAveragePool", "Mul", "y")
    assert "codesign.division" not in pool.metadata_props
    assert division.metadata_props["codesign.division"] == "multiply:167,shift:13,count:49"
    assert difference(graph, after) == pytest.approx(1 - 167 * 49 / 8192, rel=1e-3)


def test_pooling_and_multiplication_are_priced_as_the_pooling() -> None:
    graph = image(9, pool([3, 3]))
    [alone], [averaged, division] = (layers_of(each) for each in (graph, approximated(graph)[0]))
    assert averaged.nest == alone.nest
    assert division.nest.kind is OperationKind.VIEW and division.nest.operations == 0


def test_an_unmarked_multiplication_is_work() -> None:
    """Negative control: only what the pass wrote is part of the pooling."""
    graph, _ = approximated(image(9, pool([3, 3])))
    graph.nodes[1].metadata_props.clear()
    assert layers_of(graph)[1].nest.kind is OperationKind.ELEMENTWISE


@pytest.mark.parametrize("bits", [0, 17])
def test_bits_out_of_range(bits: int) -> None:
    with pytest.raises(CodesignError, match=f"bits must be from 1 to 16, not {bits}"):
        resolve_pipeline(f"shift-average-pool{{bits={bits}}}")


def test_an_approximation_follows_its_window() -> None:
    """Another number of bits, another window, and a window that needs no multiplication any more."""
    graph = image(7, helper.make_node("GlobalAveragePool", ["x"], ["y"], name="pool"))
    kept, _ = run_pipeline(approximated(graph)[0], SHIFT, PassContext())
    assert kept.nodes[1].metadata_props["codesign.division"] == "multiply:167,shift:13,count:49", (
        "an exact run leaves it"
    )
    wider, _ = approximated(kept, bits=12)
    assert wider.nodes[1].metadata_props["codesign.division"] == "multiply:2675,shift:17,count:49"
    assert difference(graph, wider) <= 2**-12
    for size, marks in ((7, [None, "multiply:2675,shift:17,count:49"]), (6, [None]), (8, ["shift:6"])):
        pipeline = resolve_pipeline(f"fix-resolution{{size={size}}},shift-average-pool")
        after, _ = run_pipeline(wider, pipeline, PassContext())
        assert [node.metadata_props.get("codesign.division") for node in after.nodes] == marks
        assert [value.name for value in after.outputs] == ["y"]


def test_a_multiplication_that_does_more_is_none_of_its_own() -> None:
    """What a later rewrite multiplied into it stays, and costs what it costs."""
    graph, _ = approximated(image(9, pool([3, 3])))
    division = graph.nodes[1]
    set_constant(graph, division, 1, np.array(2, np.float32), "changed")
    assert layers_of(graph)[1].nest.kind is OperationKind.ELEMENTWISE
    after, _ = approximated(graph)
    assert [node.op_type for node in after.nodes] == ["AveragePool", "Mul", "Mul"]
    assert difference(graph, after) < 2**-8


def test_a_shift_that_became_wrong_is_no_multiplication() -> None:
    """64 / 49 rounds to 1, yet 49 is not divided by a shift of 6."""
    graph, _ = run_pipeline(
        image(8, helper.make_node("GlobalAveragePool", ["x"], ["y"], name="pool")), SHIFT, PassContext()
    )
    after, _ = run_pipeline(graph, resolve_pipeline("fix-resolution{size=7},shift-average-pool"), PassContext())
    assert "codesign.division" not in after.nodes[0].metadata_props


def test_averages_over_channels_are_no_pooling() -> None:
    mean = helper.make_node("ReduceMean", ["x"], ["y"], axes=[1])
    assert outcomes(image(8, mean)) == []
