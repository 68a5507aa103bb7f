"""Every lowered layer shows the counts the cost model charged, and a schedule that is another one is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import codesign
from codesign.compiler import plan_model
from codesign.errors import CodesignError, DoesNotFitError
from codesign.hardware.listing import list_profiles
from codesign.hardware.loading import load_profile
from codesign.lowering import layers as lowering
from codesign.lowering.counts import counts_of_function
from codesign.lowering.layers import as_executed, schedule_layers
from codesign.mapping.mapping import Mapping, Residence, TemporalLoop
from codesign.planning.plan import Plan
from codesign.settings import Planned, Settings
from codesign.vocabulary import Dimension, Operand, OperationKind
from tests.command import ROOT, Command
from tests.importers.models import random, run
from tests.pass_models import proto_of
from tests.pass_networks import NETWORKS
from tests.small_networks import CONVOLUTION_WEIGHTS, CONVOLUTIONS, PRODUCT_WEIGHTS, PRODUCTS, write_network

DIGITS = ROOT / "examples" / "digits" / "digits.onnx"
FACES = ROOT.parent / "shared" / "models" / "ultraface_rfb320.onnx"
MACHINES = ("ecnn", "edge_npu", "gemmini16")


def convolutions(folder: Path) -> Path:
    """Uneven pads and strides, grouped, depthwise and dilated, transposed."""
    return write_network(folder / "convolutions.onnx", CONVOLUTIONS, (2, 3, 11, 9), CONVOLUTION_WEIGHTS)


def products(folder: Path) -> Path:
    """Gemm with everything, MatMul of constants and of activations, Einsum."""
    return write_network(folder / "products.onnx", PRODUCTS, (5, 2), PRODUCT_WEIGHTS)


def digits(_: Path) -> Path:
    return DIGITS


def faces(_: Path) -> Path:
    if not FACES.is_file():
        pytest.skip("../shared/models/ultraface_rfb320.onnx is not there")
    return FACES


def planned_for(model: Path, machine: str) -> Planned:
    return plan_model(model, Settings(machine))


@pytest.mark.parametrize(
    ("network", "machine"),
    [
        *((network, machine) for network in (digits, convolutions, products) for machine in MACHINES),
        (faces, "edge_npu"),
    ],
)
def test_every_lowered_layer_shows_what_was_charged(
    network: Callable[[Path], Path], machine: str, tmp_path: Path
) -> None:
    planned = planned_for(network(tmp_path), machine)
    mapped = {layer.layer.name: layer for layer in planned.plan.layers if layer.cost.mapping is not None}
    scheduled = schedule_layers(planned.plan, planned.hardware.profile)
    assert scheduled.keys() == mapped.keys()
    for name, layer in scheduled.items():
        counts, nest = mapped[name].cost.counts, mapped[name].layer.nest
        assert counts is not None and layer.nest == nest and layer.mapping == mapped[name].cost.mapping
        assert counts_of_function(layer.function, planned.hardware.profile.homes) == counts
        # A transposed convolution's lanes also multiply the zeros between its inputs; they are no MACs of the network.
        assert counts.macs_useful == prod(nest.sizes) >= nest.macs > 0 and counts.macs_issued >= counts.macs_useful
        assert {move.operand for move in counts.transfers} == set(Operand)
        for tile in counts.allocations:
            memory = planned.hardware.profile.memories[tile.memory]
            assert tile.elements > 0 and (memory.replicated_over or tile.elements <= (memory.size_bytes or 0))


def test_the_networks_have_every_kind_of_mac_layer(tmp_path: Path) -> None:
    plans = [planned_for(network(tmp_path), "edge_npu").plan for network in (digits, convolutions, products)]
    nests = [layer.layer.nest for plan in plans for layer in plan.layers if layer.cost.mapping is not None]
    assert {nest.kind for nest in nests} == {
        OperationKind.CONVOLUTION,
        OperationKind.GROUPED_CONVOLUTION,
        OperationKind.DEPTHWISE_CONVOLUTION,
        OperationKind.TRANSPOSED_CONVOLUTION,
        OperationKind.DENSE,
        OperationKind.MATMUL,
    }
    assert any(nest.stride != (1, 1) for nest in nests) and any(nest.dilation != (1, 1) for nest in nests)


# Altered schedules -----------------------------------------------------------------------------------------------

LAYER = "/reduce/conv/Conv"
CHARGED = "the cost model charged"


def another_tile(mapping: Mapping) -> Mapping:
    """Output columns in two tiles instead of one: OX 4 becomes OX 2, ..., OX 2."""
    half = TemporalLoop(Dimension.OX, 2)
    loops = [half if loop.dimension is Dimension.OX else loop for loop in mapping.loops]
    moved = tuple(replace(residence, position=residence.position + 1) for residence in mapping.residences)
    return replace(mapping, loops=(half, *loops), residences=moved)


def moved_cache(mapping: Mapping) -> Mapping:
    """The inputs' tile in sram is refilled in every iteration of the three outermost loops: K, FX and FY."""

    def move(residence: Residence) -> Residence:
        inputs = residence.operand is Operand.INPUTS and residence.memory == "sram"
        return replace(residence, position=residence.position + 3) if inputs else residence

    return replace(mapping, residences=tuple(map(move, mapping.residences)))


