"""What a pass is told a graph costs is what its plan says, and no layer is searched twice for it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import onnx_ir as ir
import pytest
from hypothesis import given

from codesign import compiler
from codesign.compiler import plan_model
from codesign.errors import DoesNotFitError
from codesign.graph.graph import Graph
from codesign.hardware.loading import load_profile
from codesign.hardware.profile import HardwareProfile
from codesign.mapping.cache import SearchMemory
from codesign.mapping.mapper import Found, search
from codesign.mapping.objective import AnyObjective, Objective, objective_named
from codesign.planning.plan import Identity
from codesign.planning.planner import Network, plan_network
from codesign.planning.pricing import PlanningOracle
from codesign.rewriting.graph_pass import Effect, GraphPass, Outcome, PassContext, Price
from codesign.rewriting.pipeline import Pipeline, find_pipeline
from codesign.rewriting.runner import run_pipeline
from codesign.settings import Settings
from codesign.workload.layers import layers_of, parameters_of
from codesign.workload.loop_nest import LoopNest
from tests.machines import examples, profiles
from tests.pass_networks import network

OBJECTIVES = ("latency", "energy", "edp", "1*latency+0.002*energy")
EDGE = load_profile("edge_npu").profile


def planned_price(graph: Graph, profile: HardwareProfile, objective: AnyObjective) -> Price:
    """The price as a plan of the graph adds up to it."""
    identity = Identity("network", "0" * 64)
    outputs = frozenset(str(value.name) for value in graph.outputs)
    what = Network(identity, "network", layers_of(graph), outputs, parameters_of(graph), "int8", ())
    plan = plan_network(what, profile, identity, objective, version="test")
    energy_pj = sum(planned.cost.energy_pj for planned in plan.layers)
    totals = plan.totals
    assert energy_pj / 1e6 == totals.energy_uj
    score = objective.of(totals.cycles, energy_pj)
    return Price(score, totals.cycles, energy_pj, totals.dram_bytes, totals.macs, totals.params)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("machine", ["ecnn", "edge_npu", "ethos_u55_128"])
def test_a_price_is_what_the_plan_says(machine: str, objective: str) -> None:
    profile, wanted = load_profile(machine).profile, objective_named(objective)
    graph = network("conv_norm")
    assert PlanningOracle(profile, wanted, search).price(graph) == planned_price(graph, profile, wanted)


@given(profile=profiles())
@examples(12)
def test_a_price_is_what_the_plan_says_on_any_machine(profile: HardwareProfile) -> None:
    graph = network("classifier")
    oracle = PlanningOracle(profile, Objective.EDP, search)
    try:
        wanted = planned_price(graph, profile, Objective.EDP)
    except DoesNotFitError as error:
        with pytest.raises(DoesNotFitError) as refused:
            oracle.price(graph)
        assert refused.value.problems == error.problems
    else:
        assert oracle.price(graph) == wanted


@dataclass
class Counting:
    """A search that counts what it is asked."""

    asked: Counter[LoopNest] = field(default_factory=Counter)

    def search(self, nest: LoopNest, profile: HardwareProfile, engine: str, objective: AnyObjective) -> Found:
        self.asked[nest] += 1
        return search(nest, profile, engine, objective)


def test_layers_of_similar_graphs_are_searched_once() -> None:
    counting = Counting()
    oracle = PlanningOracle(EDGE, Objective.LATENCY, SearchMemory(counting.search).search)
    graph = network("conv_norm")
    before = oracle.price(graph)
    assert sorted(counting.asked.values()) == [1, 1]
    folded, _ = run_pipeline(graph, find_pipeline("default"), PassContext())
    assert oracle.price(folded).parameters < before.parameters
    assert oracle.price(graph) == before
    assert sorted(counting.asked.values()) == [1, 1]


def test_a_layer_that_does_not_fit_is_searched_once_and_refused_every_time() -> None:
    memories = {name: memory.model_copy(update={"size_bytes": 1}) for name, memory in EDGE.memories.items()}
    tiny = EDGE.model_copy(update={"memories": memories | {EDGE.off_chip: EDGE.memories[EDGE.off_chip]}})
    counting = Counting()
    oracle = PlanningOracle(tiny, Objective.LATENCY, SearchMemory(counting.search).search)
    for _ in range(2):
        with pytest.raises(DoesNotFitError, match="network: node"):
            oracle.price(network("conv_norm"))
    assert set(counting.asked.values()) == {1}


def test_machines_are_not_confused() -> None:
    memory = SearchMemory(search)
    prices = {
        machine: PlanningOracle(load_profile(machine).profile, Objective.LATENCY, memory.search).price(
            network("classifier")
        )
        for machine in ("ecnn", "edge_npu")
    }
    assert prices["ecnn"].cycles != prices["edge_npu"].cycles


@dataclass(frozen=True)
class Asking(GraphPass):
    """Asks what the graph costs."""

    name: ClassVar[str] = "asking"
    effect: ClassVar[Effect] = Effect.EXACT
    prices: ClassVar[list[Price]] = []

    def run(self, graph: Graph, context: PassContext) -> list[Outcome]:
        assert context.cost_oracle is not None
        self.prices.append(context.cost_oracle.price(graph))
        return []


def test_the_compiler_gives_passes_an_oracle_of_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(compiler, "resolve_pipeline", lambda text: Pipeline(text, (Asking(),)))
    path = tmp_path / "network.onnx"
    ir.save(network("conv_norm").model, path)
    plan = plan_model(path, Settings("edge_npu", passes="asking", objective="energy")).plan
    [price] = Asking.prices
    assert (price.cycles, price.dram_bytes) == (plan.totals.cycles, plan.totals.dram_bytes)
    assert price.score == price.energy_pj == pytest.approx(plan.totals.energy_uj * 1e6)
