"""Blocks: what must be placed once the order is known. A rectangle is some bytes for some steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import lcm

from codesign.planning.memory.flow import Flow, Overwriting
from codesign.planning.memory.liveness import Liveness

SCRATCH = -1


@dataclass(frozen=True)
class Rectangle:
    """`size` bytes, `at` bytes into its block, while steps first to last of the order run.

    piece: its number (more than one rectangle may be of it), or SCRATCH.
    """

    first: int
    last: int
    at: int
    size: int
    piece: int

    def meets(self, other: Rectangle) -> bool:
        """Whether both want the same bytes in the same step."""
        in_time = self.first <= other.last and other.first <= self.last
        return in_time and self.at < other.at + other.size and other.at < self.at + self.size


@dataclass(frozen=True)
class Block:
    """Rectangles at fixed distances: tensors that share memory, and what is written in place over them.

    alignment: of the block's offset.
    """

    rectangles: tuple[Rectangle, ...]
    alignment: int


@dataclass(frozen=True)
class Layout:
    """What must be placed.

    homes: by group, the number of its block and how many bytes into it the group begins. in_place: by step of the
    problem, the way it writes. scratch: by step, number of a block.
    """

    blocks: tuple[Block, ...]
    homes: dict[int, tuple[int, int]]
    in_place: dict[int, Overwriting]
    scratch: dict[int, int]


def layout_of(liveness: Liveness, order: Sequence[int], allowed: int) -> Layout:
    """Blocks for an order. A step writes in place only if more than `allowed` bytes were live otherwise.

    In place fixes distances, which makes placing harder, so it is not done where there is room.
    """
    blocks = _Blocks(liveness.flow, order)
    in_place: dict[int, Overwriting] = {}
    scratch: dict[int, int] = {}
    done, live = 0, liveness.at_start
    for at, step in enumerate(order):
        change = liveness.change(step, done, live)
        way = liveness.written_in_place(step, done)
        if way is not None and change.during + liveness.saved_bytes(step, way) > allowed and blocks.merge(way, at):
            in_place[step] = way
        room = liveness.flow.problem.steps[step].scratch_bytes
        room += in_place[step].overwrite.scratch_bytes if step in in_place else 0
        if room:
            scratch[step] = blocks.add_scratch(at, room)
        done, live = done | 1 << step, change.after
    return blocks.layout(in_place, scratch)


def lifetimes(flow: Flow, order: Sequence[int]) -> list[tuple[int, int]]:
    """First and last step of every piece, by their places in the order."""
    place = {step: at for at, step in enumerate(order)}
    end = max(len(order) - 1, 0)
    last = [place[writer] if writer >= 0 else 0 for writer in flow.writer]
    first = list(last)
    for step, reads in enumerate(flow.reads):
        for number in reads:
            last[number] = max(last[number], place[step])
    for number, readers in enumerate(flow.readers):
        if number in flow.kept or (flow.writer[number] < 0 and not readers):
            last[number] = end
    return list(zip(first, last, strict=True))


class _Blocks:
    """Blocks while steps are gone through: one a group at first, merged where a step writes in place."""

    def __init__(self, flow: Flow, order: Sequence[int]) -> None:
        self.flow = flow
        members: dict[int, list[Rectangle]] = {}
        lives = lifetimes(flow, order)
        for number, (place, (first, last)) in enumerate(zip(flow.ranges, lives, strict=True)):
            members.setdefault(place.group, []).append(Rectangle(first, last, place.at, place.size, number))
        self.blocks = {group: Block(tuple(parts), flow.alignments[group]) for group, parts in members.items()}
        self.home = {group: (group, 0) for group in members}  # which block a group is in, and how many bytes into it
        self.scratch: list[Block] = []

    def merge(self, way: Overwriting, step: int) -> bool:
        """Let the output begin where the way says, if nothing else stands in its way. Whether it does now.

        step: its place in the order. What is written over ends the step before; what of it is left over stays.
        """
        output, place = way.output_place, way.input_place
        (over, over_at), (under, under_at) = self.home[output.group], self.home[place.group]
        shift = under_at + way.begin - over_at - output.at
        above, below = self.blocks[over], self.blocks[under]
        if (over == under and shift) or (shift % above.alignment if shift >= 0 else -shift % below.alignment):
            return False
        moved = _shifted(above, max(shift, 0)) if over != under else ()
        begin = under_at + way.begin + max(-shift, 0)
        kept = tuple(
            part
            for whole in _shifted(below, max(-shift, 0))
            for part in (_cut(whole, begin, begin + output.size, step) if whole.piece in way.inputs else (whole,))
        )
        if any(one.meets(other) for one in kept for other in moved):
            return False
        self.blocks[under] = Block(kept + moved, lcm(above.alignment, below.alignment))
        if over != under:
            del self.blocks[over]
        for group, (block, at) in self.home.items():
            if block in (over, under):
                self.home[group] = under, at + max(shift if block == over else -shift, 0)
        return True

    def add_scratch(self, at: int, size: int) -> int:
        """A block of its own for one step; its number among scratch."""
        self.scratch.append(Block((Rectangle(at, at, 0, size, SCRATCH),), self.flow.scratch_alignment))
        return len(self.scratch) - 1

    def layout(self, in_place: dict[int, Overwriting], scratch: dict[int, int]) -> Layout:
        """All blocks, scratch last."""
        number_of = {block: number for number, block in enumerate(self.blocks)}
        homes = {group: (number_of[block], at) for group, (block, at) in self.home.items()}
        numbers = {step: len(number_of) + number for step, number in scratch.items()}
        return Layout((*self.blocks.values(), *self.scratch), homes, in_place, numbers)


def _shifted(block: Block, shift: int) -> tuple[Rectangle, ...]:
    return tuple(replace(part, at=part.at + shift) for part in block.rectangles)


def _cut(whole: Rectangle, begin: int, end: int, step: int) -> tuple[Rectangle, ...]:
    """A rectangle whose last step is this one, in which bytes begin to end belong to another already."""
    parts = [replace(whole, last=step - 1)] if whole.first < step else []
    for low, high in ((whole.at, min(begin, whole.at + whole.size)), (max(end, whole.at), whole.at + whole.size)):
        if low < high:
            parts.append(Rectangle(step, step, low, high - low, whole.piece))
    return tuple(parts)
