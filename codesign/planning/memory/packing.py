"""Packing: offsets for blocks by first fit in several orders; what reaches the liveness of the order is optimal."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from codesign.planning.memory.rectangles import Block, Rectangle

_ROUNDS = 200


class Packer:
    """Places the blocks of one layout. lives: most bytes live in any step some rectangle is there, by block."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self.blocks = blocks
        self.neighbours = _neighbours(blocks)

    def pack(self, least: int, rounds: int = _ROUNDS) -> list[int]:
        """An offset for every block. Stops as soon as the arena needs no more than `least` bytes.

        First fit, in several orders; then in orders changed by chance (the seed is fixed): a block at the top moves to
        the front, and two others change places.
        """
        best, lowest, ranking = [0] * len(self.blocks), float("inf"), list(range(len(self.blocks)))
        for tried in self._rankings():
            offsets = self._first_fit(tried)
            if (height := self.height(offsets)) < lowest:
                best, lowest, ranking = offsets, height, tried
            if lowest <= least:
                return best
        chance = Random(0)
        for _ in range(rounds):
            tried = self._changed(ranking, best, chance)
            offsets = self._first_fit(tried)
            if (height := self.height(offsets)) <= lowest:
                best, lowest, ranking = offsets, height, tried
            if lowest <= least:
                break
        return best

    def height(self, offsets: Sequence[int]) -> int:
        """The first byte above all blocks."""
        tops = (at + self._size(number) for number, at in enumerate(offsets))
        return max(tops, default=0)

    def _size(self, number: int) -> int:
        return max(part.at + part.size for part in self.blocks[number].rectangles)

    def _rankings(self) -> list[list[int]]:
        sizes = [max(part.size for part in block.rectangles) for block in self.blocks]
        whole = [self._size(number) for number in range(len(self.blocks))]
        area = [sum(p.size * (p.last - p.first + 1) for p in block.rectangles) for block in self.blocks]
        first = [min(part.first for part in block.rectangles) for block in self.blocks]
        last = [max(part.last for part in block.rectangles) for block in self.blocks]
        crowd = self._crowding()
        numbers = range(len(self.blocks))
        keys = (
            lambda n: (-whole[n], first[n]),
            lambda n: (-crowd[n], -whole[n], first[n]),
            lambda n: (-crowd[n], -(last[n] - first[n]), -sizes[n]),
            lambda n: (-area[n], first[n]),
            lambda n: (first[n] - last[n], -whole[n]),
            lambda n: (first[n], -whole[n]),
            lambda n: (-last[n], -whole[n]),
        )
        return [sorted(numbers, key=key) for key in keys]

    def _crowding(self) -> list[int]:
        """By block, most bytes live in a step it takes part in."""
        parts = [part for block in self.blocks for part in block.rectangles]
        live = [0] * (max((part.last for part in parts), default=0) + 1)
        for part in parts:
            for step in range(part.first, part.last + 1):
                live[step] += part.size
        return [max(max(live[part.first : part.last + 1]) for part in block.rectangles) for block in self.blocks]

    def _changed(self, ranking: list[int], offsets: Sequence[int], chance: Random) -> list[int]:
        top = self.height(offsets)
        highest = [number for number, at in enumerate(offsets) if at + self._size(number) == top]
        changed = list(ranking)
        moved = chance.choice(highest)
        changed.remove(moved)
        changed.insert(chance.randrange(len(changed) + 1), moved)
        one, other = chance.randrange(len(changed)), chance.randrange(len(changed))
        changed[one], changed[other] = changed[other], changed[one]
        return changed

    def _first_fit(self, ranking: Sequence[int]) -> list[int]:
        offsets: list[int | None] = [None] * len(self.blocks)
        for number in ranking:
            taken = []
            for mine, other, theirs in self.neighbours[number]:
                base = offsets[other]
                if base is not None:
                    taken.append((base + theirs.at - mine.at - mine.size, base + theirs.at + theirs.size - mine.at))
            offsets[number] = _lowest(taken, self.blocks[number].alignment)
        return [offset or 0 for offset in offsets]


def _lowest(taken: list[tuple[int, int]], alignment: int) -> int:
    """The least aligned offset that lies strictly inside none of the spans."""
    offset = 0
    for low, high in sorted(taken):
        if low < offset < high:
            offset = -(-high // alignment) * alignment
    return offset


def _neighbours(blocks: Sequence[Block]) -> list[list[tuple[Rectangle, int, Rectangle]]]:
    """By block, pairs of a rectangle of its own and one of another block (its number) that some step needs both."""
    found: list[list[tuple[Rectangle, int, Rectangle]]] = [[] for _ in blocks]
    parts = sorted(
        ((part, number) for number, block in enumerate(blocks) for part in block.rectangles),
        key=lambda item: (item[0].first, item[1], item[0].at),
    )
    open_parts: list[tuple[Rectangle, int]] = []
    for part, number in parts:
        open_parts = [(other, home) for other, home in open_parts if other.last >= part.first]
        for other, home in open_parts:
            if home != number:
                found[number].append((part, home, other))
                found[home].append((other, number, part))
        open_parts.append((part, number))
    return found
