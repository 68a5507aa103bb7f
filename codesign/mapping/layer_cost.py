"""LayerCost: what one layer costs on one engine."""

from __future__ import annotations

from dataclasses import dataclass

from codesign.mapping.mapping import LayerCounts, Mapping
from codesign.vocabulary import Operand


@dataclass(frozen=True)
class Traffic:
    """Bytes one operand moves out of (read) and into (write) one memory."""

    memory: str
    operand: Operand
    read_bytes: int
    write_bytes: int


@dataclass(frozen=True)
class Energy:
    """Energy of one component: `engine`, a memory's name, `vector_unit` or `host`."""

    component: str
    energy_pj: float


@dataclass(frozen=True)
class LayerCost:
    """Cycles, energy and traffic of a layer.

    cycles = compute_cycles + stall_cycles + fill_drain_cycles. utilization = MACs / (cycles x peak MACs per cycle)
    = spatial_utilization x temporal_utilization; all 0 where the layer has no MACs. limited_by: `compute`, a memory
    port (`dram.read_write`), `vector_unit` or `host`, with the reason in words. bound_cycles: no mapping of the
    declared space is faster; gap = (found - bound) / bound of the objective; proven: the gap is 0. A mapping that was
    given, not searched, is never proven; its bound is all lanes busy in every cycle, its gap that of the cycles.
    on_chip_bytes: bytes allocated in every on-chip memory by this layer, summed over memories.
    """

    cycles: int
    compute_cycles: int
    stall_cycles: int
    fill_drain_cycles: int
    spatial_utilization: float
    temporal_utilization: float
    energy: tuple[Energy, ...]
    traffic: tuple[Traffic, ...]
    limited_by: str
    bound_cycles: int
    gap: float
    proven: bool
    on_chip_bytes: int = 0
    mapping: Mapping | None = None
    counts: LayerCounts | None = None

    @property
    def utilization(self) -> float:
        """Useful MACs over the engine's peak in the cycles taken."""
        return self.spatial_utilization * self.temporal_utilization

    @property
    def energy_pj(self) -> float:
        """All components together."""
        return sum(part.energy_pj for part in self.energy)
