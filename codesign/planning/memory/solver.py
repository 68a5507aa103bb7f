"""Offsets by OR-tools CP-SAT, for the few networks whose tensors first fit does not place within their liveness."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from codesign.planning.memory.flow import Flow, Overwriting
from codesign.planning.memory.packing import neighbours
from codesign.planning.memory.rectangles import SCRATCH, Block, Layout, Rectangle, lifetimes

if TYPE_CHECKING:
    from ortools.sat.python.cp_model import CpModel, IntVar

DETERMINISTIC_SECONDS = 1.0
_MOST_PAIRS = 30_000


def solve_offsets(
    flow: Flow, order: Sequence[int], hint: Sequence[int], least: int, most: int
) -> tuple[Layout, list[int]] | None:
    """A layout of an order and offsets of its blocks with an arena below `most` bytes, the least the limit allows.

    None if none is found. hint: an offset to start from for every group. least: no arena is smaller. The limit is of
    the deterministic time of the solver, so that a run gives the same on every machine; one worker and a fixed seed for
    the same reason. With too many rectangles the solver is not asked.

    Every group is a block. Of two rectangles some step needs both, one lies above the other: the solver is far quicker
    with that said pair by pair than with its constraint for rectangles. What a step may write over is a third choice:
    output and input lie at a fixed distance.
    """
    rooms = _Rooms(flow, order)
    pairs = rooms.pairs()
    if len(pairs) > _MOST_PAIRS:
        return None
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    units = model.new_int_var(-(-least // flow.unit), max(most - 1, least) // flow.unit, "units")
    offsets = [
        model.new_int_var(0, (most - 1) // block.alignment, f"offset_{number}")
        for number, block in enumerate(rooms.blocks)
    ]
    bases = [block.alignment * offset for block, offset in zip(rooms.blocks, offsets, strict=True)]
    for offset, block, start in zip(offsets, rooms.blocks, hint, strict=False):
        model.add_hint(offset, start // block.alignment)
    taken = _choices(model, rooms, bases)
    sizes = {id(part): part.size + sum(way.overwrite.scratch_bytes * same for way, same in taken.get(step, ()))
             for step, part in rooms.scratch.items()}  # fmt: skip
    for base, block in zip(bases, rooms.blocks, strict=True):
        for part in block.rectangles:
            model.add(base + part.at + sizes.get(id(part), part.size) <= flow.unit * units)
    over = {(under, above): same for ways in taken.values() for way, same in ways
            for under in way.inputs for above in way.outputs}  # fmt: skip
    for (one, mine), (other, theirs) in pairs:
        below, above = model.new_bool_var(""), model.new_bool_var("")
        low, high = bases[one] + mine.at, bases[other] + theirs.at
        model.add(low + sizes.get(id(mine), mine.size) <= high).only_enforce_if(below)
        model.add(high + sizes.get(id(theirs), theirs.size) <= low).only_enforce_if(above)
        same = over.get((mine.piece, theirs.piece), over.get((theirs.piece, mine.piece)))
        model.add_bool_or([below, above, *([] if same is None else [same])])
    model.minimize(units)
    solver = cp_model.CpSolver()
    solver.parameters.max_deterministic_time = DETERMINISTIC_SECONDS
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 0
    if solver.solve(model) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None
    chosen = {step: way for step, ways in taken.items() for way, same in ways if solver.value(same)}
    return rooms.layout(chosen), [
        solver.value(offset) * block.alignment for offset, block in zip(offsets, rooms.blocks, strict=True)
    ]


def _choices(model: CpModel, rooms: _Rooms, bases: Sequence[Any]) -> dict[int, list[tuple[Overwriting, IntVar]]]:
    """By step, ways to write in place and whether each is taken: at most one is, and its tensors lie as it says."""
    taken: dict[int, list[tuple[Overwriting, IntVar]]] = {}
    for step, ways in rooms.ways.items():
        for way in ways:
            same = model.new_bool_var("")
            output, under = way.output_place, way.input_place
            begin = bases[output.group] + output.at
            model.add(begin == bases[under.group] + way.begin).only_enforce_if(same)
            taken.setdefault(step, []).append((way, same))
        model.add_at_most_one(same for _, same in taken[step])
    return taken


class _Rooms:
    """A block for every group, then one for the scratch of every step that has, or may have, some."""

    def __init__(self, flow: Flow, order: Sequence[int]) -> None:
        self.flow, self.lives = flow, lifetimes(flow, order)
        members: list[list[Rectangle]] = [[] for _ in flow.alignments]
        for number, (place, (first, last)) in enumerate(zip(flow.ranges, self.lives, strict=True)):
            members[place.group].append(Rectangle(first, last, place.at, place.size, number))
        self.blocks = [Block(tuple(parts), a) for parts, a in zip(members, flow.alignments, strict=True)]
        found = {step: self._dying(step, at) for at, step in enumerate(order)}
        self.ways = {step: ways for step, ways in found.items() if ways}
        self.scratch: dict[int, Rectangle] = {}
        self.number: dict[int, int] = {}
        for at, step in enumerate(order):
            size = flow.problem.steps[step].scratch_bytes
            if size or any(way.overwrite.scratch_bytes for way in self.ways.get(step, ())):
                self.scratch[step] = Rectangle(at, at, 0, size, SCRATCH)
                self.number[step] = len(self.blocks)
                self.blocks.append(Block((self.scratch[step],), flow.scratch_alignment))

    def _dying(self, step: int, at: int) -> list[Overwriting]:
        """Ways to write over what dies in a step."""
        return [
            way
            for way in self.flow.overwritings[step]
            if way.output_place.group != way.input_place.group
            and all(self.lives[number][1] == at and number not in self.flow.kept for number in way.inputs)
        ]

    def pairs(self) -> list[tuple[tuple[int, Rectangle], tuple[int, Rectangle]]]:
        """Rectangles of two blocks that some step needs both, with the numbers of the blocks."""
        return [
            ((one, mine), (other, theirs))
            for one, found in enumerate(neighbours(self.blocks))
            for mine, other, theirs in found
            if one < other
        ]

    def layout(self, in_place: dict[int, Overwriting]) -> Layout:
        """The blocks with what was chosen; scratch that nobody needs is left out by its size."""
        steps = self.flow.problem.steps
        sizes = {
            step: steps[step].scratch_bytes + (in_place[step].overwrite.scratch_bytes if step in in_place else 0)
            for step in self.scratch
        }
        blocks = list(self.blocks)
        for step, size in sizes.items():
            part = self.scratch[step]
            sized = Rectangle(part.first, part.last, 0, size, SCRATCH)
            blocks[self.number[step]] = Block((sized,), self.flow.scratch_alignment)
        homes = {group: (group, 0) for group in range(len(self.flow.alignments))}
        return Layout(tuple(blocks), homes, in_place, {step: self.number[step] for step, size in sizes.items() if size})
