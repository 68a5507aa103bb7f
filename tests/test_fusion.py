"""Fusion: what is done on the way out of the layer before, what it costs there, and that it never costs more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from math import ceil
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from codesign.compiler import estimate, plan_model
from codesign.hardware.loading import load_profile
from codesign.hardware.profile import HardwareProfile
from codesign.hardware.sections import Port, Ports
from codesign.lowering.layers import schedule_layers
from codesign.mapping.meter import port_of
from codesign.mapping.objective import Objective
from codesign.planning.fusion import fuse
from codesign.planning.placement import Placer, as_units_run
from codesign.planning.plan import PlannedLayer
from codesign.report.json_report import report_of
from codesign.report.why import why
from codesign.settings import Settings
from codesign.vocabulary import Operand, OperationKind
from codesign.workload.layer import Layer
from codesign.workload.loop_nest import LoopNest

from .small_networks import write_network

CHANNELS, SIDE = 32, 28
ELEMENTS = CHANNELS * SIDE * SIDE


def machine(*fused: OperationKind, lanes: int = 16, dram: float = 8) -> HardwareProfile:
    profile = load_profile("edge_npu").profile
    assert profile.vector_unit is not None
    unit = profile.vector_unit.model_copy(update={"fused": fused, "lanes": lanes})
    memory = profile.memories["dram"].model_copy(update={"ports": Ports(read_write=Port(bytes_per_cycle=dram))})
    return profile.model_copy(update={"vector_unit": unit, "memories": {**profile.memories, "dram": memory}})


ACTIVATION, ELEMENTWISE = OperationKind.ACTIVATION, OperationKind.ELEMENTWISE
BOTH = machine(ACTIVATION, ELEMENTWISE)


def convolution(name: str, source: str, kernel: int = 1) -> Layer:
    sizes = (1, 1, CHANNELS, CHANNELS, SIDE, SIDE, kernel, kernel)
    pads = (kernel // 2,) * 4
    nest = LoopNest(OperationKind.CONVOLUTION, sizes, pads=pads, input_rows=SIDE, input_columns=SIDE)
    return Layer(name, "Conv", nest, (source,), (name,))


def stream(name: str, kind: OperationKind, *sources: str, inputs: int = 0, each: int = 1) -> Layer:
    nest = LoopNest(
        kind,
        (1, CHANNELS, 1, 1, SIDE, SIDE, 1, 1),
        input_elements=inputs or len(sources) * ELEMENTS,
        output_elements=ELEMENTS,
        operations=each * ELEMENTS,
    )
    return Layer(name, str(kind), nest, sources, (name,))


def add(name: str, *sources: str, inputs: int = 0, each: int = 1) -> Layer:
    return stream(name, ELEMENTWISE, *sources, inputs=inputs, each=each)


def relu(name: str, source: str, each: int = 1) -> Layer:
    return stream(name, ACTIVATION, source, each=each)


def swish(name: str, source: str, each: int = 4) -> Layer:
    """x Sigmoid(x) as one layer of two nodes."""
    inner = f"{name}.sigmoid"
    return one_of(relu(inner, source, each), stream(name, ELEMENTWISE, source, inner))


def hard_sigmoid(name: str, source: str, each: int = 1) -> Layer:
    """Add, Clip, Div as one layer of three nodes, each of which reads what the one before makes."""
    first, second = f"{name}.add", f"{name}.clip"
    return one_of(add(first, source, each=each), relu(second, first, each), add(name, second))


def one_of(*parts: Layer) -> Layer:
    operations = sum(part.nest.operations for part in parts)
    nest = replace(parts[-1].nest, kind=ACTIVATION, input_elements=ELEMENTS, operations=operations)
    return replace(parts[-1], op="Swish", nest=nest, inputs=parts[0].inputs, members=parts)


@cache
def placed_one(layer: Layer, lanes: int, dram: float) -> PlannedLayer:
    profile = machine(lanes=lanes, dram=dram)
    return Placer(profile, Objective.LATENCY, "model.onnx").place(layer)


def placed(layers: Sequence[Layer], lanes: int = 16, dram: float = 8) -> list[PlannedLayer]:
    """Placed as the machine would, without any fusion."""
    found = []
    for layer in layers:
        parts = tuple(replace(part, name="", inputs=(), outputs=()) for part in layer.members)
        first = placed_one(replace(layer, name="", inputs=(), outputs=(), members=parts), lanes, dram)
        found.append(replace(first, layer=replace(layer, nest=first.layer.nest)))
    return found


def fused_into(
    *layers: Layer, outputs: frozenset[str] = frozenset(), profile: HardwareProfile = BOTH
) -> dict[str, str]:
    return {part.layer.name: part.fused_into for part in fuse(placed(layers), outputs, profile) if part.fused_into}


def moved(planned: PlannedLayer, memory: str) -> dict[Operand, tuple[int, int]]:
    return {part.operand: (part.read_bytes, part.write_bytes) for part in planned.cost.traffic if part.memory == memory}


# ---- what is fused, and into which layer


def test_a_residual_addition_reads_its_other_operand_alone() -> None:
    conv, total = fuse(placed([convolution("conv", "image"), add("sum", "conv", "image")]), frozenset(), BOTH)
    assert total.fused_into == "conv" and conv.fused_into == ""
    assert moved(total, "dram") == {Operand.INPUTS: (ELEMENTS, 0)}  # int8
    assert BOTH.vector_unit is not None
    energy = {part.component: part.energy_pj for part in total.cost.energy}
    assert energy["vector_unit"] == pytest.approx(ELEMENTS * BOTH.vector_unit.energy_pj_per_operation)
    assert energy["dram"] == pytest.approx(ELEMENTS * BOTH.memories["dram"].read_pj_per_byte)


def test_of_two_convolutions_the_later_one_adds() -> None:
    layers = [convolution("first", "image"), convolution("second", "image")]
    assert fused_into(*layers, add("sum", "first", "second")) == {"sum": "second"}
    assert fused_into(*layers, add("sum", "second", "first")) == {"sum": "second"}


def test_an_operand_made_after_the_convolution_is_not_there_in_time() -> None:
    conv, other = convolution("conv", "image"), stream("other", OperationKind.MAX_POOL, "image")
    assert fused_into(conv, other, add("sum", "conv", "other")) == {}
    assert fused_into(other, conv, add("sum", "conv", "other")) == {"sum": "conv"}


def test_two_results_of_one_layer_are_not_there_in_time_for_each_other() -> None:
    both = replace(convolution("both", "image"), outputs=("left", "right"))
    assert fused_into(both, add("sum", "left", "right")) == {}
    assert fused_into(both, add("sum", "left", "image")) == {"sum": "both"}


def test_an_activation_behind_its_head_is_there_when_its_head_is() -> None:
    """relu runs with `first`, so it stands before `second` whatever the list says."""
    layers = convolution("first", "image"), convolution("second", "image"), relu("relu", "first")
    assert fused_into(*layers, add("sum", "relu", "second")) == {"relu": "first", "sum": "second"}


def test_an_activation_behind_the_addition_is_fused_too() -> None:
    layers = convolution("conv", "image"), add("sum", "conv", "image"), relu("relu", "sum")
    assert fused_into(*layers) == {"sum": "conv", "relu": "conv"}


@pytest.mark.parametrize(
    ("layers", "outputs"),
    [
        ([convolution("conv", "image"), add("sum", "conv", "image"), relu("also", "conv")], ()),  # two readers
        ([convolution("conv", "image"), add("sum", "conv", "image")], ("conv",)),  # an output of the network
        ([convolution("conv", "image"), add("sum", "conv", "gate", inputs=ELEMENTS + CHANNELS)], ()),  # broadcast
        ([stream("pool", OperationKind.MAX_POOL, "image"), add("sum", "pool", "image")], ()),  # no engine
    ],
)
def test_what_is_not_fused(layers: list[Layer], outputs: tuple[str, ...]) -> None:
    assert "sum" not in fused_into(*layers, outputs=frozenset(outputs))


def test_a_machine_fuses_what_it_says() -> None:
    layers = convolution("conv", "image"), add("sum", "conv", "image"), relu("relu", "sum")
    assert fused_into(*layers, profile=machine(ACTIVATION)) == {"relu": "sum"}
    assert fused_into(*layers, profile=machine(ELEMENTWISE)) == {"sum": "conv"}
    assert fused_into(*layers, profile=machine()) == {}


# ---- what it costs


def test_the_port_both_use_sets_the_pace() -> None:
    """1x1 over 32 channels: bytes of the convolution and of the other operand go through one port of 1 byte a cycle."""
    profile = machine(ACTIVATION, ELEMENTWISE, dram=1)
    layers = placed([convolution("conv", "image"), add("sum", "conv", "image")], dram=1)
    conv, total = fuse(layers, frozenset(), profile)
    assert conv.cost.limited_by == "dram.read_write"
    assert total.cost.cycles == ELEMENTS and total.cost.limited_by == "dram.read_write"
    assert (total.cost.compute_cycles, total.cost.stall_cycles) == (0, ELEMENTS)


def test_a_slow_vector_unit_sets_the_pace() -> None:
    profile = machine(ACTIVATION, ELEMENTWISE, lanes=1)
    layers = placed([convolution("conv", "image"), add("sum", "conv", "image"), relu("relu", "sum")], lanes=1)
    conv, total, relu_ = fuse(layers, frozenset(), profile)
    assert total.cost.limited_by == relu_.cost.limited_by == "vector_unit"
    assert conv.cost.cycles + total.cost.cycles == ELEMENTS
    assert relu_.cost.cycles == ELEMENTS


NAMES = [f"t{number}" for number in range(7)]


@st.composite
def networks(draw: st.DrawFn) -> list[Layer]:
    """Any order of convolutions, activations, poolings and additions that read what was made before."""
    layers: list[Layer] = []
    made = ["image"]
    for name in NAMES[: draw(st.integers(2, len(NAMES)))]:
        first = draw(st.sampled_from(made[-3:]))
        match draw(st.sampled_from(["conv", "conv", "relu", "add", "add", "pool"])):
            case "conv":
                layers.append(convolution(name, first, draw(st.sampled_from([1, 3]))))
            case "relu":
                layers.append(relu(name, first, draw(st.sampled_from([1, 40]))))
            case "pool":
                layers.append(stream(name, OperationKind.MAX_POOL, first))
            case _:
                sources = dict.fromkeys([first, *draw(st.lists(st.sampled_from(made), max_size=2))])
                layers.append(add(name, *sources, each=draw(st.sampled_from([1, 40]))))
        made.append(name)
    return layers


def bytes_by_memory(planned: PlannedLayer) -> dict[str, int]:
    sums: dict[str, int] = {}
    for part in planned.cost.traffic:
        sums[part.memory] = sums.get(part.memory, 0) + part.read_bytes + part.write_bytes
    return sums


@settings(max_examples=60, deadline=None)
@given(layers=networks(), lanes=st.sampled_from([1, 16]), dram=st.sampled_from([1.0, 3.0, 64.0]), outputs=st.booleans())
def test_fusing_never_costs_more(layers: list[Layer], lanes: int, dram: float, outputs: bool) -> None:
    named = frozenset({"t1"} if outputs else ())
    apart = placed(layers, lanes, dram)
    profile = machine(ACTIVATION, ELEMENTWISE, lanes=lanes, dram=dram)
    fused = fuse(apart, named, profile)
    assert [part.layer for part in fused] == [part.layer for part in apart]
    for one, other in zip(fused, apart, strict=True):
        assert one.cost.cycles <= other.cost.cycles
        assert one.cost.energy_pj <= other.cost.energy_pj
        separate = bytes_by_memory(other)
        assert all(size <= separate[memory] for memory, size in bytes_by_memory(one).items())
        if not one.fused_into:
            assert one == other
    plain = fuse(apart, named, machine(ACTIVATION, lanes=lanes, dram=dram))
    if not any(part.layer.nest.kind is ELEMENTWISE for part in apart):
        assert fused == plain


@settings(max_examples=60, deadline=None)
@given(layers=networks(), lanes=st.sampled_from([1, 16]), dram=st.sampled_from([1.0, 3.0, 64.0]))
def test_a_head_and_what_is_fused_take_as_long_as_the_busiest(layers: list[Layer], lanes: int, dram: float) -> None:
    """Counted anew: all traffic of a head and what is fused into it through every port, all work on the vector unit."""
    profile = machine(ACTIVATION, ELEMENTWISE, lanes=lanes, dram=dram)
    fused = fuse(placed(layers, lanes, dram), frozenset(), profile)
    for head in fused:
        group = [head, *(part for part in fused if part.fused_into == head.layer.name)]
        if head.fused_into or len(group) == 1:
            continue
        work = [ceil(part.layer.nest.operations / lanes) for part in group if part.engine == "vector_unit"]
        busiest = max([float(head.cost.cycles), float(sum(work)), *port_cycles(group, profile)])
        assert abs(sum(part.cost.cycles for part in group) - busiest) <= 1  # a head's bytes are rounded up


def port_cycles(group: Sequence[PlannedLayer], profile: HardwareProfile) -> list[float]:
    cycles: dict[str, float] = {}
    for traffic in (part for planned in group for part in planned.cost.traffic):
        for reading, size in ((True, traffic.read_bytes), (False, traffic.write_bytes)):
            port, rate = port_of(profile, traffic.memory, reading=reading)
            if port:
                cycles[port] = cycles.get(port, 0.0) + size / rate
    return list(cycles.values())


# ---- an activation of several nodes


def test_an_activation_of_several_nodes_is_done_on_the_way_out() -> None:
    conv, activation = fuse(placed([convolution("conv", "image"), swish("y", "conv")]), frozenset(), BOTH)
    assert activation.fused_into == "conv" and activation.cost.traffic == ()
    assert BOTH.vector_unit is not None
    assert activation.cost.energy_pj == pytest.approx(5 * ELEMENTS * BOTH.vector_unit.energy_pj_per_operation)
    assert conv.cost.cycles + activation.cost.cycles == max(conv.cost.cycles, 5 * ELEMENTS // 16)


def test_node_by_node_it_is_not() -> None:
    apart = fuse(placed([convolution("conv", "image"), *swish("y", "conv").members]), frozenset(), BOTH)
    assert {part.fused_into for part in apart} == {""}  # the convolution's result has two readers


def test_on_its_own_it_reads_and_writes_once() -> None:
    (activation,) = placed([swish("y", "image")])
    assert moved(activation, "dram") == {
        Operand.WEIGHTS: (0, 0),
        Operand.INPUTS: (ELEMENTS, 0),
        Operand.OUTPUTS: (0, ELEMENTS),
    }


def test_every_operation_takes_what_its_own_kind_does() -> None:
    profile = machine(ACTIVATION)
    assert profile.vector_unit is not None
    unit = profile.vector_unit.model_copy(update={"cycles_per_operation": {ELEMENTWISE: 25}})
    slow = profile.model_copy(update={"vector_unit": unit})
    cost = Placer(slow, Objective.LATENCY, "model.onnx").place(swish("y", "image")).cost
    assert cost.compute_cycles == ceil((4 + 25) * ELEMENTS / 16)


def with_unit(**changes: object) -> HardwareProfile:
    assert BOTH.vector_unit is not None
    return BOTH.model_copy(update={"vector_unit": BOTH.vector_unit.model_copy(update=changes)})


def test_a_unit_that_lacks_a_part_runs_the_nodes_one_by_one() -> None:
    layer = swish("y", "image")
    named = tuple(replace(part, op=op) for part, op in zip(layer.members, ("Sigmoid", "Mul"), strict=True))
    layer = replace(layer, members=named)
    assert as_units_run(layer, BOTH) == (layer,)
    assert as_units_run(layer, with_unit(operations=(ACTIVATION,))) == layer.members
    assert as_units_run(layer, with_unit(operators={ACTIVATION: ("Relu",)})) == layer.members
    assert as_units_run(layer, with_unit(operators={ACTIVATION: ("Relu", "Sigmoid")})) == (layer,)
    assert as_units_run(layer, with_unit(operators={ACTIVATION: ("Relu", "Swish")})) == (layer,)
    assert as_units_run(layer, with_unit(fused=(ELEMENTWISE,))) == layer.members
    assert as_units_run(layer, BOTH.model_copy(update={"vector_unit": None})) == layer.members
    conv = convolution("conv", "image")
    assert as_units_run(conv, BOTH) == (conv,)


def test_an_operator_the_unit_lacks_goes_to_the_host() -> None:
    profile = with_unit(operators={ACTIVATION: ("Relu",)})
    placer = Placer(profile, Objective.LATENCY, "model.onnx")
    assert placer.place(replace(relu("y", "image"), op="Relu")).engine == "vector_unit"
    sigmoid = placer.place(replace(relu("y", "image"), op="Sigmoid"))
    assert (sigmoid.engine, sigmoid.note) == ("host", "no engine runs Sigmoid")


@st.composite
def gated_networks(draw: st.DrawFn) -> list[Layer]:
    """Most activations and poolings are activations of several nodes instead."""
    several = st.sampled_from([swish, hard_sigmoid])
    return [
        draw(several)(layer.name, layer.inputs[0], draw(st.sampled_from([1, 40])))
        if layer.nest.kind in (ACTIVATION, OperationKind.MAX_POOL) and draw(st.integers(0, 3))
        else layer
        for layer in draw(networks())
    ]


# A unit that adds on the way out, and no more: as one layer the addition could not hide behind the convolution.
ADDS_ALONE = [convolution("conv", "image"), hard_sigmoid("y", "conv", 40)]


@settings(max_examples=60, deadline=None)
@example(layers=ADDS_ALONE, lanes=1, dram=64.0, fused={ELEMENTWISE})
@given(
    layers=gated_networks(),
    lanes=st.sampled_from([1, 16]),
    dram=st.sampled_from([1.0, 3.0, 64.0]),
    fused=st.sets(st.sampled_from([ACTIVATION, ELEMENTWISE])),
)
def test_one_layer_never_costs_more_than_its_nodes(
    layers: list[Layer], lanes: int, dram: float, fused: set[OperationKind]
) -> None:
    profile = machine(*sorted(fused), lanes=lanes, dram=dram)
    nodes = [part for layer in layers for part in layer.members or (layer,)]
    units = [unit for layer in layers for unit in as_units_run(layer, profile)]
    apart = fuse(placed(nodes, lanes, dram), frozenset(), profile)
    together = fuse(placed(units, lanes, dram), frozenset(), profile)
    assert sum(part.cost.cycles for part in together) <= sum(part.cost.cycles for part in apart)
    assert sum(part.cost.energy_pj for part in together) <= sum(part.cost.energy_pj for part in apart) * (1 + 1e-9)
    operations = [sum(part.layer.nest.operations for part in plan) for plan in (together, apart)]
    assert operations[0] == operations[1]


# ---- reports, and the code that is written

RESIDUAL = """
    a = Conv(x, wa)
    b = Relu(a)
    c = Conv<pads = [1, 1, 1, 1]>(b, wb)
    d = Conv(b, wc)
    e = Add(c, d)
    y = Relu(e)
