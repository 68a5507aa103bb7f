"""A Mapping made real: the layer's loops split, ordered and annotated, its tiles copied through the memories.

    for <loops[:position]>:            one iteration per tile
        <copy the tile into its memory>
        for <loops[position:]>:        steps of the engine
            for <spatial loops>:       its lanes, annotated codesign.axis and codesign.lanes
                outputs += inputs * weights
        <copy the tile of outputs outwards>

A tile of outputs inside a reduction loop leaves before its sums are complete: codesign.lowering.partial_sums.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from codesign.hardware.profile import HardwareProfile
from codesign.lowering.computation import COMPUTE_STAGE, PAD_STAGE, index_letters, layer_function, loop_order
from codesign.lowering.finishing import Finish
from codesign.lowering.partial_sums import Eviction, return_partial_sums
from codesign.lowering.tir_reading import AXIS_ANNOTATION, LANES_ANNOTATION, scope_of
from codesign.mapping.mapping import Mapping
from codesign.vocabulary import DIMENSIONS, REDUCTION, Dimension, Operand
from codesign.workload.loop_nest import LoopNest


@dataclass(frozen=True)
class ScheduledLayer:
    """A layer's TIR under one mapping. function: a PrimFunc over inputs, weights, outputs as of layer_function."""

    function: Any
    name: str
    nest: LoopNest
    mapping: Mapping


@dataclass(frozen=True)
class Copy:
    """One on-chip memory an operand's tile passes through, and the position of its residence."""

    operand: Operand
    memory: str
    position: int

    @property
    def tile(self) -> str:
        """Name of its buffer."""
        return f"{self.operand}_{self.memory}"

    @property
    def scope(self) -> str:
        """Storage scope of its buffer."""
        return scope_of(self.memory)


def schedule_layer(
    nest: LoopNest, mapping: Mapping, profile: HardwareProfile, name: str, dtype: str = "float32"
) -> ScheduledLayer:
    """Realise a mapping of one layer on one machine.

    Raises ValueError for a mapping that is none of this layer and machine: a residence is missing or at no loop, an
    outer memory's tile lies inside an inner one's, or loops do not cover a dimension.
    """
    from tvm import s_tir

    for residence in mapping.residences:
        if not 0 <= residence.position <= len(mapping.loops):
            raise ValueError(f"{residence.operand} in {residence.memory}: there is no position {residence.position}")
    steps = _without_unit_loops(mapping)
    copies = {operand: _copies(steps, profile, operand) for operand in Operand}
    _check_loops(nest, steps)
    schedule = s_tir.Schedule(layer_function(nest, name, dtype), error_render_level="fast")
    block = schedule.get_sblock(COMPUTE_STAGE)
    loops = _dimension_loops(schedule, block, nest)
    blocks = _insert_copies(schedule, block, copies, padded=len(schedule.get_producers(block)) > 0)
    temporal, inner = _order_loops(schedule, loops, nest, steps)
    _place_copies(schedule, copies, blocks, temporal)
    evictions = _evictions(schedule, steps, copies[Operand.OUTPUTS], temporal)
    if not evictions:
        schedule.decompose_reduction(block, [*temporal, *inner][copies[Operand.OUTPUTS][0].position])
    finish = _finish(schedule, nest, steps, copies, blocks, temporal)
    function = return_partial_sums(finish.apply(schedule.mod["main"]), evictions)
    return ScheduledLayer(function, name, nest, mapping)


