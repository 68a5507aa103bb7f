"""The library computes what onnxruntime computes, with and without schedules, and says what it cannot lower."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import onnx
import onnxruntime
import pytest

from codesign.artifacts.onnx_runner import open_model
from codesign.artifacts.verification import relative_difference
from codesign.errors import CodesignError, DoesNotFitError
from codesign.graph.graph import Graph, node_name
from codesign.hardware.loading import load_profile
from codesign.importers.onnx_importer import load_onnx
from codesign.lowering.computation import layer_function
from codesign.lowering.counts import counts_of_function
from codesign.lowering.library import write_library
from codesign.lowering.network import build_network, compute_outputs
from codesign.lowering.runtime import Library, load_library
from codesign.lowering.schedule import ScheduledLayer, schedule_layer
from codesign.lowering.tvm_version import PINNED_VERSIONS, check_tvm_version
from codesign.lowering.unsupported import unsupported_nodes
from codesign.mapping.mapper import search
from codesign.mapping.mapping import Mapping
from codesign.mapping.objective import Objective
from codesign.workload.layers import layers_of
from tests.lowering_cases import random_mapping, random_profile
from tests.small_networks import convolutions, input_of, products, rows, write_network

MODELS = Path(__file__).resolve().parents[2] / "shared" / "models"
TOLERANCE = 1e-5


def unscheduled_layers(graph: Graph) -> dict[str, ScheduledLayer]:
    """Every compute layer as its own TIR, loops as written."""
    layers = [layer for layer in layers_of(graph) if layer.nest.has_macs]
    nothing = Mapping("array", (), (), ())
    return {
        layer.name: ScheduledLayer(layer_function(layer.nest, f"layer_{at}"), f"layer_{at}", layer.nest, nothing)
        for at, layer in enumerate(layers)
    }


def mapped_layers(graph: Graph, machine: str) -> dict[str, ScheduledLayer]:
    """Every compute layer scheduled as a shipped machine's best mapping says, on the first engine able to run it."""
    profile = load_profile(machine).profile
    found = {}
    for at, layer in enumerate(layers_of(graph)):
        engines = [name for name, engine in profile.engines.items() if layer.nest.kind in engine.operations]
        if layer.nest.has_macs and engines:
            best = search(layer.nest, profile, engines[0], Objective.LATENCY).mapping
            found[layer.name] = schedule_layer(layer.nest, best, profile, f"layer_{at}")
    return found


def evicting_layers(graph: Graph) -> dict[str, ScheduledLayer]:
    """Every compute layer on a machine of its own, partial sums leaving its accumulators."""
    found = {}
    for at, layer in enumerate(layers_of(graph)):
        if layer.nest.has_macs:
            random = Random(at)
            profile = random_profile(random)
            mapping = random_mapping(random, layer.nest, profile, leaving=True)
            found[layer.name] = schedule_layer(layer.nest, mapping, profile, f"layer_{at}")
    return found


def built(graph: Graph, folder: Path, scheduled: dict[str, ScheduledLayer]) -> Library:
    """The graph as a loaded library."""
    target = folder / "build"
    target.mkdir()
    write_library(build_network(graph, scheduled), target)
    return load_library(target)


def assert_equal_to_onnxruntime(library: Library, graph: Graph) -> None:
    """Outputs and every compute layer's tensor equal onnxruntime's on the file the graph came from."""
    assert graph.source is not None
    inputs = input_of(graph)
    outputs, layers = open_model(graph.source, compute_outputs(graph)).run(inputs)
    found, inner = library.run(inputs), library.run_layers(inputs)
    assert found.keys() == outputs.keys() and layers.keys() <= inner.keys()
    assert all(np.ptp(array) > 0 for array in [*outputs.values(), *layers.values()])
    for name, array in outputs.items():
        assert relative_difference(found[name], array) < TOLERANCE, name
    for name, array in layers.items():
        assert relative_difference(inner[name], array) < TOLERANCE, name


