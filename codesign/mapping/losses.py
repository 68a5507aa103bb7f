"""Where a layer's cycles go: the ideal, and named losses that add up to the rest, cycle by cycle.

ideal = MACs x passes of their operands / lanes of the engine, rounded up. Losses are taken in the order in which they
arise:

1. lanes: from the ideal to the compute cycles. Lanes idle in every cycle, lanes idle in the last step of a dimension,
   and zeros inserted into an input multiply: half the rows and half the columns leave a quarter of the lanes. Their
   common loss is divided by the logarithms of their factors, so that equal factors get equal parts and no order counts
   (the logarithmic mean Divisia decomposition: B. W. Ang, Energy Policy 32 (2004), 1131-1139).
2. waits: what the lanes wait for between, before and after their steps, as the cost model charges it.
3. stalls: cycles beyond both, by the operands that use the port that limits, in proportion to their bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import ceil, floor, log, prod

from codesign.hardware.profile import HardwareProfile
from codesign.mapping.cost import evaluate, refill_overhead_cycles, refill_waits
from codesign.mapping.layer_cost import LayerCost
from codesign.mapping.mapping import ENGINE, LayerCounts, Mapping, SpatialLoop, Transfer
from codesign.mapping.meter import Meter
from codesign.mapping.streaming import HOST
from codesign.vocabulary import DIMENSIONS, Dimension, Operand
from codesign.workload.loop_nest import LoopNest

_RANK = {operand: rank for rank, operand in enumerate(Operand)}


class LossKind(StrEnum):
    """What cycles are lost to. The first three are lanes, `stall` is the last step, all others are waits."""

    IDLE_LANES = "idle lanes"  # in every cycle
    EDGE = "edge"  # a dimension is no multiple of the lanes: some idle in a step
    INSERTED_ZEROS = "inserted zeros"  # between the inputs of a transposed convolution
    REFILL = "refill"  # of a memory that cannot be filled and used at once
    REFILL_OVERHEAD = "refill overhead"
    PIPELINE = "pipeline"
    FILL = "fill"
    DRAIN = "drain"
    LATENCY = "latency"  # of a memory: first tiles in, last tile out, refills that cannot overlap
    STALL = "stall"

    @property
    def of_lanes(self) -> bool:
        """The lanes step, but some of them do nothing useful."""
        return self in (LossKind.IDLE_LANES, LossKind.EDGE, LossKind.INSERTED_ZEROS)


@dataclass(frozen=True)
class Loss:
    """Cycles lost to one thing.

    where: axes, a memory, a port or an engine. what: dimensions or an operand. detail: both in words.
    used, available: lanes (of an edge in all steps of the dimension), MACs of inserted zeros, bytes of this operand and
    of all through the port of a stall; 0 where nothing is counted.
    """

    kind: LossKind
    where: str
    what: str
    detail: str
    cycles: int
    used: int = 0
    available: int = 0


def losses_of(nest: LoopNest, cost: LayerCost, profile: HardwareProfile) -> tuple[Loss, ...]:
    """Everything a layer loses, in the order above; its ideal is cycles - sum of all, and none is negative or zero."""
    found = list(_stalls(cost, profile))
    if cost.mapping is not None and cost.counts is not None:
        mapping, counts = cost.mapping, cost.counts
        lanes = lane_losses(nest, mapping, profile, cost.compute_cycles)
        found = [*lanes, *wait_losses(nest, mapping, profile, counts, cost.fill_drain_cycles), *found]
    return tuple(loss for loss in found if loss.cycles)


# ---- lanes


def ideal_cycles(nest: LoopNest, mapping: Mapping, profile: HardwareProfile) -> int:
    """Cycles with every lane of the engine useful in each of them."""
    macs = _useful_macs(nest) * profile.passes(mapping.engine)
    return ceil(macs / profile.engines[mapping.engine].peak_macs_per_cycle)


def lane_losses(nest: LoopNest, mapping: Mapping, profile: HardwareProfile, compute_cycles: int) -> list[Loss]:
    """What lies between the ideal and the compute cycles."""
    parts = [
        *_axis_losses(nest, mapping, profile),
        *_ragged_losses(nest, mapping, profile),
        *_zeros(nest),
    ]
    weights = [log(part.available / part.used) for part in parts]
    return _shared(compute_cycles - ideal_cycles(nest, mapping, profile), parts, weights)


def _useful_macs(nest: LoopNest) -> int:
    """A transposed convolution that crops its result leaves out MACs of the operator."""
    return min(nest.macs, nest.loop_macs)


def _zeros(nest: LoopNest) -> Iterator[Loss]:
    useful, issued = _useful_macs(nest), nest.loop_macs
    detail = f"zeros between the inputs: {useful} of {issued} MACs are useful"
    yield Loss(LossKind.INSERTED_ZEROS, "", "inputs", detail, 0, useful, issued)


def _axis_losses(nest: LoopNest, mapping: Mapping, profile: HardwareProfile) -> Iterator[Loss]:
    """Lanes of every axis that the loops on it leave idle, and the edge of a dimension that has the axis for itself."""
    for name, axis in profile.engines[mapping.engine].axes.items():
        loops = [loop for loop in mapping.spatial if loop.axis == name]
        if _alone(mapping, loops):
            yield _single_loss(nest, loops[0], axis.size, fixed=axis.fixed)
            continue
        used = prod(loop.extent for loop in loops)
        what = " x ".join(f"{loop.dimension} {loop.extent}" for loop in loops)
        if not loops:
            sizes = ", ".join(f"{dimension} {nest.size(dimension)}" for dimension in axis.unrolls)
            what = f"nothing to unroll ({sizes})"
        several_steps = any(_steps(nest, mapping, loop.dimension) > 1 for loop in loops)
        kind = LossKind.EDGE if several_steps else LossKind.IDLE_LANES
        detail = f"{what}: {used} of {axis.size} lanes on {name}"
        dimensions = " ".join(loop.dimension for loop in loops) or " ".join(axis.unrolls)
        yield Loss(kind, name, dimensions, detail, 0, used, axis.size)


def _single_loss(nest: LoopNest, loop: SpatialLoop, lanes: int, *, fixed: bool) -> Loss:
    """One dimension on an axis of its own: K 50 on 16 lanes takes 4 steps, of 16, 16, 16, 2 or of 13, 13, 13, 11."""
    size, dimension = nest.size(loop.dimension), loop.dimension
    steps = -(-size // loop.extent)
    if steps == 1:
        only = f" (fixed to {dimension})" if fixed else ""
        detail = f"{dimension} {size} of {lanes} lanes on {loop.axis}{only}"
        return Loss(LossKind.IDLE_LANES, loop.axis, dimension, detail, 0, size, lanes)
    detail = f"{dimension} {size} in {steps} steps of {lanes} lanes on {loop.axis}"
    return Loss(LossKind.EDGE, loop.axis, dimension, detail, 0, size, steps * lanes)


def _ragged_losses(nest: LoopNest, mapping: Mapping, profile: HardwareProfile) -> Iterator[Loss]:
    """Edges of the dimensions that share an axis, or lie on several."""
    for dimension in DIMENSIONS:
        loops = [loop for loop in mapping.spatial if loop.dimension is dimension]
        if not loops or _alone(mapping, [loop for loop in mapping.spatial if loop.axis == loops[0].axis]):
            continue
        size, lanes, steps = nest.size(dimension), mapping.lanes(dimension), _steps(nest, mapping, dimension)
        where = " ".join(loop.axis for loop in loops)
        kind = LossKind.EDGE if steps > 1 else LossKind.IDLE_LANES
        taken = f"{steps} steps of {lanes}" if steps > 1 else f"one step of {lanes}"
        yield Loss(kind, where, dimension, f"{dimension} {size} in {taken} lanes on {where}", 0, size, lanes * steps)


def _alone(mapping: Mapping, loops: Sequence[SpatialLoop]) -> bool:
    """True when an axis runs one dimension, which lies on no other axis."""
    dimensions = [loop.dimension for loop in mapping.spatial]
    return len(loops) == 1 and dimensions.count(loops[0].dimension) == 1


def _steps(nest: LoopNest, mapping: Mapping, dimension: Dimension) -> int:
    return -(-nest.size(dimension) // mapping.lanes(dimension))


# ---- waits


def wait_losses(
    nest: LoopNest, mapping: Mapping, profile: HardwareProfile, counts: LayerCounts, wait_cycles: int
) -> list[Loss]:
    """What the lanes wait for: the terms of `cost.evaluate` beyond compute, one by one."""
    parts: list[Loss] = []
    weights: list[float] = []
    for loss, cycles in _waits(nest, mapping, profile, counts):
        parts.append(loss)
        weights.append(cycles)
    return _rounded(wait_cycles, parts, weights)


def _waits(
    nest: LoopNest, mapping: Mapping, profile: HardwareProfile, counts: LayerCounts
) -> Iterator[tuple[Loss, float]]:
    """Each wait with its exact cycles."""

    def lane_cycles(transfers: tuple[Transfer, ...], *, first_tiles: bool) -> float:
        allocations = counts.allocations if first_tiles else ()
        return evaluate(
            nest, mapping, profile, replace(counts, transfers=transfers, allocations=allocations)
        ).lane_cycles

    depth = profile.engines[mapping.engine].pipeline_depth_cycles
    detail = f"{depth} cycles through the pipeline of {mapping.engine}"
    yield Loss(LossKind.PIPELINE, mapping.engine, "", detail, 0), float(depth)
    for part in mapping.residences:
        detail = f"overhead of every refill of {part.memory} with {part.operand}"
        alone = replace(mapping, residences=(part,))
        wait = Loss(LossKind.REFILL_OVERHEAD, part.memory, part.operand, detail, 0)
        yield wait, float(refill_overhead_cycles(nest, alone, profile))
    yield from _latencies(nest, mapping, Meter(profile, mapping.engine))
    nothing = lane_cycles((), first_tiles=False)
    for transfer in sorted(counts.transfers, key=lambda moved: _RANK[moved.operand]):
        if ENGINE in (transfer.source, transfer.destination):
            continue
        serial = lane_cycles((transfer,), first_tiles=False)
        yield _refill(profile, transfer), serial - nothing
        yield _first_or_last(transfer), lane_cycles((transfer,), first_tiles=True) - serial


def _latencies(nest: LoopNest, mapping: Mapping, meter: Meter) -> Iterator[tuple[Loss, float]]:
    for memory, cycles in meter.first_waits.items():
        yield Loss(LossKind.LATENCY, memory, "", f"first tiles from {memory} and last one back", 0), float(cycles)
    for part, wait in zip(mapping.residences, refill_waits(nest, mapping, meter), strict=True):
        detail = f"every further refill of {part.memory} with {part.operand} waits"
        yield Loss(LossKind.LATENCY, part.memory, part.operand, detail, 0), float(wait)


def _refill(profile: HardwareProfile, transfer: Transfer) -> Loss:
    """A transfer that stops the lanes, by the memory nearer to them."""
    memory = next(name for name in profile.memories if name in (transfer.source, transfer.destination))
    moved = "partial sums" if transfer.partial else transfer.operand
    detail = f"{moved} from {transfer.source} to {transfer.destination}, which stops the lanes"
    return Loss(LossKind.REFILL, memory, transfer.operand, detail, 0)


def _first_or_last(transfer: Transfer) -> Loss:
    kind = LossKind.DRAIN if transfer.operand is Operand.OUTPUTS else LossKind.FILL
    memory = transfer.source if kind is LossKind.DRAIN else transfer.destination
    tile = "last" if kind is LossKind.DRAIN else "first"
    detail = f"{tile} {transfer.operand} from {transfer.source} to {transfer.destination}"
    return Loss(kind, memory, transfer.operand, detail, 0)


# ---- stalls


def _stalls(cost: LayerCost, profile: HardwareProfile) -> list[Loss]:
    """The cycles beyond lanes and waits, by operand; of host work by all it moves."""
    memory, _, port = cost.limited_by.partition(".")
    moved: dict[Operand, int] = {}
    for part in sorted(cost.traffic, key=lambda moved: _RANK[moved.operand]):
        if memory in (part.memory, HOST):
            size = (port != "write") * part.read_bytes + (port != "read") * part.write_bytes
            moved[part.operand] = moved.get(part.operand, 0) + size
    total = sum(moved.values())
    if not total:  # host work takes a cycle at least
        return [Loss(LossKind.STALL, cost.limited_by, "", f"start of {cost.limited_by}", cost.stall_cycles)]
    parts = []
    for operand, size in moved.items():
        way = f"between the host and {profile.home(operand)}" if memory == HOST else f"through {cost.limited_by}"
        parts.append(Loss(LossKind.STALL, cost.limited_by, operand, f"{operand} {way}", 0, size, total))
    return _shared(cost.stall_cycles, parts, [float(size) for size in moved.values()])


def _shared(cycles: int, parts: Sequence[Loss], weights: Sequence[float]) -> list[Loss]:
    """The parts with whole cycles in proportion to the weights, adding up."""
    total = sum(weights)
    if not cycles or total <= 0:
        return []
    return _rounded(cycles, parts, [cycles * weight / total for weight in weights])


def _rounded(cycles: int, parts: Sequence[Loss], exact: Sequence[float]) -> list[Loss]:
    """The parts with these cycles, as whole ones that add up: the largest remainders are rounded up, the rest down.

    A cycle that a profile does not count (`last_cycle_index`) is missing from the longest part.
    """
    whole = [floor(value) for value in exact]
    missing = cycles - sum(whole)
    by_remainder = sorted(range(len(parts)), key=lambda at: (whole[at] - exact[at], at))
    for at in by_remainder[: max(missing, 0)]:
        whole[at] += 1
    if missing < 0:
        whole[whole.index(max(whole))] += missing
    return [replace(part, cycles=own) for part, own in zip(parts, whole, strict=True)]
