"""hard-activations: the stated largest differences, measured; every way SiLU and GELU are written; what stays."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from codesign.graph.graph import Graph
from codesign.hardware.profile import HardwareProfile
from codesign.rewriting.graph_pass import Applied, Declined, Outcome, PassContext
from codesign.rewriting.pipeline import explain, resolve_pipeline
from codesign.rewriting.runner import run_pipeline
from codesign.workload.layers import layers_of
from tests.pass_machines import machine
from tests.pass_models import graph_of, normal, operators, proto_of, run
from tests.pass_networks import network
from tests.pass_networks.activations import gelu_by_erf, numbers, silu

node = helper.make_node
WHOLE = np.linspace(-12, 12, 48_001, dtype=np.float32)
NUMBERS = numbers(
    one=1.0, half=0.5, two=2.0, three=3.0, root_of_two=2**0.5, quick=1.702, bend=0.044715, slope=(2 / np.pi) ** 0.5
)


def graph(nodes: Sequence[onnx.NodeProto], opset: int = 17, size: int = WHOLE.size) -> Graph:
    """x -> nodes -> y, a function of single numbers."""
    return graph_of(proto_of(nodes, {"x": (1, size)}, {"y": (1, size)}, NUMBERS, opset=opset))


def rewritten(
    before: Graph, options: str = "outputs=true", profile: HardwareProfile | None = None
) -> tuple[Graph, list[Outcome]]:
    pipeline, context = resolve_pipeline(f"hard-activations{{{options}}}"), PassContext(profile)
    after, _ = run_pipeline(before, pipeline, context)
    return after, pipeline.passes[0].run(before.copy(), context)


def largest_difference(before: Graph, after: Graph) -> float:
    found, wanted = (run(each.model, {"x": WHOLE[None]})["y"] for each in (after, before))
    return float(np.abs(found - wanted).max())


def gelu_by_tanh(cube: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    return [
        *cube,
        node("Mul", ["cube", "bend"], ["bent"]),
        node("Add", ["x", "bent"], ["sum"]),
        node("Mul", ["slope", "sum"], ["scaled"]),
        node("Tanh", ["scaled"], ["t"]),
        node("Add", ["one", "t"], ["u"]),
        node("Mul", ["x", "half"], ["h"]),
        node("Mul", ["h", "u"], ["y"]),
    ]


SILU = graph(silu("x", "y"))
QUICK = graph([node("Mul", ["quick", "x"], ["q"]), node("Sigmoid", ["q"], ["s"]), node("Mul", ["s", "x"], ["y"])])
GELUS = {
    "erf, TorchScript": graph(gelu_by_erf("x", "y")),
    "erf, torch.export": graph(
        [
            node("Div", ["x", "root_of_two"], ["d"]),
            node("Erf", ["d"], ["e"]),
            node("Add", ["e", "one"], ["a"]),
            node("Mul", ["half", "a"], ["m"]),
            node("Mul", ["x", "m"], ["y"]),
        ]
    ),
    "tanh, cube by Pow": graph(gelu_by_tanh([node("Pow", ["x", "three"], ["cube"])])),
    "tanh, cube by Mul": graph(gelu_by_tanh([node("Mul", ["x", "x"], ["sq"]), node("Mul", ["sq", "x"], ["cube"])])),
    "operator": graph([node("Gelu", ["x"], ["y"])], 20),
    "operator, tanh": graph([node("Gelu", ["x"], ["y"], approximate="tanh")], 20),
}
STATED = {  # row of the docstring: network, options, operators after
    "sigmoid(x)": (graph([node("Sigmoid", ["x"], ["y"])]), "outputs=true", ["HardSigmoid"]),
    "x sigmoid(x)": (SILU, "outputs=true", ["HardSwish"]),
    "tanh(x)": (graph([node("Tanh", ["x"], ["y"])]), "outputs=true", ["Clip"]),
    "GELU, gelu=quick": (GELUS["erf, TorchScript"], "gelu=quick", ["HardSigmoid", "Mul"]),
    "GELU, gelu=hard-swish": (GELUS["erf, TorchScript"], "gelu=hard-swish", ["HardSwish"]),
}


@pytest.mark.parametrize("row", STATED)
def test_the_largest_difference_is_the_stated_one(row: str) -> None:
    before, options, expected = STATED[row]
    after, _ = rewritten(before, options)
    assert operators(after) == expected
    [stated] = re.findall(rf"^ *{re.escape(row)}  .* ([0-9.]+)$", explain("hard-activations"), re.MULTILINE)
    found = largest_difference(before, after)
    assert found <= float(stated) < found + 2e-4


@settings(max_examples=20, deadline=None)
@given(st.floats(0.25, 8.0, width=32))
def test_a_swish_of_any_slope_differs_as_stated(alpha: float) -> None:
    scaled = [node("Mul", ["x", "a"], ["q"]), node("Sigmoid", ["q"], ["s"]), node("Mul", ["x", "s"], ["y"])]
    values = {"a": np.array([alpha], np.float32)}
    before = graph_of(proto_of(scaled, {"x": (1, WHOLE.size)}, {"y": (1, WHOLE.size)}, values))
    after, [outcome] = rewritten(before)
    assert isinstance(outcome, Applied)
    reached = 12 * alpha >= 3  # the largest difference lies at 3 / alpha
    stated = 0.14228 / alpha
    assert (stated * 0.99 if reached else 0) < largest_difference(before, after) < stated * 1.01


@pytest.mark.parametrize("name", GELUS)
def test_every_way_gelu_is_written(name: str) -> None:
    for options, bound in (("gelu=quick", 0.0689), ("gelu=hard-swish", 0.2954)):
        after, [outcome] = rewritten(GELUS[name], options)
        assert isinstance(outcome, Applied) and outcome.detail.startswith("Gelu became")
        assert largest_difference(GELUS[name], after) < bound
    after, [outcome] = rewritten(GELUS[name], "gelu=keep")
    assert isinstance(outcome, Declined) and outcome.reason == "GELU stays (gelu=keep)"
    assert operators(after) == operators(GELUS[name])


def test_quick_gelu_is_a_swish() -> None:
    after, outcomes = rewritten(QUICK)
    assert outcomes == [Applied("Mul_2", "Swish became x times HardSigmoid of 1.702 x")]
    assert operators(after) == ["HardSigmoid", "Mul"]
    assert largest_difference(QUICK, after) < 0.1423 / 1.702 + 1e-4


@pytest.mark.parametrize("row", STATED)
def test_by_clip_it_is_the_same(row: str) -> None:
    before, options, _ = STATED[row]
    hard, by_clip = (rewritten(before, f"{options},form={form}")[0] for form in ("auto", "clip"))
    assert {"HardSwish", "HardSigmoid"}.isdisjoint(operators(by_clip))
    assert largest_difference(hard, by_clip) < 1e-5


SIGMOID = STATED["sigmoid(x)"][0]
MACHINES = {  # operators its vector unit does: what becomes of sigmoid, of SiLU
    ("HardSwish", "HardSigmoid"): (["HardSigmoid"], ["HardSwish"]),
    ("HardSigmoid", "Sigmoid"): (["HardSigmoid"], ["HardSigmoid", "Mul"]),
    ("Clip",): (["Mul", "Add", "Clip"], ["Mul", "Add", "Clip", "Mul"]),
    ("Sigmoid",): (["Sigmoid"], ["Sigmoid", "Mul"]),
}


@pytest.mark.parametrize("does", MACHINES)
def test_what_the_machine_does_is_written(does: tuple[str, ...]) -> None:
    profile = machine("elementwise", "activation", activation=does)
    for before, expected in zip((SIGMOID, SILU), MACHINES[does], strict=True):
        after, [outcome] = rewritten(before, profile=profile)
        assert operators(after) == expected
        if does == ("Sigmoid",):
            assert isinstance(outcome, Declined)
            assert outcome.reason == "edge_npu does not do what it would become: it lacks Clip"


@pytest.mark.parametrize("opset", [9, 17])
def test_tanh_becomes_clip(opset: int) -> None:
    after, _ = rewritten(graph([node("Tanh", ["x"], ["y"])], opset))
    assert np.array_equal(run(after.model, {"x": WHOLE[None]})["y"], np.clip(WHOLE[None], -1, 1))


def test_together_with_fuse_activation_it_is_one_layer() -> None:
    """The sigmoid of 1.702 x and its product are marked as one activation, as the five nodes of GELU were."""
    before = GELUS["erf, TorchScript"]
    pipeline = resolve_pipeline("hard-activations,fuse-activation")
    after, _ = run_pipeline(before, pipeline, PassContext())
    [layer] = layers_of(after)
    assert (layer.op, [part.op for part in layer.members]) == ("HardSwish", ["HardSigmoid", "Mul"])


def test_what_it_says_of_a_network() -> None:
    after, outcomes = rewritten(network("smooth_activations"), "gelu=quick")
    assert outcomes == [
        Applied("Mul_2", "Swish became HardSwish"),
        Applied("Sigmoid_5", "Sigmoid became HardSigmoid"),
        Applied("Mul_12", "Gelu became x times HardSigmoid of 1.702 x"),
        Applied("Tanh_14", "Tanh became Clip to -1 ... 1"),
        Declined(
            "Sigmoid_16",
            "an output of the network is computed from it without weights in between (outputs=true replaces it)",
        ),
    ]
    assert {"Erf", "Tanh"}.isdisjoint(operators(after)) and operators(after).count("Sigmoid") == 1


def test_gates_stay_where_they_are_asked_to() -> None:
    after, outcomes = rewritten(network("smooth_activations"), "gates=false")
    assert Declined("Sigmoid_5", "it is the gate of another tensor (gates=true replaces it)") in outcomes
    assert operators(after).count("Sigmoid") == 2


KEPT = {
    "Softplus has no approximation here: Relu, its clip form, is off by 0.69 at 0": [node("Softplus", ["x"], ["y"])],
    "Mish has no approximation here: HardSwish is off by 0.29 at 1.75": [
        node("Softplus", ["x"], ["p"]),
        node("Tanh", ["p"], ["t"]),
        node("Mul", ["x", "t"], ["y"]),
    ],
    "this Erf is part of no function known here": [node("Erf", ["x"], ["y"])],
}


@pytest.mark.parametrize("reason", KEPT)
def test_what_stays(reason: str) -> None:
    before = graph(KEPT[reason])
    after, [outcome] = rewritten(before)
    assert isinstance(outcome, Declined) and outcome.reason == reason
    assert operators(after) == operators(before)


def test_a_sigmoid_read_twice_is_no_silu() -> None:
    """The second reader would lose its input: the sigmoid itself is replaced, and both readers stay."""
    before = graph([*silu("x", "z"), node("Add", ["z", "z_s"], ["y"])])
    after, outcomes = rewritten(before)
    assert operators(after) == ["HardSigmoid", "Mul", "Add"]
    assert outcomes == [Applied("Sigmoid_0", "Sigmoid became HardSigmoid")]


@pytest.mark.parametrize("change", ["half", "one", "root_of_two"])
def test_what_only_looks_like_gelu_stays(change: str) -> None:
    """Negative control: with another number in its chain it is another function."""
    values = NUMBERS | {change: NUMBERS[change] * np.float32(1.1)}
    before = graph_of(proto_of(gelu_by_erf("x", "y"), {"x": (1, 9)}, {"y": (1, 9)}, values))
    _, [outcome] = rewritten(before)
    assert isinstance(outcome, Declined) and outcome.reason == "this Erf is part of no function known here"


def test_a_scale_per_channel_is_no_part_of_the_function() -> None:
    values = NUMBERS | {"gamma": normal(np.random.default_rng(0), 4)}
    nodes = [*gelu_by_erf("x", "z"), node("Mul", ["z", "gamma"], ["y"])]
    before = graph_of(proto_of(nodes, {"x": (3, 4)}, {"y": (3, 4)}, values))
    after, [outcome] = rewritten(before)
    assert isinstance(outcome, Applied) and operators(after) == ["HardSigmoid", "Mul", "Mul"]
    assert after.nodes[1].outputs[0].name == "z"
