"""HardwareProfile: an accelerator as data. Frozen pydantic models; unknown keys are errors; units stand in names."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, prod
from typing import Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from codesign.hardware.sections import (
    Conventions,
    Engine,
    Host,
    KeyPath,
    LayerForm,
    Memory,
    Microcontroller,
    Name,
    PositiveFloat,
    Precision,
    Processor,
    Section,
    VectorUnit,
)
from codesign.vocabulary import MAC_KINDS, MATRIX_PRODUCTS, WEIGHTS, Dimension, Operand, OperationKind

RESERVED = {"engines": ("host", "vector_unit"), "memories": ("engine", "host", "vector_unit")}  # reports name these too
OF_MATRIX_PRODUCTS = (Dimension.G, Dimension.K, Dimension.C, Dimension.OX)
FUSED_KINDS = (OperationKind.ACTIVATION, OperationKind.ELEMENTWISE)


class HardwareProfile(Section):
    """A machine. Every figure has an entry in `source` or `assumed` (keys: dotted paths that cover what is below).

    clock_mhz: the clock all cycles count. host cycles are counted in this clock too. pipeline: the passes that run when
    the user names none, a pipeline by name; exact ones only. processor: where the machine is one, and
    libraries are built to run fast on it. microcontroller: where its mappings shape
    the plain C.
    """

    name: Name
    description: str
    clock_mhz: PositiveFloat
    precision: Precision
    engines: dict[Name, Engine] = Field(min_length=1)
    memories: dict[Name, Memory] = Field(min_length=2)
    vector_unit: VectorUnit | None = None
    host: Host
    processor: Processor | None = None
    microcontroller: Microcontroller | None = None
    conventions: Conventions = Conventions()
    pipeline: str = "default"
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
        return next(reversed(self.memories))

    @property
    def peak_macs_per_cycle(self) -> int:
        """Of the fastest engine (engines do not run at the same time), at the widths of the profile."""
        return max(self.macs_per_cycle(name) for name in self.engines)

    def runs(self, kind: OperationKind, operator: str = "") -> bool:
        """Whether an engine or the vector unit does this kind of work itself; otherwise the host does.

        operator: this ONNX operator of it (left out: any of them). A pass that rewrites softmax, or grouped
        convolutions, for machines without them asks this first.
        """
        unit = self.vector_unit
        on_array = any(kind in engine.operations for engine in self.engines.values())
        return on_array or (unit is not None and unit.runs(kind, operator))

    def lanes_of(self, dimension: Dimension, kind: OperationKind) -> int:
        """Lanes a dimension of this kind of layer can be spread over, on the engine with the most; 1 if on none.

        A layer whose size is a multiple of it leaves none of them idle.
        """
        found = (
            prod(axis.size for axis in engine.axes.values() if dimension in axis.unrolls)
            for engine in self.engines.values()
            if kind in engine.operations
        )
        return max(found, default=1)

    def passes(self, engine: str) -> int:
        """Cycles a lane takes for one MAC of the profile's weights and activations."""
        bits = self.engines[engine].operand_bits
        if bits is None:
            return 1
        return ceil(self.precision.weights_bits / bits) * ceil(self.precision.activations_bits / bits)

    def cycles_per_step(self, engine: str) -> int:
        """Cycles the lanes take for a MAC each: its passes, one lane after another along the axes that work in turn."""
        return self.passes(engine) * self.engines[engine].turns

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
            [
                name
                for name, memory in self.memories.items()
                if operand in memory.holds and name not in bypassed and (not memory.engines or engine in memory.engines)
            ]
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
        if operand is WEIGHTS:
            return self.precision.weights_bits
        return self.precision.activations_bits

    def stored_bits(self, operand: Operand, memory: str) -> float:
        """Storage width of one finished element in a memory, on average where weights lie there coded."""
        coded = self.memories[memory].coded_weight_bits
        return coded if operand is WEIGHTS and coded is not None else self.bits(operand)


