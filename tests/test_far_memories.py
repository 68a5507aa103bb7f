"""Memories that answer late and to few requests at a time: by hand, and what must not depend on them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from codesign.errors import DoesNotFitError
from codesign.hardware.profile import HardwareProfile
from codesign.mapping.cost import evaluate
from codesign.mapping.counts import counts_of
from codesign.mapping.losses import losses_of
from codesign.mapping.mapper import map_layer
from codesign.mapping.mapping import Mapping, Residence, SpatialLoop, TemporalLoop
from codesign.mapping.meter import Meter
from codesign.mapping.objective import Objective
from codesign.mapping.streaming import vector_cost
from codesign.planning.changes import ChangeKind, engine_changes
from codesign.report.explanation import change_text
from codesign.vocabulary import Dimension, Operand, OperationKind
from codesign.workload.layer import Layer
from codesign.workload.loop_nest import LoopNest
from tests.machines import nests, profiles
from tests.simulator import simulate
from tests.test_losses import axis, machine

NEST = LoopNest(OperationKind.DENSE, (8, 1, 4, 4, 1, 1, 1, 1), input_rows=1, input_columns=1)
LIMITED = {"latency_cycles": 40, "requests_in_flight": 5, "request_bytes": 16}


def far(dram: float = 8, buffering: str = "double", **memory: int) -> HardwareProfile:
    """4 x 4 lanes over one sram, below a dram that answers late."""
    data = machine(rows=axis(4, "C"), columns=axis(4, "K"), dram=dram, buffering=buffering).model_dump(mode="json")
    data["memories"]["dram"] |= memory
    data["conventions"]["fill_and_drain"] = True
    return HardwareProfile.model_validate(data)


def waits(profile: HardwareProfile, nest: LoopNest = NEST) -> list[tuple[str, str, str, int]]:
    cost = map_layer(nest, profile, "array", Objective.LATENCY)
    found = losses_of(nest, cost, profile)
    return [(loss.where, loss.what, loss.detail, loss.cycles) for loss in found if loss.kind == "latency"]


def test_a_layer_waits_once_for_its_first_tiles_and_once_for_its_last() -> None:
    near, late = (map_layer(NEST, far(latency_cycles=cycles), "array", Objective.LATENCY) for cycles in (0, 7))
    assert late.cycles == near.cycles + 2 * 7
    assert waits(far(latency_cycles=7)) == [("dram", "", "first tiles from dram and last one back", 14)]


def test_refills_that_stop_the_lanes_wait_every_time() -> None:
    """Weights come once, inputs in eight tiles; outputs leave in eight. The first of each waits with the layer."""
    loops = (TemporalLoop(Dimension.B, 8),)
    parts = (
        Residence(Operand.WEIGHTS, "sram", 0),
        Residence(Operand.INPUTS, "sram", 1),
        Residence(Operand.OUTPUTS, "accumulators", 1),
        Residence(Operand.OUTPUTS, "sram", 1),
    )
    lanes = (SpatialLoop("rows", Dimension.C, 4), SpatialLoop("columns", Dimension.K, 4))
    mapping = Mapping("array", lanes, loops, parts)
    late, near = far(buffering="single", latency_cycles=7), far(buffering="single")
    counts = counts_of(NEST, mapping, near)
    evaluated = [evaluate(NEST, mapping, profile, counts).lane_cycles for profile in (near, late)]
    assert evaluated == [simulate(NEST, mapping, profile).lane_cycles for profile in (near, late)]
    assert evaluated[1] - evaluated[0] == 2 * 7 + 7 * 7 + 7 * 7


def test_requests_in_flight_limit_a_port() -> None:
    """5 requests of 16 bytes in 40 cycles are 2 bytes a cycle: a port of 8 is one of 2 with the same latency."""
    limited = map_layer(NEST, far(**LIMITED), "array", Objective.LATENCY)
    narrow = map_layer(NEST, far(dram=2, latency_cycles=40), "array", Objective.LATENCY)
    assert limited == narrow
    assert Meter(far(**LIMITED), "array").ports == ("dram.read_write",)


def test_a_stream_meets_the_rate() -> None:
    data = far(**LIMITED).model_dump(mode="json")
    data["vector_unit"] = {"lanes": 64, "operations": ["activation"], "energy_pj_per_operation": 0}
    nest = LoopNest(OperationKind.ACTIVATION, (1,) * 8, input_elements=64, output_elements=64, operations=64)
    layer = Layer("relu", "Relu", nest, ("x",), ("y",))
    assert vector_cost(layer, HardwareProfile.model_validate(data)).cycles == 128 / 2


def test_explain_tries_more_requests_in_flight() -> None:
    changes = [change for change in engine_changes(NEST, far(**LIMITED), "array") if change.kind is ChangeKind.REQUESTS]
    assert [change_text(change) for change in changes] == ["dram 10 requests in flight instead of 5"]
    assert changes[0].where == "memories.dram.requests_in_flight"
    assert changes[0].profile == far(**{**LIMITED, "requests_in_flight": 10})


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(nests(largest=8, volume=2_000), profiles(), st.integers(1, 30), st.integers(1, 6), st.integers(1, 64))
def test_a_nearer_memory_never_costs_more(
    nest: LoopNest, plain: HardwareProfile, latency: int, requests: int, size: int
) -> None:
    """Half the latency, or twice the requests in flight; and requests enough for the widest port are no limit."""
    data = plain.model_dump(mode="json")
    data["memories"]["dram"] |= {"latency_cycles": 2 * latency, "requests_in_flight": requests, "request_bytes": size}
    before = best(nest, data)
    data["memories"]["dram"]["latency_cycles"] = latency
    assert best(nest, data) <= before * (1 + 1e-9)
    data["memories"]["dram"] |= {"latency_cycles": 2 * latency, "requests_in_flight": 2 * requests}
    assert best(nest, data) <= before * (1 + 1e-9)
    data["memories"]["dram"] |= {"requests_in_flight": 2 * latency, "request_bytes": 64}
    enough = best(nest, data)
    data["memories"]["dram"] |= {"requests_in_flight": None, "request_bytes": None}
    assert best(nest, data) == pytest.approx(enough)


def best(nest: LoopNest, data: dict[str, Any]) -> float:
    try:
        cost = map_layer(nest, HardwareProfile.model_validate(data), "array", Objective.LATENCY)
    except DoesNotFitError:
        assume(False)
    assert cost.proven
    return cost.cycles
