"""The integer reading of quantised networks, held against onnxruntime code by code, and the library against it.

The networks are ours, the judge is not: onnxruntime without its optimisations computes them in float32, which is exact
here (scales are powers of two and sums stay below 2^24).
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from codesign.graph.codes import is_quantized
from codesign.graph.graph import Graph
from codesign.importers.model import load_model
from codesign.lowering.library import write_library
from codesign.lowering.network import build_network
from codesign.lowering.runtime import load_library
from codesign.numerics.execution import run_network
from codesign.numerics.steps import Floating, IntegerNetwork, Step
from codesign.quantization.reading import integer_network, run_floating
from tests.pass_models import graph_of
from tests.quantized_networks import NETWORKS, WITHIN_ONE_CODE, Builder, make_network

Arrays = dict[str, np.ndarray]


def imported(model: onnx.ModelProto, folder: Path) -> Graph:
    """The model as codesign reads it."""
    path = folder / "model.onnx"
    onnx.save(model, path)
    return load_model(path, {}, None)


def random_inputs(graph: Graph) -> Arrays:
    """Standard normal numbers."""
    generator = np.random.default_rng(1)
    return {
        str(value.name): generator.standard_normal(value.shape.numpy()).astype(np.float32)  # type: ignore[union-attr]
        for value in graph.inputs
    }


def by_onnxruntime(graph: Graph, inputs: Arrays) -> Arrays:
    """Every tensor of codes, by name, as onnxruntime computes it without optimisations."""
    model = ir.to_proto(graph.model)
    shown = {value.name for value in model.graph.output}
    codes = [node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in codes if name not in shown)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip(codes, session.run(codes, inputs), strict=True))


def read(graph: Graph, inputs: Arrays) -> tuple[IntegerNetwork, Arrays]:
    """The integer network, and all its tensors."""
    network = integer_network(graph)
    return network, run_network(network, inputs, run_floating(graph))


@pytest.mark.parametrize("name", NETWORKS)
def test_codes_equal_onnxruntime(name: str, tmp_path: Path) -> None:
    graph = imported(make_network(name), tmp_path)
    inputs = random_inputs(graph)
    network, ours = read(graph, inputs)
    assert network.floating == ()
    expected = by_onnxruntime(graph, inputs)
    assert len(expected) >= 2
    for tensor, codes in expected.items():
        assert len(np.unique(codes)) > min(12, codes.size // 4), f"{tensor} says too little"
        apart = np.abs(codes.astype(int) - ours[tensor].astype(int)).max()
        assert apart <= (1 if name in WITHIN_ONE_CODE else 0), tensor


@pytest.mark.parametrize("name", NETWORKS)
def test_any_scale_is_within_one_code_of_float_arithmetic(name: str, tmp_path: Path) -> None:
    """Float32 rounds its products and sums, exact fractions do not: codes at a threshold may differ by one."""
    graph = imported(make_network(name, any_scale=True), tmp_path)
    inputs = random_inputs(graph)
    network, ours = read(graph, inputs)
    if name not in WITHIN_ONE_CODE:
        assert network.floating == ()
    for tensor, codes in by_onnxruntime(graph, inputs).items():
        apart = np.abs(codes.astype(int) - ours[tensor].astype(int))
        assert apart.max() <= 1 and (apart > 0).mean() < 0.02, tensor


@lru_cache
def library_and_reference(any_scale: bool, folder: Path) -> tuple[Arrays, Arrays]:
    """What the library and numpy make of all networks, each tensor by network and name."""
    ours: Arrays = {}
    library: Arrays = {}
    for name in NETWORKS:
        place = folder / name
        place.mkdir()
        graph = imported(make_network(name, any_scale=any_scale), place)
        inputs = random_inputs(graph)
        network, tensors = read(graph, inputs)
        made = {output.name for node in graph.nodes for output in node.outputs}
        observed = [tensor.name for tensor in network.tensors.values() if tensor.is_codes and tensor.name in made]
        write_library(build_network(graph, observed=observed), place)
        found = load_library(place).run_layers(inputs)
        library.update({f"{name}.{tensor}": found[tensor] for tensor in observed})
        ours.update({f"{name}.{tensor}": tensors[tensor] for tensor in observed})
    return library, ours


@pytest.mark.parametrize("any_scale", [False, True])
def test_library_makes_the_same_codes(any_scale: bool, tmp_path: Path) -> None:
    library, ours = library_and_reference(any_scale, tmp_path)
    assert len(library) > 40
    assert [name for name, codes in library.items() if not np.array_equal(codes, ours[name])] == []


def test_a_flipped_weight_bit_is_seen(tmp_path: Path) -> None:
    model = make_network("convolutions")
    graph = imported(model, tmp_path)
    inputs = random_inputs(graph)
    _, ours = read(graph, inputs)
    codes = next(item for item in model.graph.initializer if item.name.startswith("codes"))
    array = onnx.numpy_helper.to_array(codes).copy()
    array.reshape(-1)[5] ^= 1
    codes.CopyFrom(onnx.numpy_helper.from_array(array, codes.name))
    _, other = read(imported(model, tmp_path), inputs)
    assert any((ours[name] != other[name]).any() for name in ours)


def test_a_float_network_is_not_quantized(tmp_path: Path) -> None:
    graph = imported(make_network("heads"), tmp_path)
    assert is_quantized(graph)
    assert not is_quantized(load_model("examples/digits/digits.onnx", {}, None))


def floating_step(builder: Builder, folder: Path) -> Step:
    """The one step of a network that stays in floating point; its codes equal onnxruntime's all the same."""
    graph = imported(builder.model(), folder)
    inputs = random_inputs(graph)
    network, ours = read(graph, inputs)
    for tensor, codes in by_onnxruntime(graph, inputs).items():
        assert np.array_equal(codes, ours[tensor])
    (step,) = network.floating
    return step


def test_an_operator_without_integer_step_stays_float(tmp_path: Path) -> None:
    b = Builder()
    b.output(b.other("LpNormalization", [b.input(1, 4, 6)], -7, axis=1))
    step = floating_step(b, tmp_path)
    assert isinstance(step, Floating)
    assert step.reason == "LpNormalization has no integer step"


def test_weights_that_are_not_quantized_stay_float(tmp_path: Path) -> None:
    b = Builder()
    weights = b.constant(b.generator.standard_normal((4, 3, 3, 3)).astype(np.float32))
    b.output(b.other("Conv", [b.input(1, 3, 6, 6), weights], -4))
    step = floating_step(b, tmp_path)
    assert isinstance(step, Floating)
    assert step.reason == "its weights are not quantised"


def test_a_bias_that_is_no_integer_stays_float(tmp_path: Path) -> None:
    b = Builder()
    x = b.input(1, 3, 6, 6)
    weights = b.codes(b.generator.integers(-9, 9, (4, 3, 3, 3)), b.scales.weights(4, -6))
    bias = b.constant(b.generator.standard_normal(4).astype(np.float32))
    b.output(b.other("Conv", [x, weights, bias], -4))
    step = floating_step(b, tmp_path)
    assert isinstance(step, Floating)
    assert step.reason == "its bias is no integer multiple of the scales of inputs and weights"


def test_every_kind_of_step_occurs_here() -> None:
    """What is compared above covers all of codesign.numerics.steps; Floating has tests of its own."""
    found: set[type[Step]] = set()
    for name in NETWORKS:
        for any_scale in (False, True):
            found |= {type(step) for step in integer_network(graph_of(make_network(name, any_scale=any_scale))).steps}
    assert found == set(Step.__subclasses__()) - {Floating}
