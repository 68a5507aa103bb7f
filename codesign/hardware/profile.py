"""HardwareProfile: an accelerator as data. Frozen pydantic models; unknown keys are errors; units stand in names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from math import ceil, prod
from typing import Annotated, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from codesign.vocabulary import MAC_KINDS, MATRIX_PRODUCTS, Dimension, Operand, OperationKind

PositiveInt = Annotated[int, Field(gt=0, le=2**50, strict=True)]
PositiveFloat = Annotated[float, Field(gt=0, le=1e15)]
NonNegativeFloat = Annotated[float, Field(ge=0, le=1e15)]
Bits = Annotated[int, Field(ge=1, le=64, strict=True)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
KeyPath = tuple[str, ...]
KERNEL = re.compile(r"[1-9][0-9]{0,3}x[1-9][0-9]{0,3}")
FUSED_KINDS = (OperationKind.ACTIVATION, OperationKind.ELEMENTWISE)
OF_MATRIX_PRODUCTS = (Dimension.G, Dimension.K, Dimension.C, Dimension.OX)
RESERVED = {"engines": ("host", "vector_unit"), "memories": ("engine", "host", "vector_unit")}  # reports name these too

Entry = TypeVar("Entry")


def _different(entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    for index, entry in enumerate(entries):
        if entry in entries[:index]:
            raise ValueError(f"{entry} is listed twice")
    return entries


Different = AfterValidator(_different)


def _kernel(text: str) -> str:
    if KERNEL.fullmatch(text) is None:
        raise ValueError(f'"{text}" is no kernel size: write rows x columns, 3x3')
    return text


Kernel = Annotated[str, AfterValidator(_kernel)]


class Section(BaseModel):
    """Base of every part of a profile: immutable, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Buffering(StrEnum):
    """How a memory holds a tile that is refilled, and whether the refill overlaps with compute.

    single: one copy; filling, computing and emptying take turns. double: two copies, the next tile loads behind the one
    in use. overlapped: one copy, and yet they overlap (dual-ported, or an idealised figure). either: the mapper chooses
    single or double, tile by tile.
    """

    SINGLE = "single"
    DOUBLE = "double"
    OVERLAPPED = "overlapped"
    EITHER = "either"


class LayerForm(StrEnum):
    """What an engine sees of a layer: its loops as they are, or a matrix product (LoopNest.as_matrix_product)."""

    LOOPS = "loops"
    MATRIX_PRODUCT = "matrix_product"


class Precision(Section):
    """Widths in bits. Partial sums are held at accumulator width, finished outputs at activation width."""

    weights_bits: Bits
    activations_bits: Bits
    accumulators_bits: Bits


class Axis(Section):
    """One axis of the array: up to `size` lanes.

    unrolls: dimensions that may be spread over it. fixed: the axis always runs exactly one dimension over all of its
    lanes (lanes past the layer's size idle); otherwise the mapper chooses one or more of the dimensions with a product
    of at most `size`. whole: of those it chooses from, the ones that always run in full, as far as the axis goes (the
    filter rows of a row-stationary array); the others share what is left.
    """

    size: PositiveInt
    unrolls: Annotated[tuple[Dimension, ...], Different] = Field(min_length=1)
    fixed: bool = False
    whole: Annotated[tuple[Dimension, ...], Different] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.fixed and len(self.unrolls) != 1:
            raise ValueError("a fixed axis unrolls exactly one dimension")
        strangers = [dimension for dimension in self.whole if dimension not in self.unrolls]
        if strangers:
            raise ValueError(f"whole names {', '.join(strangers)}, which the axis does not unroll")
        if len(self.whole) > 1:
            raise ValueError("one dimension at most is whole")
        return self


class Engine(Section):
    """An array of multiply-accumulate lanes: the product of its axes.

    operations: what it can run. kernels: rows x columns of the kernels it can run (`3x3`; a layer without a window is
    1x1); left out, any. layer_form: what it sees of a layer, see LayerForm. pipeline_depth_cycles: cycles from
    the first operand in to the first result out. stationary: this operand enters its innermost memory once and stays
    until all its uses are done (the dataflow is fixed: of weights B, OY and OX run inside, of inputs K, of outputs C,
    FY and FX); left out, the mapper chooses. operand_bits: width of a lane's multiplier; wider weights or inputs are
    multiplied in parts, a pass of the lanes for every pair of parts (left out, any width takes one pass).
    energy_pj_per_mac: of one pass. bypasses: memories an operand passes by although they hold it for other engines
    (weights of a dense layer that come straight from flash).
    """

    operations: Annotated[tuple[OperationKind, ...], Different] = Field(min_length=1)
    axes: dict[Name, Axis] = Field(min_length=1)
    energy_pj_per_mac: NonNegativeFloat
    kernels: Annotated[tuple[Kernel, ...], Different] = ()
    layer_form: LayerForm = LayerForm.LOOPS
    pipeline_depth_cycles: Annotated[int, Field(ge=0, strict=True)] = 0
    stationary: Operand | None = None
    operand_bits: Bits | None = None
    bypasses: dict[Operand, Annotated[tuple[Name, ...], Different]] = {}

    @property
    def peak_macs_per_cycle(self) -> int:
        """Lanes of the array: its peak where operands take one pass."""
        return prod(axis.size for axis in self.axes.values())


