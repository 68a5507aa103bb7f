"""Costs of what has no mapping: streams through the vector unit, work on the host, and views, which move nothing.

A stream reads every input element once from the off-chip memory through the on-chip memory of the inputs, and writes
every output element once. cycles = max(operations x cycles of one / lanes, busy cycles of every port); rows of a
softmax or a normalisation and the lines of a pooling window are taken to fit on chip. Fused into the layer before it,
it works on the outputs of that one on their way out: see `fused_cost`.
"""

from __future__ import annotations

from collections.abc import Mapping as Table
from dataclasses import dataclass
from math import ceil

from codesign.hardware.profile import HardwareProfile
from codesign.hardware.sections import VectorUnit
from codesign.mapping.cost import memory_energies
from codesign.mapping.layer_cost import Energy, LayerCost, Traffic
from codesign.mapping.meter import port_of
from codesign.vocabulary import Operand, OperationKind
from codesign.workload.layer import Layer

VECTOR_UNIT = "vector_unit"
HOST = "host"
VIEW = "view"


def view_cost() -> LayerCost:
    """A reshape: the same bytes under another shape."""
    return _cost(0, 0, VIEW, (), ())


def vector_cost(layer: Layer, profile: HardwareProfile) -> LayerCost:
    """A layer streamed through the vector unit."""
    unit = _vector_unit(profile)
    traffic = _stream(layer, profile)
    lane_cycles = _lane_cycles(layer, unit)
    compute = ceil(lane_cycles / unit.lanes)
    port, busy = _busiest(traffic, profile)
    energies = memory_energies(traffic, profile)
    work = Energy(VECTOR_UNIT, lane_cycles * unit.energy_pj_per_operation)
    return _cost(
        max(compute, ceil(busy)), compute, VECTOR_UNIT if compute >= busy else port, traffic, (work, *energies)
    )


@dataclass(frozen=True)
class WayOut:
    """A layer and what was fused into it so far: its cycles, and those in which each port and the vector unit work."""

    cycles: int
    busy: Table[str, float]


def way_out(cost: LayerCost, engine: str, profile: HardwareProfile) -> WayOut:
    """The way out of a layer into which nothing is fused yet. No port of it works longer than the layer takes."""
    busy = {port: min(cycles, float(cost.cycles)) for port, cycles in _busy(cost.traffic, profile).items()}
    return WayOut(cost.cycles, busy | ({VECTOR_UNIT: float(cost.compute_cycles)} if engine == VECTOR_UNIT else {}))


def fused_cost(layer: Layer, profile: HardwareProfile, before: WayOut) -> tuple[LayerCost, WayOut]:
    """A layer applied to the outputs of another on their way out: they are stored once, after it.

    Read are the operands that do not come from there: the other inputs, as large as the output each, and learned ones.
    It costs its operations' and this traffic's energy, and the cycles by which the vector unit or a port now works
    longer than layer and fused ones took before. Returned with the way out behind it.
    """
    unit = _vector_unit(profile)
    traffic = _others(layer, profile)
    lane_cycles = _lane_cycles(layer, unit)
    work = Energy(VECTOR_UNIT, lane_cycles * unit.energy_pj_per_operation)
    busy = dict(before.busy)
    own = {VECTOR_UNIT: float(ceil(lane_cycles / unit.lanes))} | _busy(traffic, profile)
    for name, cycles in own.items():
        busy[name] = busy.get(name, 0.0) + cycles
    limit = max(own, key=lambda name: busy[name])
    extra = max(0, ceil(round(busy[limit], 6)) - before.cycles)
    compute = extra if limit == VECTOR_UNIT else 0
    cost = _cost(extra, compute, limit, traffic, (work, *memory_energies(traffic, profile)))
    return cost, WayOut(before.cycles + extra, busy)


def host_cost(layer: Layer, profile: HardwareProfile) -> LayerCost:
    """A layer on the host: its operations or its bytes to and from the off-chip memory, whichever takes longer."""
    host, nest = profile.host, layer.nest
    traffic = _off_chip_alone(layer, profile)
    moved = sum(part.read_bytes + part.write_bytes for part in traffic)
    operations = nest.operations + 2 * nest.macs
    compute = ceil(operations / host.operations_per_cycle)
    _, busy = _busiest(traffic, profile)
    waiting = ceil(max(moved / host.bytes_per_cycle, busy))
    work = Energy(HOST, operations * host.energy_pj_per_operation + moved * host.energy_pj_per_byte)
    cycles = max(compute, waiting, 1)
    return _cost(cycles, min(compute, cycles), HOST, traffic, (work, *memory_energies(traffic, profile)))


