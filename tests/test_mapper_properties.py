"""What must hold for every layer and machine: names and order mean nothing, a cheaper machine never costs more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from codesign.errors import DoesNotFitError
from codesign.hardware.loading import load_profile
from codesign.hardware.profile import HardwareProfile
from codesign.mapping.layer_cost import LayerCost
from codesign.mapping.mapper import Found, map_layer, search
from codesign.mapping.objective import Objective
from codesign.planning.plan import Identity, Plan
from codesign.planning.planner import Network, plan_network
from codesign.vocabulary import OperationKind
from codesign.workload.layer import Layer
from codesign.workload.loop_nest import LoopNest
from tests.machines import examples, nests, price, profiles

OBJECTIVES = st.sampled_from(list(Objective))
TRANSPOSED = {"OY": "OX", "OX": "OY", "FY": "FX", "FX": "FY"}


def found(nest: LoopNest, profile: HardwareProfile, objective: Objective, engine: str = "array", **more: int) -> Found:
    """The outcome of a search; an example in which nothing fits is thrown away."""
    try:
        return search(nest, profile, engine, objective, **more)
    except DoesNotFitError:
        assume(False)
        raise


def described(profile: HardwareProfile) -> Any:
    """A profile as plain data that may be changed."""
    return profile.model_dump(mode="json")


# ---- names


def backwards(names: Mapping[str, object], prefix: str) -> dict[str, str]:
    """New names, whose alphabetical order is the reverse of the order in which they stand."""
    return {name: f"{prefix}{len(names) - number:02}" for number, name in enumerate(names)}


def renamed_machine(profile: HardwareProfile) -> tuple[HardwareProfile, dict[str, str]]:
    """The machine with other names of its axes, memories and engine, and what became of each name."""
    data = described(profile)
    axes = backwards(data["engines"]["array"]["axes"], "axis_")
    memories = backwards(data["memories"], "memory_")
    engine = data["engines"]["array"]
    engine["axes"] = {axes[name]: axis for name, axis in engine["axes"].items()}
    engine["bypasses"] = {key: [memories[name] for name in passed] for key, passed in engine["bypasses"].items()}
    for memory in data["memories"].values():
        memory["replicated_over"] = [axes[name] for name in memory["replicated_over"]]
    data["memories"] = {memories[name]: memory for name, memory in data["memories"].items()}
    data["engines"] = {"lanes": engine}
    return HardwareProfile.model_validate(data), {**axes, **memories, "array": "lanes"}


def with_names(value: object, names: Mapping[str, str]) -> object:
    """Plain data in which every text that is a name, or a port's `memory.port`, is replaced."""
    match value:
        case dict():
            return {key: with_names(inner, names) for key, inner in value.items()}
        case list():
            return [with_names(inner, names) for inner in value]
        case str():
            head, dot, tail = value.partition(".")
            return f"{names.get(head, head)}{dot}{tail}"
        case _:
            return value


COSTS = TypeAdapter(LayerCost)


@examples(60)
@given(nests(largest=12, volume=5_000), profiles(), OBJECTIVES)
def test_names_of_a_machine_mean_nothing(nest: LoopNest, profile: HardwareProfile, objective: Objective) -> None:
    found(nest, profile, objective)
    other, names = renamed_machine(profile)
    before = COSTS.dump_python(map_layer(nest, profile, "array", objective), mode="json")
    after = COSTS.dump_python(map_layer(nest, other, "lanes", objective), mode="json")
    for part in ("transfers", "allocations"):  # sorted by name
        before["counts"][part], after["counts"][part] = (
            sorted(map(str, data["counts"][part])) for data in (with_names(before, names), after)
        )
    assert with_names(before, names) == after


def plan_of(layers: list[Layer], profile: HardwareProfile, objective: Objective = Objective.LATENCY) -> Plan:
    """The plan of some layers that have nothing to do with each other."""
    outputs = frozenset(name for layer in layers for name in layer.outputs)
    network = Network(Identity("random", ""), "random", layers, outputs, 0, "int8", ())
    return plan_network(network, profile, Identity("random", ""), objective, version="test")


