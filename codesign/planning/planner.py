"""From layers to a Plan: place every layer, fuse what needs no memory in between, add up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from codesign.errors import DoesNotFitError
from codesign.hardware.profile import HardwareProfile
from codesign.mapping.cache import Search
from codesign.mapping.losses import losses_of
from codesign.mapping.mapper import search
from codesign.mapping.objective import AnyObjective
from codesign.planning.fusion import fuse
from codesign.planning.instructions import Instruction
from codesign.planning.placement import Placer, as_units_run, refuse_host
from codesign.planning.plan import Identity, Plan, PlannedLayer, Totals
from codesign.rewriting.record import PassRecord
from codesign.workload.layer import Layer


@dataclass(frozen=True)
class Network:
    """What is planned: the layers, the outputs' names, and what to call it all.

    where: what problems point at, the model's file. precision: as the report prints it. parameters: learned values,
    shared ones counted once. pipeline: which passes ran and who named them, as the report prints it. floating: of a
    quantised network, the layers that stay in floating point, and why.
    """

    model: Identity
    where: str
    layers: Sequence[Layer]
    outputs: frozenset[str]
    parameters: int
    precision: str
    passes: tuple[PassRecord, ...]
    pipeline: str = ""
    floating: Mapping[str, str] = field(default_factory=dict)


def plan_network(
    network: Network,
    profile: HardwareProfile,
    hardware: Identity,
    objective: AnyObjective,
    *,
    version: str,
    instructions: Mapping[str, Instruction] | None = None,
    search: Search = search,
    allow_host: bool = True,
    on_layer: Callable[[str, int, int], None] | None = None,
) -> Plan:
    """The plan of a network on a machine.

    instructions: by layer name, mappings that are taken as they are, and constraints on the search. search: how a
    mapping is found. on_layer: told the layer about to be mapped, its number from 1, and how many there are. Raises
    DoesNotFitError naming every layer that fits no engine, CodesignError naming every layer on the host unless
    `allow_host`.
    """
    placer = Placer(profile, objective, network.where, instructions or {}, search)
    units = [unit for layer in network.layers for unit in as_units_run(layer, profile)]
    placed = []
    for number, layer in enumerate(units, 1):
        if on_layer is not None:
            on_layer(layer.name, number, len(units))
        found = placer.place(layer)
        reason = network.floating.get(layer.name)
        placed.append(found if reason is None else replace(found, note=f"stays in floating point: {reason}"))
    if placer.problems:
        raise DoesNotFitError.of(placer.problems)
    if not allow_host:
        refuse_host(placed, network.where)
    fused = fuse(placed, network.outputs, profile)
    layers = tuple(replace(part, losses=losses_of(part.layer.nest, part.cost, profile)) for part in fused)
    return Plan(
        codesign=version,
        model=network.model,
        hardware=hardware,
        precision=network.precision,
        objective=str(objective),
        clock_mhz=profile.clock_mhz,
        peak_macs_per_cycle=profile.peak_macs_per_cycle,
        off_chip=profile.off_chip,
        off_chip_bytes_per_cycle=_off_chip_bytes_per_cycle(profile),
        passes=network.passes,
        pipeline=network.pipeline,
        layers=layers,
        totals=_totals(layers, network.parameters, profile),
    )


def _off_chip_bytes_per_cycle(profile: HardwareProfile) -> float:
    memory = profile.memories[profile.off_chip]
    found = [memory.bytes_per_cycle(port) for port in (memory.ports.read_write, memory.ports.read) if port is not None]
    return found[0] if found else float("inf")


def _totals(layers: tuple[PlannedLayer, ...], parameters: int, profile: HardwareProfile) -> Totals:
    macs = sum(planned.layer.nest.macs for planned in layers)
    cycles = sum(planned.cost.cycles for planned in layers)
    seconds = cycles / (profile.clock_mhz * 1e6)
    return Totals(
        macs=macs,
        params=parameters,
        cycles=cycles,
        latency_ms=seconds * 1e3,
        fps=1 / seconds if seconds else 0.0,
        energy_uj=sum(planned.cost.energy_pj for planned in layers) / 1e6,
        utilization=macs / (cycles * profile.peak_macs_per_cycle) if cycles else 0.0,
        dram_bytes=off_chip_bytes(layers, profile),
        peak_sram_bytes=max((planned.cost.on_chip_bytes for planned in layers), default=0),
    )


def off_chip_bytes(layers: Iterable[PlannedLayer], profile: HardwareProfile) -> int:
    """Bytes layers read from and write into the outermost memory."""
    return sum(
        part.read_bytes + part.write_bytes
        for planned in layers
        for part in planned.cost.traffic
        if part.memory == profile.off_chip
    )