def lanes_in_loops(nest: LoopNest, mapping: Mapping) -> tuple[int, ...]:
    """Iterations of each spatial loop: its lanes, or as many as the layer has work for."""
    left = dict(zip(DIMENSIONS, nest.sizes, strict=True))
    extents = []
    for loop in reversed(mapping.spatial):
        extents.append(min(loop.extent, left[loop.dimension]))
        left[loop.dimension] = -(-left[loop.dimension] // extents[-1])
    return tuple(reversed(extents))


def _without_unit_loops(mapping: Mapping) -> Mapping:
    """The same mapping without loops of one iteration, positions adjusted."""
    kept = [at for at, loop in enumerate(mapping.loops) if loop.extent > 1]
    residences = tuple(
        replace(residence, position=sum(at < residence.position for at in kept)) for residence in mapping.residences
    )
    return replace(mapping, loops=tuple(mapping.loops[at] for at in kept), residences=residences)


def _copies(mapping: Mapping, profile: HardwareProfile, operand: Operand) -> list[Copy]:
    """Innermost memory first."""
    copies: list[Copy] = []
    for memory in profile.hierarchy(mapping.engine, operand)[:-1]:
        residence = mapping.residence(operand, memory)
        if residence is None:
            raise ValueError(f"the mapping has no residence of {operand} in {memory}")
        if copies and residence.position > copies[-1].position:
            raise ValueError(f"{operand}: the tile in {memory} lies inside the one in {copies[-1].memory}")
        copies.append(Copy(operand, memory, residence.position))
    return copies


def _check_loops(nest: LoopNest, mapping: Mapping) -> None:
    for dimension, covered in zip(DIMENSIONS, mapping.tile(nest, 0), strict=True):
        if covered < nest.size(dimension):
            raise ValueError(f"the loops cover {covered} of {nest.size(dimension)} in {dimension}")


def _dimension_loops(schedule: Any, block: Any, nest: LoopNest) -> dict[Dimension, Any]:
    """One loop per dimension; those a matrix product does not have become loops of one iteration."""
    loops = dict(zip(loop_order(nest), schedule.get_loops(block), strict=True))
    for dimension in DIMENSIONS:
        if dimension not in loops:
            loops[dimension] = schedule.add_unit_loop(block)
    return loops


def _insert_copies(schedule: Any, block: Any, copies: dict[Operand, list[Copy]], *, padded: bool) -> dict[Copy, Any]:
    """Copy blocks at the top of the function, from the outermost memory inwards; the padding joins the first."""
    blocks = {}
    for buffer_index, operand in enumerate((Operand.INPUTS, Operand.WEIGHTS)):
        for copy in reversed(copies[operand]):
            blocks[copy] = schedule.cache_read(block, buffer_index, copy.scope)
    if padded:
        schedule.compute_inline(PAD_STAGE)
    for copy in reversed(copies[Operand.OUTPUTS]):
        blocks[copy] = schedule.cache_write(block, 0, copy.scope)
    return blocks


def _order_loops(
    schedule: Any, loops: dict[Dimension, Any], nest: LoopNest, mapping: Mapping
) -> tuple[list[Any], list[Any]]:
    """Split and reorder; the temporal loops, and what lies inside them (spatial loops first).

    Loops of one iteration the mapping does not name go outside everything, or, for the reduction, inside everything.
    """
    temporal, spatial, rest = _split(schedule, loops, nest, mapping)
    for loop, lanes in zip(spatial, mapping.spatial, strict=True):
        schedule.annotate(loop, AXIS_ANNOTATION, lanes.axis)
        schedule.annotate(loop, LANES_ANNOTATION, lanes.extent)
    outside = [loop for dimension, loop in rest.items() if dimension not in REDUCTION]
    inside = [loop for dimension, loop in rest.items() if dimension in REDUCTION]
    schedule.reorder(*outside, *temporal, *spatial, *inside)
    return temporal, [*spatial, *inside]


def _split(
    schedule: Any, loops: dict[Dimension, Any], nest: LoopNest, mapping: Mapping
) -> tuple[list[Any], list[Any], dict[Dimension, Any]]:
    """Temporal and spatial loops in the mapping's order, and the loops of one iteration it does not name."""
    order = [loop.dimension for loop in mapping.loops] + [loop.dimension for loop in mapping.spatial]
    extents = (*(loop.extent for loop in mapping.loops), *lanes_in_loops(nest, mapping))
    found: list[Any] = [None] * len(order)
    rest = {}
    for dimension, loop in loops.items():
        places = [at for at, other in enumerate(order) if other is dimension]
        if not places:
            rest[dimension] = loop
            continue
        parts = [loop] if len(places) == 1 else schedule.split(loop, [extents[at] for at in places])
        for at, part in zip(places, parts, strict=True):
            found[at] = part
    return found[: len(mapping.loops)], found[len(mapping.loops) :], rest


def _place_copies(
    schedule: Any, copies: dict[Operand, list[Copy]], blocks: dict[Copy, Any], temporal: list[Any]
) -> None:
    """Innermost copies first: a copy can only move in once all who use it are inside."""
    for operand in (Operand.INPUTS, Operand.WEIGHTS):
        for copy in copies[operand]:
            if copy.position > 0:
                schedule.compute_at(blocks[copy], temporal[copy.position - 1], preserve_unit_loops=True)
    for copy in copies[Operand.OUTPUTS]:
        if copy.position > 0:
            schedule.reverse_compute_at(blocks[copy], temporal[copy.position - 1], preserve_unit_loops=True)


def _evictions(schedule: Any, mapping: Mapping, copies: list[Copy], temporal: list[Any]) -> list[Eviction]:
    """The tiles of outputs that lie inside loops over the reduction, innermost first."""
    variables = [schedule.get(loop).loop_var for loop in temporal]
    evictions = []
    for copy in copies:
        outside = zip(variables[: copy.position], mapping.loops, strict=False)
        reductions = tuple(variable for variable, loop in outside if loop.dimension in REDUCTION)
        if reductions:
            evictions.append(Eviction(variables[copy.position - 1], reductions, innermost=copy is copies[0]))
    return evictions


def _finish(
    schedule: Any,
    nest: LoopNest,
    mapping: Mapping,
    copies: dict[Operand, list[Copy]],
    blocks: dict[Copy, Any],
    temporal: list[Any],
) -> Finish:
    """Bounds of the input tiles, and names: a copy is called as the buffer it writes, `weights_sram`."""
    finish = Finish()
    loop_variables = [schedule.get(loop).loop_var for loop in temporal]
    realizations = _realizations(schedule)
    for operand, letters in index_letters(nest).items():
        written = str(operand)
        for copy in reversed(copies[operand]):
            realize = realizations[str(schedule.get(blocks[copy]).name_hint)]
            own = [schedule.get(loop).loop_var for loop in schedule.get_loops(blocks[copy])[-len(letters) :]]
            store = realize.block.body
            if operand is Operand.OUTPUTS:
                finish.name_copy(realize, store.value.source, copy.tile, written, letters, own)
                written = copy.tile
            else:
                finish.name_copy(realize, store.buffer, copy.tile, copy.tile, letters, own)
            finish.skip_empty_tiles(nest, mapping, copy.operand, copy.position, loop_variables, realize)
            if operand is Operand.INPUTS:
                finish.bound_input_tile(nest, mapping, copy.position, loop_variables, realize, own)
    return finish


def _realizations(schedule: Any) -> dict[str, Any]:
    import tvm_ffi
    from tvm import s_tir

    found: dict[str, Any] = {}

    def note(realize: Any) -> None:
        found[str(realize.block.name_hint)] = realize

    tvm_ffi.structural_walk(schedule.mod["main"], [(s_tir.SBlockRealize, note)])
    return found
