"""What could be changed about a layer or a machine, one thing at a time, to see whether it would help."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from codesign.hardware.profile import HardwareProfile
from codesign.hardware.sections import Buffering, Memory
from codesign.vocabulary import DIMENSIONS, Dimension, Operand, OperationKind
from codesign.workload.loop_nest import LoopNest

MEMORY_FACTORS = (1.25, 1.5, 2.0)
_CHANNELS = (Dimension.G, Dimension.K, Dimension.C)
_WITHOUT_IMAGE = (OperationKind.DENSE, OperationKind.MATMUL)  # no rows and columns to change


class ChangeKind(StrEnum):
    """What is changed: the layer's sizes, or one figure of the machine."""

    LAYER = "layer"
    MEMORY = "memory"
    BUFFERING = "buffering"
    PORT = "port"
    REQUESTS = "requests"
    AXIS = "axis"
    UNROLLS = "unrolls"
    UNIT = "unit"


@dataclass(frozen=True)
class Change:
    """One thing changed: a layer's loops on a machine, one of them not as it was.

    where: dimensions (`C`, `OY OX`) of a layer, the dotted path of a machine's figure. before, after: sizes, bytes,
    bytes per cycle, requests, lanes, dimensions an axis unrolls, copies of a tile, or operations per cycle.
    """

    kind: ChangeKind
    where: str
    before: float
    after: float
    nest: LoopNest
    profile: HardwareProfile


# ---- the layer


def layer_changes(nest: LoopNest, profile: HardwareProfile, engine: str) -> Iterator[Change]:
    """Channels, rows and columns up and down to the next multiple of an axis that unrolls them and power of two.

    Nothing grows or shrinks by more than a factor of two.
    """
    for dimensions in _changeable(nest):
        size = nest.size(dimensions[0])
        for after in _rounder_sizes(size, dimensions, profile, engine):
            changed = resized(nest, dimensions, after)
            if changed is not None:
                yield Change(ChangeKind.LAYER, " ".join(dimensions), size, after, changed, profile)


def _changeable(nest: LoopNest) -> Iterator[tuple[Dimension, ...]]:
    """Dimensions that change together; those of size 1 are there because of the operator, and stay."""
    yield from ((dimension,) for dimension in _CHANNELS if nest.size(dimension) > 1)
    rows, columns = Dimension.OY, Dimension.OX
    if nest.kind in _WITHOUT_IMAGE or nest.size(columns) == 1:
        return
    if nest.size(rows) == nest.size(columns):
        yield rows, columns
    else:
        yield from ((dimension,) for dimension in (rows, columns) if nest.size(dimension) > 1)


