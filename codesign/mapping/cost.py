"""The cost model: cycles, energy and traffic of one layer from the counts of its mapping.

cycles = max(compute + serial + fill + drain + latency, busy cycles of every port). compute: steps of the lanes, times
the passes of operands wider than theirs, and the turns they take. serial: refills of memories without double buffering,
which stop the lanes. fill: the first tile of every memory on the way in (and the engine's pipeline); drain: the last
output tile on the way out. latency: the first request of a layer to a memory, its last tile back, and refills that stop
the lanes. Busy: bytes through a port over its bytes per cycle.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping as Table
from dataclasses import dataclass
from functools import cached_property
from math import ceil, prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from codesign.hardware.profile import HardwareProfile
from codesign.hardware.sections import Buffering
from codesign.mapping.bursts import Density, density_of
from codesign.mapping.layer_cost import Energy, LayerCost, Traffic
from codesign.mapping.mapping import ENGINE, LayerCounts, Mapping, Residence, Transfer
from codesign.vocabulary import OPERANDS, OUTPUTS, Operand
from codesign.workload.loop_nest import LoopNest

_STOPPING = {Buffering.SINGLE: (1, 2), Buffering.EITHER: (1,)}  # copies of a tile
Costs = tuple[float, ...]
Vector = NDArray[np.float64]


def plus(total: Costs, costs: Costs, count: float = 1) -> Costs:
    """Costs of so many more."""
    return tuple([before + count * each for before, each in zip(total, costs, strict=True)])


class _End(NamedTuple):
    """One end of a way, read or written. port: "" where the memory has none."""

    port: str
    bytes_per_cycle: float
    pj_per_byte: float


@dataclass(frozen=True)
class Meter:
    """Costs per element moved, as rows (lane cycles, busy cycles of each port..., energy in pJ) of one engine."""

    profile: HardwareProfile
    engine: str

    @cached_property
    def levels(self) -> dict[Operand, tuple[str, ...]]:
        """Memories each operand passes through, innermost first, its home last."""
        return {operand: self.profile.hierarchy(self.engine, operand) for operand in OPERANDS}

    @cached_property
    def ranks(self) -> dict[str, int]:
        """How far out the engine and every memory are."""
        return {name: rank for rank, name in enumerate((ENGINE, *self.profile.memories))}

    @cached_property
    def _ends(self) -> dict[tuple[str, bool], _End]:
        """By memory, and whether it is read."""
        return {
            (name, reading): _End(
                *port_of(self.profile, name, reading=reading),
                level.read_pj_per_byte if reading else level.write_pj_per_byte,
            )
            for name, level in self.profile.memories.items()
            for reading in (True, False)
        }

    @cached_property
    def ports(self) -> tuple[str, ...]:
        """Names of all ports: `sram.read`, `dram.read_write`."""
        return tuple(dict.fromkeys(end.port for end in self._ends.values() if end.port))

    @cached_property
    def zero(self) -> Costs:
        """No cost at all."""
        return (0.0,) * (len(self.ports) + 2)

    def bytes_moved(
        self,
        operand: Operand,
        source: str,
        destination: str,
        memory: str,
        *,
        partial: bool,
        bursts: float | None = None,
    ) -> float:
        """Bytes one element is at one end of its way: as this memory stores it, or of the bursts it moves.

        Outputs move at accumulator width to and from the lanes, and while partial.
        """
        burst_bytes = self.profile.memories[memory].burst_bytes
        if bursts is not None and burst_bytes is not None:
            return bursts * burst_bytes
        wide = operand is OUTPUTS and (partial or ENGINE in (source, destination))
        return (self.profile.precision.accumulators_bits if wide else self.profile.stored_bits(operand, memory)) / 8

    def hop(
        self,
        operand: Operand,
        source: str,
        destination: str,
        *,
        partial: bool = False,
        stops_lanes: bool = False,
        bursts: float | None = None,
    ) -> Costs:
        """Cost of moving one element; lane cycles only where it does not overlap with compute.

        bursts: of them per element off chip, where that memory moves whole ones.
        """
        key = (operand, source, destination, partial, stops_lanes, bursts)
        if key not in self._hops:
            self._hops[key] = self._hop(*key)
        return self._hops[key]

    @cached_property
    def _hops(self) -> dict[tuple[Operand, str, str, bool, bool, float | None], Costs]:
        return {}

    def _hop(
        self,
        operand: Operand,
        source: str,
        destination: str,
        partial: bool,
        stops_lanes: bool,
        bursts: float | None,
    ) -> Costs:
        costs = list(self.zero)
        slowest = 0.0
        for memory, reading in ((source, True), (destination, False)):
            if memory == ENGINE:
                continue
            end = self._ends[memory, reading]
            size = self.bytes_moved(operand, source, destination, memory, partial=partial, bursts=bursts)
            costs[-1] += size * end.pj_per_byte
            if end.port:
                costs[1 + self.ports.index(end.port)] += size / end.bytes_per_cycle
                slowest = max(slowest, size / end.bytes_per_cycle)
        if stops_lanes:
            costs[0] = slowest
        return tuple(costs)

    def fill(
        self,
        operand: Operand,
        source: str,
        destination: str,
        *,
        partial: bool = False,
        stops_lanes: bool = False,
        bursts: float | None = None,
    ) -> float:
        """Lane cycles per element of the first tile in (or the last out): 0 where refills stop the lanes anyway."""
        inwards = operand is OUTPUTS and self.ranks[source] > self.ranks[destination]
        if ENGINE in (source, destination) or inwards or not self.profile.conventions.fill_and_drain:
            return 0.0
        if stops_lanes:
            return 0.0
        hop = self.hop(operand, source, destination, partial=partial, bursts=bursts)
        return max(hop[1:-1], default=0.0)

    @cached_property
    def first_waits(self) -> dict[str, int]:
        """Lane cycles a layer waits for every memory tiles come from and leave to, wherever they do.

        Its latency once for the first tiles in, weights and inputs together, and once for the last tile out.
        """
        if not self.profile.conventions.fill_and_drain:
            return {}
        ways = {(name, operand is OUTPUTS) for operand, levels in self.levels.items() for name in levels[1:]}
        return {
            name: level.latency_cycles * sum((name, way) in ways for way in (False, True))
            for name, level in self.profile.memories.items()
            if level.latency_cycles
        }

    def refill_wait(self, operand: Operand, memory: str, copies: int) -> int:
        """Lane cycles a refill waits for the memory outside: its latency, where refills stop the lanes."""
        if not stops_the_lanes(self.profile, memory, copies):
            return 0
        levels = self.levels[operand]
        return self.profile.memories[levels[levels.index(memory) + 1]].latency_cycles

    def stops_lanes(self, mapping: Mapping, transfer: Transfer) -> bool:
        """Whether a transfer and compute take turns: the memory further in holds one copy that does not overlap."""
        if ENGINE in (transfer.source, transfer.destination):
            return False
        inner = min(transfer.source, transfer.destination, key=self.ranks.__getitem__)
        residence = mapping.residence(transfer.operand, inner)
        return stops_the_lanes(self.profile, inner, residence.buffers if residence else 1)


def stops_the_lanes(profile: HardwareProfile, memory: str, copies: int) -> bool:
    """Whether refills of a tile held in so many copies stop the lanes."""
    return copies in _STOPPING.get(profile.memories[memory].buffering, ())


def port_of(profile: HardwareProfile, memory: str, *, reading: bool) -> tuple[str, float]:
    """Name (`sram.read`, `dram.read_write`) and bytes per cycle of the port used; ("", 0) where the memory has none."""
    level = profile.memories[memory]
    if level.ports.read_write is not None:
        return f"{memory}.read_write", level.bytes_per_cycle(level.ports.read_write)
    chosen = level.ports.read if reading else level.ports.write
    if chosen is None:
        return "", 0.0
    return f"{memory}.{'read' if reading else 'write'}", level.bytes_per_cycle(chosen)


@dataclass(frozen=True)
class Evaluation:
    """A mapping's cost before rounding. compute, lane (serial, fill and drain included) and port cycles; pJ."""

    compute_cycles: int
    lane_cycles: float
    port_cycles: Table[str, float]
    energy_pj: float

    @property
    def latency_cycles(self) -> float:
        """The longest of the lanes and all ports."""
        return max([self.lane_cycles, *self.port_cycles.values()])


