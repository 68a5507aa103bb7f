"""The systolic machines against SCALE-Sim: its cycles of ResNet-18, and its formula on random layers and arrays."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import dataclass
from functools import cache
from math import ceil
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from codesign import estimate
from codesign.errors import CodesignError
from codesign.hardware.loading import load_profile, shipped_folder, validated
from codesign.hardware.profile import HardwareProfile
from codesign.mapping.objective import Objective
from codesign.planning.mapping_writer import mapping_file_text
from codesign.planning.placement import Placer
from codesign.planning.plan import Plan, PlannedLayer
from codesign.report.json_report import report_of
from codesign.vocabulary import OperationKind
from codesign.workload.layer import Layer
from codesign.workload.loop_nest import LoopNest
from codesign.yaml_reader import parse_yaml
from tests.machines import nests

REFERENCE = Path(__file__).parent / "reference"
PUBLISHED = Path(__file__).resolve().parents[2] / "shared" / "reference" / "scalesim_resnet18.json"
DATAFLOWS = ("os", "ws", "is")
ARRAYS = ((16, 16), (32, 32))


@dataclass(frozen=True)
class Point:
    """One line of the file: a layer on an array, and what SCALE-Sim reports (source: run) or its formula gives."""

    layer: str
    output: tuple[int, int]
    kernel: tuple[int, int]
    channels: tuple[int, int]
    stride: int
    array: tuple[int, int]
    dataflow: str
    cycles: int
    source: str


@cache
def points(name: str = "scalesim_resnet18.csv") -> tuple[Point, ...]:
    """All of SCALE-Sim's figures in a file."""
    with (REFERENCE / name).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    return tuple(
        Point(
            layer=row["layer"],
            output=(int(row["output_rows"]), int(row["output_columns"])),
            kernel=(int(row["kernel_rows"]), int(row["kernel_columns"])),
            channels=(int(row["input_channels"]), int(row["output_channels"])),
            stride=int(row["stride"]),
            array=(int(row["array_rows"]), int(row["array_columns"])),
            dataflow=row["dataflow"],
            cycles=int(row["no_stall_cycles"]),
            source=row["source"],
        )
        for row in rows
    )


# ---- the machines


def overhead(dataflow: str, rows: int, columns: int, *, drained: bool = False) -> int:
    """Cycles of a fold beyond its stream."""
    return (rows if dataflow == "os" and not drained else 2 * rows) + columns - 2


def described(dataflow: str, rows: int, columns: int, *, paper: bool = False) -> str:
    """The shipped machine with another array, edited as its comments say; paper: both switches thrown."""
    text = (shipped_folder() / f"systolic_{dataflow}.yaml").read_text(encoding="utf-8")
    text, axes = re.subn(
        r"(rows|columns): \{size: 32,",
        lambda found: f"{found[1]}: {{size: {rows if found[1] == 'rows' else columns},",
        text,
    )
    waits = overhead(dataflow, rows, columns, drained=paper)
    text, waiting = re.subn(r"refill_overhead_cycles: \d+", f"refill_overhead_cycles: {waits}", text)
    assert (axes, waiting) == (2, 1)
    if paper:
        assert text.count("last_cycle_index: true") == 1
        text = text.replace("last_cycle_index: true", "last_cycle_index: false")
    return text


def machine(dataflow: str, rows: int, columns: int, *, paper: bool = False) -> HardwareProfile:
    return validated(parse_yaml(described(dataflow, rows, columns, paper=paper).encode(), f"systolic_{dataflow}.yaml"))


def formula(dataflow: str, nest: LoopNest, rows: int, columns: int, *, paper: bool = False) -> int:
    """SCALE-Sim's closed form, group by group; of version 3.0.0 or of the paper."""
    batch, groups, n, c, oy, ox, fy, fx = nest.sizes
    m, k = batch * oy * ox, c * fy * fx
    spread_rows, spread_columns, stream = {"os": (m, n, k), "ws": (k, n, m), "is": (k, m, n)}[dataflow]
    folds = groups * ceil(spread_rows / rows) * ceil(spread_columns / columns)
    skew = 2 * rows if paper or dataflow != "os" else rows
    return folds * (skew + columns + stream - 2) - (0 if paper else 1)


def placed(nest: LoopNest, profile: HardwareProfile, name: str = "layer") -> PlannedLayer:
    return Placer(profile, Objective.LATENCY, "test").place(Layer(name, "Conv", nest, ("x",), ("y",)))


# ---- ResNet-18


