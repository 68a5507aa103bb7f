"""Every exact pass on random networks, judged by onnxruntime; and that the random networks are worth something."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, note

from codesign.graph.graph import Graph, constant_of
from codesign.rewriting.catalogue import catalogue
from codesign.rewriting.graph_pass import Effect, GraphPass, PassContext
from codesign.rewriting.options import text_of, variants_of
from codesign.rewriting.pipeline import Pipeline
from codesign.rewriting.runner import run_pipeline
from tests.machines import examples
from tests.pass_models import RELATIVE_TOLERANCE, distance, run
from tests.random_builder import Builder, Tensor
from tests.random_networks import MIXING_CHANNELS, STEPS, Network, networks, steps
from tests.random_steps import Function, Step

EXACT = [
    variant
    for kind in catalogue().passes.values()
    for variant in variants_of(kind)
    if variant.effect_here is Effect.EXACT
]


def contents(graph: Graph) -> onnx.ModelProto:
    """The model, stored tensors in alphabetical order (the checker moves large ones to the end)."""
    proto = ir.to_proto(graph.model)
    for tensors in (proto.graph.initializer, proto.graph.value_info):
        tensors.sort(key=lambda tensor: tensor.name)
    return proto


def rewritten(graph: Graph, variant: GraphPass) -> tuple[Graph, int]:
    """The graph after one pass, checked; and how often it applied."""
    result, [record] = run_pipeline(graph, Pipeline("one", (variant,)), PassContext())
    return result, record.applied


@examples(8)
@given(networks())
def test_every_exact_pass_computes_the_same(network: Network) -> None:
    feeds = network.feeds(3)
    expected = run(network.graph.model, feeds)
    for variant in EXACT:
        note(text_of(variant))
        once, applied = rewritten(network.graph, variant)
        if not applied:
            assert contents(once) == contents(network.graph)
            continue
        assert distance(run(once.model, feeds), expected) < RELATIVE_TOLERANCE
        twice, again = rewritten(once, variant)
        assert again == 0
        assert contents(twice) == contents(once)


@examples(8)
@given(networks())
def test_weights_that_are_ten_percent_off_are_noticed(network: Network) -> None:
    """The comparison above can fail on every one of them."""
    if network.head == "outputs":
        return
    feeds = network.feeds(3)
    once, _ = rewritten(network.graph, EXACT[0])
    value = next(node for node in reversed(once.nodes) if node.op_type in ("Gemm", "MatMul")).inputs[1]
    weights = constant_of(value)
    assert value is not None and weights is not None
    value.const_value = ir.tensor(weights * np.float32(1.1), name=value.name)
    assert distance(run(once.model, feeds), run(network.graph.model, feeds)) > RELATIVE_TOLERANCE


@pytest.mark.parametrize("kind", dict.fromkeys((*STEPS, *MIXING_CHANNELS)), ids=lambda kind: kind.__name__)
def test_every_kind_of_step_is_built(kind: type[Step]) -> None:
    @examples(4)
    @given(steps((kind,)))
    def build(step: Step) -> None:
        net = Builder((1, 12, 6, 6), 17, 0)
        step.build(net)
        made.append(len(net.nodes))
        onnx.checker.check_model(net.proto({value.name: value.shape for value in net.live[:-1]}), full_check=True)

    made: list[int] = []
    build()
    assert max(made) > 0


class Zero(Step):
    """Times nothing."""

    def results(self, net: Builder, x: Tensor) -> Iterator[Tensor]:
        yield net.same("Mul", x, net.constant(np.array(0.0)))


def test_a_network_that_does_not_feel_its_input_is_not_live() -> None:
    felt = Network((1, 3, 4, 4), (Function(0, False, "Tanh"),), "pooled", (), 17, 0)
    assert felt.is_live
    assert not replace(felt, steps=(*felt.steps, Zero(0))).is_live