class _Move(NamedTuple):
    """A transfer as it is priced. bursts: if it moves in such."""

    transfer: Transfer
    bursts: Density | None
    stops_lanes: bool


def _moves(nest: LoopNest, mapping: Mapping, meter: Meter, counts: LayerCounts) -> list[_Move]:
    return [
        _Move(transfer, density_of(nest, mapping, meter.profile, transfer), meter.stops_lanes(mapping, transfer))
        for transfer in counts.transfers
    ]


def evaluate(nest: LoopNest, mapping: Mapping, profile: HardwareProfile, counts: LayerCounts) -> Evaluation:
    """Price the counts of one mapping of a nest."""
    meter = Meter(profile, mapping.engine)
    return _evaluated(nest, mapping, meter, counts, _moves(nest, mapping, meter, counts))


def _evaluated(
    nest: LoopNest, mapping: Mapping, meter: Meter, counts: LayerCounts, moves: Iterable[_Move]
) -> Evaluation:
    profile = meter.profile
    engine = profile.engines[mapping.engine]
    compute = compute_cycles(counts, mapping, profile)
    total = meter.zero
    for transfer, bursts, stops_lanes in moves:
        hop = meter.hop(
            transfer.operand,
            transfer.source,
            transfer.destination,
            partial=transfer.partial,
            stops_lanes=stops_lanes,
            bursts=None if bursts is None else bursts.layer,
        )
        total = plus(total, hop, transfer.elements)
    lanes, *ports, energy = total
    lanes += compute + engine.pipeline_depth_cycles + _fill_cycles(meter, counts, moves)
    lanes += refill_overhead_cycles(nest, mapping, profile)
    lanes += sum(meter.first_waits.values()) + sum(refill_waits(nest, mapping, meter))
    energy += mac_energy_pj(counts.macs_useful, profile, mapping.engine)
    return Evaluation(compute, lanes, dict(zip(meter.ports, ports, strict=True)), energy)


