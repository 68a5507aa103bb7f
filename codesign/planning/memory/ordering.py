"""The order of steps that needs least memory, searched over all orders that run.

A state is a set of steps that are done; how it was reached does not matter for what follows. States are visited in
order of the peak on the way to them, so the first one in which everything is done has the least peak of all orders, and
the peak at which a search is cut off is one no order goes below.

A step whose peak is no higher than that of the search, and after which no more is live than before, runs at once: any
order can be changed to run it now without a higher peak, since running it earlier leaves no more live at any later time
(it frees what it frees, or another reader frees it instead).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush

from codesign.planning.memory.liveness import Liveness

STATES = 4000
_NARROWINGS = 6


@dataclass(frozen=True)
class Ordered:
    """An order by step numbers, its peak, and a peak no order goes below."""

    order: tuple[int, ...]
    peak: int
    bound: int


def best_order(liveness: Liveness, states: int = STATES) -> Ordered:
    """The order with the least peak; the order given if no other needs less. states: how many are visited at most.

    When they do not suffice, the best order found and the peak up to which all were excluded.
    """
    given = tuple(range(len(liveness.flow.needs)))
    best = Ordered(given, liveness.peak(given), liveness.least)
    if best.peak == best.bound:
        return best
    found, bound = _search(liveness, best.bound, states)
    if found is not None:
        peak = liveness.peak(found)
        return Ordered(found, peak, peak) if peak < best.peak else Ordered(given, best.peak, best.peak)
    return _narrowed(liveness, Ordered(given, best.peak, bound), states)


def _narrowed(liveness: Liveness, best: Ordered, states: int) -> Ordered:
    """Better orders, searched below peaks between the bound and the best one found."""
    low = best.bound
    for _ in range(_NARROWINGS):
        if best.peak <= low:
            break
        allowed = (low + best.peak) // 2
        found, _ = _search(liveness, allowed, states)
        peak = best.peak if found is None else liveness.peak(found)
        if found is not None and peak < best.peak:
            best = Ordered(found, peak, best.bound)
        else:
            low = allowed + 1
    return best


@dataclass(frozen=True)
class _State:
    """Steps that are done, those that may run next, and the bytes live."""

    done: int
    ready: int
    live: int


def _search(liveness: Liveness, allowed: int, states: int) -> tuple[tuple[int, ...] | None, int]:
    """An order whose peak is `allowed` or else the least above it; None if the states do not suffice.

    With it, a peak no order goes below if `allowed` is such a one.
    """
    moves = _Moves(liveness)
    everything = (1 << len(moves.needs)) - 1
    waiting = [(allowed, 0, 0, moves.start())]  # peak, most steps done first, number
    peaks = {0: allowed}
    reached: dict[int, tuple[int, tuple[int, ...]]] = {0: (-1, ())}  # from which state, by which steps
    visited: set[int] = set()
    number = 0
    while waiting:
        peak, _, _, state = heappop(waiting)
        if state.done in visited:
            continue
        if len(visited) >= states:
            return None, peak
        visited.add(state.done)
        settled, steps = moves.settled(state, peak)
        if steps:
            if settled.done in visited:
                continue
            visited.add(settled.done)
            reached[settled.done] = state.done, steps
        if settled.done == everything:
            return _way_to(everything, reached), peak
        for step, during, after in moves.of(settled):
            higher = max(peak, during)
            if after.done in visited or peaks.get(after.done, higher + 1) <= higher:
                continue
            number += 1
            peaks[after.done] = higher
            reached[after.done] = settled.done, (step,)
            heappush(waiting, (higher, -after.done.bit_count(), number, after))
    raise AssertionError("steps that need each other were refused before")


def _way_to(state: int, reached: dict[int, tuple[int, tuple[int, ...]]]) -> tuple[int, ...]:
    parts: list[tuple[int, ...]] = []
    while state >= 0:
        state, steps = reached[state]
        parts.append(steps)
    return tuple(step for part in reversed(parts) for step in part)


class _Moves:
    """Which steps may follow a state, and which states they lead to."""

    def __init__(self, liveness: Liveness) -> None:
        self.liveness = liveness
        self.needs = liveness.flow.needs
        self.followers: list[list[int]] = [[] for _ in self.needs]
        for step, need in enumerate(self.needs):
            for before in _numbers(need):
                self.followers[before].append(step)

    def start(self) -> _State:
        """Nothing is done."""
        ready = sum(1 << step for step, need in enumerate(self.needs) if not need)
        return _State(0, ready, self.liveness.at_start)

    def of(self, state: _State) -> Iterator[tuple[int, int, _State]]:
        """Steps that may run next, the bytes live while they run, and the state after them."""
        for step in _numbers(state.ready):
            change = self.liveness.change(step, state.done, state.live)
            yield step, change.during, self._after(state, step, change.after)

    def settled(self, state: _State, peak: int) -> tuple[_State, tuple[int, ...]]:
        """The state after all steps that may run at once, and those steps."""
        steps: list[int] = []
        while True:
            for step in _numbers(state.ready):
                change = self.liveness.change(step, state.done, state.live)
                if change.during <= peak and change.after <= state.live:
                    break
            else:
                return state, tuple(steps)
            state = self._after(state, step, change.after)
            steps.append(step)

    def _after(self, state: _State, step: int, live: int) -> _State:
        done = state.done | 1 << step
        ready = state.ready ^ 1 << step
        for follower in self.followers[step]:
            if not self.needs[follower] & ~done:
                ready |= 1 << follower
        return _State(done, ready, live)


def _numbers(bits: int) -> Iterator[int]:
    while bits:
        lowest = bits & -bits
        bits ^= lowest
        yield lowest.bit_length() - 1
