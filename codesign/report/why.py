"""One computed sentence on why a layer costs what it costs, from its lost cycles."""

from __future__ import annotations

from codesign.mapping.losses import LossKind
from codesign.planning.plan import Plan, PlannedLayer
from codesign.report.facts import HOST, VECTOR_UNIT
from codesign.report.numbers import bytes_text, count_text, percent_text

LOW_UTILIZATION = 0.5


def why(plan: Plan, layer: PlannedLayer) -> str:
    """Why a layer takes its cycles, from its limit and its losses. No full stop at the end."""
    if layer.engine == HOST:
        return _host(layer)
    if layer.fused_into:
        return _fused(layer)
    if layer.engine == VECTOR_UNIT:
        return _vector_unit(layer)
    if layer.cost.limited_by in ("compute", layer.engine):
        return _compute(plan, layer)
    if "." in layer.cost.limited_by:
        return _port(layer)
    return _waiting(layer)


def _host(layer: PlannedLayer) -> str:
    reason = layer.note or f"no engine runs {layer.layer.op}"
    return f"on the host ({reason}), {count_text(layer.layer.nest.operations + layer.layer.nest.macs)} operations"


def _vector_unit(layer: PlannedLayer) -> str:
    operations = f"{count_text(layer.layer.nest.operations)} operations on the vector unit"
    limit = layer.cost.limited_by
    return operations if limit == VECTOR_UNIT else f"{operations}, held up by {limit}{_biggest_mover(layer)}"


def _fused(layer: PlannedLayer) -> str:
    """Fused in the price alone: the code that is written runs the layer apart from it."""
    operations = f"fused into {layer.fused_into}: {count_text(layer.layer.nest.operations)} operations on its way out"
    held_up = f", held up by {layer.cost.limited_by}" if layer.cost.cycles else ""
    return f"{operations}{held_up} (compiled code runs them apart)"


def _compute(plan: Plan, layer: PlannedLayer) -> str:
    if layer.cost.spatial_utilization < LOW_UTILIZATION:
        return f"compute: only {_lanes_text(layer)}"
    share = layer.layer.nest.macs / plan.totals.macs if plan.totals.macs else 0.0
    return f"compute: {_lanes_text(layer)}; it holds {percent_text(share)} of the MACs"


def _waiting(layer: PlannedLayer) -> str:
    """Names the longest of the waits."""
    cost = layer.cost
    waiting = f"{cost.limited_by}: {percent_text(cost.fill_drain_cycles / cost.cycles)} of its cycles"
    waits = [loss for loss in layer.losses if not loss.kind.of_lanes and loss.kind is not LossKind.STALL]
    if not waits:
        return waiting
    longest = max(waits, key=lambda loss: loss.cycles)
    return f"{waiting}, the longest wait {percent_text(longest.cycles / cost.cycles)}: {longest.detail}"


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
    """`, moving 1.20 MiB (90 % weights)`: what goes through the port that is the limit."""
    stalls = [loss for loss in layer.losses if loss.kind is LossKind.STALL and loss.available]
    if not stalls:
        return ""
    biggest = max(stalls, key=lambda loss: loss.used)
    return f", moving {bytes_text(biggest.available)} ({percent_text(biggest.used / biggest.available)} {biggest.what})"


def _lanes_text(layer: PlannedLayer) -> str:
    """`1.6 % of the lanes do useful work (C 3 of 32 lanes on rows)`."""
    text = f"{percent_text(layer.cost.spatial_utilization)} of the lanes do useful work"
    idle = [loss.detail for loss in layer.losses if loss.kind.of_lanes]
    return f"{text} ({'; '.join(idle)})" if idle else text