def compute_cycles(counts: LayerCounts, mapping: Mapping, profile: HardwareProfile) -> int:
    """Cycles in which the lanes work: their steps, each of as many passes as the operands take, and turns."""
    steps = counts.macs_issued // prod(loop.extent for loop in mapping.spatial)
    return steps * profile.cycles_per_step(mapping.engine)


def mac_energy_pj(macs: int, profile: HardwareProfile, engine: str) -> float:
    """Energy of the lanes for so many MACs, all their passes together."""
    return macs * profile.passes(engine) * profile.engines[engine].energy_pj_per_mac


def _fill_cycles(meter: Meter, counts: LayerCounts, moves: Iterable[_Move]) -> float:
    """Cycles of the first tiles in and the last tile out, hop by hop."""
    tiles = {(part.operand, part.memory): part.elements for part in counts.allocations}
    cycles = 0.0
    for transfer, bursts, stops_lanes in moves:
        if ENGINE in (transfer.source, transfer.destination):
            continue
        held_in = transfer.source if transfer.operand is OUTPUTS else transfer.destination
        if (transfer.operand, held_in) not in tiles:
            continue  # partial sums on their way back in from off chip: nothing starts or ends with them
        cycles += tiles[transfer.operand, held_in] * meter.fill(
            transfer.operand,
            transfer.source,
            transfer.destination,
            partial=transfer.partial,
            stops_lanes=stops_lanes,
            bursts=None if bursts is None else bursts.tile,
        )
    return cycles


def refill_overhead_cycles(nest: LoopNest, mapping: Mapping, profile: HardwareProfile) -> int:
    """Cycles the lanes wait at refills beyond the transfers: tiles of each residence x its memory's overhead."""
    return sum(
        _tiles(nest, mapping, part) * overhead
        for part in mapping.residences
        if (overhead := profile.memories[part.memory].refill_overhead_cycles)
    )


