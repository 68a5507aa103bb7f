"""A second reading of a mapping: its loops are walked one iteration after another and every element is really moved.

tests.simulated_walk moves and counts; here it is priced. Meant for problems of a few thousand MACs. Both follow
docs/cost_model.md and share no code with counts.py, cost.py and window.py, but they have the same author: a wrong idea
of a machine would be wrong in both. What they find are formulas that do not say what the model means.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, prod

from codesign.hardware.profile import HardwareProfile
from codesign.hardware.sections import Buffering
from codesign.mapping.mapping import ENGINE, Allocation, Mapping, Residence, Transfer
from codesign.vocabulary import DIMENSIONS, Operand
from codesign.workload.loop_nest import LoopNest
from tests.simulated_walk import Values, Walk, Way


@dataclass(frozen=True)
class Holding:
    """How tiles rest in a memory. copies: of a tile that is refilled; overlaps: refills do not stop the lanes."""

    copies: int
    overlaps: bool


def holding(profile: HardwareProfile, part: Residence) -> Holding:
    """The one place that says what each kind of buffering means."""
    match profile.memories[part.memory].buffering:
        case Buffering.SINGLE:
            return Holding(copies=1, overlaps=False)
        case Buffering.DOUBLE:
            return Holding(copies=2, overlaps=True)
        case Buffering.OVERLAPPED:
            return Holding(copies=1, overlaps=True)
        case Buffering.EITHER:
            return Holding(copies=part.buffers, overlaps=part.buffers == 2)


@dataclass(frozen=True)
class Simulation:
    """What was seen. steps: in which lanes worked; used_bytes: of one instance of every on-chip memory, at the peak.

    lane_cycles: steps, refills that stop the lanes, waits at refills and for latencies, first tiles in, last out.
    fill_cycles: of those, first tiles and last tile, each as large as the largest; moved_fill_cycles: the same for
    what really moved, without zeros of the padding and with a ragged last tile. outputs: what lies off chip at the end.
    """

    steps: int
    macs_useful: int
    macs_issued: int
    transfers: tuple[Transfer, ...]
    allocations: tuple[Allocation, ...]
    used_bytes: dict[str, int]
    port_cycles: dict[str, float]
    lane_cycles: float
    fill_cycles: float
    moved_fill_cycles: float
    energy_pj: float
    outputs: Values

    @property
    def latency_cycles(self) -> float:
        """Lanes and ports work at the same time: the longest of them."""
        return max([self.lane_cycles, *self.port_cycles.values()])

    def fits(self, profile: HardwareProfile) -> bool:
        """Whether every memory is large enough."""
        sizes = {name: profile.memories[name].size_bytes for name in self.used_bytes}
        return all(size is None or self.used_bytes[name] <= size for name, size in sizes.items())


def simulate(nest: LoopNest, mapping: Mapping, profile: HardwareProfile) -> Simulation:
    """Walk a mapping of a nest with MACs and count."""
    walk = Walk(nest, mapping, profile)
    walk.enter(0, dict.fromkeys(DIMENSIONS, 0))
    return Bill(walk).simulation()


class Bill:
    """What a walk costs: bytes of everything that moved, and the cycles of ports and lanes."""

    def __init__(self, walk: Walk) -> None:
        self.walk, self.profile = walk, walk.profile
        self.engine = self.profile.engines[walk.mapping.engine]
        self.unfinished = {memory for (memory, _), times in walk.departed.items() if times > 1}
        self.bursts = {way: self._bursts_of(runs, way) for way, runs in walk.runs.items()}

    def simulation(self) -> Simulation:
        """All figures."""
        walk = self.walk
        lanes = prod(loop.extent for loop in walk.mapping.spatial)
        stops = sum(
            elements * self._slowest(way)
            for way, elements in walk.moved.items()
            if ENGINE not in way and not self._holding(way).overlaps
        )
        waits = sum(
            rest.waits * self.profile.memories[rest.part.memory].refill_overhead_cycles for rest in walk.resting
        )
        fill, moved_fill = self._fill()
        return Simulation(
            steps=walk.steps,
            macs_useful=walk.macs,
            macs_issued=walk.steps * lanes,
            transfers=tuple(sorted(Transfer(*way, n, self._partial(way)) for way, n in walk.moved.items() if n)),
            allocations=tuple(
                sorted(Allocation(rest.part.operand, rest.part.memory, max(rest.sizes)) for rest in walk.resting)
            ),
            used_bytes=self._used_bytes(),
            port_cycles=self._port_cycles(),
            lane_cycles=walk.steps * self._passes() * self._turns()
            + self.engine.pipeline_depth_cycles
            + stops
            + waits
            + fill
            + self._latency(),
            fill_cycles=fill,
            moved_fill_cycles=moved_fill,
            energy_pj=self._energy_pj(),
            outputs=walk.off_chip[Operand.OUTPUTS],
        )

    def _turns(self) -> int:
        """Cycles of one pass: the lanes along some axes are one lane, which works for each of them."""
        return len([turn for axis in self.engine.axes.values() if axis.in_turn for turn in range(axis.size)]) or 1

    def _passes(self) -> int:
        """Products of a part of the weight and a part of the input that make one MAC."""
        precision, lane = self.profile.precision, self.engine.operand_bits or 64
        weight_parts = range(0, precision.weights_bits, lane)
        return len([(low, high) for low in weight_parts for high in range(0, precision.activations_bits, lane)])

    def _partial(self, way: Way) -> bool:
        """Outputs that leave a memory more than once travel as partial sums, the last time too."""
        return way[0] is Operand.OUTPUTS and ENGINE not in way and self._inner(way) in self.unfinished

    def _inner(self, way: Way) -> str:
        """Of the two memories the one nearer to the lanes."""
        levels = self.profile.hierarchy(self.walk.mapping.engine, way[0])
        return min(way[1:], key=levels.index)

    def _holding(self, way: Way) -> Holding:
        (part,) = (
            rest.part
            for rest in self.walk.resting
            if (rest.part.operand, rest.part.memory) == (way[0], self._inner(way))
        )
        return holding(self.profile, part)

    def _element_bytes(self, way: Way, memory: str) -> float:
        """At one end of a way; coded weights are decoded between a memory that holds them so and one that does not."""
        wide = way[0] is Operand.OUTPUTS and (ENGINE in way or self._partial(way))
        coded = self.profile.memories[memory].coded_weight_bits
        if way[0] is Operand.WEIGHTS and coded is not None:
            return coded / 8
        return (self.profile.precision.accumulators_bits if wide else self.profile.bits(way[0])) / 8

    def _bursts_of(self, runs: Counter[int], way: Way) -> int:
        """Whole bursts of the memory off chip that runs of neighbours take; 0 where there are none."""
        size = self.profile.memories[self.profile.off_chip].burst_bytes
        if size is None or self.profile.off_chip not in way:
            return 0
        return sum(
            times * ceil(length * self._element_bytes(way, self.profile.off_chip) / size)
            for length, times in runs.items()
        )

    def _bytes_at(self, way: Way, memory: str) -> float:
        """Of one element of all that moved, on average where there are bursts."""
        size = self.profile.memories[memory].burst_bytes
        if size is None or not self.walk.moved[way]:
            return self._element_bytes(way, memory)
        return self.bursts[way] * size / self.walk.moved[way]

    def _ends(self, way: Way) -> Iterator[tuple[str, str]]:
        """(memory, `read` or `write`) at both ends of a way."""
        return ((memory, use) for memory, use in zip(way[1:], ("read", "write"), strict=True) if memory != ENGINE)

    def _ports(self, way: Way) -> Iterator[tuple[str, float]]:
        """Names and cycles per element of the ports a way goes through."""
        for memory, use in self._ends(way):
            ports = self.profile.memories[memory].ports
            own = {"read": ports.read, "write": ports.write}[use]
            for name, port in (("read_write", ports.read_write), (use, own)):
                if port is not None:
                    yield f"{memory}.{name}", self._bytes_at(way, memory) / self._rate(memory, port.bytes_per_cycle)

    def _rate(self, memory: str, width: float) -> float:
        """A full port, or all requests there may be in flight answered in every span of the latency."""
        level = self.profile.memories[memory]
        if level.requests_in_flight is None or level.request_bytes is None:
            return width
        return min(width, level.requests_in_flight * level.request_bytes / level.latency_cycles)

    def _latency(self) -> int:
        """A layer waits for each memory once in and once out; refills that stop the lanes do so every further time."""
        cycles, met = 0, set()
        for rest in self.walk.resting:
            far = self.profile.memories[rest.outer].latency_cycles
            met.add((rest.outer, rest.part.operand is Operand.OUTPUTS, far))
            if not holding(self.profile, rest.part).overlaps:
                cycles += (rest.waits - 1) * far
        return cycles + self.profile.conventions.fill_and_drain * sum(far for _, _, far in met)

    def _slowest(self, way: Way) -> float:
        return max((cycles for _, cycles in self._ports(way)), default=0.0)

    def _port_cycles(self) -> dict[str, float]:
        busy: dict[str, float] = {}
        for way, elements in self.walk.moved.items():
            for name, cycles in self._ports(way):
                busy[name] = busy.get(name, 0.0) + elements * cycles
        return busy

    def _energy_pj(self) -> float:
        total = self.walk.macs * self._passes() * self.engine.energy_pj_per_mac
        for way, elements in self.walk.moved.items():
            for memory, use in self._ends(way):
                level = self.profile.memories[memory]
                per_byte = level.read_pj_per_byte if use == "read" else level.write_pj_per_byte
                total += elements * self._bytes_at(way, memory) * per_byte
        return total

    def _fill(self) -> tuple[float, float]:
        """Cycles of the first tile in (outputs: the last one out) of every memory that overlaps its refills."""
        whole = moved = 0.0
        if not self.profile.conventions.fill_and_drain:
            return whole, moved
        for rest in self.walk.resting:
            if not holding(self.profile, rest.part).overlaps:
                continue
            outputs = rest.part.operand is Operand.OUTPUTS
            ends = (rest.part.memory, rest.outer) if outputs else (rest.outer, rest.part.memory)
            way = (rest.part.operand, *ends)
            whole += max(self._tile_cycles(way, runs) for runs in rest.tile_runs)
            moved += self._tile_cycles(way, rest.departed_runs[-1] if outputs else rest.arrived_runs[0])
        return whole, moved

    def _tile_cycles(self, way: Way, runs: Counter[int]) -> float:
        """Cycles of one tile alone: its elements at the memory on chip, its bursts at the one off chip."""
        elements = sum(length * times for length, times in runs.items())
        slowest = 0.0
        for memory, use in self._ends(way):
            level = self.profile.memories[memory]
            own = {"read": level.ports.read, "write": level.ports.write}[use]
            size = elements * self._element_bytes(way, memory)
            if level.burst_bytes is not None:
                size = self._bursts_of(runs, way) * level.burst_bytes
            for port in (level.ports.read_write, own):
                if port is not None:
                    slowest = max(slowest, size / self._rate(memory, port.bytes_per_cycle))
        return slowest

    def _used_bytes(self) -> dict[str, int]:
        """Tiles of all operands in one instance of each memory, with the second copy of those that were refilled."""
        used: dict[str, int] = {}
        for rest in self.walk.resting:
            copies = holding(self.profile, rest.part).copies if len(rest.sizes) > 1 else 1
            needed = copies * ceil(max(rest.instance_sizes) * self._stored_bits(rest.part) / 8)
            used[rest.part.memory] = used.get(rest.part.memory, 0) + needed
        return used

    def _stored_bits(self, part: Residence) -> float:
        """Outputs rest as accumulators where lanes write them and where partial sums arrive."""
        levels = self.profile.hierarchy(self.walk.mapping.engine, part.operand)
        feeding = levels[: levels.index(part.memory)]
        if part.operand is Operand.OUTPUTS and (not feeding or feeding[-1] in self.unfinished):
            return self.profile.precision.accumulators_bits
        coded = self.profile.memories[part.memory].coded_weight_bits
        if part.operand is Operand.WEIGHTS and coded is not None:
            return coded
        return self.profile.bits(part.operand)