@pytest.mark.parametrize("network", [convolutions, products, rows])
@pytest.mark.parametrize("scheduled", [False, True])
def test_library_equals_onnxruntime(network: Callable[[Path], Graph], scheduled: bool, tmp_path: Path) -> None:
    graph = network(tmp_path)
    layers = unscheduled_layers(graph) if scheduled else {}
    assert scheduled == bool(layers)
    assert_equal_to_onnxruntime(built(graph, tmp_path, layers), graph)


@pytest.mark.parametrize("network", [convolutions, products])
def test_library_of_mapped_layers_equals_onnxruntime(network: Callable[[Path], Graph], tmp_path: Path) -> None:
    graph = network(tmp_path)
    layers = mapped_layers(graph, "edge_npu")
    assert len(layers) >= 4
    assert_equal_to_onnxruntime(built(graph, tmp_path, layers), graph)


@pytest.mark.parametrize("network", [convolutions, products])
def test_library_of_layers_whose_sums_leave_equals_onnxruntime(
    network: Callable[[Path], Graph], tmp_path: Path
) -> None:
    graph = network(tmp_path)
    layers = evicting_layers(graph)
    counts = [counts_of_function(layer.function) for layer in layers.values()]
    assert sum(any(transfer.partial for transfer in count.transfers) for count in counts) >= 3
    assert_equal_to_onnxruntime(built(graph, tmp_path, layers), graph)


def test_trained_classifier_equals_onnxruntime(tmp_path: Path) -> None:
    model = MODELS / "resnet8_cifar10.onnx"
    if not model.is_file():
        pytest.skip("../shared/models/resnet8_cifar10.onnx is not there")
    graph = load_onnx(model)
    assert_equal_to_onnxruntime(built(graph, tmp_path, mapped_layers(graph, "edge_npu")), graph)


def test_every_scheduled_layer_is_called_and_identical_ones_share_a_function(tmp_path: Path) -> None:
    nodes = "a = Conv(x, w) b = Relu(a) c = Conv(b, v) y = Conv(c, u)"
    weights = {"w": (4, 4, 1, 1), "v": (4, 4, 1, 1), "u": (5, 4, 1, 1)}
    graph = load_onnx(write_network(tmp_path / "twins.onnx", nodes, (1, 4, 6, 6), weights))
    module = build_network(graph, unscheduled_layers(graph)).module
    names = sorted(variable.name_hint for variable in module.functions)
    assert names == ["layer_0", "layer_2", "main", "main_layers"]
    text = module["main"].script()
    assert (text.count("layer_0"), text.count("layer_2"), text.count("conv2d")) == (2, 1, 0)


def test_a_layer_of_another_node_is_refused_by_name(tmp_path: Path) -> None:
    graph = convolutions(tmp_path)
    layers = unscheduled_layers(graph)
    swapped = {"node_a": replace(layers["node_d"], name="layer_d")}
    with pytest.raises(RuntimeError) as error:
        build_network(graph, swapped)
    assert str(error.value) == ("internal error: layer node_a: strides, dilations or pads of node and loop nest differ")
    unknown = {"node_z": layers["node_d"]}
    with pytest.raises(RuntimeError, match="^internal error: layer node_z: the graph has no such node$"):
        build_network(graph, unknown)


def test_all_nodes_tvm_cannot_lower_are_named_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nodes = "a = Relu(x) b = Det(a) c = Conv(x, w) d = MaxPool<kernel_shape = [1, 1]>(c) e = Det(d) y = Add(b, e)"
    graph = load_onnx(write_network(tmp_path / "odd.onnx", nodes, (1, 2, 4, 4), {"w": (2, 2, 1, 1)}))
    expected = [
        f"{tmp_path / 'odd.onnx'}: node {name}: TVM cannot lower this Det: Operator Det not implemented."
        for name in ("node_b", "node_e")
    ]
    assert [str(problem) for problem in unsupported_nodes(graph)] == expected
    with pytest.raises(DoesNotFitError) as error:
        build_network(graph)
    assert str(error.value).splitlines() == expected
    assert capsys.readouterr().out == ""
    assert unsupported_nodes(convolutions(tmp_path)) == []


