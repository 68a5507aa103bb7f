"""requantize: scales become powers of two, numbers move little, and what comes out needs shifts alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from typer.testing import CliRunner

from codesign.cli import app
from codesign.compiler import estimate
from codesign.errors import CodesignError
from codesign.graph.codes import constant_codes, is_quantize, scaling_of
from codesign.graph.graph import Graph
from codesign.numerics.execution import run_network
from codesign.numerics.steps import Convolve, Multiply
from codesign.quantization.reading import integer_network
from codesign.rewriting.catalogue import catalogue
from codesign.rewriting.graph_pass import Applied, Declined, PassContext
from tests.pass_models import graph_of
from tests.quantized_networks import Builder, make_network

REQUANTIZE = catalogue().passes["requantize"]


def requantized(graph: Graph) -> tuple[Graph, list[Applied | Declined]]:
    after = graph.copy()
    return after, REQUANTIZE().run(after, PassContext())


def run(graph: Graph, inputs: dict[str, np.ndarray]) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(ir.to_proto(graph.model).SerializeToString(), options)
    return np.asarray(session.run(None, inputs)[0])


def random_inputs(graph: Graph) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(1)
    shapes = {str(value.name): value.shape.numpy() for value in graph.inputs if value.shape is not None}
    return {name: generator.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("name", ["convolutions", "residual", "gates", "pools", "heads", "moves"])
def test_every_scale_becomes_a_power_of_two(name: str) -> None:
    before = graph_of(make_network(name, any_scale=True))
    after, outcomes = requantized(before)
    assert all(isinstance(outcome, Applied) for outcome in outcomes) and len(outcomes) > 3
    scales = [scaling_of(node).scale for node in after.nodes if is_quantize(node)]  # type: ignore[union-attr]
    for codes in filter(None, (constant_codes(node.outputs[0]) for node in after.nodes)):
        scales += list(codes.scales)
    assert all(np.frexp(scale)[0] == 0.5 for scale in scales)
    steps = [step for step in integer_network(after).steps if isinstance(step, Convolve | Multiply)]
    assert all(step.requantization.is_shift for step in steps)
    inputs = random_inputs(before)
    there, here = run(before, inputs), run(after, inputs)
    noise = 10 * np.log10((there**2).sum() / ((there - here) ** 2).sum())
    assert 15 < noise < 80, "the same network, other numbers"
    ours = run_network(integer_network(after), inputs)[str(after.outputs[0].name)]
    assert np.array_equal(ours, here)


def test_no_number_that_had_a_code_saturates() -> None:
    """The new range holds the old one."""
    before = graph_of(make_network("convolutions", any_scale=True))
    after, _ = requantized(before)
    for old_node, new_node in zip(before.nodes, after.nodes, strict=True):
        old, new = scaling_of(old_node), scaling_of(new_node)
        if old is not None and new is not None and is_quantize(old_node):
            assert old.scale <= new.scale < 2 * old.scale
            slack = new.scale / 2
            assert (new.lowest - new.zero_point) * new.scale <= (old.lowest - old.zero_point) * old.scale + slack
            assert (new.highest - new.zero_point) * new.scale >= (old.highest - old.zero_point) * old.scale - slack


def test_a_network_of_powers_of_two_stays_as_it_is() -> None:
    graph = graph_of(make_network("convolutions"))
    _, outcomes = requantized(graph)
    assert outcomes == []


def test_a_bias_that_leaves_32_bits_is_declined() -> None:
    b = Builder()
    x = b.input(1, 2, 4, 4, power=-20)
    scales = np.array([1.2e-6, 1.2e-6], np.float32)  # below it lies 2^-20, 0.8 of it
    weights = b.codes(b.generator.integers(-9, 9, (2, 2, 1, 1)), scales)
    bias = b.codes(np.array([2**31 - 1, 5]), scales * b.scale_of[x][0], 0, np.int32)
    b.output(b.other("Conv", [x, weights, bias], 0))
    _, outcomes = requantized(graph_of(b.model()))
    (declined,) = (outcome for outcome in outcomes if isinstance(outcome, Declined))
    assert declined.reason == "its bias leaves 32 bits at the new scales"


def test_the_option_runs_it_behind_the_machine_s_passes(tmp_path: Path) -> None:
    onnx.save(make_network("heads", any_scale=True), tmp_path / "given.onnx")
    plan = estimate(tmp_path / "given.onnx", hw="edge_npu", passes_after="requantize")
    assert plan.passes[-1].name == "requantize" and plan.passes[-1].applied > 3
    assert plan.pipeline == "default, requantize, named by edge_npu"
    assert CliRunner().invoke(app, ["estimate", "x.onnx", "--hw", "edge_npu", "--requantize", "halves"]).exit_code == 2


def test_calibration_that_no_pass_reads_is_refused() -> None:
    with pytest.raises(CodesignError) as caught:
        estimate("examples/digits/digits.onnx", hw="edge_npu", calibration="synthetic")
    assert str(caught.value) == (
        "--calibration: no pass reads it\n  hint: ask for one that does: --passes default,quantize"
    )
