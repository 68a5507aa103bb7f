"""Sections of a hardware profile: frozen pydantic models; unknown keys are errors; units stand in names."""

from __future__ import annotations

import re
from enum import StrEnum
from math import prod
from typing import Annotated, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from codesign.vocabulary import Dimension, Operand, OperationKind

PositiveInt = Annotated[int, Field(gt=0, le=2**50, strict=True)]
PositiveFloat = Annotated[float, Field(gt=0, le=1e15)]
NonNegativeFloat = Annotated[float, Field(ge=0, le=1e15)]
Bits = Annotated[int, Field(ge=1, le=64, strict=True)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]
KeyPath = tuple[str, ...]
KERNEL = re.compile(r"[1-9][0-9]{0,3}x[1-9][0-9]{0,3}")
OPERATOR = re.compile(r"[A-Z][A-Za-z0-9]{0,63}")

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


def _operator(text: str) -> str:
    if OPERATOR.fullmatch(text) is None:
        raise ValueError(f'"{text}" is no ONNX operator: write it as ONNX does, Relu')
    return text


OperatorName = Annotated[str, AfterValidator(_operator)]


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
    filter rows of a row-stationary array); the others share what is left. in_turn: its lanes are the same lanes one
    after another, so they add none to the peak: a step of the others takes a cycle for each of them, filled or not (the
    rows of a block that one command streams through a systolic array).
    """

    size: PositiveInt
    unrolls: Annotated[tuple[Dimension, ...], Different] = Field(min_length=1)
    fixed: bool = False
    whole: Annotated[tuple[Dimension, ...], Different] = ()
    in_turn: bool = False

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
    (weights of a dense layer that come straight from flash). same_lanes_as: another engine that these lanes are too,
    driven another way here; they are built once. loaded_with_outputs: operands of which a tile in their innermost
    memory is loaded for one tile of outputs in theirs and not kept for the next one (a command computes a block of
    outputs and fetches what that takes). group_by_group: groups are computed one after another, as by a call for each,
    and no tile holds anything of two of them.
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
    same_lanes_as: Name | None = None
    group_by_group: bool = False
    loaded_with_outputs: Annotated[tuple[Operand, ...], Different] = ()

    @property
    def peak_macs_per_cycle(self) -> int:
        """Lanes of the array: its peak where operands take one pass."""
        return prod(axis.size for axis in self.axes.values() if not axis.in_turn)

    @property
    def turns(self) -> int:
        """Cycles of a step in which operands take one pass: one for each lane along the axes that work in turn."""
        return prod(axis.size for axis in self.axes.values() if axis.in_turn)


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
    same_cells_as: another memory that these cells are too, used another way by other engines; they are built once.
    coded_weight_bits: weights lie here coded (compressed), so many bits each on average, and are decoded on their way
    out to a memory that holds them plain; left out, they lie here plain.
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
    coded_weight_bits: PositiveFloat | None = None
    same_cells_as: Name | None = None

    @property
    def requests_bytes_per_cycle(self) -> float | None:
        """What its requests in flight move: as many x bytes of each / latency; None where nothing limits them."""
        if self.requests_in_flight is None or self.request_bytes is None:
            return None
        return self.requests_in_flight * self.request_bytes / self.latency_cycles

    def bytes_per_cycle(self, port: Port) -> float:
        """What a port moves: its width, or what the requests in flight move where that is less."""
        limit = self.requests_bytes_per_cycle
        return port.bytes_per_cycle if limit is None else min(port.bytes_per_cycle, limit)

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

    operators: of these kinds, the ONNX operators it does, and no others (a unit whose one activation is Relu); every
    operator of the kinds left out.
    cycles_per_operation: kinds of which an operation takes a lane longer than a cycle (an exponential; a sum of int8
    tensors that rescales both and the result), and as many times the energy; 1 for kinds left out.
    fused: of its operations, those it does on the outputs of the layer before on their way out, so that they are
    written once, afterwards. activation: behind any layer; elementwise: behind a layer of an engine, and the other
    operand is read meanwhile (a residual addition). Left out: activation, if it is among the operations.
    """

    lanes: PositiveInt
    operations: Annotated[tuple[OperationKind, ...], Different] = Field(min_length=1)
    energy_pj_per_operation: NonNegativeFloat
    operators: dict[OperationKind, Annotated[tuple[OperatorName, ...], Different, Field(min_length=1)]] = {}
    cycles_per_operation: dict[OperationKind, PositiveFloat] = {}
    fused: Annotated[tuple[OperationKind, ...], Different] | None = None

    @property
    def on_the_way_out(self) -> tuple[OperationKind, ...]:
        """`fused`, or what stands for it where it is left out."""
        if self.fused is None:
            return tuple(kind for kind in self.operations if kind is OperationKind.ACTIVATION)
        return self.fused

    def runs(self, kind: OperationKind, operator: str = "") -> bool:
        """Whether it does this kind of work; operator: this ONNX operator of it (left out: any of them)."""
        allowed = self.operators.get(kind)
        return kind in self.operations and (not operator or allowed is None or operator in allowed)

    def lane_cycles(self, kind: OperationKind, operations: int) -> float:
        """Cycles of one lane for so many operations."""
        return operations * self.cycles_per_operation.get(kind, 1)


class Host(Section):
    """The processor that runs what no engine does: it reads and writes the off-chip memory."""

    operations_per_cycle: PositiveFloat
    bytes_per_cycle: PositiveFloat
    energy_pj_per_operation: NonNegativeFloat
    energy_pj_per_byte: NonNegativeFloat


class Processor(Section):
    """Compile for this machine as for a processor: kernels over vectors of channels with sums in registers
    (codesign.lowering.processor), instead of code that shows what an accelerator does.

    vector_bits, vector_registers: of the widest vectors. sums_in_flight: independent sums that keep its multiply-adders
    busy (units x latency in cycles). cache_line_bytes: what a load brings in. threads: of a library, unless `compile`
    is told; left out, one a core of the machine that runs it.
    """

    vector_bits: Annotated[int, Field(ge=64, le=2048, multiple_of=64, strict=True)]
    vector_registers: PositiveInt
    sums_in_flight: PositiveInt
    cache_line_bytes: PositiveInt
    threads: PositiveInt | None = None


class Microcontroller(Section):
    """The plain C of `--emit c` is made for this machine: the register blocks of its convolutions and matrix products
    are what the mappings keep in the memory next to the multipliers (codesign.lowering.microcontroller.blocks).

    registers: for sums and operands together; larger blocks are not taken.
    """

    registers: PositiveInt
