"""Equalisation computes the same to the last bit, evens out ranges, and helps; bias correction takes the shift off."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.graph.graph import Graph
from codesign.quantization.equalization import (
    Equalized,
    Kept,
    PairRanges,
    apply_exponents,
    equalize,
    pairs_of,
    predicted_noise,
    scale_exponents,
)
from codesign.quantization.ranges import spreads_of
from tests.networks_to_quantize import data, network, quantized
from tests.pass_models import run

UNEVEN = np.exp2(np.arange(8) - 5.0).reshape(8, 1, 1, 1)
DEPTHWISE = "a = Conv(x, w) b = {}(a{}) y = Conv<group = 8, pads = [1, 1, 1, 1]>(b, v)"
DENSE = "a = Conv(x, w, bias) r = {}(a{}) y = Conv(r, v)"


def uneven(nodes: str, second: tuple[int, ...], scale: float = 1.0) -> Graph:
    """Two convolutions; the channels between have ranges from 2^-5 to 4."""
    random = np.random.default_rng(3)
    first = random.standard_normal((8, 3, 1, 1)) * UNEVEN * scale
    constants = {"w": first, "bias": (8,), "v": second, "slope": (8, 1, 1)}
    return network(nodes, constants | {"low": np.array(0.0), "high": np.array(6.0)})


@pytest.mark.parametrize("function", ["Relu", "LeakyRelu", "Identity", "PRelu"])
@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize(("nodes", "second"), [(DEPTHWISE, (8, 1, 3, 3)), (DENSE, (5, 8, 1, 1))])
def test_equalisation_is_exact_to_the_last_bit(
    function: str, per_channel: bool, nodes: str, second: tuple[int, ...]
) -> None:
    before = uneven(nodes.format(function, ", slope" if function == "PRelu" else ""), second)
    samples, after = data(before), before.copy()
    [found] = equalize(after, samples, per_channel=per_channel)
    assert isinstance(found, Equalized) and found.channels > 4
    feeds = samples.runs[0]
    np.testing.assert_array_equal(run(after.model, feeds)["y"], run(before.model, feeds)["y"])
    [pair] = pairs_of(after)
    apply_exponents(after, pair, np.arange(8))
    np.testing.assert_array_equal(run(after.model, feeds)["y"], run(before.model, feeds)["y"])
    pair.first.node.inputs[1].const_value = before.model.graph.initializers["w"].const_value  # type: ignore[union-attr]
    assert (run(after.model, feeds)["y"] != run(before.model, feeds)["y"]).any(), "one side alone is seen"


def ranges(graph: Graph) -> np.ndarray:
    """Largest magnitude of every channel between the two convolutions."""
    [pair] = pairs_of(graph)
    return spreads_of(graph, data(graph), [pair.middle])[pair.middle].channels


def test_ranges_before_a_depthwise_layer_become_alike() -> None:
    graph = uneven(DEPTHWISE.format("Relu", ""), (8, 1, 3, 3))
    before = ranges(graph)
    equalize(graph, data(graph), per_channel=True)
    after = ranges(graph)
    assert before.max() / before.min() > 50
    assert after.max() / after.min() <= 2.01
    assert np.exp2(np.ceil(np.log2(after.max()))) == np.exp2(np.ceil(np.log2(before.max())))


def unlike(graph: Graph) -> float:
    """How much ranges of rows over ranges of columns differ: 1 where both layers' weights are equalised."""
    [pair] = pairs_of(graph)
    ratio = np.abs(pair.first.rows).max(axis=1) / np.abs(pair.second.weights).max(axis=(0, 2, 3))
    return float(ratio.max() / ratio.min())


def test_ranges_of_weights_become_more_alike_with_one_scale_for_all() -> None:
    graph = uneven(DENSE.format("Relu", ""), (5, 8, 1, 1))
    before = unlike(graph)
    equalize(graph, data(graph), per_channel=False)
    assert unlike(graph) < before / 4


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize(("nodes", "second"), [(DEPTHWISE, (8, 1, 3, 3)), (DENSE, (5, 8, 1, 1))])
def test_the_noise_that_is_predicted_is_the_least(per_channel: bool, nodes: str, second: tuple[int, ...]) -> None:
    graph = uneven(nodes.format("Relu", ""), second)
    [pair] = pairs_of(graph)
    spreads = spreads_of(graph, data(graph), [pair.middle, pair.input])
    found = PairRanges(spreads[pair.middle], spreads[pair.input])
    chosen = scale_exponents(pair, found, per_channel=per_channel)
    least, none, worse = (
        predicted_noise(pair, exponents, found, per_channel=per_channel)
        for exponents in (chosen, np.zeros(8, np.int64), -chosen)
    )
    assert least < none / 2 and least < worse / 4


