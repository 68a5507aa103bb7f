"""Costs of what has no mapping: streams through the vector unit, work on the host, and views, which move nothing.

A stream reads every input element once from the off-chip memory through the on-chip memory of the inputs, and writes
every output element once. cycles = max(operations / lanes, busy cycles of every port); rows of a softmax or a
normalisation and the lines of a pooling window are taken to fit on chip.
"""

from __future__ import annotations

from math import ceil

from codesign.hardware.profile import HardwareProfile, VectorUnit
from codesign.mapping.cost import memory_energies, port_of
from codesign.mapping.layer_cost import Energy, LayerCost, Traffic
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
    compute = ceil(layer.nest.operations / unit.lanes)
    port, busy = _busiest(traffic, profile)
    energies = memory_energies(traffic, profile)
    work = Energy(VECTOR_UNIT, layer.nest.operations * unit.energy_pj_per_operation)
    return _cost(
        max(compute, ceil(busy)), compute, VECTOR_UNIT if compute >= busy else port, traffic, (work, *energies)
    )


def fused_cost(layer: Layer, profile: HardwareProfile, free_cycles: int) -> tuple[LayerCost, int]:
    """An activation applied to its producer's outputs on their way out: nothing is stored in between.

    It costs its operations' energy, and the cycles it needs beyond `free_cycles`, those in which its producer leaves
    the vector unit idle. Returned with the cycles that are still free after it.
    """
    unit = _vector_unit(profile)
    compute = ceil(layer.nest.operations / unit.lanes)
    extra = max(0, compute - free_cycles)
    work = Energy(VECTOR_UNIT, layer.nest.operations * unit.energy_pj_per_operation)
    return _cost(extra, extra, VECTOR_UNIT, (), (work,)), max(0, free_cycles - compute)


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
    busy: dict[str, float] = {}
    for part in traffic:
        for size, reading in ((part.read_bytes, True), (part.write_bytes, False)):
            port, bandwidth = port_of(profile, part.memory, reading=reading)
            if port:
                busy[port] = busy.get(port, 0.0) + size / bandwidth
    return max(busy.items(), key=lambda item: item[1], default=("", 0.0))


def _vector_unit(profile: HardwareProfile) -> VectorUnit:
    if profile.vector_unit is None:
        raise ValueError(f"{profile.name} has no vector unit")
    return profile.vector_unit
