"""Plan: everything decided about a network on a machine, as pure data. No graph, no TVM object; JSON both ways."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from pydantic import TypeAdapter

from codesign.mapping.layer_cost import LayerCost
from codesign.mapping.losses import Loss
from codesign.planning.memory.memory_plan import MemoryPlan
from codesign.rewriting.record import PassRecord
from codesign.workload.layer import Layer


@dataclass(frozen=True)
class Identity:
    """A file by name and content."""

    name: str
    sha256: str


@dataclass(frozen=True)
class PlannedLayer:
    """One layer, the engine it runs on (`host` and `vector_unit` are engines too), and its cost.

    layer: its nest is what the engine sees of it: the loops its mapping is one of. fused_into: name of the layer on
    whose way out this one's work is done; its own cycles and traffic are then 0 or what the fusion adds. The price
    alone is fused: lowering runs such a layer apart. repeats_of: name of the first layer with the same nest and
    instructions, whose mapping was taken over.
    given: where the layer's mapping stands (`m.yaml:12:5`) if a mapping file gave it; it was not searched then.
    constrained: where a mapping file constrains its search (`m.yaml:12:5`), if one does; bound, gap and `proven` then
    hold within the constraint.
    losses: what lies between the ideal cycles and the layer's.
    """

    layer: Layer
    engine: str
    cost: LayerCost
    fused_into: str = ""
    repeats_of: str = ""
    note: str = ""
    given: str = ""
    constrained: str = ""
    losses: tuple[Loss, ...] = ()

    @property
    def ideal_cycles(self) -> int:
        """Cycles without any loss: every lane of the unit does useful work in each of them."""
        return self.cost.cycles - sum(loss.cycles for loss in self.losses)


@dataclass(frozen=True)
class Totals:
    """Sums and rates over the network. utilization: all MACs over all cycles at the machine's peak."""

    macs: int
    params: int
    cycles: int
    latency_ms: float
    fps: float
    energy_uj: float
    utilization: float
    dram_bytes: int
    peak_sram_bytes: int


@dataclass(frozen=True)
class Plan:
    """A network on a machine. precision: `int8 (assumed; the model is float32)` until it is quantised.

    objective: latency, energy or edp. peak_macs_per_cycle: of the machine's largest engine; clock_mhz, dram bytes per
    cycle and memory names serve the report. off_chip: name of the outermost memory. pipeline: what named the passes and
    who named it: `default, named by edge_npu`. memory: where activations lie if all of them share one memory.
    """

    codesign: str
    model: Identity
    hardware: Identity
    precision: str
    objective: str
    clock_mhz: float
    peak_macs_per_cycle: int
    off_chip: str
    off_chip_bytes_per_cycle: float
    passes: tuple[PassRecord, ...]
    layers: tuple[PlannedLayer, ...]
    totals: Totals
    pipeline: str = ""
    memory: MemoryPlan | None = None

    def to_json(self) -> str:
        """The whole plan as indented JSON."""
        return _adapter().dump_json(self, indent=1).decode()

    @staticmethod
    def from_json(text: str) -> Plan:
        """The plan `to_json` wrote. Raises pydantic.ValidationError."""
        return _adapter().validate_json(text)


@lru_cache(maxsize=1)
def _adapter() -> TypeAdapter[Plan]:
    return TypeAdapter(Plan)