def _inconsistencies(profile: HardwareProfile) -> Iterator[tuple[KeyPath, str]]:
    """All contradictions between parts of a profile: (where, what)."""
    yield from _outermost_problems(profile)
    for section, taken in RESERVED.items():
        yield from (
            ((section, name), f"the name {name} is taken") for name in taken if name in getattr(profile, section)
        )
    for name, memory in profile.memories.items():
        if memory.same_cells_as is not None:
            yield from _cell_problems(name, memory, profile.memories.get(memory.same_cells_as))
        unknown = [engine for engine in memory.engines if engine not in profile.engines]
        yield from ((("memories", name, "engines"), f"no engine is called {engine}") for engine in unknown)
        served = [profile.engines[key] for key in memory.engines or profile.engines if key in profile.engines]
        axes = {axis for engine in served for axis in engine.axes}
        for axis in memory.replicated_over:
            if axis not in axes and not unknown:
                yield ("memories", name, "replicated_over"), f"no engine it serves has an axis {axis}"
            elif any(axis in engine.axes and engine.axes[axis].in_turn for engine in served):
                yield ("memories", name, "replicated_over"), f"lanes along {axis} work in turn: they share one instance"
    yield from _coding_problems(profile)
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
        if Operand.OUTPUTS in engine.loaded_with_outputs:
            yield ("engines", name, "loaded_with_outputs"), "outputs are not loaded: it names weights and inputs"
        if engine.group_by_group and any(Dimension.G in axis.unrolls for axis in engine.axes.values()):
            yield ("engines", name, "group_by_group"), "an axis spreads G: groups run side by side there"
        if engine.same_lanes_as is not None:
            yield from _lane_problems(name, engine, profile.engines.get(engine.same_lanes_as))
    if profile.vector_unit is not None:
        yield from _vector_unit_problems(profile.vector_unit)


def _cell_problems(name: str, memory: Memory, other: Memory | None) -> Iterator[tuple[KeyPath, str]]:
    where = ("memories", name, "same_cells_as")
    if other is None or other.same_cells_as is not None:
        yield where, _no_original("memory", memory.same_cells_as, other.same_cells_as if other else None)
    elif not memory.engines or set(memory.engines) & set(other.engines or memory.engines):
        yield where, f"{memory.same_cells_as} and it serve the same engines: name those of each"


def _lane_problems(name: str, engine: Engine, other: Engine | None) -> Iterator[tuple[KeyPath, str]]:
    where = ("engines", name, "same_lanes_as")
    if other is None or other.same_lanes_as is not None:
        yield where, _no_original("engine", engine.same_lanes_as, other.same_lanes_as if other else None)
    elif (other.peak_macs_per_cycle, other.operand_bits) != (engine.peak_macs_per_cycle, engine.operand_bits):
        yield where, f"{engine.same_lanes_as} has other lanes"


def _no_original(kind: str, named: str | None, names: str | None) -> str:
    """Why what a `same_..._as` names is not the one that is built. names: what that names in turn, if there is one."""
    if names is None:
        return f"no {kind} is called {named}"
    return f"name the {kind} that {named} names: {names}"


def _vector_unit_problems(unit: VectorUnit) -> Iterator[tuple[KeyPath, str]]:
    for key, kinds in (("operators", unit.operators), ("cycles_per_operation", unit.cycles_per_operation)):
        for kind in kinds:
            if kind not in unit.operations:
                yield ("vector_unit", key, kind), "it is not among the unit's operations"
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


def _coding_problems(profile: HardwareProfile) -> Iterator[tuple[KeyPath, str]]:
    """Weights are decoded once, on their way in."""
    plain = ""
    for name, memory in reversed(profile.memories.items()):
        if Operand.WEIGHTS not in memory.holds:
            if memory.coded_weight_bits is not None:
                yield ("memories", name, "coded_weight_bits"), "it holds no weights"
        elif memory.coded_weight_bits is None:
            plain = plain or name
        elif plain:
            yield ("memories", name, "coded_weight_bits"), f"{plain} outside it holds them plain: nothing codes them"
        elif memory.burst_bytes is not None:
            yield ("memories", name, "coded_weight_bits"), "bursts of coded weights are not described: leave one out"


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
