"""Whether a machine fits a board; if not, what is missing, who takes most of it, and the least change that fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from codesign.hardware.board import Board
from codesign.hardware.primitives import PLAIN, Implementation
from codesign.hardware.profile import HardwareProfile
from codesign.hardware.resources import RESOURCES, Estimate, Line, available, estimate

MOST_NAMED = 3
MULTIPLIERS = (RESOURCES.index("DSP slices"), RESOURCES.index("LUTs"))  # what engines take


@dataclass(frozen=True)
class Shortfall:
    """One resource a board has too little of.

    contributors: the parts that take most, at most three. change: the least single change with which the machine has
    enough of this resource, or why there is none.
    """

    resource: str
    needed: int
    has: int
    board: str
    contributors: tuple[tuple[str, int], ...]
    change: str

    def __str__(self) -> str:
        most = ", ".join(f"{part} {count:,}" for part, count in self.contributors)
        problem = f"needs {self.needed:,} {self.resource}, {self.board} has {self.has:,}"
        return f"{problem}\n  most of them: {most}\n  least change: {self.change}"


def shortfalls(profile: HardwareProfile, board: Board, how: Implementation = PLAIN) -> tuple[Shortfall, ...]:
    """What `profile`, built as `how` says, takes beyond what `board` has; empty when it fits."""
    return tuple(_shortfalls(profile, board, how, estimate(profile, board, how)))


def _shortfalls(profile: HardwareProfile, board: Board, how: Implementation, needs: Estimate) -> Iterator[Shortfall]:
    for index, resource in enumerate(RESOURCES):
        needed, has = needs.total.all[index], available(board).all[index]
        if needed > has:
            most = sorted((line for line in needs.lines if line.amounts.all[index]), key=_most(index))
            contributors = tuple((line.part, line.amounts.all[index]) for line in most[:MOST_NAMED])
            change = _change(_Search(profile, board, how, index), [line.part for line in most])
            yield Shortfall(resource, needed, has, board.name, contributors, change)


def _most(index: int) -> Callable[[Line], int]:
    return lambda line: -line.amounts.all[index]


@dataclass(frozen=True)
class _Search:
    """One resource of a machine, to try changes on. index: of the resource in RESOURCES."""

    profile: HardwareProfile
    board: Board
    how: Implementation
    index: int

    def fits(self, profile: HardwareProfile, how: Implementation) -> bool:
        return estimate(profile, self.board, how).total.all[self.index] <= available(self.board).all[self.index]

    def largest(self, upper: int, changed: Callable[[int], HardwareProfile]) -> int:
        """The largest size below `upper` with which the changed machine fits; 0 if none does."""
        low, high = 0, upper
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.fits(changed(middle), self.how) else (low, middle)
        return low


def _change(search: _Search, parts: list[str]) -> str:
    """The first that is enough: packing, double pumping too, then one part made smaller, the largest part first."""
    for how, option in (
        (Implementation(True, search.how.double_pumped), "--packed"),
        (Implementation(True, True), "--packed --double-pumped"),
    ):
        if search.fits(search.profile, how):
            return f"{option} ({estimate(search.profile, search.board, how).total.all[search.index]:,})"
    for part in parts:
        section, name = part.split(".")
        change = _smaller_engine(search, name) if section == "engines" else _smaller_memory(search, name)
        if change:
            return change
    return f"no single {'axis' if search.index in MULTIPLIERS else 'memory'} is enough"


def _smaller_engine(search: _Search, name: str) -> str:
    """The axis that keeps most lanes when it alone shrinks until the machine fits."""
    axes = search.profile.engines[name].axes
    sizes = {
        axis: search.largest(axes[axis].size, partial(_with_axis, search, name, axis))
        for axis in axes
        if not axes[axis].in_turn
    }
    kept = {axis: size / axes[axis].size for axis, size in sizes.items() if size}
    if not kept:
        return ""
    best = max(kept, key=lambda axis: kept[axis])
    return f"engines.{name}.axes.{best}.size {axes[best].size:,} -> {sizes[best]:,}"


def _with_axis(search: _Search, engine: str, axis: str, size: int) -> HardwareProfile:
    before = search.profile.engines[engine]
    shorter = before.axes[axis].model_copy(update={"size": size})
    after = before.model_copy(update={"axes": {**before.axes, axis: shorter}})
    return search.profile.model_copy(update={"engines": {**search.profile.engines, engine: after}})


def _smaller_memory(search: _Search, name: str) -> str:
    """The size with which the machine fits when this memory alone shrinks."""
    before = search.profile.memories[name]
    size = search.largest(before.size_bytes or 0, partial(_with_memory, search, name))
    return f"memories.{name}.size_bytes {before.size_bytes:,} -> {size:,}" if size else ""


def _with_memory(search: _Search, name: str, size_bytes: int) -> HardwareProfile:
    after = search.profile.memories[name].model_copy(update={"size_bytes": size_bytes})
    return search.profile.model_copy(update={"memories": {**search.profile.memories, name: after}})
