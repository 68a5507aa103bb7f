"""Layers an engine sees as matrix products, as code: im2col in front of the scheduled product, and the same results."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from codesign.artifacts.onnx_runner import open_model
from codesign.artifacts.verification import relative_difference
from codesign.compiler import plan_model
from codesign.graph.graph import Graph
from codesign.hardware.loading import load_profile
from codesign.lowering import borders
from codesign.lowering.computation import input_matrix
from codesign.lowering.layers import schedule_layers
from codesign.lowering.library import write_library
from codesign.lowering.network import build_network, compute_outputs
from codesign.lowering.runtime import load_library
from codesign.settings import Settings
from codesign.vocabulary import OperationKind
from codesign.workload.layers import layers_of
from codesign.workload.loop_nest import LoopNest
from tests.lowering_cases import random_nest
from tests.small_networks import CONVOLUTION_WEIGHTS, CONVOLUTIONS, input_of, write_network

KINDS = (OperationKind.CONVOLUTION, OperationKind.GROUPED_CONVOLUTION, OperationKind.DEPTHWISE_CONVOLUTION)
ONE = "y = Conv<pads = [2, 1, 1, 0], strides = [2, 1]>(x, wa, ba)"


def differences(model: Path, machine: str, folder: Path) -> dict[str, float]:
    """Relative differences from onnxruntime of what every layer writes, by tensor."""
    planned = plan_model(model, Settings(machine, passes="none"))
    scheduled = schedule_layers(planned.plan, planned.hardware.profile)
    seen = {layer.name: layer.nest for layer in layers_of(planned.graph)}
    assert all(layer.nest == seen[name].as_matrix_product() for name, layer in scheduled.items())
    assert any(layer.nest != seen[name] for name, layer in scheduled.items())
    folder.mkdir()
    write_library(build_network(planned.graph, scheduled), folder)
    return dict(_compared(planned.graph, model, folder))


def _compared(graph: Graph, model: Path, folder: Path) -> Iterator[tuple[str, float]]:
    inputs, library = input_of(graph), load_library(folder)
    outputs, layers = open_model(model, compute_outputs(graph)).run(inputs)
    found = library.run(inputs) | library.run_layers(inputs)
    for name, array in (outputs | layers).items():
        assert np.ptp(array) > 0
        yield name, relative_difference(found[name], array)


def test_the_library_computes_what_onnxruntime_does(tmp_path: Path) -> None:
    """Two images; strides, uneven pads, groups, dilations; the transposed convolution stays without a schedule."""
    model = write_network(tmp_path / "convolutions.onnx", CONVOLUTIONS, (2, 3, 11, 9), CONVOLUTION_WEIGHTS)
    found = differences(model, "systolic_os", tmp_path / "build")
    assert len(found) == 6 and max(found.values()) < 1e-5


def test_a_wrong_matrix_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows and columns of padding on the wrong side of the image."""
    weights = {name: CONVOLUTION_WEIGHTS[name] for name in ("wa", "ba")}
    model = write_network(tmp_path / "one.onnx", ONE, (2, 3, 11, 9), weights)
    assert max(differences(model, "systolic_ws", tmp_path / "right").values()) < 1e-5

    def mirrored(nest: LoopNest, image: Any) -> Any:
        top, left, bottom, right = nest.pads
        return input_matrix(replace(nest, pads=(bottom, right, top, left)), image)

    monkeypatch.setattr(borders, "input_matrix", mirrored)
    assert max(differences(model, "systolic_ws", tmp_path / "wrong").values()) > 0.1


@pytest.mark.parametrize("seed", range(6))
def test_the_matrix_is_what_the_loops_read(seed: int) -> None:
    """Element by element, by the definition in codesign.workload.loop_nest."""
    nest = random_nest(Random(seed), KINDS[seed % 3])
    batch, groups, _, channels = nest.sizes[:4]
    shape = (batch, groups, channels, nest.input_rows, nest.input_columns)
    image = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    found = computed(nest, image)
    assert found.size == nest.as_matrix_product().input_columns * groups * channels * nest.sizes[6] * nest.sizes[7]
    for g, c, fy, fx, b, oy, ox in product(*map(range, found.shape)):
        y = oy * nest.stride[0] + fy * nest.dilation[0] - nest.pads[0]
        x = ox * nest.stride[1] + fx * nest.dilation[1] - nest.pads[1]
        real = 0 <= y < nest.input_rows and 0 <= x < nest.input_columns
        assert found[g, c, fy, fx, b, oy, ox] == (image[b, g, c, y, x] if real else 0)


def computed(nest: LoopNest, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """The matrix as TVM computes it."""
    import tvm
    from tvm import te

    placeholder = te.placeholder(image.shape, "float32", "image")
    matrix = input_matrix(nest, placeholder)
    library = tvm.compile(te.create_prim_func([placeholder, matrix]), target="llvm")
    result = tvm.runtime.tensor(np.full([int(size) for size in matrix.shape], np.nan, np.float32))
    library(tvm.runtime.tensor(image), result)
    return result.numpy()  # type: ignore[no-any-return]


def test_a_transposed_convolution_runs_on_the_host(tmp_path: Path) -> None:
    model = write_network(tmp_path / "convolutions.onnx", CONVOLUTIONS, (2, 3, 11, 9), CONVOLUTION_WEIGHTS)
    plan = plan_model(model, Settings("systolic_is")).plan
    (transposed,) = (part for part in plan.layers if part.layer.op == "ConvTranspose")
    assert (transposed.engine, transposed.note) == ("host", "no engine runs transposed_convolution")
    engines = load_profile("systolic_is").profile.engines
    assert {part.engine for part in plan.layers if part.layer.op == "Conv"} == set(engines)
