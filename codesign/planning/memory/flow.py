"""Flow: a MemoryProblem by numbers, checked: pieces of memory, who needs which, and which bytes are the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
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
    """An Overwrite by numbers: the pieces written and written over, and where both tensors lie in their groups."""

    overwrite: Overwrite
    outputs: tuple[int, ...]
    inputs: tuple[int, ...]
    output_place: Range
    input_place: Range

    @property
    def begin(self) -> int:
        """Where the output begins, in the input's group."""
        return self.input_place.at - self.overwrite.lead_bytes


@dataclass(frozen=True)
class Flow:
    """Pieces and steps by number; sets of steps are bits of an int.

    A piece is a run of bytes of a tensor that is written (or an input), cut where any view of it begins or ends: every
    reader needs all of it or nothing. pieces: names of their tensors; ranges: where they lie. places: where all tensors
    lie; below: pieces of the bytes of all tensors. writes, reads: pieces by step. readers: steps by piece. writer: the
    step by piece, -1 of inputs. kept: pieces that stay. needs: steps that must run before, by step. alignments: by
    group.
    """

    problem: MemoryProblem
    pieces: tuple[str, ...]
    ranges: tuple[Range, ...]
    places: dict[str, Range]
    below: dict[str, tuple[int, ...]]
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
        """All groups begin at multiples of this many bytes: the greatest common divisor of all alignments."""
        return gcd(*self.alignments) or 1

    @cached_property
    def scratch_alignment(self) -> int:
        """Scratch is aligned like the most aligned tensor."""
        return lcm(*self.alignments)

    @cached_property
    def weights(self) -> tuple[int, ...]:
        """Bytes by piece that no other live piece can use: its units, counted by their first bytes.

        A unit of the arena has one first byte, so the weights of pieces that are live together never count it twice,
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


def flow_of(problem: MemoryProblem) -> Flow:
    """A problem by numbers. Raises ValueError naming what is wrong with it."""
    _check_names(problem)
    writer = _writers(problem)
    places, alignments = _groups(problem, writer)
    pieces = _pieces(places, writer)
    names, ranges = tuple(name for name, _ in pieces), tuple(place for _, place in pieces)
    below = _below(ranges, places)
    reads = tuple(_all_below(step.reads, below) for step in problem.steps)
    writers = tuple(writer[name] for name in names)
    number_of = {step.name: number for number, step in enumerate(problem.steps)}
    needs = tuple(
        _bits(writers[piece] for piece in read if writers[piece] >= 0) | _bits(number_of[name] for name in step.after)
        for read, step in zip(reads, problem.steps, strict=True)
    )
    _check_runs(problem, needs)
    readers = [0] * len(pieces)
    for step, read in enumerate(reads):
        for piece in read:
            readers[piece] |= 1 << step
    return Flow(
        problem=problem,
        pieces=names,
        ranges=ranges,
        places=places,
        below=below,
        writes=tuple(_all_below(step.writes, below) for step in problem.steps),
        reads=reads,
        readers=tuple(readers),
        writer=writers,
        kept=frozenset(_all_below(problem.outputs, below)),
        needs=needs,
        overwritings=tuple(_overwritings(step.overwrites, below, places) for step in problem.steps),
        alignments=alignments,
    )


def _writers(problem: MemoryProblem) -> dict[str, int]:
    writer = dict.fromkeys(problem.inputs, -1)
    for number, step in enumerate(problem.steps):
        for name in step.writes:
            if name in writer:
                raise ValueError(f"tensor {name} is written twice, or is an input that is written")
            writer[name] = number
    return writer


def _bits(numbers: Iterable[int]) -> int:
    found = 0
    for number in numbers:
        found |= 1 << number
    return found


def _all_below(names: Iterable[str], below: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(number for name in names for number in below[name]))


def _overwritings(
    overwrites: Sequence[Overwrite], below: dict[str, tuple[int, ...]], places: dict[str, Range]
) -> tuple[Overwriting, ...]:
    """Those whose output ends where the input does or before, by numbers."""
    return tuple(
        Overwriting(o, below[o.output], below[o.input], places[o.output], places[o.input])
        for o in overwrites
        if places[o.output].size <= places[o.input].size + o.lead_bytes
    )


def _pieces(places: dict[str, Range], stored: Iterable[str]) -> list[tuple[str, Range]]:
    """Every stored tensor, cut where any tensor of its group begins or ends."""
    borders: dict[int, set[int]] = {}
    for place in places.values():
        borders.setdefault(place.group, set()).update((place.at, place.at + place.size))
    found = []
    for name in stored:
        place = places[name]
        cuts = sorted(at for at in borders[place.group] if place.at <= at <= place.at + place.size)
        found += [(name, Range(place.group, low, high - low)) for low, high in pairwise(cuts)]
    return found


def _below(pieces: Sequence[Range], places: dict[str, Range]) -> dict[str, tuple[int, ...]]:
    """By tensor, the pieces its bytes are. Raises ValueError for one with a byte nobody writes."""
    groups: dict[int, list[int]] = {}
    for number, piece in enumerate(pieces):
        groups.setdefault(piece.group, []).append(number)
    found = {}
    for name, place in places.items():
        end = place.at + place.size
        inside = [n for n in groups.get(place.group, ()) if place.at <= pieces[n].at < end]
        if sum(pieces[number].size for number in inside) != place.size:
            raise ValueError(f"nobody writes all of tensor {name}")
        found[name] = tuple(inside)
    return found


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


def _check_names(problem: MemoryProblem) -> None:
    sizes = {tensor.name: tensor.size_bytes for tensor in problem.tensors}
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
    names = {step.name for step in problem.steps}
    for step in problem.steps:
        if lost := [name for name in step.after if name not in names]:
            raise ValueError(f"step {step.name} runs after {lost[0]}, which is no step")
        for overwrite in step.overwrites:
            if overwrite.output not in step.writes or overwrite.input not in step.reads:
                raise ValueError(f"step {step.name} does not write {overwrite.output} from {overwrite.input}")


def _check_runs(problem: MemoryProblem, needs: Sequence[int]) -> None:
    done = 0
    for number, need in enumerate(needs):
        if need & ~done:
            raise ValueError(f"step {problem.steps[number].name} runs before what it reads is written")
        done |= 1 << number
