"""Offsets by OR-tools CP-SAT, for the few layouts that first fit does not place within the liveness of their order."""

from __future__ import annotations

from collections.abc import Sequence

from codesign.planning.memory.rectangles import Block

DETERMINISTIC_SECONDS = 4.0


def solve_offsets(
    blocks: Sequence[Block], hint: Sequence[int], unit: int, least: int, most: int, limit: float = DETERMINISTIC_SECONDS
) -> list[int] | None:
    """Offsets with an arena below `most` bytes, or None if none was found: the least found within the limit.

    hint: offsets to start from. unit: divides every alignment. least: no arena is smaller. limit: of the solver's
    deterministic time, so that a run gives the same on every machine; one worker and a fixed seed for the same reason.
    """
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    units = model.new_int_var(-(-least // unit), max(most - 1, least) // unit, "units")
    times, spans, offsets = [], [], []
    for number, block in enumerate(blocks):
        offset = model.new_int_var(0, (most - 1) // block.alignment, f"offset_{number}")
        offsets.append(offset)
        model.add_hint(offset, hint[number] // block.alignment)
        for part in block.rectangles:
            begin = block.alignment * offset + part.at
            times.append(model.new_fixed_size_interval_var(part.first, part.last - part.first + 1, ""))
            spans.append(model.new_fixed_size_interval_var(begin, part.size, ""))
            model.add(begin + part.size <= unit * units)
    model.add_no_overlap_2d(times, spans)
    model.minimize(units)
    solver = cp_model.CpSolver()
    solver.parameters.max_deterministic_time = limit
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 0
    status = solver.solve(model)
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    return [solver.value(offset) * block.alignment for offset, block in zip(offsets, blocks, strict=True)]