def _cost(cycles: int, compute: int, limit: str, traffic: tuple[Traffic, ...], energy: tuple[Energy, ...]) -> LayerCost:
    return LayerCost(
        cycles=cycles,
        compute_cycles=compute,
        stall_cycles=cycles - compute,
        fill_drain_cycles=0,
        spatial_utilization=0.0,
        temporal_utilization=0.0,
        energy=energy,
        traffic=traffic,
        limited_by=limit,
        bound_cycles=cycles,
        gap=0.0,
        proven=True,
    )


def _bytes(layer: Layer, profile: HardwareProfile) -> dict[Operand, int]:
    """Bytes read and written; what a layer has learned (scales, slopes) is read as weights.

    The nests of operators known to no engine count bytes already.
    """
    elements = {
        Operand.WEIGHTS: layer.parameters if not layer.nest.has_macs else layer.nest.elements(Operand.WEIGHTS),
        Operand.INPUTS: layer.nest.elements(Operand.INPUTS),
        Operand.OUTPUTS: layer.nest.elements(Operand.OUTPUTS),
    }
    if layer.nest.kind is OperationKind.HOST:
        return elements
    return {operand: ceil(count * profile.bits(operand) / 8) for operand, count in elements.items()}


def _off_chip_alone(layer: Layer, profile: HardwareProfile) -> tuple[Traffic, ...]:
    sizes = _bytes(layer, profile)
    read = (Traffic(profile.home(operand), operand, sizes[operand], 0) for operand in (Operand.WEIGHTS, Operand.INPUTS))
    return (*read, Traffic(profile.home(Operand.OUTPUTS), Operand.OUTPUTS, 0, sizes[Operand.OUTPUTS]))


def _others(layer: Layer, profile: HardwareProfile) -> tuple[Traffic, ...]:
    """A fused layer's operands but the one it is applied to: from home to on chip to the vector unit."""
    outputs = layer.nest.elements(Operand.OUTPUTS)
    others = max(0, layer.nest.elements(Operand.INPUTS) - outputs)
    counts = {Operand.WEIGHTS: layer.parameters, Operand.INPUTS: others}
    traffic = []
    for operand, count in counts.items():
        size = ceil(count * profile.bits(operand) / 8)
        if size:
            traffic.append(Traffic(_outermost_on_chip(profile, operand), operand, size, size))
            traffic.append(Traffic(profile.home(operand), operand, size, 0))
    return tuple(traffic)


def _stream(layer: Layer, profile: HardwareProfile) -> tuple[Traffic, ...]:
    """Off chip to the outermost on-chip memory of each operand, in and out of it once."""
    through = []
    for operand, size in _bytes(layer, profile).items():
        memory = _outermost_on_chip(profile, operand)
        through.append(Traffic(memory, operand, size, size))
    return (*through, *_off_chip_alone(layer, profile))


def _outermost_on_chip(profile: HardwareProfile, operand: Operand) -> str:
    return [name for name, memory in profile.memories.items() if operand in memory.holds][-2]


def _busiest(traffic: tuple[Traffic, ...], profile: HardwareProfile) -> tuple[str, float]:
    """The port with the most busy cycles."""
    return max(_busy(traffic, profile).items(), key=lambda item: item[1], default=("", 0.0))


def _busy(traffic: tuple[Traffic, ...], profile: HardwareProfile) -> dict[str, float]:
    """Busy cycles of every port used."""
    busy: dict[str, float] = {}
    for part in traffic:
        for size, reading in ((part.read_bytes, True), (part.write_bytes, False)):
            port, bandwidth = port_of(profile, part.memory, reading=reading)
            if port and size:
                busy[port] = busy.get(port, 0.0) + size / bandwidth
    return busy


def _lane_cycles(layer: Layer, unit: VectorUnit) -> float:
    """Of an activation of several nodes, the operations of each at the figure of its own kind."""
    parts = layer.members or (layer,)
    return sum(unit.lane_cycles(part.nest.kind, part.nest.operations) for part in parts)


def _vector_unit(profile: HardwareProfile) -> VectorUnit:
    if profile.vector_unit is None:
        raise ValueError(f"{profile.name} has no vector unit")
    return profile.vector_unit