class Port(Section):
    """A way into or out of a memory."""

    bytes_per_cycle: PositiveFloat


class Ports(Section):
    """Either separate `read` and `write` ports or one shared `read_write`. None at all: never a bottleneck.

    Registers inside the lanes have none: each lane reads its own every cycle, by construction.
    """

    read: Port | None = None
    write: Port | None = None
    read_write: Port | None = None

    @model_validator(mode="after")
    def _separate_or_shared(self) -> Self:
        if self.read_write is not None and (self.read is not None or self.write is not None):
            raise ValueError("a shared read_write port excludes separate read and write ports")
        if (self.read is None) != (self.write is None):
            raise ValueError("separate ports come in pairs: give both read and write")
        return self


class Memory(Section):
    """One memory level. Profiles list memories from the lanes outwards.

    holds: operands it stores; an operand it does not hold bypasses it. The last memory that holds an operand is its
    home: whole tensors lie there from layer to layer. size_bytes: per instance, of tiles (whole tensors at home take
    none of it); null for the outermost memory alone (off chip, unbounded). replicated_over: axes of the engine with an
    instance for every lane along them (per-lane registers: all axes; an axis an engine lacks counts once); empty means
    one shared instance.
    engines: the engines it serves (all, if empty). The innermost memory of the outputs counts entries of accumulator
    width. buffering: how a tile that is refilled is held, see Buffering.
    refill_overhead_cycles: the lanes wait so long at every refill beyond its transfers (the skew of a systolic array).
    latency_cycles: from a request to this memory until its first byte arrives (or a write is acknowledged).
    requests_in_flight, request_bytes: so many requests of at most so many bytes wait for their answers at a time, which
    limits every port as well (Little's law), see `bytes_per_cycle`. They come together and need a latency.
    burst_bytes: the outermost memory alone may move whole bursts; see codesign.mapping.bursts.
    """

    holds: Annotated[tuple[Operand, ...], Different] = Field(min_length=1)
    size_bytes: PositiveInt | None
    ports: Ports = Ports()
    read_pj_per_byte: NonNegativeFloat
    write_pj_per_byte: NonNegativeFloat
    replicated_over: Annotated[tuple[Name, ...], Different] = ()
    engines: Annotated[tuple[Name, ...], Different] = ()
    buffering: Buffering = Buffering.DOUBLE
    refill_overhead_cycles: Annotated[int, Field(ge=0, strict=True)] = 0
    latency_cycles: Annotated[int, Field(ge=0, strict=True)] = 0
    requests_in_flight: PositiveInt | None = None
    request_bytes: PositiveInt | None = None
    burst_bytes: PositiveInt | None = None

    def bytes_per_cycle(self, port: Port) -> float:
        """What a port moves: its width, or requests in flight x bytes of each / latency where that is less."""
        if self.requests_in_flight is None or self.request_bytes is None:
            return port.bytes_per_cycle
        return min(port.bytes_per_cycle, self.requests_in_flight * self.request_bytes / self.latency_cycles)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        limits = (self.requests_in_flight, self.request_bytes)
        if limits == (None, None):
            return self
        if None in limits or not self.latency_cycles:
            raise ValueError(
                "requests_in_flight, request_bytes and latency_cycles limit ports together: give all three"
            )
        if self.ports == Ports():
            raise ValueError("requests in flight limit its ports: give ports")
        return self


class Conventions(Section):
    """How a machine, or the tool that published its figures, counts what others count differently.

    padding_is_data: zeros of the padding are stored and moved like data (otherwise they are made on chip).
    whole_weight_tiles: weights are stored and moved in whole tiles of the lanes: zeros fill the lanes past a layer's
    sizes in every memory (K 600 and C 600 on 256 x 256 fixed lanes are 9 tiles of 65,536 weights).
    first_partial_sums_are_read: accumulators are read on an output's first visit too. fill_and_drain: the first tile in
    and the last one out lengthen a layer. last_cycle_index: cycles are the number of a layer's last cycle, counted from
    0, one less than there are (where the lanes never wait all of them are counted: MACs need them).
    """

    padding_is_data: bool = False
    whole_weight_tiles: bool = False
    first_partial_sums_are_read: bool = False
    fill_and_drain: bool = True
    last_cycle_index: bool = False


