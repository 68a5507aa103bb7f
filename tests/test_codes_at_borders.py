"""Networks whose inputs and outputs are codes give the codes the same network has inside."""

from __future__ import annotations

import numpy as np
import pytest

from codesign.numerics.execution import run_network
from codesign.numerics.steps import Dequantize, Quantize
from codesign.quantization.borders import with_codes_at_borders
from codesign.quantization.reading import integer_network
from tests.pass_models import graph_of
from tests.quantized_networks import NETWORKS, Builder, make_network


@pytest.mark.parametrize("any_scale", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_codes_at_the_borders_are_those_inside(name: str, any_scale: bool) -> None:
    graph = graph_of(make_network(name, any_scale=any_scale))
    names = [str(value.name) for value in (*graph.inputs, *graph.outputs)]
    generator = np.random.default_rng(4)
    network = integer_network(graph)
    numbers = {tensor.name: generator.standard_normal(tensor.shape).astype(np.float32) for tensor in network.inputs}
    inside = run_network(network, numbers)
    made = with_codes_at_borders(graph)
    assert [str(value.name) for value in (*made.graph.inputs, *made.graph.outputs)] == names
    assert set(made.codes) == set(names)
    bare = integer_network(made.graph)
    assert not any(isinstance(step, Quantize | Dequantize) for step in bare.steps)
    assert all(tensor.is_codes for tensor in (*bare.inputs, *bare.outputs))
    found = run_network(bare, {tensor.name: inside[made.codes[tensor.name]] for tensor in bare.inputs})
    for tensor in bare.outputs:
        assert np.array_equal(found[tensor.name], inside[made.codes[tensor.name]])
        assert len(np.unique(found[tensor.name])) > 2


def test_an_input_that_is_read_as_numbers_stays_numbers() -> None:
    b = Builder()
    x = b.input(1, 4)
    b.output(b.other("Relu", [x], -4))
    b.output(b.node("Relu", [b.inputs[0].name])[0])
    graph = graph_of(b.model())
    made = with_codes_at_borders(graph)
    assert [str(value.dtype) for value in made.graph.inputs] == ["FLOAT"]
    assert [str(value.dtype) for value in made.graph.outputs] == ["INT8", "FLOAT"]
    assert set(made.codes) == {str(graph.outputs[0].name)}