def _rounder_sizes(
    size: int, dimensions: tuple[Dimension, ...], profile: HardwareProfile, engine: str
) -> tuple[int, ...]:
    power = 1 << (size.bit_length() - 1)
    found = {power, power if power == size else 2 * power}
    for axis in profile.engines[engine].axes.values():
        if any(dimension in axis.unrolls for dimension in dimensions):
            found |= {size // axis.size * axis.size, -(-size // axis.size) * axis.size}
    return tuple(sorted(after for after in found - {size} if size <= 2 * after and after <= 2 * size))


def resized(nest: LoopNest, dimensions: tuple[Dimension, ...], size: int) -> LoopNest | None:
    """The nest with other sizes; rows and columns of its input follow. None where no input makes so many outputs."""
    b, g, k, c, oy, ox, fy, fx = (size if name in dimensions else nest.size(name) for name in DIMENSIONS)
    spans = [nest.input_rows, nest.input_columns]
    for axis, dimension in enumerate((Dimension.OY, Dimension.OX)):
        if dimension in dimensions:
            more = (size - nest.size(dimension)) * nest.stride[axis]
            if more % nest.input_dilation[axis]:
                return None
            spans[axis] += more // nest.input_dilation[axis]
    if min(spans) < 1:
        return None
    return replace(nest, sizes=(b, g, k, c, oy, ox, fy, fx), input_rows=spans[0], input_columns=spans[1])


# ---- the machine


def memory_changes(nest: LoopNest, profile: HardwareProfile, engine: str) -> Iterator[tuple[Change, ...]]:
    """For every on-chip memory of an engine larger ones, the largest last."""
    for name in _memories(profile, engine)[:-1]:
        size = profile.memories[name].size_bytes or 0
        larger = sorted({int(size * factor) for factor in MEMORY_FACTORS} - {size})
        path = f"memories.{name}.size_bytes"
        yield tuple(
            Change(ChangeKind.MEMORY, path, size, after, nest, _with_memory(profile, name, size_bytes=after))
            for after in larger
        )


def unroll_changes(
    nest: LoopNest, profile: HardwareProfile, engine: str, axis: str, dimensions: tuple[Dimension, ...]
) -> Iterator[Change]:
    """Let an axis unroll one more dimension of those given; not an axis that is fixed."""
    unrolls = profile.engines[engine].axes[axis].unrolls
    for dimension in dimensions:
        if dimension not in unrolls and not profile.engines[engine].axes[axis].fixed:
            changed = _with_axis(profile, engine, axis, unrolls=(*unrolls, dimension))
            path = f"engines.{engine}.axes.{axis}.unrolls"
            yield Change(ChangeKind.UNROLLS, path, len(unrolls), len(unrolls) + 1, nest, changed)


def engine_changes(nest: LoopNest, profile: HardwareProfile, engine: str) -> Iterator[Change]:
    """Twice the lanes of an axis that adds lanes, twice of what limits a port, double instead of single buffers."""
    for name, axis in profile.engines[engine].axes.items():
        if axis.in_turn:
            continue  # twice as long steps are no more lanes
        wider = _with_axis(profile, engine, name, size=2 * axis.size)
        yield Change(ChangeKind.AXIS, f"engines.{engine}.axes.{name}.size", axis.size, 2 * axis.size, nest, wider)
    for name in _memories(profile, engine):
        yield from port_changes(nest, profile, name)
        if profile.memories[name].buffering is Buffering.SINGLE:
            doubled = _with_memory(profile, name, buffering=Buffering.DOUBLE)
            yield Change(ChangeKind.BUFFERING, f"memories.{name}.buffering", 1, 2, nest, doubled)


def port_changes(nest: LoopNest, profile: HardwareProfile, memory: str) -> Iterator[Change]:
    """Twice the bytes per cycle of each port of a memory, and twice the requests in flight that limit them."""
    requests = profile.memories[memory].requests_in_flight
    if requests is not None:
        more = _with_memory(profile, memory, requests_in_flight=2 * requests)
        yield Change(ChangeKind.REQUESTS, f"memories.{memory}.requests_in_flight", requests, 2 * requests, nest, more)
    ports = profile.memories[memory].ports
    for name, port in (("read", ports.read), ("write", ports.write), ("read_write", ports.read_write)):
        if port is not None:
            before, after = port.bytes_per_cycle, 2 * port.bytes_per_cycle
            wider = ports.model_copy(update={name: port.model_copy(update={"bytes_per_cycle": after})})
            path = f"memories.{memory}.ports.{name}.bytes_per_cycle"
            yield Change(ChangeKind.PORT, path, before, after, nest, _with_memory(profile, memory, ports=wider))


def vector_unit_changes(nest: LoopNest, profile: HardwareProfile) -> Iterator[Change]:
    """Twice its lanes, and twice of what limits every port."""
    unit = profile.vector_unit
    if unit is not None:
        wider = unit.model_copy(update={"lanes": 2 * unit.lanes})
        path = "vector_unit.lanes"
        yield Change(ChangeKind.UNIT, path, unit.lanes, 2 * unit.lanes, nest, _with(profile, vector_unit=wider))
    for name in profile.memories:
        yield from port_changes(nest, profile, name)


def host_changes(nest: LoopNest, profile: HardwareProfile) -> Iterator[Change]:
    """Twice its operations, twice its bytes per cycle, and twice those of the memories it reads and writes."""
    for name in ("operations_per_cycle", "bytes_per_cycle"):
        before = getattr(profile.host, name)
        faster = profile.host.model_copy(update={name: 2 * before})
        yield Change(ChangeKind.UNIT, f"host.{name}", before, 2 * before, nest, _with(profile, host=faster))
    for name in dict.fromkeys(profile.homes.values()):
        yield from port_changes(nest, profile, name)


def _memories(profile: HardwareProfile, engine: str) -> list[str]:
    """Memories an engine uses, from the lanes outwards."""
    used = {name for operand in Operand for name in profile.hierarchy(engine, operand)}
    return [name for name in profile.memories if name in used]


def _with(profile: HardwareProfile, **update: object) -> HardwareProfile:
    return profile.model_copy(update=update)


def _with_memory(profile: HardwareProfile, name: str, **update: object) -> HardwareProfile:
    memory: Memory = profile.memories[name].model_copy(update=update)
    return _with(profile, memories={**profile.memories, name: memory})


def _with_axis(profile: HardwareProfile, engine: str, name: str, **update: object) -> HardwareProfile:
    axes = profile.engines[engine].axes
    changed = profile.engines[engine].model_copy(update={"axes": {**axes, name: axes[name].model_copy(update=update)}})
    return _with(profile, engines={**profile.engines, engine: changed})
