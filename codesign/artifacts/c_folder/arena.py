"""Where every activation lies in the arena: the largest first, each at the lowest place free while it lives."""

from __future__ import annotations

from dataclasses import dataclass

from codesign.lowering.c_source.program import CProgram, Place

ALIGNMENT_BYTES = 16


@dataclass(frozen=True)
class Arena:
    """offsets: of tensors, by name. scratch: of the steps that need some, by number. All in bytes."""

    size_bytes: int
    offsets: dict[str, int]
    scratch: dict[int, int]


@dataclass(frozen=True)
class _Block:
    key: str | int
    size_bytes: int
    first: int
    last: int


def arena_of(program: CProgram) -> Arena:
    """A place for every tensor of Place.ARENA and every step's scratch memory."""
    placed: dict[str | int, tuple[_Block, int]] = {}
    for block in sorted(_blocks(program), key=lambda block: -block.size_bytes):
        placed[block.key] = (block, _lowest(block, list(placed.values())))
    size = max((at + block.size_bytes for block, at in placed.values()), default=0)
    offsets = {key: at for key, (_, at) in placed.items() if isinstance(key, str)}
    return Arena(size, offsets, {key: at for key, (_, at) in placed.items() if isinstance(key, int)})


def _blocks(program: CProgram) -> list[_Block]:
    lives: dict[str, list[int]] = {}
    blocks = []
    for number, step in enumerate(program.steps):
        for name in {name for names in program.touched(step) for name in names}:
            if program.tensors[name].place is Place.ARENA:
                lives.setdefault(name, []).append(number)
        if program.scratch_bytes(step):
            blocks.append(_Block(number, program.scratch_bytes(step), number, number))
    sizes = {name: -(-program.tensors[name].size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES for name in lives}
    return blocks + [_Block(name, sizes[name], life[0], life[-1]) for name, life in lives.items()]


def _lowest(block: _Block, placed: list[tuple[_Block, int]]) -> int:
    in_the_way = sorted(
        (at, at + other.size_bytes) for other, at in placed if other.first <= block.last and block.first <= other.last
    )
    place = 0
    for start, end in in_the_way:
        if place + block.size_bytes <= start:
            break
        place = max(place, end)
    return place
