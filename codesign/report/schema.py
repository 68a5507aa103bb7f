"""The shape of report.json as frozen pydantic models; docs/report.schema.json is generated from them."""

from __future__ import annotations

import json
from math import isclose
from typing import Self

from pydantic import BaseModel, ConfigDict, model_validator


class Part(BaseModel):
    """Base of every part: immutable, no unknown keys, no infinities; the text below a field is its description."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class File(Part):
    """A file by name and content."""

    name: str
    sha256: str


class Declined(Part):
    """A place a pass left as it was."""

    where: str
    reason: str


class QuantizedTensor(Part):
    """A tensor of a quantised network against the float one, over the calibration data."""

    layer: str
    """The layer that makes it, or `input NAME`."""
    tensor: str
    bits: int
    """Of its codes; 0 where it is float."""
    fraction_bits: int
    """A code q means q / 2^fraction_bits."""
    sqnr_db: float | None
    """10 log10(sum x^2 / sum (x - y)^2); null where no number differs."""
    saturated: int
    """Numbers beyond the range of the codes; what Relu or Clip cut off is not among them."""
    numbers: int


class Quantization(Part):
    """What quantisation did to the numbers."""

    calibration: str
    """The data activations were measured on."""
    synthetic: bool
    """The data was made up: the figures say nothing about real inputs."""
    outputs: list[QuantizedTensor]
    """Outputs of the network, against those before the pass."""
    layers: list[QuantizedTensor]
    """Every quantised tensor, in the order of the network."""
    worst: list[str]
    """The ten quantised tensors of least signal to noise, the worst first."""
    saturated: int
    numbers: int


class Pass(Part):
    """What one pass did."""

    name: str
    effect: str
    """EXACT (same function up to float rounding), APPROXIMATE (other numbers) or RESHAPES (another network)."""
    applied: int
    """How many places it changed."""
    declined: list[Declined]
    seconds: float
    quantization: Quantization | None = None
    """Of a pass that quantises."""


class ReportTotals(Part):
    """Sums and rates over the network; everything is per frame."""

    macs: int
    params: int
    cycles: int
    latency_ms: float
    fps: float
    energy_uj: float
    utilization: float
    """All MACs over all cycles at the peak of the machine's largest engine."""
    dram_bytes: int
    """Bytes to and from the off-chip memory."""
    peak_sram_bytes: int
    """The most bytes in use on the chip at one time."""


class Bytes(Part):
    """Bytes out of (read) and into (write) a memory."""

    read_bytes: int
    write_bytes: int


