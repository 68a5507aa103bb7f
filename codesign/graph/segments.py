"""Segments: runs of channels that share a fate, and the rule by which two runs that must agree become one.

A dimension of a tensor is a sequence of runs of segments. What makes two dimensions agree (an addition, a depthwise
convolution) cuts their segments at each other's borders and then makes one segment of each pair:

    [a a a a a a] agrees with [b b | c c c c]    gives    a = [b c],  both dimensions [b b | c c c c]

A segment may stand in a dimension several times (the heads of an attention, the groups of a convolution), and each of
its channels may take several entries in a row (a flattened feature map).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import accumulate, pairwise


class Reason(StrEnum):
    """Why the channels of a group cannot change; the list is closed."""

    GRAPH_INPUT = "it is an input of the network"
    GRAPH_OUTPUT = "it is an output of the network"
    NORMALISATION = "a normalisation runs over the channels"
    REDUCTION = "a reduction, softmax or sort runs over the channels"
    RESHAPE = "a reshape mixes the channels with other dimensions"
    BROADCAST = "its one channel is broadcast over others"
    NEIGHBOURS = "a convolution runs along the channels"
    SHUFFLE = "a permutation takes channels of one group to several others"
    NOT_FINITE = "the value of a new channel would not be finite, or not zero where it must be"
    NOT_CONSTANT = "what it meets there is neither a constant nor channels"
    OPERATOR = "the operator is not understood"


@dataclass(frozen=True)
class Frozen:
    """Why a segment cannot change and the node or tensor that says so. grows, shrinks: what it forbids."""

    reason: Reason
    where: str
    grows: bool = True
    shrinks: bool = True


@dataclass(eq=False)
class Segment:
    """Channels with one fate; a segment that was cut or made one with another has become `parts`."""

    size: int
    frozen: list[Frozen] = field(default_factory=list)
    parts: Dimension | None = None


@dataclass(frozen=True)
class Run:
    """A segment within a dimension, each of its channels `repeat` entries in a row."""

    segment: Segment
    repeat: int = 1

    @property
    def entries(self) -> int:
        """Entries of the dimension it takes."""
        return self.segment.size * self.repeat


Dimension = tuple[Run, ...]


class CannotAlignError(Exception):
    """Two dimensions whose borders lie within channels of each other."""


def fresh(size: int) -> Dimension:
    """A dimension of new channels."""
    return (Run(Segment(size)),)


def entries_of(dimension: Iterable[Run]) -> int:
    """Its size in entries."""
    return sum(run.entries for run in dimension)


def resolved(dimension: Iterable[Run]) -> Dimension:
    """The dimension in segments that have not become others."""
    result: list[Run] = []
    for run in dimension:
        if run.segment.parts is None:
            result.append(run)
        else:
            run.segment.parts = resolved(run.segment.parts)
            result += [Run(part.segment, part.repeat * run.repeat) for part in run.segment.parts]
    return tuple(result)


def repeated(dimension: Dimension, times: int) -> Dimension:
    """Every entry `times` times in a row: what flattening or a depthwise multiplier does."""
    return tuple(Run(run.segment, run.repeat * times) for run in resolved(dimension))


def cut(dimension: Dimension, sizes: Sequence[int]) -> list[Dimension]:
    """The dimension as consecutive pieces of so many entries each. Raises CannotAlignError."""
    _cut_at(dimension, list(accumulate(sizes)))
    pieces: list[Dimension] = []
    rest = iter(resolved(dimension))
    for size in sizes:
        piece: list[Run] = []
        while entries_of(piece) < size:
            piece.append(next(rest))
        pieces.append(tuple(piece))
    return pieces


def agree(first: Dimension, second: Dimension) -> Dimension:
    """Make two dimensions of one size the same, entry by entry, and answer it. Raises CannotAlignError."""
    # A segment that stands in both, or twice in one, gets new borders in one place by those of another.
    while (one := _borders(first)) != (other := _borders(second)):
        _cut_at(first, other)
        _cut_at(second, one)
    for x, y in zip(resolved(first), resolved(second), strict=True):
        _join(*resolved((x,)), *resolved((y,)))
    return resolved(first)


def freeze(dimension: Dimension, frozen: Frozen) -> None:
    """Forbid changes of every segment of a dimension."""
    for run in resolved(dimension):
        if frozen not in run.segment.frozen:
            run.segment.frozen.append(frozen)


def _borders(dimension: Dimension) -> list[int]:
    """Where its runs end."""
    return list(accumulate(run.entries for run in resolved(dimension)))


def _cut_at(dimension: Iterable[Run], borders: Sequence[int]) -> None:
    """Cut what lies across these borders, each segment at all of them at once and everywhere it stands."""
    offset = 0
    for run in resolved(dimension):
        inside = slice(bisect_right(borders, offset), bisect_left(borders, offset + run.entries))
        within = [border - offset for border in borders[inside]]
        offset += run.entries
        if run.segment.parts is not None:
            _cut_at((run,), within)
        elif within:
            _cut_run(run, within)


def _cut_run(run: Run, borders: Sequence[int]) -> None:
    for border in borders:
        if border % run.repeat:
            raise CannotAlignError(f"{border} entries end within a channel of {run.repeat}")
    ends = [0, *(border // run.repeat for border in borders), run.segment.size]
    frozen = run.segment.frozen
    run.segment.parts = tuple(Run(Segment(end - start, list(frozen))) for start, end in pairwise(ends))


def _join(x: Run, y: Run) -> None:
    """Make one segment of two runs of as many entries."""
    if x.segment is y.segment:
        return
    if x.repeat < y.repeat:
        x, y = y, x
    if x.repeat % y.repeat:
        raise CannotAlignError(f"channels of {x.repeat} entries do not align with channels of {y.repeat}")
    y.segment.parts = (Run(x.segment, x.repeat // y.repeat),)
    for frozen in y.segment.frozen:
        freeze((x,), frozen)
