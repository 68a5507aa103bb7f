"""The foldings of all stages with which a pipeline is fastest on a board, proven.

A pipeline takes a new image whenever its slowest stage has finished one, so throughput is the inverse of the largest
number of cycles. If all stages fit with at most n cycles each, they do with more; so the least n is found by bisection
over the numbers of cycles that stages can take. Whether a choice with at most n cycles fits is decided exactly: stage
by stage, all sums of resources are kept that no other sum undercuts in every resource and no bound rules out.

The bound: put a price on every resource. If even the cheapest choices cost more than the whole budget is worth, nothing
fits (weak Lagrangian duality), whatever the prices; good prices are found by raising what runs short.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from codesign.folding.stage import Folding, Stage, Target
from codesign.hardware.resources import Amounts

Key: TypeAlias = tuple[int, int, int]  # DSP slices, block RAMs, and LUTs or bits (a board counts one of the two)
_PRICE_STEPS = 60
_MARGIN = 1e-9  # of the worth of a budget: above the rounding of floating point


@dataclass(frozen=True)
class Choice:
    """A stage with one of its foldings: cycles an image, and resources."""

    stage: Stage
    folding: Folding
    cycles: int
    amounts: Amounts

    @property
    def key(self) -> Key:
        """The resources that are compared with a budget."""
        return _key(self.amounts)


@dataclass(frozen=True)
class _Sum:
    """Resources of the stages so far, and the choices that lead there."""

    key: Key
    choice: Choice | None = None
    before: _Sum | None = None


def choices_of(stage: Stage, target: Target) -> tuple[Choice, ...]:
    """A stage with each of its foldings."""
    return tuple(
        Choice(stage, folding, stage.cycles(folding), stage.amounts(folding, target)) for folding in stage.foldings()
    )


def fastest(choices: Sequence[Sequence[Choice]], budget: Amounts) -> tuple[Choice, ...] | None:
    """One choice a stage within `budget` and with the least largest number of cycles, or None if none is within it."""
    intervals = sorted({choice.cycles for stage in choices for choice in stage})
    low = bisect_left(intervals, max(min(choice.cycles for choice in stage) for stage in choices))
    high, best = len(intervals) - 1, _within(choices, _key(budget), intervals[-1])
    while best is not None and low < high:
        middle = (low + high) // 2
        found = _within(choices, _key(budget), intervals[middle])
        if found is None:
            low = middle + 1
        else:
            high, best = middle, found
    return best


def least_needed(choices: Sequence[Sequence[Choice]], budget: Amounts, index: int) -> int | None:
    """So much of one resource (an index of RESOURCES) all stages need at least, the others as in `budget`: a bound.

    None when the others are too few whatever there is of this one.
    """
    keys = [[choice.key for choice in stage] for stage in choices]

    def may_fit(count: int) -> bool:
        figures = (*budget.all[:index], count, *budget.all[index + 1 :])
        return _Bound.of(keys, _key(Amounts(*figures))).allows((0, 0, 0), 0)

    low, high = -1, sum(max(choice.amounts.all[index] for choice in stage) for stage in choices)
    if not may_fit(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if may_fit(middle) else (middle, high)
    return high


def _within(choices: Sequence[Sequence[Choice]], budget: Key, interval: int) -> tuple[Choice, ...] | None:
    """One choice a stage, none above `interval` cycles, together within `budget`; None if there is none."""
    allowed = [
        _undercut([_Sum(choice.key, choice) for choice in stage if choice.cycles <= interval]) for stage in choices
    ]
    if not all(allowed):
        return None
    frugal = _Sum((0, 0, 0))
    for stage in allowed:
        one = min(stage, key=lambda one: _share(one.key, budget))
        frugal = _Sum(_plus(frugal.key, one.key), one.choice, frugal)
    if all(used <= has for used, has in zip(frugal.key, budget, strict=True)):  # most often these will do
        return _chosen(frugal)
    bound = _Bound.of([[one.key for one in stage] for stage in allowed], budget)
    sums = [_Sum((0, 0, 0))] if bound.allows((0, 0, 0), 0) else []
    for number, stage in enumerate(allowed, 1):
        longer = (_Sum(_plus(before.key, one.key), one.choice, before) for before in sums for one in stage)
        sums = _undercut([found for found in longer if bound.allows(found.key, number)])
    return _chosen(sums[0]) if sums else None


@dataclass(frozen=True)
class _Bound:
    """What the stages yet to come take at least: rests[n] of each resource, costs[n] at `prices`, after n stages.

    worth: of the budget at `prices`.
    """

    budget: Key
    prices: tuple[float, float, float]
    worth: float
    rests: tuple[Key, ...]
    costs: tuple[float, ...]

    @classmethod
    def of(cls, stages: list[list[Key]], budget: Key) -> _Bound:
        """The bound at the best prices found."""
        tables = [np.array(stage, dtype=float) for stage in stages]
        scales = np.array([max(1, has) for has in budget], dtype=float)
        prices = _prices(tables, np.array(budget, dtype=float), scales)
        rests, costs = [(0, 0, 0)], [0.0]
        for stage, table in zip(reversed(stages), reversed(tables), strict=True):
            least = [min(column) for column in zip(*stage, strict=True)]
            rests.append(_plus(rests[-1], (least[0], least[1], least[2])))
            costs.append(costs[-1] + float((table * prices).sum(axis=1).min()))
        worth = float(prices @ budget) + _MARGIN
        dsp, ram, lut = (float(price) for price in prices)
        return cls(budget, (dsp, ram, lut), worth, tuple(reversed(rests)), tuple(reversed(costs)))

    def allows(self, key: Key, number: int) -> bool:
        """Whether the first `number` stages may take `key`."""
        rest, budget, prices = self.rests[number], self.budget, self.prices
        return (
            key[0] + rest[0] <= budget[0]
            and key[1] + rest[1] <= budget[1]
            and key[2] + rest[2] <= budget[2]
            and key[0] * prices[0] + key[1] * prices[1] + key[2] * prices[2] + self.costs[number] <= self.worth
        )


def _prices(
    tables: list[NDArray[np.float64]], budget: NDArray[np.float64], scales: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Prices of the resources at which the cheapest choices overspend the budget most, by multiplicative weights."""
    weights = np.ones(len(budget))
    best, found = -np.inf, weights / scales
    for step in range(_PRICE_STEPS):
        prices = weights / weights.sum() / scales
        used = sum(table[(table * prices).sum(axis=1).argmin()] for table in tables)
        over = (used - budget) / scales
        if prices @ (used - budget) > best:
            best, found = float(prices @ (used - budget)), prices
        weights = weights * np.exp(over / (1 + np.abs(over).max()) * 2 / np.sqrt(1 + step))
    return found