def fewer_lanes(mapping: Mapping) -> Mapping:
    """Half as many columns work, twice as long."""
    spatial = tuple(
        replace(loop, extent=loop.extent // 2) if loop.dimension is Dimension.K else loop for loop in mapping.spatial
    )
    loops = tuple(
        replace(loop, extent=loop.extent * 2) if loop.dimension is Dimension.K else loop for loop in mapping.loops
    )
    return replace(mapping, spatial=spatial, loops=loops)


ALTERED: dict[str, tuple[Callable[[Mapping], Mapping], set[str]]] = {
    "another tile extent": (
        another_tile,
        {
            "elements of the tile of outputs in accumulators",
            "elements of the tile of outputs in sram",
            "elements of weights from dram to sram",
        },
    ),
    "a moved cache": (moved_cache, {"elements of inputs from dram to sram", "elements of the tile of inputs in sram"}),
    "fewer lanes": (fewer_lanes, {"elements of inputs from sram to engine"}),
}


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize("name", ALTERED)
def test_a_schedule_of_another_mapping_fails_the_compilation(name: str, command: Command) -> None:
    alter, expected = ALTERED[name]
    honest = lowering.schedule_layer

    def schedule(nest: Any, mapping: Mapping, profile: Any, function: str, dtype: str) -> Any:
        return honest(nest, alter(mapping) if "reduce_conv" in function else mapping, profile, function, dtype)

    command.monkeypatch.setattr(lowering, "schedule_layer", schedule)
    done = command("compile", DIGITS, "--hw", "edge_npu")
    assert (done.code, done.out) == (1, "")
    lines = done.err.splitlines()
    hint = "  hint: this is a fault of codesign: please report it with the model and the profile"
    assert set(lines[1::2]) == {hint}
    assert all(line.startswith(f"digits: node {LAYER}: ") and CHARGED in line for line in lines[::2])
    named = {line.split(": ")[2] for line in lines[::2]}
    assert expected <= named
    assert not list(command.folder.iterdir())


def test_the_message_has_both_numbers(command: Command) -> None:
    plan = codesign.estimate(DIGITS, hw="edge_npu")
    profile = plan_model(DIGITS, Settings("edge_npu")).hardware.profile
    with pytest.raises(DoesNotFitError) as error:
        schedule_layers(with_charge(plan, LAYER, 7), profile)
    assert str(error.value) == (
        f"digits: node {LAYER}: useful MACs: the cost model charged 7, the scheduled code shows {64 * 32 * 9 * 16}\n"
        "  hint: this is a fault of codesign: please report it with the model and the profile"
    )


def with_charge(plan: Plan, name: str, macs: int) -> Plan:
    """The plan with another number of useful MACs charged to one layer."""

    def changed(layer: Any) -> Any:
        if layer.layer.name != name:
            return layer
        return replace(layer, cost=replace(layer.cost, counts=replace(layer.cost.counts, macs_useful=macs)))

    return replace(plan, layers=tuple(map(changed, plan.layers)))


# From Python -----------------------------------------------------------------------------------------------------


def test_compile_and_estimate_from_python_agree(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    built = codesign.compile(
        DIGITS,
        hw="edge_npu",
        output=tmp_path / "build",
        on_step=lambda stage, _, number, total: seen.append((stage, number, total)),
    )
    assert built.folder == tmp_path / "build" and (built.folder / "model.so").is_file()
    assert timeless(built.plan) == timeless(codesign.estimate(DIGITS, hw="edge_npu"))
    assert list(dict.fromkeys(stage for stage, _, _ in seen)) == ["rewriting", "mapping", "scheduling", "building"]
    assert all(1 <= number <= total for _, number, total in seen)


def timeless(plan: Plan) -> Plan:
    """The plan as if its passes had taken no time."""
    return replace(plan, passes=tuple(replace(record, seconds=0.0) for record in plan.passes))


def test_bad_input_from_python_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(CodesignError) as error:
        codesign.compile(DIGITS, hw="edge_npuu", output=tmp_path / "build")
    assert str(error.value).startswith("--hw edge_npuu: there is no hardware profile of that name")
    assert not list(tmp_path.iterdir())
    with pytest.raises(AttributeError, match="^module 'codesign' has no attribute 'decompile'$"):
        codesign.decompile  # noqa: B018


# Names -----------------------------------------------------------------------------------------------------------


def test_a_tensor_that_keeps_its_name_keeps_its_numbers(tmp_path: Path) -> None:
    """Verification compares layer by layer, by name; a fold must not leave an old name on new numbers."""
    checked = 0
    for name, build_model in NETWORKS.items():
        path = tmp_path / f"{name}.onnx"
        onnx.save(build_model(np.random.default_rng(4)), path)
        checked += compare_by_name(path)
    assert checked >= 10


def test_names_when_a_normalisation_folds_forwards_through_a_reshape(tmp_path: Path) -> None:
    from tests.pass_models import batch_norm, normal, statistics

    generator = np.random.default_rng(5)
    flat = onnx.helper.make_node("Flatten", ["a"], ["flat"])
    nodes = [batch_norm("x", "a"), flat, onnx.helper.make_node("MatMul", ["flat", "w"], ["m"])]
    nodes.append(onnx.helper.make_node("Relu", ["m"], ["y"]))
    constants = {"w": normal(generator, 3 * 4, 5), **statistics(generator, 3)}
    path = tmp_path / "forwards.onnx"
    onnx.save(proto_of(nodes, {"x": (2, 3, 2, 2)}, {"y": (2, 5)}, constants), path)
    assert compare_by_name(path) == 2  # m and y; flat now holds other numbers and is called otherwise


def compare_by_name(path: Path) -> int:
    """Run a model and what the default pipeline makes of it with all tensors shown; how many have the same name."""
    graph = plan_model(path, Settings("edge_npu")).graph
    before, after = (with_all_tensors(proto) for proto in (onnx.load(path), ir.to_proto(graph.model)))
    feeds = {
        value.name: random(1, *(size.dim_value for size in value.type.tensor_type.shape.dim))
        for value in before.graph.input
    }
    expected, found = run(before, feeds), run(after, feeds)
    common = expected.keys() & found.keys()
    for name in common:
        assert expected[name].shape == found[name].shape
        assert np.abs(expected[name] - found[name]).max() < 1e-4 * np.abs(expected[name]).max(), (path.stem, name)
    return len(common)


def with_all_tensors(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every tensor a node makes among its outputs."""
    outputs = {value.name for value in proto.graph.output}
    made = [name for node in proto.graph.node for name in node.output if name and name not in outputs]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made)
    return proto


@pytest.mark.parametrize("machine", [profile.name for profile in list_profiles()])
def test_every_machine_schedules_the_digits_as_charged(machine: str) -> None:
    """Machines whose published figures count more than is moved are held to what is moved."""
    planned = plan_model(DIGITS, Settings(machine))
    scheduled = schedule_layers(planned.plan, planned.hardware.profile)
    mapped = [layer for layer in planned.plan.layers if layer.cost.mapping is not None]
    assert set(scheduled) == {layer.layer.name for layer in mapped}


def test_conventions_change_the_charge_and_not_the_code() -> None:
    planned = plan_model(DIGITS, Settings("reference_a"))
    profile = planned.hardware.profile
    layer = next(layer for layer in planned.plan.layers if layer.cost.counts is not None)
    executed = as_executed(layer, profile)
    assert executed.cost.counts != layer.cost.counts, "padding is data and first visits are read there"
    plain = load_profile("edge_npu").profile
    assert as_executed(layer, plain) is layer
