"""Offsets by OR-tools CP-SAT, for the few layouts that first fit does not place within the liveness of their order."""

from __future__ import annotations

from collections.abc import Sequence

from codesign.planning.memory.packing import neighbours
from codesign.planning.memory.rectangles import Block

DETERMINISTIC_SECONDS = 1.0
_MOST_PAIRS = 30_000


def solve_offsets(blocks: Sequence[Block], hint: Sequence[int], unit: int, least: int, most: int) -> list[int] | None:
    """Offsets with an arena below `most` bytes, the least found within the limit; None if none is found.

    hint: offsets to start from. unit: divides every alignment. least: no arena is smaller. The limit is one of the
    solver's deterministic time, so that a run gives the same on every machine; one worker and a fixed seed for the same
    reason. Of two rectangles that some step needs both, one lies above the other: the solver is far quicker with that
    said pair by pair than with its constraint for rectangles. With too many pairs it is not asked.
    """
    from ortools.sat.python import cp_model

    pairs = [
        ((one, mine), (other, theirs))
        for one, found in enumerate(neighbours(blocks))
        for mine, other, theirs in found
        if one < other
    ]
    if len(pairs) > _MOST_PAIRS:
        return None
    model = cp_model.CpModel()
    units = model.new_int_var(-(-least // unit), max(most - 1, least) // unit, "units")
    offsets = []
    for number, block in enumerate(blocks):
        top = max(part.at + part.size for part in block.rectangles)
        offset = model.new_int_var(0, max(most - 1 - top, 0) // block.alignment, f"offset_{number}")
        offsets.append(offset)
        model.add_hint(offset, hint[number] // block.alignment)
        model.add(block.alignment * offset + top <= unit * units)
    for (one, mine), (other, theirs) in pairs:
        low, high = blocks[one].alignment * offsets[one] + mine.at, blocks[other].alignment * offsets[other] + theirs.at
        above = model.new_bool_var("")
        model.add(low + mine.size <= high).only_enforce_if(above)
        model.add(high + theirs.size <= low).only_enforce_if(~above)
    model.minimize(units)
    solver = cp_model.CpSolver()
    solver.parameters.max_deterministic_time = DETERMINISTIC_SECONDS
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 0
    if solver.solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    return [solver.value(offset) * block.alignment for offset, block in zip(offsets, blocks, strict=True)]
