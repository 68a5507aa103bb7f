"""Every shipped machine costs eleven published networks, whose counts are held against the published ones.

The networks keep their structure but are costed a quarter as wide, on small inputs, with a short search: as many
layers as a full network has, in seconds a machine. LIMIT, SMALL and WIDTH say how much is left out.
"""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from codesign.errors import DoesNotFitError
from codesign.hardware.loading import load_profile, shipped_folder
from codesign.hardware.profile import HardwareProfile
from codesign.mapping.legality import problems_of
from codesign.mapping.objective import Objective
from codesign.planning.plan import Identity, Plan, PlannedLayer
from codesign.planning.planner import Network, plan_network
from codesign.vocabulary import Operand
from codesign.workload.layer import Layer
from tests.published_networks import PUBLISHED

SHIPPED = tuple(sorted(path.stem for path in shipped_folder().glob("*.yaml")))
LIMIT = 100  # expansions of the search for one layer
SMALL, WIDTH = True, Fraction(1, 4)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_networks_have_the_published_counts(name: str) -> None:
    """Multiply-accumulates and learned values, counted by others."""
    published = PUBLISHED[name]
    layers = published.layers()
    assert abs(sum(layer.nest.macs for layer in layers) - published.macs) <= published.rounding, published.source
    if published.parameters is not None:
        assert sum(layer.parameters for layer in layers) == published.parameters, published.source


@pytest.mark.parametrize(
    ("width", "macs", "parameters"),
    [("3/4", 325_400_448, 2_585_560), ("1/2", 149_497_088, 1_331_592), ("1/4", 41_030_272, 470_072)],
)
def test_a_narrower_network_has_its_own_published_counts(width: str, macs: int, parameters: int) -> None:
    """pytorchcv mobilenet_w3d4, mobilenet_wd2, mobilenet_wd4."""
    layers = PUBLISHED["mobilenet_v1"].layers(width=Fraction(width))
    assert sum(layer.nest.macs for layer in layers) == macs
    assert sum(layer.parameters for layer in layers) == parameters


def network_of(name: str) -> Network:
    layers = PUBLISHED[name].layers(small=SMALL, width=WIDTH)
    learned = sum(layer.parameters for layer in layers)
    return Network(Identity(name, "0" * 64), name, layers, frozenset(layers[-1].outputs), learned, "int8", ())


def planned(name: str, profile: HardwareProfile) -> Plan:
    return plan_network(network_of(name), profile, Identity(profile.name, "0" * 64), Objective.LATENCY, version="test")


@pytest.mark.parametrize("machine", SHIPPED)
def test_every_machine_costs_every_network(machine: str) -> None:
    profile = load_profile(machine).profile
    for name in PUBLISHED:
        plan = planned(name, profile)
        expected = network_of(name).layers
        assert [part.layer.name for part in plan.layers] == [layer.name for layer in expected]
        assert plan.totals.macs == sum(layer.nest.macs for layer in expected)
        assert plan.totals.cycles == sum(part.cost.cycles for part in plan.layers)
        for figure in (plan.totals.cycles, plan.totals.energy_uj, plan.totals.latency_ms, plan.totals.peak_sram_bytes):
            assert 0 < figure < math.inf, name
        for part in plan.layers:
            check_layer(part, profile)


def check_layer(part: PlannedLayer, profile: HardwareProfile) -> None:
    """What holds for the cost of any layer, whatever the machine."""
    cost, nest = part.cost, part.layer.nest
    assert cost.cycles == cost.compute_cycles + cost.stall_cycles + cost.fill_drain_cycles
    if part.engine not in profile.engines:
        assert not nest.has_macs or part.note, part.layer.name
        return
    assert cost.mapping is not None
    assert problems_of(nest, cost.mapping, profile) == [], part.layer.name
    assert cost.cycles * profile.engines[part.engine].peak_macs_per_cycle >= nest.macs
    assert cost.bound_cycles <= cost.cycles and cost.gap >= 0
    for operand in (Operand.WEIGHTS, Operand.OUTPUTS):
        tensor_bytes = nest.elements(operand) * profile.bits(operand) / 8
        assert moved(part, operand, profile.home(operand)) >= tensor_bytes, part.layer.name


def moved(part: PlannedLayer, operand: Operand, memory: str) -> int:
    """Bytes of an operand into and out of a memory."""
    found = [traffic for traffic in part.cost.traffic if (traffic.memory, traffic.operand) == (memory, operand)]
    return sum(traffic.read_bytes + traffic.write_bytes for traffic in found)


def test_a_machine_without_room_costs_nothing() -> None:
    described = load_profile("edge_npu").profile.model_dump(mode="json")
    described["memories"]["sram"]["size_bytes"] = 1
    with pytest.raises(DoesNotFitError):
        planned("lenet_5", HardwareProfile.model_validate(described))


def test_the_order_of_layers_is_that_of_the_network() -> None:
    """Every layer reads what an earlier one wrote: the builder lost no end of a branch."""
    for name, published in PUBLISHED.items():
        layers: list[Layer] = published.layers()
        written = {"input"}
        for layer in layers:
            assert set(layer.inputs) <= written, f"{name}: {layer.name}"
            written |= set(layer.outputs)
        read = {tensor for layer in layers for tensor in layer.inputs}
        assert written - read == set(layers[-1].outputs), name