class VectorUnit(Section):
    """The unit for everything that is no MAC array work: `lanes` operations a cycle.

    cycles_per_operation: kinds of which an operation takes a lane longer than a cycle (an exponential; a sum of int8
    tensors that rescales both and the result), and as many times the energy; 1 for kinds left out.
    fused: of its operations, those it does on the outputs of the layer before on their way out, so that they are
    written once, afterwards. activation: behind any layer; elementwise: behind a layer of an engine, and the other
    operand is read meanwhile (a residual addition). Left out: activation, if it is among the operations.
    """

    lanes: PositiveInt
    operations: Annotated[tuple[OperationKind, ...], Different] = Field(min_length=1)
    energy_pj_per_operation: NonNegativeFloat
    cycles_per_operation: dict[OperationKind, PositiveFloat] = {}
    fused: Annotated[tuple[OperationKind, ...], Different] | None = None

    @property
    def on_the_way_out(self) -> tuple[OperationKind, ...]:
        """`fused`, or what stands for it where it is left out."""
        if self.fused is None:
            return tuple(kind for kind in self.operations if kind is OperationKind.ACTIVATION)
        return self.fused

    def lane_cycles(self, kind: OperationKind, operations: int) -> float:
        """Cycles of one lane for so many operations."""
        return operations * self.cycles_per_operation.get(kind, 1)


class Host(Section):
    """The processor that runs what no engine does: it reads and writes the off-chip memory."""

    operations_per_cycle: PositiveFloat
    bytes_per_cycle: PositiveFloat
    energy_pj_per_operation: NonNegativeFloat
    energy_pj_per_byte: NonNegativeFloat


class HardwareProfile(Section):
    """A machine. Every figure has an entry in `source` or `assumed` (keys: dotted paths that cover what is below).

    clock_mhz: the clock all cycles count. host cycles are counted in this clock too.
    """

    name: Name
    description: str
    clock_mhz: PositiveFloat
    precision: Precision
    engines: dict[Name, Engine] = Field(min_length=1)
    memories: dict[Name, Memory] = Field(min_length=2)
    vector_unit: VectorUnit | None = None
    host: Host
    conventions: Conventions = Conventions()
    source: dict[str, str] = {}
    assumed: dict[str, str] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = tuple(_inconsistencies(self))
        if problems:
            text = "; ".join(f"{'.'.join(path)}: {problem}" for path, problem in problems)
            raise PydanticCustomError("inconsistent_profile", "{text}", {"text": text, "problems": problems})
        return self

    @property
    def off_chip(self) -> str:
        """Name of the outermost memory."""
        return list(self.memories)[-1]

    @property
    def peak_macs_per_cycle(self) -> int:
        """Of the fastest engine (engines do not run at the same time), at the widths of the profile."""
        return max(self.macs_per_cycle(name) for name in self.engines)

    def passes(self, engine: str) -> int:
        """Cycles a lane takes for one MAC of the profile's weights and activations."""
        bits = self.engines[engine].operand_bits
        if bits is None:
            return 1
        return ceil(self.precision.weights_bits / bits) * ceil(self.precision.activations_bits / bits)

    def macs_per_cycle(self, engine: str) -> int:
        """Peak of one engine at the widths of the profile, rounded up."""
        return ceil(self.engines[engine].peak_macs_per_cycle / self.passes(engine))

    def home(self, operand: Operand) -> str:
        """The memory where whole tensors of an operand lie: the outermost that holds it."""
        return [name for name, memory in self.memories.items() if operand in memory.holds][-1]

    @property
    def homes(self) -> dict[Operand, str]:
        """The home of every operand."""
        return {operand: self.home(operand) for operand in Operand}

    def hierarchy(self, engine: str, operand: Operand) -> tuple[str, ...]:
        """Memories an operand of an engine passes through, innermost first, its home last."""
        bypassed = self.engines[engine].bypasses.get(operand, ())
        return tuple(
            name
            for name, memory in self.memories.items()
            if operand in memory.holds and name not in bypassed and (not memory.engines or engine in memory.engines)
        )

    def total_bytes(self, memory: str) -> int | None:
        """Bytes of all instances of one memory together, for the engine that has most of them; None if unbounded."""
        level = self.memories[memory]
        if level.size_bytes is None:
            return None
        served = [self.engines[name].axes for name in level.engines or self.engines]
        return level.size_bytes * max(
            prod(axis.size for name, axis in axes.items() if name in level.replicated_over) for axes in served
        )

    def bits(self, operand: Operand) -> int:
        """Storage width of one finished element."""
        if operand is Operand.WEIGHTS:
            return self.precision.weights_bits
        return self.precision.activations_bits


