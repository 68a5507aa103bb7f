"""Flow: a MemoryProblem by numbers, checked: what is stored, who needs what, and which bytes are the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import gcd, lcm

from codesign.planning.memory.problem import MemoryProblem, Overwrite
from codesign.planning.memory.sharing import Sharing


@dataclass(frozen=True)
class Range:
    """Bytes `at` to `at + size` of a group: of tensors that share memory at fixed distances."""

    group: int
    at: int
    size: int


@dataclass(frozen=True)
class Overwriting:
    """An Overwrite by numbers. output: a stored tensor. inputs: the stored tensors below the input."""

    output: int
    inputs: tuple[int, ...]
    place: Range
    input: str
    scratch_bytes: int


@dataclass(frozen=True)
class Flow:
    """Stored tensors (those steps write, and inputs) and steps by number; sets of steps are bits of an int.

    stored: names. ranges: by stored tensor; views: the same of all other tensors, by name. writes, reads: stored
    tensors by step. readers: steps by stored tensor. writer: the step by stored tensor, -1 of inputs. kept: stored
    tensors that stay. needs: steps that must run before, by step. alignments: by group. unit: all groups begin at
    multiples of this many bytes.
    """

    problem: MemoryProblem
    stored: tuple[str, ...]
    ranges: tuple[Range, ...]
    views: dict[str, Range]
    writes: tuple[tuple[int, ...], ...]
    reads: tuple[tuple[int, ...], ...]
    readers: tuple[int, ...]
    writer: tuple[int, ...]
    kept: frozenset[int]
    needs: tuple[int, ...]
    overwritings: tuple[tuple[Overwriting, ...], ...]
    alignments: tuple[int, ...]

    @cached_property
    def unit(self) -> int:
        """The greatest common divisor of all alignments."""
        return gcd(*self.alignments) or 1

    @cached_property
    def scratch_alignment(self) -> int:
        """Scratch is aligned like the most aligned tensor."""
        return lcm(*self.alignments)

    @cached_property
    def weights(self) -> tuple[int, ...]:
        """Bytes by stored tensor that no other live tensor can use: its units, counted by their first bytes.

        A unit of the arena has one first byte, so the weights of tensors that are live together never count it twice,
        and the arena, a whole number of units, holds them all. Of a tensor alone it is its size in whole units.
        """
        unit = self.unit
        return tuple((-(-(r.at + r.size) // unit) - -(-r.at // unit)) * unit for r in self.ranges)

    @cached_property
    def scratch(self) -> tuple[int, ...]:
        """Scratch by step, in whole units."""
        return tuple(self.whole_units(step.scratch_bytes) for step in self.problem.steps)

    def whole_units(self, size_bytes: int) -> int:
        """A size rounded up to units."""
        return -(-size_bytes // self.unit) * self.unit

    def below(self, names: Iterable[str]) -> tuple[int, ...]:
        """Stored tensors whose bytes are those of any of these tensors."""
        return tuple(dict.fromkeys(number for name in names for number in self._below[name]))

    @cached_property
    def _below(self) -> dict[str, tuple[int, ...]]:
        return _stored_below(self.stored, self.ranges, self.views)


def flow_of(problem: MemoryProblem) -> Flow:
    """A problem by numbers. Raises ValueError naming what is wrong with it."""
    sizes = {tensor.name: tensor.size_bytes for tensor in problem.tensors}
    _check_names(problem, sizes)
    writer = dict.fromkeys(problem.inputs, -1)
    for number, step in enumerate(problem.steps):
        for name in step.writes:
            if name in writer:
                raise ValueError(f"tensor {name} is written twice, or is an input that is written")
            writer[name] = number
    places, alignments = _groups(problem, writer)
    stored = tuple(name for name in sizes if name in writer)
    ranges = tuple(places[name] for name in stored)
    views = {name: place for name, place in places.items() if name not in writer}
    below = _stored_below(stored, ranges, views)
    _check_views(ranges, views, below)
    number_of = {name: number for number, name in enumerate(stored)}
    reads = tuple(_all_below(step.reads, below) for step in problem.steps)
    needs = tuple(_bits(writer[stored[number]] for number in read if writer[stored[number]] >= 0) for read in reads)
    _check_runs(problem, needs)
    return Flow(
        problem,
        stored,
        ranges,
        views,
        tuple(tuple(number_of[name] for name in step.writes) for step in problem.steps),
        reads,
        tuple(_bits(step for step, read in enumerate(reads) if number in read) for number in range(len(stored))),
        tuple(writer[name] for name in stored),
        frozenset(_all_below(problem.outputs, below)),
        needs,
        tuple(_overwritings(step.overwrites, number_of, below, places) for step in problem.steps),
        alignments,
    )


def _bits(numbers: Iterable[int]) -> int:
    found = 0
    for number in numbers:
        found |= 1 << number
    return found


def _all_below(names: Iterable[str], below: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(number for name in names for number in below[name]))


def _overwritings(
    overwrites: Sequence[Overwrite],
    number_of: dict[str, int],
    below: dict[str, tuple[int, ...]],
    places: dict[str, Range],
) -> tuple[Overwriting, ...]:
    """Those whose output is no larger than the input, by numbers."""
    return tuple(
        Overwriting(number_of[o.output], below[o.input], places[o.input], o.input, o.scratch_bytes)
        for o in overwrites
        if places[o.output].size <= places[o.input].size
    )


def _stored_below(
    stored: Sequence[str], ranges: Sequence[Range], views: dict[str, Range]
) -> dict[str, tuple[int, ...]]:
    groups: dict[int, list[int]] = {}
    for number, place in enumerate(ranges):
        groups.setdefault(place.group, []).append(number)
    found: dict[str, tuple[int, ...]] = {name: (number,) for number, name in enumerate(stored)}
    for name, view in views.items():
        found[name] = tuple(n for n in groups.get(view.group, ()) if _overlap(ranges[n], view))
    return found


def _overlap(one: Range, other: Range) -> int:
    return max(0, min(one.at + one.size, other.at + other.size) - max(one.at, other.at))


# ---- tensors that share memory


def _groups(problem: MemoryProblem, stored: Iterable[str]) -> tuple[dict[str, Range], tuple[int, ...]]:
    """Every tensor's range in its group, and every group's alignment. Raises ValueError for contradictory parts."""
    tensors = {tensor.name: tensor for tensor in problem.tensors}
    sharing = Sharing({name: tensors[name].size_bytes for name in stored})
    for part in problem.parts:
        if refusal := sharing.refusal(part.tensor, part.whole, part.offset_bytes):
            raise ValueError(refusal)
    places: dict[str, Range] = {}
    alignments = []
    for number, group in enumerate(sharing.groups(tensors)):
        for name, at in group.items():
            if at % tensors[name].alignment:
                raise ValueError(f"tensor {name} lies {at} bytes into others, which its alignment forbids")
            places[name] = Range(number, at, tensors[name].size_bytes)
        alignments.append(lcm(*(tensors[name].alignment for name in group)))
    return places, tuple(alignments)


# ---- what is wrong with a problem


def _check_names(problem: MemoryProblem, sizes: dict[str, int]) -> None:
    if len(sizes) != len(problem.tensors):
        raise ValueError("two tensors have one name")
    if len({step.name for step in problem.steps}) != len(problem.steps):
        raise ValueError("two steps have one name")
    for tensor in problem.tensors:
        if tensor.size_bytes < 1 or tensor.alignment < 1:
            raise ValueError(f"tensor {tensor.name} has {tensor.size_bytes} bytes at alignment {tensor.alignment}")
    named = [*problem.inputs, *problem.outputs]
    named += [name for step in problem.steps for name in (*step.reads, *step.writes)]
    named += [name for part in problem.parts for name in (part.tensor, part.whole)]
    unknown = [name for name in named if name not in sizes]
    if unknown:
        raise ValueError(f"no tensor is called {unknown[0]}")
    for step in problem.steps:
        for overwrite in step.overwrites:
            if overwrite.output not in step.writes or overwrite.input not in step.reads:
                raise ValueError(f"step {step.name} does not write {overwrite.output} from {overwrite.input}")


def _check_views(ranges: Sequence[Range], views: dict[str, Range], below: dict[str, tuple[int, ...]]) -> None:
    """Every byte of a tensor nobody writes is one of a tensor that is written."""
    for name, view in views.items():
        if sum(_overlap(ranges[number], view) for number in below[name]) != view.size:
            raise ValueError(f"nobody writes all of tensor {name}")


def _check_runs(problem: MemoryProblem, needs: Sequence[int]) -> None:
    done = 0
    for number, need in enumerate(needs):
        if need & ~done:
            raise ValueError(f"step {problem.steps[number].name} runs before what it reads is written")
        done |= 1 << number
