"""The mapper against brute force over the declared space, and the invariants of the cost model."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from codesign.errors import DoesNotFitError
from codesign.hardware.loading import load_profile
from codesign.hardware.profile import HardwareProfile
from codesign.mapping.cost import Evaluation
from codesign.mapping.legality import problems_of
from codesign.mapping.mapper import map_layer, search
from codesign.mapping.objective import AnyObjective, Objective, WeightedSum
from codesign.mapping.window import windows_of
from codesign.vocabulary import Dimension, Operand, OperationKind
from codesign.workload.loop_nest import LoopNest
from tests.machines import every_mapping, examples, nests, price, profiles

MOST_MAPPINGS = 2_000


def objective_value(objective: Objective, latency: float, energy: float) -> float:
    return {Objective.LATENCY: latency, Objective.ENERGY: energy, Objective.EDP: latency * energy}[objective]


GOALS: tuple[AnyObjective, ...] = (*Objective, WeightedSum(1.0, 0.03))


@examples(25)
@given(nests(largest=4, volume=48), profiles(), st.booleans())
def test_search_equals_brute_force(nest: LoopNest, profile: HardwareProfile, perfect: bool) -> None:
    mappings = list(islice(every_mapping(nest, profile, "array", perfect=perfect), MOST_MAPPINGS + 1))
    assume(len(mappings) <= MOST_MAPPINGS)
    if not mappings:
        with pytest.raises(DoesNotFitError):
            search(nest, profile, "array", Objective.LATENCY, perfect=perfect)
        return
    prices = [price(nest, profile, mapping) for mapping in mappings]
    for goal in GOALS:
        best = min(goal.of(part.latency_cycles, part.energy_pj) for part in prices)
        found = search(nest, profile, "array", goal, perfect=perfect)
        assert found.proven
        assert found.objective_value == pytest.approx(best, rel=1e-9)
        assert problems_of(nest, found.mapping, profile) == []
        replayed = price(nest, profile, found.mapping)
        value = goal.of(replayed.latency_cycles, replayed.energy_pj)
        assert value == pytest.approx(best, rel=1e-9), "the mapping returned costs what the search said"


@examples(25)
@given(nests(largest=4, volume=32), profiles(), st.sampled_from([Objective.LATENCY, Objective.ENERGY]))
def test_ties_go_to_the_better_second_value(nest: LoopNest, profile: HardwareProfile, objective: Objective) -> None:
    """Of the fastest the one of least energy, of those of least energy the fastest."""
    mappings = list(islice(every_mapping(nest, profile, "array"), MOST_MAPPINGS + 1))
    assume(0 < len(mappings) <= MOST_MAPPINGS)
    values = [_values(objective, price(nest, profile, mapping)) for mapping in mappings]
    best = min(first for first, _ in values)
    second = min(second for first, second in values if first <= best * (1 + 1e-9))
    found = _values(objective, price(nest, profile, search(nest, profile, "array", objective).mapping))
    assert found == pytest.approx((best, second), rel=1e-8)


@pytest.mark.parametrize("machine", ["edge_npu", "gemmini16", "reference_a"])
def test_the_least_energy_is_the_fastest_where_nothing_takes_energy(machine: str) -> None:
    profile = without_energy(load_profile(machine).profile)
    nest = LoopNest(
        kind=OperationKind.CONVOLUTION,
        sizes=(1, 1, 100, 16, 14, 14, 3, 3),
        pads=(1, 1, 1, 1),
        input_rows=14,
        input_columns=14,
    )
    energy, latency = (search(nest, profile, "array", objective) for objective in (Objective.ENERGY, Objective.LATENCY))
    assert price(nest, profile, energy.mapping).latency_cycles == latency.objective_value


def without_energy(profile: HardwareProfile) -> HardwareProfile:
    """A machine on which nothing takes energy: all mappings tie."""
    data = profile.model_dump(mode="json")
    data["engines"]["array"]["energy_pj_per_mac"] = 0.0
    for memory in data["memories"].values():
        memory |= {"read_pj_per_byte": 0.0, "write_pj_per_byte": 0.0}
    return HardwareProfile.model_validate(data)


def _values(objective: Objective, cost: Evaluation) -> tuple[float, float]:
    values = cost.latency_cycles, cost.energy_pj
    return values if objective is Objective.LATENCY else values[::-1]


@examples(150)
@given(nests(largest=40, volume=10**7), profiles(), st.sampled_from(list(Objective)))
def test_cost_invariants(nest: LoopNest, profile: HardwareProfile, objective: Objective) -> None:
    try:
        cost = map_layer(nest, profile, "array", objective, limit=300)
    except DoesNotFitError:
        assume(False)
    engine = profile.engines["array"]
    assert cost.mapping is not None and cost.counts is not None
    assert cost.cycles >= nest.loop_macs / engine.peak_macs_per_cycle
    found = price(nest, profile, cost.mapping)
    assert all(cost.cycles >= busy * (1 - 1e-6) for busy in found.port_cycles.values())
    assert cost.cycles == cost.compute_cycles + cost.stall_cycles + cost.fill_drain_cycles
    assert min(cost.compute_cycles, cost.stall_cycles, cost.fill_drain_cycles) >= 0
    assert cost.cycles >= cost.bound_cycles
    assert cost.gap >= 0
    assert problems_of(nest, cost.mapping, profile) == []
    assert cost.counts.macs_issued >= cost.counts.macs_useful
    rows, columns = windows_of(nest)
    touched = nest.sizes[0] * nest.sizes[1] * nest.sizes[3] * rows.touched * columns.touched
    moved = {(part.memory, part.operand): part.read_bytes + part.write_bytes for part in cost.traffic}
    at_home = {operand: moved[profile.home(operand), operand] for operand in Operand}
    assert at_home[Operand.INPUTS] >= touched
    width = profile.stored_bits(Operand.WEIGHTS, profile.home(Operand.WEIGHTS)) / 8
    assert at_home[Operand.WEIGHTS] >= nest.elements(Operand.WEIGHTS) * width
    assert at_home[Operand.OUTPUTS] >= nest.elements(Operand.OUTPUTS)


@examples(80)
@given(nests(largest=10, volume=20_000), profiles(), st.sampled_from(list(Objective)), st.data())
def test_a_better_machine_never_costs_more(
    nest: LoopNest, profile: HardwareProfile, objective: Objective, data: st.DataObject
) -> None:
    try:
        before = search(nest, profile, "array", objective)
    except DoesNotFitError:
        assume(False)
    name = data.draw(st.sampled_from([key for key, level in profile.memories.items() if level.size_bytes]))
    described = profile.model_dump(mode="json")
    if data.draw(st.booleans()):
        described["memories"][name]["size_bytes"] *= 2
    else:
        name = data.draw(st.sampled_from(sorted(profile.memories)))
        for port in described["memories"][name]["ports"].values():
            if port is not None:
                port["bytes_per_cycle"] *= 2
    after = search(nest, HardwareProfile.model_validate(described), "array", objective)
    assume(before.proven and after.proven)
    assert after.objective_value <= before.objective_value * (1 + 1e-9)


def test_a_search_cut_short_says_so() -> None:
    tight = load_profile("reference_a").profile
    nest = LoopNest(
        OperationKind.CONVOLUTION, (1, 1, 128, 128, 28, 28, 3, 3), pads=(1, 1, 1, 1), input_rows=28, input_columns=28
    )
    short = search(nest, tight, "array", Objective.EDP, limit=3)
    full = search(nest, tight, "array", Objective.EDP)
    assert full.proven and not short.proven
    assert short.gap > 0
    assert short.bound_value <= full.objective_value <= short.objective_value


def test_a_whole_dimension_runs_in_full() -> None:
    eyeriss = load_profile("eyeriss_v1").profile
    nest = LoopNest(OperationKind.CONVOLUTION, (1, 1, 8, 4, 6, 6, 5, 5), input_rows=10, input_columns=10)
    mapping = search(nest, eyeriss, "array", Objective.LATENCY).mapping
    rows = [loop for loop in mapping.spatial if (loop.axis, loop.dimension) == ("rows", Dimension.FY)]
    assert [loop.extent for loop in rows] == [5]
    split = tuple(replace(loop, extent=3) if loop in rows else loop for loop in mapping.spatial)
    problems = problems_of(nest, replace(mapping, spatial=split), eyeriss)
    assert "axis rows runs FY in full: 3 lanes take 2 passes" in problems