def network(path: Path) -> Path:
    """Every layer of the file beside the others: an input, an output and weights of its own."""
    nodes, inputs, outputs, weights = [], [], [], []
    for point in {point.layer: point for point in points()}.values():
        c, k = point.channels
        (oy, ox), (fy, fx), name = point.output, point.kernel, point.layer
        pads = (fy // 2, fx // 2)
        sizes = [
            (size - 1) * point.stride + tap - 2 * pad for size, tap, pad in zip((oy, ox), (fy, fx), pads, strict=True)
        ]
        inputs.append(helper.make_tensor_value_info(f"{name}_x", TensorProto.FLOAT, [1, c, *sizes]))
        outputs.append(helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, [1, k, oy, ox]))
        weights.append(onnx.numpy_helper.from_array(np.zeros((k, c, fy, fx), np.float32), f"{name}_w"))
        tensors = [f"{name}_x", f"{name}_w"], [f"{name}_y"]
        strides = [point.stride, point.stride]
        nodes.append(helper.make_node("Conv", *tensors, name=name, strides=strides, pads=[*pads, *pads]))
    graph = helper.make_graph(nodes, "resnet18", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return network(tmp_path_factory.mktemp("resnet") / "resnet18.onnx")


def priced(model: Path, dataflow: str, array: tuple[int, int]) -> Plan:
    """`estimate` on the shipped file itself where it has the array, on an edited copy otherwise."""
    if array == (32, 32):
        return estimate(model, hw=f"systolic_{dataflow}")
    profile = model.parent / f"systolic_{dataflow}_{array[0]}.yaml"
    profile.write_text(described(dataflow, *array), encoding="utf-8")
    return estimate(model, hw=str(profile))


@pytest.mark.parametrize("dataflow", DATAFLOWS)
@pytest.mark.parametrize("array", ARRAYS)
def test_every_figure_is_reproduced(dataflow: str, array: tuple[int, int], resnet: Path) -> None:
    """And no figure but a few by chance on another array or with another dataflow: they all say something."""
    wanted = {point.layer: point.cycles for point in points() if (point.dataflow, point.array) == (dataflow, array)}
    plan = priced(resnet, dataflow, array)
    assert {planned.layer.name: planned.cost.cycles for planned in plan.layers} == wanted
    assert all(planned.cost.proven and planned.cost.bound_cycles == planned.cost.cycles for planned in plan.layers)
    assert all(planned.cost.stall_cycles == 0 for planned in plan.layers)
    lanes = array[0] * array[1]
    assert all(planned.ideal_cycles == ceil(planned.layer.nest.macs / lanes) for planned in plan.layers)
    for other, size in ((flow, size) for flow in DATAFLOWS for size in ARRAYS if (flow, size) != (dataflow, array)):
        others = {point.layer: point.cycles for point in points() if (point.dataflow, point.array) == (other, size)}
        assert sum(others[name] == cycles for name, cycles in wanted.items()) <= 2, (other, size)


def test_there_are_as_many_figures_as_published() -> None:
    assert len(points()) == 12 * len(DATAFLOWS) * len(ARRAYS)
    ran = [point.array for point in points() if point.source == "run"]
    assert (ran.count((32, 32)), ran.count((16, 16))) == (36, 8)
    if not PUBLISHED.is_file():
        pytest.skip("../shared/reference/scalesim_resnet18.json is not there to compare the copy with")
    published = json.loads(PUBLISHED.read_text(encoding="utf-8"))["points"]
    found = [(p["layer"], tuple(p["array"]), p["dataflow"], p["no_stall_cycles"]) for p in published]
    assert [(point.layer, point.array, point.dataflow, point.cycles) for point in points()] == found


@pytest.mark.parametrize(
    "point", points("scalesim_small_layers.csv"), ids=lambda point: f"{point.layer} {point.dataflow}"
)
def test_small_layers_the_tool_was_run_for(point: Point) -> None:
    """Oblong arrays and kernels, uneven sizes."""
    (oy, ox), (fy, fx), (c, k) = point.output, point.kernel, point.channels
    rows, columns = ((size - 1) * point.stride + tap for size, tap in ((oy, fy), (ox, fx)))
    sizes, stride = (1, 1, k, c, oy, ox, fy, fx), (point.stride, point.stride)
    nest = LoopNest(OperationKind.CONVOLUTION, sizes, stride, input_rows=rows, input_columns=columns)
    assert point.source == "run"
    assert placed(nest, machine(point.dataflow, *point.array)).cost.cycles == point.cycles


@pytest.mark.parametrize("dataflow", DATAFLOWS)
def test_the_shipped_overhead_is_that_of_the_shipped_array(dataflow: str) -> None:
    profile = load_profile(f"systolic_{dataflow}").profile
    axes = profile.engines["array"].axes
    rows, columns = axes["rows"].size, axes["columns"].size
    registers = next(iter(profile.memories.values()))
    assert registers.refill_overhead_cycles == overhead(dataflow, rows, columns)
    assert machine(dataflow, rows, columns) == profile


# ---- random layers and arrays


@settings(max_examples=60, deadline=None)
@given(
    nests(largest=40, volume=200_000), st.sampled_from(DATAFLOWS), st.integers(2, 48), st.integers(2, 48), st.booleans()
)
def test_any_layer_on_any_array_follows_the_formula(
    nest: LoopNest, dataflow: str, rows: int, columns: int, paper: bool
) -> None:
    """The paper's formula too, with both switches thrown. Strides, pads, groups and batches among them."""
    profile = machine(dataflow, rows, columns, paper=paper)
    planned = placed(nest, profile)
    cost = planned.cost
    assert cost.cycles == formula(dataflow, nest, rows, columns, paper=paper)
    assert cost.proven and cost.bound_cycles == cost.cycles
    assert cost.cycles == cost.compute_cycles + cost.stall_cycles + cost.fill_drain_cycles
    assert cost.utilization == pytest.approx(nest.macs / (cost.cycles * rows * columns))


@pytest.mark.parametrize("switch", ["drain", "last cycle", "layer form"])
def test_each_part_of_the_description_matters(switch: str) -> None:
    nest = LoopNest(OperationKind.CONVOLUTION, (1, 1, 64, 3, 16, 16, 7, 7), input_rows=22, input_columns=22)
    text = described("os", 32, 32)
    old, new = {
        "drain": ("refill_overhead_cycles: 62", "refill_overhead_cycles: 94"),
        "last cycle": ("last_cycle_index: true", "last_cycle_index: false"),
        "layer form": ("layer_form: matrix_product", "layer_form: loops"),
    }[switch]
    assert text.count(old) == 1
    folds = 2 * 8
    assert formula("os", nest, 32, 32) == folds * (32 + 32 + 147 - 2) - 1
    changed = placed(nest, validated(parse_yaml(text.replace(old, new).encode(), "x.yaml"))).cost.cycles
    more = {"drain": folds * 32, "last cycle": 1, "layer form": folds * (62 + 147)}
    assert changed - formula("os", nest, 32, 32) == more[switch], "rows of 16 columns leave half of the lanes idle"


def test_without_waits_every_cycle_counts() -> None:
    """Where lanes never wait, one cycle less would be more MACs than lanes times cycles."""
    nest = LoopNest(OperationKind.CONVOLUTION, (1, 1, 2, 3, 2, 2, 1, 1), input_rows=2, input_columns=2)
    cost = placed(nest, machine("os", 1, 1)).cost
    assert (cost.cycles, cost.compute_cycles, cost.fill_drain_cycles, cost.utilization) == (24, 24, 0, 1.0)


# ---- what is shown


def test_plan_reports_and_mapping_files_show_the_loops_the_engine_sees(resnet: Path) -> None:
    plan = priced(resnet, "os", (32, 32))
    first = plan.layers[0].layer.nest
    assert first.sizes == (1, 1, 64, 147, 1, 12544, 1, 1)
    assert Plan.from_json(plan.to_json()) == plan
    shown = report_of(plan).layers[0]
    assert shown.loops.kind == "convolution" and shown.loops.sizes["C"] == 147 and shown.macs == first.macs
    assert shown.mapping is not None and [(lane.dimension, lane.extent) for lane in shown.mapping.spatial] == [
        ("OX", 32),
        ("K", 32),
    ]
    file = resnet.parent / "mapping.yaml"
    file.write_text(mapping_file_text(plan), encoding="utf-8")
    replayed = estimate(resnet, hw="systolic_os", mapping=file)
    assert [part.cost.cycles for part in replayed.layers] == [part.cost.cycles for part in plan.layers]
    assert all(part.given and part.cost.bound_cycles <= part.cost.cycles for part in replayed.layers)
    file.write_text(mapping_file_text(plan).replace("C: 147", "C: 3"), encoding="utf-8")
    with pytest.raises(CodesignError, match="layer conv1: C is 147, not 3"):
        estimate(resnet, hw="systolic_os", mapping=file)
