"""fold-padding: which Pads become padding of a convolution, and why the others stay, word for word."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from codesign.rewriting.graph_pass import Applied, Declined, PassContext
from codesign.rewriting.pipeline import resolve_pipeline
from codesign.rewriting.runner import run_pipeline
from tests.pass_models import difference, graph_of, normal, proto_of
from tests.pass_networks import network

PIPELINE = resolve_pipeline("fold-padding")
(PASS,) = PIPELINE.passes


def test_what_is_folded_and_what_stays() -> None:
    graph = network("padding").copy()
    outcomes = PASS.run(graph, PassContext())
    assert [outcome for outcome in outcomes if isinstance(outcome, Applied)] == [
        Applied("second", "folded into stem, pads 3, 1, 0, 1"),
        Applied("first", "folded into stem, pads 3, 1, 1, 3"),
        Applied("shared", "folded into depthwise, pads 2, 1, 1, 2"),
    ]
    assert [outcome for outcome in outcomes if isinstance(outcome, Declined)] == [
        Declined("reflected", "pads with the mode reflect; a convolution pads with zeros"),
        Declined("ones", "pads with another value than zero; a convolution pads with zeros"),
        Declined("cutting", "cuts off a part of the image; a convolution cannot"),
        Declined("channels", "pads the batch or the channels; a convolution pads rows and columns"),
    ]
    assert [node.name for node in graph.nodes if node.op_type == "Pad"] == [
        *("shared", "reflected", "ones", "cutting", "channels")
    ]


def test_the_folded_network_is_the_same_one() -> None:
    before = network("padding")
    after, [record] = run_pipeline(before, PIPELINE, PassContext())
    assert (record.applied, record.effect) == (3, "EXACT")
    assert difference(before, after) < 1e-6
    again, [twice] = run_pipeline(after, PIPELINE, PassContext())
    assert twice.applied == 0
    stem = next(node for node in after.nodes if node.name == "stem")
    stem.attributes["pads"] = stem.attributes["pads"].__class__("pads", stem.attributes["pads"].type, [1, 3, 3, 1])
    assert difference(before, after) > 1e-2  # the same numbers of zeros, on the other sides


@pytest.mark.parametrize(("auto_pad", "pads"), [("VALID", [0, 0, 1, 1]), ("SAME_UPPER", [1, 1, 2, 2])])
def test_padding_a_convolution_works_out_itself(auto_pad: str, pads: list[int]) -> None:
    weights = {"w": normal(np.random.default_rng(0), 2, 3, 3, 3), "p": np.array([0, 0, 0, 0, 0, 0, 1, 1], np.int64)}
    nodes = [
        helper.make_node("Pad", ["x", "p"], ["padded"], name="pad"),
        helper.make_node("Conv", ["padded", "w"], ["y"], auto_pad=auto_pad, name="conv"),
    ]
    before = graph_of(proto_of(nodes, {"x": (1, 3, 8, 8)}, {"y": None}, weights, opset=18))
    after, _ = run_pipeline(before, PIPELINE, PassContext())
    (conv,) = after.nodes
    assert list(conv.attributes["pads"].as_ints()) == pads
    assert difference(before, after) < 1e-6


def test_pads_a_network_computes_stay() -> None:
    weights = {"w": normal(np.random.default_rng(0), 2, 3, 3, 3), "p": np.array([0, 0, 1, 0, 0, 0, 1, 0], np.int64)}
    nodes = [
        helper.make_node("Pad", ["x", "p", "v"], ["padded"], name="pad"),
        helper.make_node("Conv", ["padded", "w"], ["y"], name="conv"),
    ]
    graph = graph_of(proto_of(nodes, {"x": (1, 3, 8, 8), "v": ()}, {"y": None}, weights, opset=18))
    reason = "pads with another value than zero; a convolution pads with zeros"
    assert PASS.run(graph.copy(), PassContext()) == [Declined("pad", reason)]


def test_sequences_are_padded_too() -> None:
    weights = {"w": normal(np.random.default_rng(0), 2, 3, 3), "p": np.array([0, 0, 2, 0, 0, 1], np.int64)}
    nodes = [
        helper.make_node("Pad", ["x", "p"], ["padded"], name="pad"),
        helper.make_node("Conv", ["padded", "w"], ["y"], pads=[1, 0], name="conv"),
    ]
    proto: onnx.ModelProto = proto_of(nodes, {"x": (1, 3, 8)}, {"y": None}, weights, opset=18)
    before = graph_of(proto)
    after, _ = run_pipeline(before, PIPELINE, PassContext())
    assert list(after.nodes[0].attributes["pads"].as_ints()) == [3, 1]
    assert difference(before, after) < 1e-6
