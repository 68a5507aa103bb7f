"""Objectives by name, and a search over a grid too large for tables."""

from __future__ import annotations

import pytest

from codesign.errors import CodesignError
from codesign.hardware.loading import load_profile
from codesign.mapping import mapper
from codesign.mapping.mapper import search
from codesign.mapping.objective import Objective, WeightedSum, objective_named
from codesign.vocabulary import OperationKind
from codesign.workload.loop_nest import LoopNest

NEST = LoopNest(
    OperationKind.CONVOLUTION, (1, 1, 128, 128, 28, 28, 3, 3), pads=(1, 1, 1, 1), input_rows=28, input_columns=28
)


@pytest.mark.parametrize("name", list(Objective))
def test_the_three_by_name(name: str) -> None:
    assert objective_named(name) is Objective(name)


@pytest.mark.parametrize("text", ["2*latency+0.5*energy", "0.5*energy + 2*latency", "2e0*latency+.5*energy"])
def test_a_sum_by_its_weights(text: str) -> None:
    named = objective_named(text)
    assert named == WeightedSum(per_cycle=2.0, per_pj=0.5)
    assert objective_named(str(named)) == named
    assert named.of(10.0, 4.0) == 22.0


@pytest.mark.parametrize(
    "text",
    ["speed", "", "latency+energy", "1*latency", "1*latency+1*latency", "1*latency+0*energy", "1*latency+nan*energy"],
)
def test_what_is_no_objective(text: str) -> None:
    with pytest.raises(CodesignError) as caught:
        objective_named(text)
    assert str(caught.value) == (
        f"--objective: no objective is called {text}\n"
        "  hint: one of latency, energy, edp, or a sum of cycles and pJ such as 1*latency+0.002*energy"
    )


def test_a_sum_lies_between_its_parts() -> None:
    machine = load_profile("gemmini16").profile
    fastest = search(NEST, machine, "array", Objective.LATENCY)
    thriftiest = search(NEST, machine, "array", Objective.ENERGY)
    almost_latency = search(NEST, machine, "array", WeightedSum(1.0, 1e-12))
    almost_energy = search(NEST, machine, "array", WeightedSum(1e-9, 1.0))
    assert almost_latency.objective_value == pytest.approx(fastest.objective_value, rel=1e-6)
    assert almost_energy.objective_value == pytest.approx(thriftiest.objective_value, rel=1e-6)


def test_too_large_for_tables_is_searched_over_divisors_and_not_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = load_profile("reference_a").profile
    perfect = search(NEST, machine, "array", Objective.EDP, perfect=True)
    imperfect = search(NEST, machine, "array", Objective.EDP)
    assert imperfect.proven and imperfect.objective_value < perfect.objective_value
    monkeypatch.setattr(mapper, "MOST_ENTRIES", 1_000_000)
    found = search(NEST, machine, "array", Objective.EDP)
    assert found.objective_value == pytest.approx(perfect.objective_value, rel=1e-9)
    assert not found.proven and found.gap > 0
    assert found.bound_value <= imperfect.objective_value