def test_layers_whose_ranges_are_alike_stay() -> None:
    random = np.random.default_rng(0)
    weights = {"w": np.sign(random.standard_normal((8, 3, 1, 1))), "v": np.sign(random.standard_normal((5, 8, 1, 1)))}
    graph = network("a = Conv(x, w) r = Relu(a) y = Conv(r, v)", weights, (1, 3, 32, 32))
    assert equalize(graph, data(graph), per_channel=False) == [Kept("node_a -> node_y", "its ranges suit as they are")]


@pytest.mark.parametrize("scale", [0.2, 4.0])
def test_relu6_is_the_same_within_calibrated_ranges(scale: float) -> None:
    before = uneven(DEPTHWISE.format("Clip", ", low, high"), (8, 1, 3, 3), scale)
    samples, after = data(before), before.copy()
    [found] = equalize(after, samples, per_channel=True)
    assert isinstance(found, Equalized) and found.clipped
    assert str(found).endswith("channels scaled, the same as long as they stay within their calibrated range")
    for feeds in samples.runs:
        np.testing.assert_array_equal(run(after.model, feeds)["y"], run(before.model, feeds)["y"])
    louder = {"x": samples.runs[0]["x"] * 20}
    assert (run(after.model, louder)["y"] != run(before.model, louder)["y"]).any() is np.True_


def test_relu6_that_every_channel_reaches_stays() -> None:
    graph = uneven(DEPTHWISE.format("Clip", ", low, high"), (8, 1, 3, 3), 500)
    assert equalize(graph, data(graph), per_channel=True) == [Kept("node_a -> node_y", "every channel reaches 6")]


@pytest.mark.parametrize(
    "nodes",
    [
        "a = Conv(x, w) b = Sigmoid(a) y = Conv(b, v)",
        "a = Conv(x, w) b = Relu(a) c = Conv(b, v) y = Add(c, b)",
        "a = Conv(x, w) b = Clip(a, low, high) y = Conv(b, v)",
        "a = Conv(x, w) b = Relu(a) y = Conv<group = 2>(b, u)",
    ],
)
def test_what_is_no_pair(nodes: str) -> None:
    constants = {"w": (8, 3, 1, 1), "v": (8, 8, 1, 1), "u": (8, 4, 1, 1), "low": np.array(-1.0), "high": np.array(1.0)}
    assert list(pairs_of(network(nodes, constants))) == []


@given(st.integers(0, 2**32 - 1), st.booleans())
@settings(deadline=None, max_examples=15)
def test_any_pair_of_layers_stays_the_same(seed: int, per_channel: bool) -> None:
    random = np.random.default_rng(seed)
    spread = np.exp(2 * random.standard_normal((6, 1, 1, 1))) * (random.random((6, 1, 1, 1)) < 0.9)
    weights = {"w": random.standard_normal((6, 3, 1, 1)) * spread, "v": random.standard_normal((4, 6, 3, 3))}
    before = network("a = Conv(x, w) r = Relu(a) y = Conv(r, v)", weights)
    after = before.copy()
    equalize(after, data(before), per_channel=per_channel)
    feeds = data(before, 1, seed).runs[0]
    np.testing.assert_array_equal(run(after.model, feeds)["y"], run(before.model, feeds)["y"])


def sqnr(graph: Graph, options: str) -> float:
    """At the output, in dB."""
    [output] = quantized(graph, options)[2].outputs
    assert output.sqnr_db is not None
    return output.sqnr_db


@pytest.mark.parametrize("weights", ["per-channel", "per-tensor"])
def test_equalisation_helps_uneven_layers(weights: str) -> None:
    graph = uneven(DEPTHWISE.format("Relu", ""), (8, 1, 3, 3))
    one_more = network(
        "a = Conv(x, w) b = Relu(a) c = Conv<group = 8>(b, v) y = Conv(c, u)",
        {
            "w": graph.model.graph.initializers["w"].const_value.numpy(),
            "v": (8, 1, 3, 3),
            "u": 1 / UNEVEN.reshape(1, 8, 1, 1),
        },  # type: ignore[union-attr]
    )
    plain = sqnr(one_more, f"weights={weights},equalize=false,correct_bias=false")
    assert sqnr(one_more, f"weights={weights},correct_bias=false") > plain + 3


def test_bias_correction_takes_the_mean_shift_off() -> None:
    random = np.random.default_rng(1)
    weights = {
        "w": random.uniform(0, 1, (6, 3, 3, 3)),
        "v": np.append(random.uniform(0.006, 0.0079, 599), 1).reshape(1, 6, 10, 10),
    }
    graph = network("a = Conv<pads = [1, 1, 1, 1]>(x, w) r = Relu(a) y = Conv(r, v)", weights, (1, 3, 12, 12))
    samples = data(graph, 8)
    shifts = []
    for options in ("correct_bias=false", "correct_bias=true"):
        after, _, _ = quantized(graph, f"{options},equalize=false", samples)
        shift = [run(after.model, feeds)["y"] - run(graph.model, feeds)["y"] for feeds in samples.runs]
        shifts.append(abs(float(np.mean(shift))))
    assert shifts[1] < shifts[0] / 3
