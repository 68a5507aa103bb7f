"""What a layer needs to fit an engine at all, and the smallest change of the machine that makes it fit.

How much a tile takes and where it may rest depends on which loops run inside it, and loops matter in groups: those an
operand does not depend on (B, OY, OX of weights, K of inputs, C, FY, FX of outputs) and G, which all depend on. Tiles
of one step or of the whole dimension are the smallest with the same groups inside. So a layer has a mapping on an
engine if and only if one of these few ways fits: lanes x order of the groups x a position among them for every operand
and memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations_with_replacement, permutations, product
from math import prod

from codesign.errors import Problem
from codesign.hardware.profile import HardwareProfile
from codesign.mapping.space import SpatialChoice, spatial_choices, tile_bytes
from codesign.vocabulary import IRRELEVANT_AXES, POSITION, Dimension, Operand
from codesign.workload.loop_nest import LoopNest

GROUPS = (POSITION[Dimension.G],)  # every operand depends on them


@dataclass(frozen=True)
class Need:
    """What one memory must hold: bytes of every operand in one instance."""

    memory: str
    parts: tuple[tuple[Operand, int], ...]

    @property
    def size_bytes(self) -> int:
        """All operands together."""
        return sum(size for _, size in self.parts)

    @property
    def text(self) -> str:
        """`weights (640 bytes) and inputs (64 bytes)`."""
        return " and ".join(f"{operand} ({size} bytes)" for operand, size in self.parts)


@dataclass(frozen=True)
class Shortage:
    """The smallest change that makes a layer fit: the memories too small for it, with what each must hold.

    alone_bytes: the least each of them could hold if the others had no limit.
    """

    engine: str
    needs: tuple[Need, ...]
    alone_bytes: dict[str, int]


def shortage(nest: LoopNest, profile: HardwareProfile, engine: str) -> Shortage | None:
    """What stands in the way of any mapping of a nest with MACs on an engine; None when one fits.

    Fewest memories grow, and by the smallest factor.
    """
    ways = list(_ways(nest, profile, engine))
    best: tuple[tuple[int, float], tuple[Need, ...]] | None = None
    for way in ways:
        small = tuple(need for need in way if need.size_bytes > _size(profile, need.memory))
        growth = prod(need.size_bytes / _size(profile, need.memory) for need in small)
        if best is None or (len(small), growth) < best[0]:
            best = (len(small), growth), small
    if best is None or not best[1]:
        return None
    alone = {need.memory: min(_held(way, need.memory) for way in ways) for need in best[1]}
    return Shortage(engine, best[1], alone)


def problems_of_fit(nest: LoopNest, profile: HardwareProfile, engine: str) -> tuple[Problem, ...]:
    """Tensor, memory, bytes needed and available, and the least size that would do; empty when a mapping fits."""
    found = shortage(nest, profile, engine)
    if found is None:
        return ()
    return tuple(_problem(found, need, _size(profile, need.memory)) for need in found.needs)


def _problem(found: Shortage, need: Need, available: int) -> Problem:
    others = [f"memories.{other.memory}.size_bytes: {other.size_bytes}" for other in found.needs if other != need]
    together = f", together with {' and '.join(others)}" if others else ""
    hint = f"memories.{need.memory}.size_bytes: {need.size_bytes} is the least that would do{together}"
    if need.size_bytes == found.alone_bytes[need.memory]:
        what = f"{need.text} need {need.size_bytes} bytes at least, {available} are available"
        return Problem(f"memory {need.memory}", what, hint)
    what = (
        "each memory alone is large enough, but no chain of tiles fits all of them at once: "
        f"{need.text} need {need.size_bytes} bytes of {need.memory}, {available} are available"
    )
    if found.alone_bytes[need.memory] > available:
        what = (
            f"{need.text} need {need.size_bytes} bytes of {need.memory}, {available} are available; "
            "what needs less there does not fit the other memories"
        )
    return Problem(f"engine {found.engine}", what, hint)


def _size(profile: HardwareProfile, memory: str) -> int:
    size = profile.memories[memory].size_bytes
    if size is None:
        raise ValueError(f"memory {memory} is off chip: everything fits it")
    return size


def _held(way: tuple[Need, ...], memory: str) -> int:
    return next(need.size_bytes for need in way if need.memory == memory)


Room = tuple[int, ...]  # bytes of one operand in one instance of each of its on-chip memories
Order = tuple[tuple[int, ...], ...]  # groups of dimensions by their index, outermost first


def _ways(nest: LoopNest, profile: HardwareProfile, engine: str) -> Iterator[tuple[Need, ...]]:
    """What all memories hold in every way to take least room."""
    for choice in spatial_choices(nest, profile.engines[engine]):
        known: dict[object, int] = {}
        for order in permutations(IRRELEVANT_AXES[operand] for operand in Operand):
            skeleton = Skeleton(nest, profile, engine, choice, (GROUPS, *order), known)
            for rooms in skeleton.rooms():
                yield skeleton.needs(rooms)


@dataclass(frozen=True)
class Skeleton:
    """A layer with one choice of lanes and one order of its groups of loops, outermost first.

    known: bytes of the tiles seen before, whatever the order.
    """

    nest: LoopNest
    profile: HardwareProfile
    engine: str
    choice: SpatialChoice
    order: Order
    known: dict[object, int]

    def needs(self, rooms: tuple[Room, ...]) -> tuple[Need, ...]:
        """What every memory holds, given the room of every operand."""
        held: dict[str, list[tuple[Operand, int]]] = {}
        for operand, room in zip(Operand, rooms, strict=True):
            for memory, size in zip(self._memories(operand), room, strict=True):
                held.setdefault(memory, []).append((operand, size))
        return tuple(Need(memory, tuple(parts)) for memory, parts in held.items())

    def rooms(self) -> Iterator[tuple[Room, ...]]:
        """Rooms of all operands that go together; what is loaded with a tile of outputs lies within it."""
        together = self.profile.engines[self.engine].loaded_with_outputs
        anywhere = range(len(self.order) + 1)
        for outputs in anywhere if together else (None,):
            innermost = dict.fromkeys(together, anywhere[outputs:])
            if outputs is not None:
                innermost[Operand.OUTPUTS] = anywhere[outputs : outputs + 1]
            yield from product(*(self.least_rooms(operand, innermost.get(operand, anywhere)) for operand in Operand))

    def least_rooms(self, operand: Operand, innermost: range) -> list[Room]:
        """Rooms of an operand over its positions, without those that take no less than another anywhere."""
        positions = range(len(self.order) + 1)
        count = len(self._memories(operand))
        rooms = {
            self._room(operand, inner_first[::-1])
            for inner_first in combinations_with_replacement(positions, count)
            if inner_first[-1] in innermost and self._may_rest(operand, inner_first[-1])
        }
        return [room for room in rooms if not any(_no_more(other, room) for other in rooms if other != room)]

    def _may_rest(self, operand: Operand, innermost: int) -> bool:
        """What the engine says of tiles: a stationary operand stays until all its uses are done, groups run alone."""
        if innermost < 1 and self.profile.engines[self.engine].group_by_group and self._steps(GROUPS) > 1:
            return False
        uses = IRRELEVANT_AXES[operand]
        stationary = self.profile.engines[self.engine].stationary is operand
        return not stationary or self.order.index(uses) >= innermost or self._steps(uses) == 1

    def _room(self, operand: Operand, positions: tuple[int, ...]) -> Room:
        memories = self._memories(operand)
        inside = (len(self.order), *positions)  # an innermost tile gets partial sums from the lanes alone
        return tuple(
            self._bytes(
                operand,
                memory,
                self._tile(position),
                any(self._steps(group) > 1 for group in self.order[:position]),
                memory != memories[0] and operand is Operand.OUTPUTS and self._unfinished(inner),
            )
            for memory, position, inner in zip(memories, positions, inside, strict=False)
        )

    def _bytes(self, operand: Operand, memory: str, tile: tuple[int, ...], refilled: bool, partial: bool) -> int:
        key = operand, memory, tile, refilled, partial
        if key not in self.known:
            where = self.nest, self.profile, self.choice, self.engine
            self.known[key] = tile_bytes(*where, operand, memory, tile, refilled=refilled, partial=partial)
        return self.known[key]

    def _memories(self, operand: Operand) -> tuple[str, ...]:
        return self.profile.hierarchy(self.engine, operand)[:-1]

    def _tile(self, position: int) -> tuple[int, ...]:
        """One step of the lanes, and all of the groups inside a position."""
        inside = {at for group in self.order[position:] for at in group}
        one_step = zip(self.nest.sizes, self.choice.lanes, strict=True)
        return tuple(size if at in inside else min(size, lanes) for at, (size, lanes) in enumerate(one_step))

    def _unfinished(self, position: int) -> bool:
        """Whether outputs leave a tile at a position before their reduction is complete."""
        reduction = IRRELEVANT_AXES[Operand.OUTPUTS]
        return self.order.index(reduction) < position and self._steps(reduction) > 1

    def _steps(self, group: tuple[int, ...]) -> int:
        return prod(self.choice.steps[at] for at in group)


def _no_more(one: Room, other: Room) -> bool:
    return all(mine <= theirs for mine, theirs in zip(one, other, strict=True))