def _inconsistencies(profile: HardwareProfile) -> Iterator[tuple[KeyPath, str]]:
    """All contradictions between parts of a profile: (where, what)."""
    yield from _outermost_problems(profile)
    for section, taken in RESERVED.items():
        yield from (
            ((section, name), f"the name {name} is taken") for name in taken if name in getattr(profile, section)
        )
    for name, memory in profile.memories.items():
        unknown = [engine for engine in memory.engines if engine not in profile.engines]
        yield from ((("memories", name, "engines"), f"no engine is called {engine}") for engine in unknown)
        served = [profile.engines[key] for key in memory.engines or profile.engines if key in profile.engines]
        axes = {axis for engine in served for axis in engine.axes}
        for axis in memory.replicated_over:
            if axis not in axes and not unknown:
                yield ("memories", name, "replicated_over"), f"no engine it serves has an axis {axis}"
    for name, engine in profile.engines.items():
        yield from _bypass_problems(profile, name)
        for operand in Operand:
            if len(profile.hierarchy(name, operand)) < 2:
                yield ("engines", name), f"no on-chip memory holds its {operand}"
        for kind in engine.operations:
            if kind not in MAC_KINDS:
                yield ("engines", name, "operations"), f"{kind} is no multiply-accumulate work: move it to vector_unit"
        if engine.layer_form is LayerForm.MATRIX_PRODUCT:
            yield from _matrix_problems(name, engine)
    if profile.vector_unit is not None:
        yield from _vector_unit_problems(profile.vector_unit)


def _vector_unit_problems(unit: VectorUnit) -> Iterator[tuple[KeyPath, str]]:
    for kind in unit.cycles_per_operation:
        if kind not in unit.operations:
            yield ("vector_unit", "cycles_per_operation", kind), "it is not among the unit's operations"
    for kind in unit.operations:
        if kind in MAC_KINDS or kind is OperationKind.HOST:
            place = "the host runs it unasked" if kind is OperationKind.HOST else "only an engine can run it"
            yield ("vector_unit", "operations"), f"{kind} is no vector work: {place}"
    for kind in unit.fused or ():
        if kind not in FUSED_KINDS:
            yield ("vector_unit", "fused"), f"{kind} is not done on the way out: only {', '.join(FUSED_KINDS)} can be"
        elif kind not in unit.operations:
            yield ("vector_unit", "fused"), f"{kind} is not among the operations"


def _matrix_problems(name: str, engine: Engine) -> Iterator[tuple[KeyPath, str]]:
    for kind in engine.operations:
        if kind in MAC_KINDS - MATRIX_PRODUCTS:
            yield ("engines", name, "operations"), f"{kind} is no matrix product: layer_form must be loops"
    for axis_name, axis in engine.axes.items():
        for dimension in axis.unrolls:
            if dimension not in OF_MATRIX_PRODUCTS:
                problem = f"a matrix product has no {dimension}: it has {', '.join(OF_MATRIX_PRODUCTS)}"
                yield ("engines", name, "axes", axis_name, "unrolls"), problem


def _outermost_problems(profile: HardwareProfile) -> Iterator[tuple[KeyPath, str]]:
    *inner, last = profile.memories
    for name in inner:
        if profile.memories[name].size_bytes is None:
            yield ("memories", name, "size_bytes"), f"only the outermost memory ({last}) may be unbounded"
        if profile.memories[name].burst_bytes is not None:
            yield ("memories", name, "burst_bytes"), f"only the outermost memory ({last}) may move whole bursts"
    if profile.memories[last].burst_bytes is not None and profile.conventions.whole_weight_tiles:
        problem = f"bursts of whole tiles are not described: leave out burst_bytes of {last}"
        yield ("conventions", "whole_weight_tiles"), problem
    held = {operand for memory in profile.memories.values() for operand in memory.holds}
    for name in dict.fromkeys((last, *(profile.home(operand) for operand in Operand if operand in held))):
        if profile.memories[name].engines or profile.memories[name].replicated_over:
            which = "the outermost memory" if name == last else "the outermost memory of an operand"
            yield ("memories", name), f"{which} is one instance that serves every engine"


def _bypass_problems(profile: HardwareProfile, engine: str) -> Iterator[tuple[KeyPath, str]]:
    for operand, names in profile.engines[engine].bypasses.items():
        where = ("engines", engine, "bypasses", str(operand))
        for name in names:
            if name not in profile.memories or operand not in profile.memories[name].holds:
                yield where, f"no memory {name} holds {operand}"
            elif name == profile.home(operand):
                yield where, f"{name} is where {operand} come from and go to"
