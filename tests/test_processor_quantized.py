"""Quantised networks compiled for a processor make the codes of the integer reference, tensor by tensor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from codesign.compiler import plan_model
from codesign.lowering.library import write_library
from codesign.lowering.processor.building import build_integers_for_processor
from codesign.lowering.runtime import load_library
from codesign.numerics.execution import run_network
from codesign.quantization.reading import integer_network, run_floating
from codesign.settings import Settings
from tests.quantized_networks import Builder, make_network


def squeezed() -> onnx.ModelProto:
    """Tables, gates and averages on rows that are no multiple of what a kernel takes at once, and idle lanes."""
    b = Builder()
    x = b.conv(b.input(1, 3, 19, 21), (20, 3, 3, 3), -3, pads=[1, 1, 1, 1])
    x = b.other("HardSwish", [x], -2)
    gate = b.conv(b.other("GlobalAveragePool", [x], -4), (20, 20, 1, 1), -4)
    x = b.other("Mul", [x, b.other("Sigmoid", [gate], -7)], -3)
    x = b.other("AveragePool", [x], -3, kernel_shape=[3, 2], strides=[2, 2])
    slopes = b.constant(b.generator.uniform(0.1, 0.9, (20, 1, 1)).astype(np.float32))
    b.output(b.other("PRelu", [x, slopes], -4))
    return b.model()


SQUEEZED = {"integerquantization", "integerlookup", "integeraverage", "integerproduct", "requantizedconvolution"}
BLOCKED = {"convolutions": {"requantizedconvolution", "requantizeddepthwise"}, "residual": {"integersum"}}
BLOCKED |= {"pools": {"integermaximum"}, "squeezed": SQUEEZED}  # networks, and kernels they get


@pytest.mark.parametrize("name", BLOCKED)
def test_codes_are_those_of_the_reference(name: str, tmp_path: Path) -> None:
    onnx.save(squeezed() if name == "squeezed" else make_network(name), tmp_path / "model.onnx")
    planned = plan_model(str(tmp_path / "model.onnx"), Settings("host_cpu", passes="none"))
    graph = planned.graph
    made = build_integers_for_processor(graph, planned.plan, planned.hardware.profile, 1)
    assert {variable.name_hint.rsplit("_", 1)[0] for variable in made.network.module.functions} >= BLOCKED[name]
    write_library(made.network, tmp_path, threads=1)
    generator = np.random.default_rng(1)
    feed = {
        str(value.name): generator.standard_normal(value.shape.numpy()).astype(np.float32)  # type: ignore[union-attr]
        for value in graph.inputs
    }
    library = load_library(tmp_path)
    found = library.run_layers(feed)
    expected = run_network(integer_network(graph), feed, run_floating(graph))
    observed = [tensor.name for tensor in library.interface.layers]
    assert len(observed) >= 3
    assert [tensor for tensor in observed if not np.array_equal(found[tensor], expected[tensor])] == []
    changed = library.run_layers({key: array + 1 for key, array in feed.items()})
    assert any((changed[tensor] != found[tensor]).any() for tensor in observed)
