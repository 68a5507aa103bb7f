"""MemoryPlan: the order of the steps and every tensor's place in the arena, as pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Placed:
    """Bytes offset_bytes to offset_bytes + size_bytes of the arena, from the first to the last step that needs them.

    Steps are numbered from 0 in the order of the plan. tensor: its name; of scratch, the name of the step.
    """

    tensor: str
    offset_bytes: int
    size_bytes: int
    first_step: int
    last_step: int

    @property
    def end_bytes(self) -> int:
        """The first byte behind it."""
        return self.offset_bytes + self.size_bytes


@dataclass(frozen=True)
class InPlace:
    """A step that writes `output` where `input` lies, or from a little before it (Overwrite.lead_bytes)."""

    step: str
    output: str
    input: str


@dataclass(frozen=True)
class MemoryPlan:
    """Where everything lies.

    order: names of all steps as they run. stored: the tensors steps write and the inputs; one of which some views read
    parts is cut into those, as they are needed for different times. views: tensors whose bytes are those of stored
    ones (views, concatenations without copies, results of splits, what is cut). scratch: by step. in_place: steps that
    write over what they read last.
    arena_bytes: bytes in all. bound_bytes: no order and no placement needs less. reordered: the steps run in another
    order than they were given in, which needs less.
    """

    order: tuple[str, ...]
    stored: tuple[Placed, ...]
    views: tuple[Placed, ...]
    scratch: tuple[Placed, ...]
    in_place: tuple[InPlace, ...]
    arena_bytes: int
    bound_bytes: int
    reordered: bool

    @property
    def proven(self) -> bool:
        """Whether no plan of the problem needs less."""
        return self.arena_bytes == self.bound_bytes

    @property
    def gap(self) -> float:
        """(arena - bound) / bound; 0 when proven."""
        return (self.arena_bytes - self.bound_bytes) / self.bound_bytes if self.bound_bytes else 0.0

    @property
    def offsets(self) -> Mapping[str, int]:
        """Byte offset in the arena of every tensor, views among them."""
        return {placed.tensor: placed.offset_bytes for placed in (*self.stored, *self.views)}

    @property
    def scratch_offsets(self) -> Mapping[str, int]:
        """Byte offset in the arena of the scratch of every step that has some."""
        return {placed.tensor: placed.offset_bytes for placed in self.scratch}

    def live(self, step: int) -> tuple[Placed, ...]:
        """Tensors and scratch in memory while a step runs, by its number from 0, the largest first."""
        found = [p for p in (*self.stored, *self.scratch) if p.first_step <= step <= p.last_step]
        return tuple(sorted(found, key=lambda placed: (-placed.size_bytes, placed.offset_bytes)))

    def live_bytes(self, step: int) -> int:
        """Bytes in use while a step runs; what is written in place counts once."""
        total, end = 0, 0
        for placed in sorted(self.live(step), key=lambda placed: placed.offset_bytes):
            total += max(0, placed.end_bytes - max(end, placed.offset_bytes))
            end = max(end, placed.end_bytes)
        return total

    @property
    def peak_step(self) -> int:
        """Number of the first step in which most bytes are in use."""
        return max(range(len(self.order)), key=self.live_bytes, default=0)
