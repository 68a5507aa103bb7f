"""Groups of candidates that cost about the same: sums of Z-scores, sorted and cut (equation 4 of the eLite paper)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import fsum, sqrt


def z_scores(values: Sequence[float]) -> tuple[float, ...]:
    """How many population standard deviations each value lies above the mean; all 0 where values do not differ."""
    mean = fsum(values) / len(values)
    deviation = sqrt(fsum((value - mean) ** 2 for value in values) / len(values))
    return tuple((value - mean) / deviation if deviation else 0.0 for value in values)


def z_sums(axes: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """For every candidate, the sum of its Z-scores over the axes. axes: one sequence of figures per axis."""
    return tuple(fsum(scores) for scores in zip(*map(z_scores, axes), strict=True))


def groups_of(sums: Mapping[str, float], count: int) -> tuple[tuple[str, ...], ...]:
    """Names in `count` groups of one size, from the lightest group and candidate to the heaviest.

    Sizes differ by one at most; the lighter groups are the larger ones then. Equal sums stay in the order given.
    """
    names = sorted(sums, key=lambda name: round(sums[name], 12))
    smallest, larger = divmod(len(names), count)
    sizes = [smallest + (number < larger) for number in range(count)]
    ends = [sum(sizes[: number + 1]) for number in range(count)]
    return tuple(tuple(names[end - size : end]) for size, end in zip(sizes, ends, strict=True))
