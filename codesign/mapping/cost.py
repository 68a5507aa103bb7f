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
from math import ceil, prod
from typing import NamedTuple

from codesign.hardware.profile import HardwareProfile
from codesign.mapping.bursts import Density, density_of
from codesign.mapping.layer_cost import Energy, LayerCost, Traffic
from codesign.mapping.mapping import ENGINE, LayerCounts, Mapping, Residence, Transfer
from codesign.mapping.meter import Meter, plus
from codesign.vocabulary import OUTPUTS, Operand
from codesign.workload.loop_nest import LoopNest


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