class Loops(Part):
    """The loops of a layer: B batch, G group, K outputs, C inputs, OY OX output and FY FX kernel rows and columns."""

    kind: str
    sizes: dict[str, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pads: tuple[int, int, int, int]
    """top, left, bottom, right; zeros made on chip, never traffic."""
    input_rows: int
    input_columns: int
    operations: int
    """Arithmetic operations of a layer that has no MACs."""


class Lanes(Part):
    """`extent` lanes of an axis run different values of a dimension in the same cycle."""

    axis: str
    dimension: str
    extent: int


class Loop(Part):
    """`extent` iterations over tiles of a dimension."""

    dimension: str
    extent: int


class Tile(Part):
    """What one operand keeps in one memory."""

    position: int
    """Index into `loops`: the tile is refilled in every iteration of the loops before it."""
    sizes: dict[str, int]
    """Size of the tile along the dimensions the operand depends on."""
    buffers: int
    """2 for two copies, chosen where the memory leaves the choice (`buffering: either`); otherwise 1."""


class LayerMapping(Part):
    """Where, when and in which memory a layer's loops run."""

    text: str
    """The whole mapping on one line: `OY 4 | W->sram | K 8 || rows C 32`; `2W`: two copies of its tile."""
    engine: str
    spatial: list[Lanes]
    loops: list[Loop]
    """Outermost first."""
    tiles: dict[str, dict[str, Tile]]
    """By memory, then by operand."""


class CycleLoss(Part):
    """Cycles lost to one thing."""

    kind: str
    """`idle lanes`, `edge` or `inserted zeros`; `refill`, `refill overhead`, `pipeline`, `latency`, `fill` or
    `drain`; `stall`."""
    where: str
    """Axes, a memory, a port, an engine or `host`."""
    what: str
    """Dimensions or an operand."""
    detail: str
    """Both in words: `C 3 of 32 lanes on rows`."""
    cycles: int
    used: int
    """Lanes, MACs or bytes through the port that this is about; 0 where nothing is counted."""
    available: int
    """Of how many."""


class LayerReport(Part):
    """One layer: cycles = compute_cycles + stall_cycles + fill_drain_cycles = ideal_cycles + all losses."""

    name: str
    op: str
    engine: str
    """An engine of the profile, `vector_unit` or `host`."""
    macs: int
    params: int
    cycles: int
    compute_cycles: int
    stall_cycles: int
    fill_drain_cycles: int
    ideal_cycles: int
    """MACs over the lanes of the engine (rounded up); operations over those of the vector unit or the host."""
    losses: list[CycleLoss]
    """Where every other cycle goes: lanes first, then waits, then stalls."""
    utilization: float
    """Useful MACs over the engine's peak in the cycles taken: spatial times temporal."""
    spatial_utilization: float
    temporal_utilization: float
    limited_by: str
    """`compute`, a memory's port, `fill and drain`, `vector_unit` or `host`."""
    why: str
    """The limit in a sentence."""
    energy_pj: float
    energy_by_component: dict[str, float]
    """Picojoules of the engine, of each memory, of the vector unit and the host."""
    traffic: dict[str, Bytes]
    """By memory."""
    traffic_by_operand: dict[str, dict[str, Bytes]]
    """By memory, then by operand."""
    on_chip_bytes: int
    """Bytes allocated in all on-chip memories while the layer runs."""
    bound_cycles: int
    """No mapping of the declared space is faster; of a given mapping: all lanes busy in every cycle."""
    gap: float
    """(found - bound) / bound of the objective; 0 when proven. Of a given mapping: of the cycles."""
    proven: bool
    loops: Loops
    mapping: LayerMapping | None
    """Null where nothing is mapped: vector unit, host, fused layers."""
    fused_into: str
    """Name of the layer on whose way out this one's work is done, in the price: its cycles are then those it adds, its
    traffic its other operand's. Compiled code runs it apart. Empty when it is not fused."""
    repeats_of: str
    """Name of the first layer with the same loops, whose mapping was taken over; empty for the first."""
    note: str
    given: str
    """Where a mapping file gave the layer its mapping (`m.yaml:12:5`), which was not searched then; empty otherwise."""
    constrained: str
    """Where a mapping file constrains the layer's search (`m.yaml:12:5`); bound, gap and proof are then within it."""


class PlacedTensor(Part):
    """Bytes of the arena that a tensor takes from the first to the last step that needs it, by numbers from 0."""

    name: str
    """Of a tensor; of scratch, the step's."""
    offset_bytes: int
    size_bytes: int
    first_step: int
    last_step: int


class WrittenInPlace(Part):
    """A step that writes its output where its input lies."""

    step: str
    output: str
    input: str


class ActivationMemory(Part):
    """One memory that holds all activations, at the plan's precision: when each is needed, and where it lies.

    The network's inputs count from the start until they are read, its outputs until the end; weights do not.
    """

    arena_bytes: int
    bound_bytes: int
    """No order of the steps and no placement takes less."""
    gap: float
    """(arena - bound) / bound."""
    proven: bool
    reordered: bool
    """Whether the steps run in another order than the layers stand in."""
    peak_step: int
    """Number of the step in which most bytes are in use, from 0."""
    order: list[str]
    """Steps as they run: layers, with what is done on their way out; views and joined operands are no steps."""
    tensors: list[PlacedTensor]
    views: list[PlacedTensor]
    """Tensors whose bytes are those of others: views, concatenations, results of splits."""
    scratch: list[PlacedTensor]
    in_place: list[WrittenInPlace]


class Report(Part):
    """What a network costs on a machine, layer by layer (codesign compile, codesign estimate --json)."""

    codesign: str
    """Version of codesign."""
    model: File
    hardware: File
    precision: str
    """`int8 (assumed; the model is float32)` until the network is quantised."""
    pipeline: str
    """Which passes ran and who named them: `default, named by edge_npu`, `none, named by --passes`."""
    passes: list[Pass]
    totals: ReportTotals
    memory: ActivationMemory | None
    """Null where it was not planned."""
    layers: list[LayerReport]

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        """Every total that is a sum is the sum of the layers; anything else is an error in codesign."""
        for name in ("macs", "cycles"):
            summed, total = sum(getattr(layer, name) for layer in self.layers), getattr(self.totals, name)
            if summed != total:
                raise ValueError(f"the layers' {name} sum to {summed}, the total says {total}")
        energy_uj = sum(layer.energy_pj for layer in self.layers) / 1e6
        if not isclose(energy_uj, self.totals.energy_uj, rel_tol=1e-9, abs_tol=1e-12):
            raise ValueError(f"the layers' energies sum to {energy_uj} uJ, the total says {self.totals.energy_uj}")
        return self


def report_schema() -> str:
    """JSON Schema (draft 2020-12) of report.json, as indented JSON."""
    return schema_text(Report)


def schema_text(part: type[Part]) -> str:
    """JSON Schema (draft 2020-12) of a part, as indented JSON."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **part.model_json_schema()}
    return json.dumps(schema, indent=2) + "\n"