@examples(25)
@given(st.lists(nests(largest=6, volume=500), min_size=2, max_size=5), profiles(), OBJECTIVES, st.data())
def test_names_and_order_of_layers_mean_nothing(
    shapes: list[LoopNest], profile: HardwareProfile, objective: Objective, data: st.DataObject
) -> None:
    for nest in shapes:
        found(nest, profile, objective)
    layers = [Layer(f"layer{at}", "Conv", nest, (f"in{at}",), (f"out{at}",)) for at, nest in enumerate(shapes)]
    order = data.draw(st.permutations(range(len(layers))))
    others = [
        replace(layers[at], name=f"{len(layers) - at}/x.y: z", op="Gemm", inputs=("same",), outputs=(f"o{at}",))
        for at in order
    ]
    before, after = plan_of(layers, profile, objective), plan_of(others, profile, objective)
    assert [before.layers[at].cost for at in order] == [planned.cost for planned in after.layers]
    assert replace(before.totals, energy_uj=0.0) == replace(after.totals, energy_uj=0.0)
    assert before.totals.energy_uj == pytest.approx(after.totals.energy_uj)  # a sum of floats in another order


# ---- rows and columns of an image


def transposed(nest: LoopNest) -> LoopNest:
    """The same layer over images with rows and columns exchanged."""
    batch, groups, outputs, inputs, rows, columns, tall, wide = nest.sizes
    top, left, bottom, right = nest.pads
    return replace(
        nest,
        sizes=(batch, groups, outputs, inputs, columns, rows, wide, tall),
        stride=nest.stride[::-1],
        dilation=nest.dilation[::-1],
        pads=(left, top, right, bottom),
        input_rows=nest.input_columns,
        input_columns=nest.input_rows,
    )


@examples(60)
@given(nests(largest=10, volume=3_000), profiles(), OBJECTIVES)
def test_a_transposed_image_on_a_transposed_machine_costs_the_same(
    nest: LoopNest, profile: HardwareProfile, objective: Objective
) -> None:
    before = found(nest, profile, objective)
    data = described(profile)
    for axis in data["engines"]["array"]["axes"].values():
        for key in ("unrolls", "whole"):
            axis[key] = [TRANSPOSED.get(dimension, dimension) for dimension in axis[key]]
    after = found(transposed(nest), HardwareProfile.model_validate(data), objective)
    assume(before.proven and after.proven)
    assert after.objective_value == pytest.approx(before.objective_value, rel=1e-9)


# ---- cheaper machines


def with_overheads(profile: HardwareProfile, depth: int, refill: int) -> Any:
    """A machine as data, with a pipeline and cycles lost at every refill of its memories on the chip."""
    data = described(profile)
    data["engines"]["array"]["pipeline_depth_cycles"] = depth
    for memory in list(data["memories"].values())[:-1]:
        memory["refill_overhead_cycles"] = refill
    return data


@examples(80)
@given(nests(largest=10, volume=20_000), profiles(), OBJECTIVES, st.integers(1, 40), st.integers(1, 9), st.data())
def test_a_cheaper_machine_never_costs_more(
    nest: LoopNest, profile: HardwareProfile, objective: Objective, depth: int, refill: int, draw: st.DataObject
) -> None:
    """Less energy of a byte or of a MAC, a shorter pipeline, a shorter wait at refills: one of them at a time."""
    data = with_overheads(profile, depth, refill)
    before = found(nest, HardwareProfile.model_validate(data), objective)
    what = draw.draw(st.sampled_from(["read_pj_per_byte", "write_pj_per_byte", "mac", "pipeline", "refill"]))
    memory = draw.draw(st.sampled_from(sorted(data["memories"])))
    match what:
        case "mac":
            data["engines"]["array"]["energy_pj_per_mac"] /= 2
        case "pipeline":
            data["engines"]["array"]["pipeline_depth_cycles"] = draw.draw(st.integers(0, depth - 1))
        case "refill":
            level = data["memories"][memory]
            level["refill_overhead_cycles"] = max(0, level["refill_overhead_cycles"] - 1)
        case _:
            data["memories"][memory][what] /= 2
    after = found(nest, HardwareProfile.model_validate(data), objective)
    assume(before.proven and after.proven)
    assert after.objective_value <= before.objective_value * (1 + 1e-9)


