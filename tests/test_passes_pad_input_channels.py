"""pad-input-channels: any convolution that reads the input, by execution; what a machine asks for; what is declined."""

from __future__ import annotations

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
from codesign.hardware.loading import load_profile
from codesign.hardware.profile import HardwareProfile
from codesign.rewriting.graph_pass import Applied, Declined, Outcome, PassContext
from codesign.rewriting.pipeline import resolve_pipeline
from codesign.rewriting.runner import run_pipeline
from codesign.workload.layers import layers_of
from tests.pass_models import difference, graph_of, normal, operators, proto_of


def conv(x: str = "x", y: str = "y", w: str = "w", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node("Conv", [x, w], [y], name=f"conv_{y}", **attributes)


def stem(channels: int, size: tuple[int, ...] = (7, 6), kernel: tuple[int, ...] = (3, 2), **attributes: Any) -> Graph:
    weights = normal(np.random.default_rng(0), 4, channels // attributes.get("group", 1), *kernel)
    return graph_of(proto_of([conv(**attributes)], {"x": (2, channels, *size)}, {"y": None}, {"w": weights}))


def rewritten(graph: Graph, multiple: int = 4, profile: HardwareProfile | None = None) -> tuple[Graph, list[Outcome]]:
    """The graph after the pass, which must compute the same; and what the pass said."""
    pipeline, context = resolve_pipeline(f"pad-input-channels{{multiple={multiple}}}"), PassContext(profile)
    after, _ = run_pipeline(graph, pipeline, context)
    # Zeros times zeros: the same numbers, but for the order in which onnxruntime adds them.
    assert difference(graph, after) < 1e-6
    return after, pipeline.passes[0].run(graph.copy(), context)


def declined_reason(graph: Graph, multiple: int = 4, profile: HardwareProfile | None = None) -> str:
    after, [outcome] = rewritten(graph, multiple, profile)
    assert ir.to_proto(after.model) == ir.to_proto(graph.model)
    assert isinstance(outcome, Declined)
    return outcome.reason


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(2, 9), st.integers(1, 2), st.integers(1, 2))
def test_any_number_of_channels(channels: int, multiple: int, rank: int, stride: int) -> None:
    graph = stem(channels, (7, 6)[:rank], (3, 2)[:rank], strides=[stride] * rank, pads=[1] * 2 * rank)
    after, [outcome] = rewritten(graph, multiple)
    view = Convolution.of(after.nodes[-1])
    assert view is not None and view.in_channels % multiple == 0 and view.in_channels - channels < multiple
    assert isinstance(outcome, Applied) == (channels % multiple > 0)
    assert shape_of(after.inputs[0])[1] == channels, "the input of the graph stays as it is"


def test_what_it_says_and_what_it_costs() -> None:
    graph = stem(3)
    after, outcomes = rewritten(graph)
    assert outcomes == [Applied("conv_y", "3 channels became 4; MACs x 1.33")]
    moved, new = (layer.nest for layer in layers_of(after))
    assert (moved.input_elements, moved.output_elements) == (2 * 3 * 7 * 6, 2 * 4 * 7 * 6)
    assert new.macs * 3 == layers_of(graph)[0].nest.macs * 4


def test_two_readers_share_the_padded_image_and_their_weights_stay_whole() -> None:
    """A third convolution reads the same weights, and no padded image."""
    nodes = [
        conv(y="a", pads=[1] * 4),
        conv(y="b", pads=[1] * 4),
        helper.make_node("Relu", ["x"], ["r"]),
        conv("r", "c", pads=[1] * 4),
        helper.make_node("Sum", ["a", "b", "c"], ["y"]),
    ]
    constants = {"w": normal(np.random.default_rng(1), 5, 3, 3, 3)}
    after, outcomes = rewritten(graph_of(proto_of(nodes, {"x": (1, 3, 6, 6)}, {"y": None}, constants)))
    assert [outcome.where for outcome in outcomes] == ["conv_a", "conv_b"]
    assert sorted(operators(after)) == ["Conv", "Conv", "Conv", "Pad", "Relu", "Sum"]


MACHINES = {"edge_npu": 32, "ecnn": 32, "gemmini16": 16}


@pytest.mark.parametrize("name", MACHINES)
def test_a_machine_asks_for_its_lanes(name: str) -> None:
    profile = load_profile(name).profile
    lanes = [
        axis.size
        for engine in profile.engines.values()
        for axis in engine.axes.values()
        if "C" in axis.unrolls and "convolution" in engine.operations
    ]
    assert min(lanes) == MACHINES[name]
    _, [outcome] = rewritten(stem(3), 0, profile)
    assert outcome == Applied("conv_y", f"3 channels became {MACHINES[name]}; MACs x {MACHINES[name] / 3:.2f}")


def test_declined_where_no_machine_says_how_many() -> None:
    reason = "no machine with lanes for input channels is given; multiple=4 says how many they become"
    assert declined_reason(stem(3), 0) == reason
    # It unrolls C, FY and FX as one dimension of a matrix product: 27 of its lanes work already.
    assert declined_reason(stem(3), 0, load_profile("systolic_ws").profile) == reason


def test_declined_when_it_is_a_multiple_already() -> None:
    assert declined_reason(stem(8)) == "it reads 8 channels, a multiple of 4"


def test_declined_when_groups_would_move() -> None:
    assert declined_reason(stem(6, group=2)) == "its 2 groups read channels of their own, which would move"


def test_declined_when_no_convolution_comes_first() -> None:
    """A pooling computes; an image behind it is no longer the input."""
    nodes = [helper.make_node("MaxPool", ["x"], ["p"], kernel_shape=[1, 1]), conv("p", strides=[2, 2])]
    graph = graph_of(proto_of(nodes, {"x": (1, 3, 8, 8)}, {"y": None}, {"w": np.ones((4, 3, 3, 3), np.float32)}))
    assert declined_reason(graph) == "no convolution reads it before anything else is computed"


def test_declined_when_the_weights_are_computed() -> None:
    nodes = [helper.make_node("Relu", ["v"], ["w"]), conv()]
    graph = graph_of(proto_of(nodes, {"x": (1, 3, 8, 8), "v": (4, 3, 3, 3)}, {"y": None}, {}))
    assert declined_reason(graph) == "its weights are not constant"


def test_a_negative_multiple() -> None:
    with pytest.raises(CodesignError, match="multiple must be 0 or positive, not -4"):
        resolve_pipeline("pad-input-channels{multiple=-4}")


def test_weights_of_the_new_channels_must_be_zero_or_what_they_read() -> None:
    """Negative control: a weight for the new channel alone changes nothing, and beside a live channel it does."""
    graph = stem(3)
    after, _ = rewritten(graph)
    kernel = after.nodes[-1].inputs[1]
    assert kernel is not None and kernel.const_value is not None
    weights = kernel.const_value.numpy().copy()
    assert not weights[:, 3].any()
    kernel.const_value = ir.tensor(np.roll(weights, 1, axis=1), name="w")
    assert difference(graph, after) > 0.1
