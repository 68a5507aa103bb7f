"""Tests generated from the catalogue: what a pass declares, it keeps, judged by onnxruntime."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from codesign.graph.graph import Graph
from codesign.graph.samples import synthetic
from codesign.rewriting.catalogue import Catalogue, catalogue, explain_pass
from codesign.rewriting.graph_pass import Applied, Effect, GraphPass, PassContext
from codesign.rewriting.options import options_of, short_text_of, value_text, variants_of
from codesign.rewriting.pipeline import Pipeline, explain, find_pipeline, pipeline_names
from codesign.rewriting.runner import run_pipeline
from tests.pass_models import RELATIVE_TOLERANCE, difference
from tests.pass_networks import NETWORKS, network

FOUND: Catalogue = catalogue()
VARIANTS: dict[str, GraphPass] = {
    short_text_of(variant): variant for kind in FOUND.passes.values() for variant in variants_of(kind)
}
EXACT = [text for text, variant in VARIANTS.items() if variant.effect_here is Effect.EXACT]


def rewritten(graph: Graph, variant: GraphPass) -> tuple[Graph, int]:
    """The graph after one pass, through the runner with its check; and how often it applied."""
    result, [record] = run_pipeline(graph, Pipeline("one", (variant,)), PassContext(calibration=synthetic(graph)))
    return result, record.applied


def test_nothing_shipped_is_broken() -> None:
    assert FOUND.broken == {}
    assert {"fold-batch-norm", "fix-resolution", "shift-average-pool"} <= set(FOUND.passes)


@pytest.mark.parametrize("name", FOUND.passes)
def test_a_pass_explains_itself(name: str) -> None:
    kind = FOUND.passes[name]
    text = explain(name)
    assert "before:" in text and "after:" in text, "the docstring needs a before/after picture"
    assert f"Effect: {kind.effect}" in text
    for option in options_of(kind):
        assert f"{option.name} = {value_text(option.default)}" in text
        assert option.sentence in " ".join(text.split())
    assert all(f"{effect} with {choice}" in text for choice, effect in kind.effects.items())
    if Effect.EXACT in (kind.effect, *kind.effects.values()):
        assert "Exact:" in text, "an exact pass says why it is"
    assert "Source:" in text, "a pass says which paper or operator definition it follows"
    assert text == explain_pass(kind)


@pytest.mark.parametrize("name", EXACT)
def test_an_exact_pass_applies_somewhere_here(name: str) -> None:
    assert any(rewritten(network(model), VARIANTS[name])[1] for model in NETWORKS)


@pytest.mark.parametrize("model", NETWORKS)
@pytest.mark.parametrize("name", VARIANTS)
def test_a_pass_keeps_its_promise(name: str, model: str) -> None:
    """Exact ones compute the same; a second run changes nothing; the graph handed in stays as it is."""
    before = network(model)
    proto = contents(before)
    after, applied = rewritten(before, VARIANTS[name])
    assert contents(before) == proto
    if not applied:
        assert contents(after) == proto
        return
    twice, again = rewritten(after, VARIANTS[name])
    assert again == 0
    assert ir.to_proto(twice.model) == ir.to_proto(after.model)
    if name in EXACT:
        assert difference(before, after) < RELATIVE_TOLERANCE
        plant_an_error(after)
        assert difference(before, after) > RELATIVE_TOLERANCE


def contents(graph: Graph) -> bytes:
    """The model, byte for byte."""
    return ir.to_proto(graph.model).SerializeToString(deterministic=True)


def plant_an_error(graph: Graph) -> None:
    """Change one weight of the first convolution, or the sign of all where they are codes."""
    value = next(node for node in graph.nodes if node.op_type.startswith("Conv")).inputs[1]
    assert value is not None
    if value.const_value is None:  # a DequantizeLinear makes it
        value = value.producer().inputs[0]  # type: ignore[union-attr]
    assert value is not None and value.const_value is not None
    weights = value.const_value.numpy().copy()
    if weights.dtype.kind == "f":
        weights.flat[0] += 0.5
    else:
        weights = -weights
    value.const_value = ir.tensor(weights, name=value.name)


@pytest.mark.parametrize("name", pipeline_names())
def test_a_pipeline_says_what_it_is_for(name: str) -> None:
    pipeline = find_pipeline(name)
    text = explain(name)
    assert pipeline.description in text and len(pipeline.description) > 20
    assert all(step.name in text for step in pipeline.passes)


def test_pipelines_and_passes_have_different_names() -> None:
    assert not set(pipeline_names()) & set(FOUND.passes)
    assert {"default", "hardware-friendly", "none"} <= set(pipeline_names())


def test_the_default_pipeline_holds_exact_passes_only() -> None:
    assert {step.effect_here for step in find_pipeline("default").passes} == {Effect.EXACT}
    assert find_pipeline("none").passes == ()
    assert Effect.RESHAPES in {step.effect for step in find_pipeline("hardware-friendly").passes}


@pytest.mark.parametrize("model", NETWORKS)
def test_the_default_pipeline_computes_the_same(model: str) -> None:
    before = network(model)
    after, _ = run_pipeline(before, find_pipeline("default"), PassContext())
    assert difference(before, after) < RELATIVE_TOLERANCE


def test_outcomes_tell_the_places() -> None:
    graph = network("conv_norm")
    outcomes = FOUND.passes["fold-batch-norm"]().run(graph.copy(), PassContext())
    assert outcomes == [
        Applied("norm_a1", "into the weights of Conv_0"),
        Applied("norm_y", "into the weights of Conv_3"),
    ]


def test_statistics_of_these_networks_are_not_degenerate() -> None:
    """Without a normalisation the outputs differ much: the tests above would notice one that got lost."""
    before = network("conv_norm")
    after = before.copy()
    norm = next(node for node in after.nodes if node.op_type == "BatchNormalization")
    assert norm.inputs[0] is not None
    norm.outputs[0].replace_all_uses_with(norm.inputs[0])
    assert difference(before, after) > 0.1
    assert np.isfinite(difference(before, before))