@examples(40)
@given(nests(largest=10, volume=5_000), profiles(), st.floats(0, 4))
def test_energies_mean_nothing_to_the_least_latency(nest: LoopNest, profile: HardwareProfile, factor: float) -> None:
    before = found(nest, profile, Objective.LATENCY)
    data = described(profile)
    data["engines"]["array"]["energy_pj_per_mac"] *= factor
    for memory in data["memories"].values():
        memory["read_pj_per_byte"] *= factor
        memory["write_pj_per_byte"] *= factor
    after = found(nest, HardwareProfile.model_validate(data), Objective.LATENCY)
    assume(before.proven and after.proven)
    assert after.objective_value == pytest.approx(before.objective_value, rel=1e-9)


def test_a_dearer_machine_costs_more() -> None:
    """The control: what must not fall when a machine gets better does rise when it gets worse."""
    nest = LoopNest(OperationKind.CONVOLUTION, (1, 1, 4, 4, 4, 4, 1, 1), input_rows=4, input_columns=4)
    for change in ("energy", "pipeline", "refill"):
        data = with_overheads(load_profile("edge_npu").profile, 8, 1)
        objective = Objective.ENERGY if change == "energy" else Objective.LATENCY
        before = search(nest, HardwareProfile.model_validate(data), "array", objective)
        data["memories"]["dram"]["read_pj_per_byte"] *= 2 if change == "energy" else 1
        data["engines"]["array"]["pipeline_depth_cycles"] *= 2 if change == "pipeline" else 1
        for memory in list(data["memories"].values())[:-1]:
            memory["refill_overhead_cycles"] *= 50 if change == "refill" else 1
        after = search(nest, HardwareProfile.model_validate(data), "array", objective)
        assert after.objective_value > before.objective_value, change


# ---- bounds and objectives


@examples(60)
@given(nests(largest=16, volume=50_000), profiles(), OBJECTIVES, st.sampled_from([0, 1, 2, 5, 20]))
def test_a_search_cut_short_bounds_the_optimum(
    nest: LoopNest, profile: HardwareProfile, objective: Objective, limit: int
) -> None:
    short = found(nest, profile, objective, limit=limit)
    full = found(nest, profile, objective)
    assume(full.proven)
    assert short.gap >= 0
    assert short.proven == (short.gap == 0)
    assert short.bound_value <= full.objective_value * (1 + 1e-9)
    assert full.objective_value <= short.objective_value * (1 + 1e-9)
    cost = map_layer(nest, profile, "array", objective, limit=limit)
    assert cost.gap >= 0 and cost.bound_cycles <= cost.cycles


@examples(30)
@given(nests(largest=10, volume=5_000), profiles())
def test_each_objective_is_best_at_what_it_minimises(nest: LoopNest, profile: HardwareProfile) -> None:
    best = {objective: found(nest, profile, objective) for objective in Objective}
    assume(all(part.proven for part in best.values()))
    prices = {objective: price(nest, profile, part.mapping) for objective, part in best.items()}
    values = {
        Objective.LATENCY: {key: part.latency_cycles for key, part in prices.items()},
        Objective.ENERGY: {key: part.energy_pj for key, part in prices.items()},
        Objective.EDP: {key: part.latency_cycles * part.energy_pj for key, part in prices.items()},
    }
    for objective, reached in values.items():
        assert reached[objective] <= min(reached.values()) * (1 + 1e-9)