def _undercut(sums: list[_Sum]) -> list[_Sum]:
    """Those no other sum undercuts: in order of DSP slices, against a staircase of block RAMs and LUTs."""
    kept: list[_Sum] = []
    stairs: list[tuple[int, int]] = []  # block RAMs rising, LUTs falling
    for found in sorted(sums, key=lambda found: found.key):
        _, rams, luts = found.key
        index = bisect_right(stairs, (rams, luts))
        if index and stairs[index - 1][1] <= luts:
            continue
        kept.append(found)
        while index < len(stairs) and stairs[index][1] >= luts:
            del stairs[index]
        insort(stairs, (rams, luts))
    return kept


def _chosen(found: _Sum) -> tuple[Choice, ...]:
    """The choices behind a sum, the first stage first."""
    chosen: list[Choice] = []
    at: _Sum | None = found
    while at is not None and at.choice is not None:
        chosen.append(at.choice)
        at = at.before
    return tuple(reversed(chosen))


def _key(amounts: Amounts) -> Key:
    return amounts.dsp_slices, amounts.block_rams, amounts.luts + amounts.storage_bits


def _share(key: Key, budget: Key) -> Fraction:
    """The shares of the budget added up, exactly."""
    return sum((Fraction(used, max(1, has)) for used, has in zip(key, budget, strict=True)), Fraction(0))


def _plus(first: Key, second: Key) -> Key:
    return first[0] + second[0], first[1] + second[1], first[2] + second[2]
