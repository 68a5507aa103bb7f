"""One computed sentence on why a layer costs what it costs."""

from __future__ import annotations

from codesign.mapping.mapping import SpatialLoop
from codesign.planning.plan import Plan, PlannedLayer
from codesign.report.facts import HOST, VECTOR_UNIT, traffic_by_memory
from codesign.report.numbers import bytes_text, count_text, percent_text

LOW_UTILIZATION = 0.5


def why(plan: Plan, layer: PlannedLayer) -> str:
    """Why a layer takes its cycles, from its limit, its utilisation and its traffic. No full stop at the end."""
    if layer.engine == HOST:
        return _host(layer)
    if layer.engine == VECTOR_UNIT:
        return _vector_unit(layer)
    if layer.cost.limited_by in ("compute", layer.engine):
        return _compute(plan, layer)
    if "." in layer.cost.limited_by:
        return _port(layer)
    waiting = percent_text(layer.cost.fill_drain_cycles / layer.cost.cycles)
    return f"{layer.cost.limited_by}: {waiting} of its cycles; the layer is too short to hide its first and last tiles"


def _host(layer: PlannedLayer) -> str:
    reason = layer.note or f"no engine runs {layer.layer.op}"
    return f"on the host ({reason}), {count_text(layer.layer.nest.operations + layer.layer.nest.macs)} operations"


def _vector_unit(layer: PlannedLayer) -> str:
    operations = f"{count_text(layer.layer.nest.operations)} operations on the vector unit"
    limit = layer.cost.limited_by
    return operations if limit == VECTOR_UNIT else f"{operations}, held up by {limit}{_biggest_mover(layer)}"


def _compute(plan: Plan, layer: PlannedLayer) -> str:
    if layer.cost.spatial_utilization < LOW_UTILIZATION:
        return f"compute: only {_lanes_text(layer)}"
    share = layer.layer.nest.macs / plan.totals.macs if plan.totals.macs else 0.0
    return f"compute: {_lanes_text(layer)}; it holds {percent_text(share)} of the MACs"


def _port(layer: PlannedLayer) -> str:
    """Stalls first, unless idle lanes cost more than they do."""
    cost = layer.cost
    stalled = cost.stall_cycles / cost.cycles
    lost = f"{percent_text(stalled)} of its cycles are stalls"
    if cost.fill_drain_cycles > cost.stall_cycles:
        lost += f", {percent_text(cost.fill_drain_cycles / cost.cycles)} fill and drain"
    waiting = f"{cost.limited_by}: {lost}{_biggest_mover(layer)}"
    if cost.spatial_utilization >= LOW_UTILIZATION:
        return waiting
    only = f"only {_lanes_text(layer)}"
    return f"{waiting}; {only}" if stalled >= 0.5 else f"{only}; {waiting}"


def _biggest_mover(layer: PlannedLayer) -> str:
    """`, moving 1.20 MiB (90 % weights)`: the traffic of the memory whose port is the limit."""
    memory = layer.cost.limited_by.partition(".")[0]
    moved = traffic_by_memory(layer.cost).get(memory)
    if moved is None or not moved.total_bytes:
        return ""
    parts = [part for part in layer.cost.traffic if part.memory == memory]
    biggest = max(parts, key=lambda part: part.read_bytes + part.write_bytes)
    share = (biggest.read_bytes + biggest.write_bytes) / moved.total_bytes
    return f", moving {bytes_text(moved.total_bytes)} ({percent_text(share)} {biggest.operand})"


def _lanes_text(layer: PlannedLayer) -> str:
    """`1.6 % of the lanes do useful work (C 3 of 32 on rows, K 1 on columns)`: of 32 where the layer fills fewer."""
    text = f"{percent_text(layer.cost.spatial_utilization)} of the lanes do useful work"
    mapping = layer.cost.mapping
    if mapping is None or not mapping.spatial:
        return text
    return f"{text} ({', '.join(_loop_text(layer, loop) for loop in mapping.spatial)})"


def _loop_text(layer: PlannedLayer, loop: SpatialLoop) -> str:
    size = layer.layer.nest.size(loop.dimension)
    filled = f"{size} of {loop.extent}" if size < loop.extent else f"{loop.extent}"
    return f"{loop.dimension} {filled} on {loop.axis}"