def refill_waits(nest: LoopNest, mapping: Mapping, meter: Meter) -> list[int]:
    """Cycles the refills of each residence that stop the lanes wait for the memory outside, without the first one."""
    waits = [meter.refill_wait(part.operand, part.memory, part.buffers) for part in mapping.residences]
    parts = zip(mapping.residences, waits, strict=True)
    return [(_tiles(nest, mapping, part) - 1) * wait if wait else 0 for part, wait in parts]


def _tiles(nest: LoopNest, mapping: Mapping, part: Residence) -> int:
    return prod(-(-size // tile) for size, tile in zip(nest.sizes, mapping.tile(nest, part.position), strict=True))


def layer_cost(
    nest: LoopNest,
    mapping: Mapping,
    profile: HardwareProfile,
    counts: LayerCounts,
    *,
    on_chip_bytes: int,
    bound_cycles: int,
    gap: float,
    proven: bool,
) -> LayerCost:
    """The full cost of one mapped layer."""
    meter = Meter(profile, mapping.engine)
    moves = _moves(nest, mapping, meter, counts)
    found = _evaluated(nest, mapping, meter, counts, moves)
    cycles, not_counted = _counted(found, profile)
    lane_extra = min(cycles - found.compute_cycles, ceil(round(found.lane_cycles - found.compute_cycles, 6)))
    lanes, passes = profile.engines[mapping.engine].peak_macs_per_cycle, profile.passes(mapping.engine)
    traffic = _traffic(meter, moves)
    engine = Energy("engine", mac_energy_pj(counts.macs_useful, profile, mapping.engine))
    return LayerCost(
        cycles=cycles,
        compute_cycles=found.compute_cycles,
        stall_cycles=cycles - found.compute_cycles - lane_extra,
        fill_drain_cycles=lane_extra,
        spatial_utilization=nest.macs * passes / (found.compute_cycles * lanes),
        temporal_utilization=found.compute_cycles / cycles,
        energy=(engine, *memory_energies(traffic, profile)),
        traffic=traffic,
        limited_by=_limit(found),
        bound_cycles=bound_cycles - not_counted,
        gap=gap,
        proven=proven,
        on_chip_bytes=on_chip_bytes,
        mapping=mapping,
        counts=counts,
    )


def _counted(found: Evaluation, profile: HardwareProfile) -> tuple[int, int]:
    """(cycles as the profile counts them, cycles it leaves out): never fewer than the lanes compute."""
    cycles = ceil(round(found.latency_cycles, 6))
    not_counted = int(profile.conventions.last_cycle_index and cycles > found.compute_cycles)
    return cycles - not_counted, not_counted


def _limit(found: Evaluation) -> str:
    port, busy = max(found.port_cycles.items(), key=lambda item: item[1], default=("", 0.0))
    if busy > found.lane_cycles:
        return port
    waiting = found.lane_cycles - found.compute_cycles
    return "fill and drain" if waiting > found.compute_cycles else "compute"


def memory_energies(traffic: Iterable[Traffic], profile: HardwareProfile) -> tuple[Energy, ...]:
    """Energy of every memory for the bytes it reads and writes."""
    spent: dict[str, float] = {}
    for part in traffic:
        memory = profile.memories[part.memory]
        energy = part.read_bytes * memory.read_pj_per_byte + part.write_bytes * memory.write_pj_per_byte
        spent[part.memory] = spent.get(part.memory, 0.0) + energy
    return tuple(Energy(name, energy) for name, energy in spent.items())


def _traffic(meter: Meter, moves: Iterable[_Move]) -> tuple[Traffic, ...]:
    sizes: dict[tuple[int, Operand, str], list[float]] = {}  # by rank, operand and memory: read, written
    for (operand, source, destination, elements, partial), bursts, _ in moves:
        density = None if bursts is None else bursts.layer
        for way, memory in enumerate((source, destination)):
            if memory != ENGINE:
                size = meter.bytes_moved(operand, source, destination, memory, partial=partial, bursts=density)
                sizes.setdefault((meter.ranks[memory], operand, memory), [0.0, 0.0])[way] += elements * size
    return tuple(
        [
            Traffic(memory, operand, ceil(round(read, 6)), ceil(round(written, 6)))
            for (_, operand, memory), (read, written) in sorted(sizes.items())
        ]
    )
