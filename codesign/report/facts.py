"""What every report says about a plan beyond its bare numbers: sums, shares, rooflines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from codesign.mapping.layer_cost import LayerCost
from codesign.mapping.losses import LossKind
from codesign.planning.plan import Plan, PlannedLayer
from codesign.report.numbers import integer_text, percent_text

HOST = "host"
VECTOR_UNIT = "vector_unit"


@dataclass(frozen=True)
class Moved:
    """Bytes read from and written into one memory."""

    read_bytes: int
    write_bytes: int

    @property
    def total_bytes(self) -> int:
        """Both ways."""
        return self.read_bytes + self.write_bytes


def traffic_by_memory(cost: LayerCost) -> dict[str, Moved]:
    """Traffic summed over the operands, in the order memories first appear."""
    moved: dict[str, Moved] = {}
    for part in cost.traffic:
        before = moved.get(part.memory, Moved(0, 0))
        moved[part.memory] = Moved(before.read_bytes + part.read_bytes, before.write_bytes + part.write_bytes)
    return moved


def off_chip_bytes(plan: Plan, layer: PlannedLayer) -> int:
    """Bytes one layer moves to and from the off-chip memory."""
    return traffic_by_memory(layer.cost).get(plan.off_chip, Moved(0, 0)).total_bytes


@dataclass(frozen=True)
class Split:
    """A layer's cycles: `useful` as if no lane ever idled, and those lost to idle lanes, waits and stalls."""

    useful: int
    idle_lanes: int
    waits: int
    stalls: int


def split_of(layer: PlannedLayer) -> Split:
    """Where the cycles of a layer go, in four parts that add up to them."""
    idle = sum(loss.cycles for loss in layer.losses if loss.kind.of_lanes)
    stalls = sum(loss.cycles for loss in layer.losses if loss.kind is LossKind.STALL)
    return Split(layer.ideal_cycles, idle, layer.cost.cycles - layer.ideal_cycles - idle - stalls, stalls)


def loss_lines(layer: PlannedLayer) -> tuple[str, ...]:
    """Every loss, the largest first: `512 cycles idle lanes: K 24 of 32 lanes on columns`."""
    ranked = sorted(layer.losses, key=lambda loss: -loss.cycles)
    return tuple(f"{integer_text(loss.cycles)} cycles {loss.kind}: {loss.detail}" for loss in ranked)


def share_of_cycles(plan: Plan, layer: PlannedLayer) -> float:
    """Part of the network's cycles that one layer takes."""
    return layer.cost.cycles / plan.totals.cycles if plan.totals.cycles else 0.0


def alike(layers: Iterable[PlannedLayer]) -> tuple[tuple[PlannedLayer, ...], ...]:
    """Layers with the same operator, loops, engine, cost and say in it together, in order of the first of each kind."""
    groups: dict[object, list[PlannedLayer]] = {}
    for layer in layers:
        told = bool(layer.given), bool(layer.constrained)
        groups.setdefault((layer.layer.op, layer.layer.nest, layer.engine, layer.cost, told), []).append(layer)
    return tuple(tuple(group) for group in groups.values())


def costliest(plan: Plan, count: int = 3) -> tuple[tuple[PlannedLayer, ...], ...]:
    """The layers that take most cycles, most first; identical ones count as one entry."""
    groups = alike(layer for layer in plan.layers if layer.cost.cycles)
    return tuple(sorted(groups, key=lambda group: -group[0].cost.cycles)[:count])


def host_layers(plan: Plan) -> tuple[PlannedLayer, ...]:
    """Layers no engine of the machine runs, in network order."""
    return tuple(layer for layer in plan.layers if layer.engine == HOST)


def searched_layers(plan: Plan) -> tuple[PlannedLayer, ...]:
    """Layers whose mapping was searched, in network order."""
    return tuple(layer for layer in plan.layers if layer.cost.mapping is not None and not layer.given)


def gap_text(layer: PlannedLayer, nothing: str) -> str:
    """`best` when proven, the gap to the bound when not, `constrained` where that holds within a constraint alone.

    `given` where a mapping was given, `nothing` where none is needed.
    """
    if layer.given:
        return "given"
    if layer.cost.mapping is None:
        return nothing
    gap = "" if layer.cost.proven else percent_text(layer.cost.gap)
    return f"constrained {gap}".rstrip() if layer.constrained else gap or "best"


def constrained_text(plan: Plan) -> str:
    """How many layers were searched within constraints, and of which file; nothing when there is none."""
    places = [layer.constrained for layer in plan.layers if layer.constrained]
    layers = "1 layer was" if len(places) == 1 else f"{len(places)} layers were"
    said = f"{layers} searched within the constraints of {_files(places)}; bounds and proofs hold within these alone"
    return said if places else ""


def _files(places: Iterable[str]) -> str:
    """The files of places like `m.yaml:12:5`."""
    return ", ".join(dict.fromkeys(place.rsplit(":", 2)[0] for place in places))


def given_text(plan: Plan) -> str:
    """How many layers run a mapping that was given, and by which file; nothing when there is none."""
    given = [layer for layer in plan.layers if layer.given]
    files = _files(layer.given for layer in given)
    layers = "1 layer runs" if len(given) == 1 else f"{len(given)} layers run"
    return f"{layers} the mapping of {files} as it stands; nothing was searched there" if given else ""


def unproven_layers(plan: Plan) -> tuple[PlannedLayer, ...]:
    """Layers whose search ended without proof, largest gap first."""
    open_ones = [layer for layer in searched_layers(plan) if not layer.cost.proven]
    return tuple(sorted(open_ones, key=lambda layer: -layer.cost.gap))


def energy_by_component(layers: Iterable[PlannedLayer]) -> dict[str, float]:
    """Picojoules per component over some layers, most first."""
    sums: dict[str, float] = {}
    for layer in layers:
        for part in layer.cost.energy:
            sums[part.component] = sums.get(part.component, 0.0) + part.energy_pj
    return dict(sorted(sums.items(), key=lambda item: -item[1]))


@dataclass(frozen=True)
class RooflinePoint:
    """A layer under the machine's roof. macs_per_byte: MACs per off-chip byte."""

    layer: PlannedLayer
    number: int
    macs_per_byte: float
    macs_per_cycle: float
    roof_macs_per_cycle: float


def roof(plan: Plan, macs_per_byte: float) -> float:
    """MACs per cycle the machine can reach: off-chip bandwidth times intensity, up to the peak."""
    return min(float(plan.peak_macs_per_cycle), macs_per_byte * plan.off_chip_bytes_per_cycle)


def roofline(plan: Plan) -> tuple[RooflinePoint, ...]:
    """Points of all layers with MACs that touch the off-chip memory. number: place in the network, from 1."""
    points = []
    for number, layer in enumerate(plan.layers, 1):
        moved = off_chip_bytes(plan, layer)
        macs = layer.layer.nest.macs
        if macs and moved and layer.cost.cycles:
            intensity = macs / moved
            points.append(RooflinePoint(layer, number, intensity, macs / layer.cost.cycles, roof(plan, intensity)))
    return tuple(points)
