"""What a layer needs to fit an engine at all, and the smallest change of the machine that makes it fit.

Where every operand rests in its smallest tiles (one step of the lanes, reduction loops innermost, so that no partial
sum leaves), all memories take their least at once; only a whole tensor, which is never refilled, may take less than a
tile held twice. It then is whole in every memory further out too. So a layer has a mapping on an engine if and only if
one of these few ways fits: lanes x, for every operand, the memory from which on outwards it rests whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod

from codesign.errors import Problem
from codesign.hardware.profile import HardwareProfile
from codesign.mapping.space import SpatialChoice, spatial_choices, tile_bytes
from codesign.vocabulary import DIMENSIONS, Operand
from codesign.workload.loop_nest import LoopNest


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
    ways = [_by_memory(way) for way in _ways(nest, profile, engine)]
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


Way = dict[tuple[Operand, str], int]  # bytes of one operand in one instance of one memory


def _ways(nest: LoopNest, profile: HardwareProfile, engine: str) -> Iterator[Way]:
    """Every way to take least room."""
    levels = {operand: profile.hierarchy(engine, operand)[:-1] for operand in Operand}
    for choice in spatial_choices(nest, profile.engines[engine]):
        room = {
            (operand, memory, whole): _bytes(nest, profile, engine, choice, operand, memory, whole=whole)
            for operand in Operand
            for memory in levels[operand]
            for whole in (False, True)
        }
        for first_whole in product(*(range(len(levels[operand]) + 1) for operand in Operand)):
            yield {
                (operand, memory): room[operand, memory, at >= first]
                for operand, first in zip(Operand, first_whole, strict=True)
                for at, memory in enumerate(levels[operand])
            }


def _bytes(
    nest: LoopNest,
    profile: HardwareProfile,
    engine: str,
    choice: SpatialChoice,
    operand: Operand,
    memory: str,
    *,
    whole: bool,
) -> int:
    tile = nest.sizes if whole else choice.tile(nest, (1,) * len(DIMENSIONS))
    return tile_bytes(nest, profile, choice, engine, operand, memory, tile, refilled=not whole, partial=False)


def _by_memory(way: Way) -> tuple[Need, ...]:
    memories = dict.fromkeys(memory for _, memory in way)
    return tuple(
        Need(name, tuple((operand, size) for (operand, memory), size in way.items() if memory == name))
        for name in memories
    )
