"""Liveness: how much is in memory while steps run in some order, and what no order can go below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from codesign.planning.memory.flow import Flow, Overwriting


@dataclass(frozen=True)
class Change:
    """What running a step next does. during: bytes live while it runs; after: bytes live after it."""

    during: int
    after: int


@dataclass(frozen=True)
class Liveness:
    """Bytes live in a flow, by the set of steps that are done (bits of an int) and the bytes live then."""

    flow: Flow

    @cached_property
    def at_start(self) -> int:
        """Bytes of all inputs."""
        flow = self.flow
        return sum(weight for weight, writer in zip(flow.weights, flow.writer, strict=True) if writer < 0)

    @cached_property
    def _written(self) -> tuple[int, ...]:
        return tuple(sum(self.flow.weights[number] for number in writes) for writes in self.flow.writes)

    @cached_property
    def _unread(self) -> tuple[int, ...]:
        """By step, bytes it writes that nobody reads or keeps: they are gone after it."""
        flow = self.flow
        return tuple(
            sum(flow.weights[n] for n in writes if not flow.readers[n] and n not in flow.kept) for writes in flow.writes
        )

    @cached_property
    def _mortal(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """By step, what it reads and nobody keeps: readers and bytes."""
        flow = self.flow
        return tuple(
            tuple((flow.readers[n], flow.weights[n]) for n in reads if n not in flow.kept) for reads in flow.reads
        )

    @cached_property
    def _written_in_place(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """By step, ways to write in place that save room, the best first: readers of all it writes over, and bytes."""
        return tuple(
            tuple((self._readers(way), self.saved_bytes(step, way)) for way in ways)
            for step, ways in enumerate(self._ways)
        )

    @cached_property
    def _ways(self) -> tuple[tuple[Overwriting, ...], ...]:
        return tuple(self._ways_of(step) for step in range(len(self.flow.needs)))

    def _ways_of(self, step: int) -> tuple[Overwriting, ...]:
        ways = [way for way in self.flow.overwritings[step] if self.flow.kept.isdisjoint(way.inputs)]
        saving = [way for way in ways if self.saved_bytes(step, way) > 0]
        return tuple(sorted(saving, key=lambda way: self.saved_bytes(step, way), reverse=True))

    def saved_bytes(self, step: int, way: Overwriting) -> int:
        """What writing in place saves while a step runs; its scratch, if it has other besides, is one piece with it."""
        flow = self.flow
        written = sum(flow.weights[number] for number in way.outputs)
        scratch = flow.problem.steps[step].scratch_bytes + way.overwrite.scratch_bytes
        beside = flow.whole_units(way.overwrite.lead_bytes) + flow.whole_units(scratch) - flow.scratch[step]
        return written - beside

    def _readers(self, way: Overwriting) -> int:
        found = 0
        for number in way.inputs:
            found |= self.flow.readers[number]
        return found

    def written_in_place(self, step: int, done: int) -> Overwriting | None:
        """The way a step writes in place once `done` are done, or None: what it writes over must die in it."""
        left = ~(done | 1 << step)
        return next((way for way in self._ways[step] if not self._readers(way) & left), None)

    def change(self, step: int, done: int, live: int) -> Change:
        """What running a step does to the bytes live once `done` are done."""
        left = ~(done | 1 << step)
        grown = live + self._written[step]
        saved = 0
        for readers, size in self._written_in_place[step]:
            if not readers & left:
                saved = size
                break
        freed = self._unread[step]
        for readers, size in self._mortal[step]:
            if not readers & left:
                freed += size
        return Change(grown + self.flow.scratch[step] - saved, grown - freed)

    def peak(self, order: Sequence[int]) -> int:
        """Most bytes live at one time when the steps run in this order."""
        done, live = 0, self.at_start
        peak = live
        for step in order:
            change = self.change(step, done, live)
            peak = max(peak, change.during)
            done, live = done | 1 << step, change.after
        return peak

    @cached_property
    def least(self) -> int:
        """Bytes no order goes below: what is there at the start, at the end, and around each step by itself."""
        flow = self.flow
        at_end = sum(flow.weights[number] for number in flow.kept)
        least = max(self.at_start, at_end)
        for step, reads in enumerate(flow.reads):
            around = sum(flow.weights[n] for n in reads) + self._written[step] + flow.scratch[step]
            saved = max((size for _, size in self._written_in_place[step]), default=0)
            least = max(least, around - saved)
        return least
