"""What makes a mapping legal, as a list of reasons why one is not. Nothing here is shared with the search."""

from __future__ import annotations

from math import prod

from codesign.hardware.profile import HardwareProfile
from codesign.hardware.sections import Buffering
from codesign.mapping.mapper import choice_of, residence_bytes
from codesign.mapping.mapping import Mapping
from codesign.vocabulary import DIMENSIONS, RELEVANT, Dimension, Operand
from codesign.workload.loop_nest import LoopNest


def problems_of(nest: LoopNest, mapping: Mapping, profile: HardwareProfile) -> list[str]:
    """Every reason why a mapping is illegal on a machine; empty when it is legal."""
    return [
        *_lane_problems(mapping, profile),
        *_whole_problems(nest, mapping, profile),
        *_loop_problems(nest, mapping),
        *_residence_problems(mapping, profile),
        *_dataflow_problems(mapping, profile),
        *_together_problems(mapping, profile),
        *_group_problems(mapping, profile),
        *_capacity_problems(nest, mapping, profile),
    ]


def _lane_problems(mapping: Mapping, profile: HardwareProfile) -> list[str]:
    problems = []
    axes = profile.engines[mapping.engine].axes
    for name, axis in axes.items():
        loops = [loop for loop in mapping.spatial if loop.axis == name]
        used = prod(loop.extent for loop in loops)
        if used > axis.size:
            problems.append(f"axis {name} has {axis.size} lanes, {used} are used")
        problems.extend(
            f"axis {name} cannot unroll {loop.dimension}" for loop in loops if loop.dimension not in axis.unrolls
        )
        if axis.fixed and axis.size > 1 and [loop.extent for loop in loops] != [axis.size]:
            problems.append(f"axis {name} is fixed: all {axis.size} lanes run {axis.unrolls[0]}")
    problems.extend(
        f"engine {mapping.engine} has no axis {loop.axis}" for loop in mapping.spatial if loop.axis not in axes
    )
    return problems


def _whole_problems(nest: LoopNest, mapping: Mapping, profile: HardwareProfile) -> list[str]:
    """Dimensions an axis runs in full, or in as few passes as its lanes allow."""
    problems = []
    left = dict(zip(DIMENSIONS, nest.sizes, strict=True))
    for name, axis in profile.engines[mapping.engine].axes.items():
        for dimension in DIMENSIONS:
            here = [loop.extent for loop in mapping.spatial if loop.axis == name and loop.dimension is dimension]
            passes, least = -(-left[dimension] // prod(here)), -(-left[dimension] // axis.size)
            if dimension in axis.whole and passes > least:
                problems.append(f"axis {name} runs {dimension} in full: {prod(here)} lanes take {passes} passes")
            left[dimension] = passes
    return problems


def _loop_problems(nest: LoopNest, mapping: Mapping) -> list[str]:
    problems = []
    for dimension in DIMENSIONS:
        problems.extend(_chain_problems(nest.size(dimension), dimension, mapping))
    return problems


def _chain_problems(size: int, dimension: Dimension, mapping: Mapping) -> list[str]:
    """The loops of one dimension cover it, and none but the outermost is ragged."""
    extents = [loop.extent for loop in mapping.loops if loop.dimension is dimension and loop.extent > 1]
    inside = mapping.lanes(dimension) * prod(extents[1:])
    if inside * (extents[0] if extents else 1) < size:
        return [f"{dimension}: the loops cover {inside * prod(extents[:1])} of {size}"]
    if extents and extents[0] != -(-size // inside):
        return [f"{dimension}: the outermost loop runs {extents[0]} times, {-(-size // inside)} cover {size}"]
    return []


def _residence_problems(mapping: Mapping, profile: HardwareProfile) -> list[str]:
    problems = []
    for operand in Operand:
        levels = profile.hierarchy(mapping.engine, operand)[:-1]
        parts = [mapping.residence(operand, level) for level in levels]
        if None in parts or len([part for part in mapping.residences if part.operand is operand]) != len(levels):
            problems.append(f"{operand}: one position is needed in each of {', '.join(levels)}")
            continue
        positions = [part.position for part in parts if part is not None]
        if positions != sorted(positions, reverse=True) or not 0 <= positions[-1] <= positions[0] <= len(mapping.loops):
            problems.append(f"{operand}: positions {positions} do not move outwards within the loops")
    for part in mapping.residences:
        level = profile.memories.get(part.memory)
        if part.buffers not in (1, 2) or (part.buffers == 2 and level and level.buffering is not Buffering.EITHER):
            problems.append(f"{part.operand} in {part.memory}: {part.buffers} buffers, it leaves no such choice")
    return problems


def _dataflow_problems(mapping: Mapping, profile: HardwareProfile) -> list[str]:
    """A fixed dataflow: the stationary operand enters its innermost memory once."""
    operand = profile.engines[mapping.engine].stationary
    if operand is None:
        return []
    innermost = mapping.residence(operand, profile.hierarchy(mapping.engine, operand)[0])
    outside = mapping.loops[: innermost.position] if innermost else ()
    again = [loop for loop in outside if loop.dimension not in RELEVANT[operand] and loop.extent > 1]
    return [
        f"{operand} are stationary on engine {mapping.engine}: {loop.dimension} must run inside their innermost tile"
        for loop in again
    ]


def _together_problems(mapping: Mapping, profile: HardwareProfile) -> list[str]:
    """Operands loaded for one tile of outputs: no loop runs between the tile they leave and that of the outputs."""
    engine = profile.engines[mapping.engine]
    first = {operand: mapping.residence(operand, profile.hierarchy(mapping.engine, operand)[0]) for operand in Operand}
    outputs = first[Operand.OUTPUTS]
    return [
        f"{operand} are loaded anew for every tile of outputs on engine {mapping.engine}: {loop.dimension} must run"
        " outside their innermost tile"
        for operand in engine.loaded_with_outputs
        if (part := first[operand]) is not None and outputs is not None
        for loop in mapping.loops[part.position : outputs.position]
        if loop.extent > 1
    ]


def _group_problems(mapping: Mapping, profile: HardwareProfile) -> list[str]:
    """Groups one after another: their loop runs outside all tiles."""
    if not profile.engines[mapping.engine].group_by_group:
        return []
    return [
        f"groups run one after another on engine {mapping.engine}: the tile of {part.operand} in {part.memory} spans"
        f" {loop.extent} of them"
        for part in mapping.residences
        for loop in mapping.loops[part.position :]
        if loop.dimension is Dimension.G and loop.extent > 1
    ]


def _capacity_problems(nest: LoopNest, mapping: Mapping, profile: HardwareProfile) -> list[str]:
    used: dict[str, int] = {}
    choice = choice_of(nest, mapping)
    for part in mapping.residences:
        used[part.memory] = used.get(part.memory, 0) + residence_bytes(nest, profile, mapping, choice, part)
    return [
        f"{memory} holds {size} bytes, {amount} are needed"
        for memory, amount in used.items()
        if (size := profile.memories[memory].size_bytes) is not None and amount > size
    ]