"""
WEIGHTS = {"wa": (8, 3, 1, 1), "wb": (8, 8, 3, 3), "wc": (8, 8, 1, 1)}


def residual(folder: Path) -> str:
    return str(write_network(folder / "residual.onnx", RESIDUAL, (1, 3, 12, 12), WEIGHTS))


def test_the_reports_say_into_what_and_that_code_does_it_apart(tmp_path: Path) -> None:
    plan = estimate(residual(tmp_path), hw="nvdla_small", passes="none")
    by_name = {part.layer.outputs[0]: part for part in plan.layers}
    total, head = by_name["e"], by_name["d"]
    assert total.fused_into == head.layer.name
    assert why(plan, total) == (
        f"fused into {head.layer.name}: 1.15 k operations on its way out, held up by dram.read_write "
        "(compiled code runs them apart)"
    )
    reported = next(part for part in report_of(plan).layers if part.name == total.layer.name)
    assert reported.fused_into == head.layer.name
    assert reported.traffic["dram"].model_dump() == {"read_bytes": 1152, "write_bytes": 0}
    assert plan.totals.macs == sum(part.layer.nest.macs for part in plan.layers)


def test_fusion_leaves_the_counts_of_the_scheduled_code_alone(tmp_path: Path) -> None:
    """schedule_layers raises where code and charge differ; a fused layer has no mapping, so no code is held to it."""
    planned = plan_model(residual(tmp_path), Settings("nvdla_small"))
    functions = schedule_layers(planned.plan, planned.hardware.profile)
    assert set(functions) == {part.layer.name for part in planned.plan.layers if part.layer.nest.has_macs}
