"""What moving an element costs: lane cycles, busy cycles of every port and energy, read off a machine."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from codesign.hardware.profile import HardwareProfile
from codesign.hardware.sections import Buffering
from codesign.mapping.mapping import ENGINE, Mapping, Transfer
from codesign.vocabulary import OPERANDS, OUTPUTS, Operand

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