def test_a_second_build_at_the_same_place_is_what_runs(tmp_path: Path) -> None:
    outputs = []
    for nodes in ("y = Relu(x)", "y = Neg(x)"):
        graph = load_onnx(write_network(tmp_path / "one.onnx", nodes, (1, 6), {}))
        write_library(build_network(graph), tmp_path)
        outputs.append(load_library(tmp_path).run(input_of(graph))["y"])
    x = input_of(graph)["x"]
    np.testing.assert_array_equal(outputs[0], np.maximum(x, 0))
    np.testing.assert_array_equal(outputs[1], -x)


def test_wrong_inputs_are_named_with_what_is_expected(tmp_path: Path) -> None:
    graph = load_onnx(write_network(tmp_path / "one.onnx", "y = Relu(x)", (1, 6), {}))
    library = built(graph, tmp_path, {})
    where = tmp_path / "build" / "model.so"
    hint = "  hint: it takes x (float32 1x6)"
    with pytest.raises(CodesignError) as error:
        library.run({"image": np.zeros(3)})
    assert str(error.value).splitlines() == [
        f"{where}: has no input 'image'",
        hint,
        f"{where}: input 'x' is missing",
        hint,
    ]
    for array, text in ((np.zeros((1, 6)), "float64 1x6"), (np.zeros((6, 1), np.float32), "float32 6x1")):
        with pytest.raises(CodesignError) as error:
            library.run({"x": array})
        assert str(error.value).splitlines() == [f"{where}: input 'x' is {text}", hint]


def test_a_folder_without_or_with_a_damaged_library_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CodesignError) as error:
        load_library(tmp_path)
    assert str(error.value).splitlines() == [
        f"{tmp_path / 'model.so'}: no such file",
        "  hint: give a folder that `codesign compile` wrote",
    ]
    graph = load_onnx(write_network(tmp_path / "one.onnx", "y = Relu(x)", (1, 6), {}))
    write_library(build_network(graph), tmp_path)
    (tmp_path / "model.so").write_bytes(b"\x7fELF cut short")
    with pytest.raises(CodesignError, match="model.so: cannot be loaded: "):
        load_library(tmp_path)


def test_the_host_runs_the_end_of_a_detector(tmp_path: Path) -> None:
    nodes = """
        s = Conv(x, w)  flat = Reshape(s, shape)  best = ReduceMax<keepdims = 0>(flat, last)
        hot = Greater(best, limit)  where = NonZero(hot)  y = Cast<to = 1>(where)
    """
    text = nodes.replace("\n", " ")
    path = write_network(tmp_path / "detector.onnx", text, (2, 3, 2, 2), {"w": (3, 3, 1, 1)})
    model = onnx.load(path)
    for name, array in (("last", np.array([2])), ("limit", np.array(0.0, np.float32))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(model, path)
    graph = load_onnx(path)
    assert graph.host_tail is not None
    library = built(graph, tmp_path, {})
    inputs = input_of(graph)
    expected = onnxruntime.InferenceSession(path).run(None, inputs)[0]
    assert 0 < expected.size < 12
    np.testing.assert_array_equal(library.run(inputs)["y"], expected)


def test_another_tvm_release_is_refused_in_one_clear_line() -> None:
    check_tvm_version(PINNED_VERSIONS.__getitem__)
    with pytest.raises(CodesignError) as error:
        check_tvm_version({**PINNED_VERSIONS, "apache-tvm-ffi": "0.1.15.post2"}.__getitem__)
    assert str(error.value).splitlines() == [
        "TVM: lowering needs the releases it was tested with; "
        "found apache-tvm 0.27.0.post1, apache-tvm-ffi 0.1.15.post2",
        "  hint: pip install 'apache-tvm==0.27.0.post1' 'apache-tvm-ffi==0.1.14.post0'",
    ]


def test_names_of_layers_are_names_of_nodes(tmp_path: Path) -> None:
    graph = products(tmp_path)
    assert unscheduled_layers(graph).keys() <= {node_name(node) for node in graph.nodes}
