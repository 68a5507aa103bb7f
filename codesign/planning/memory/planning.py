"""plan_memory: from a problem to a plan: the order, then offsets; more is tried only where first fit falls short."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from codesign.planning.memory.flow import Flow, flow_of
from codesign.planning.memory.liveness import Liveness
from codesign.planning.memory.memory_plan import InPlace, MemoryPlan, Placed
from codesign.planning.memory.ordering import STATES, Ordered, best_order, other_order
from codesign.planning.memory.packing import Packer
from codesign.planning.memory.problem import MemoryProblem
from codesign.planning.memory.rectangles import Layout, layout_of, lifetimes
from codesign.planning.memory.solver import solve_offsets


@dataclass(frozen=True)
class Effort:
    """How much is tried. states: of the search for an order. reorder: whether another order may be chosen.

    other_orders: as good, in which tensors may be easier to place. solved: how many orders the solver is asked about.
    """

    states: int = STATES
    reorder: bool = True
    other_orders: int = 16
    solved: int = 3


_USUAL = Effort()


def plan_memory(problem: MemoryProblem, effort: Effort = _USUAL) -> MemoryPlan:
    """An order and offsets with a small arena, and a bound no plan goes below. The same every time it is called.

    The bound is over all orders and placements; without `effort.reorder`, over placements in the order given. Raises
    ValueError when the problem contradicts itself.
    """
    liveness = Liveness(flow_of(problem))
    ordered = best_order(liveness, effort.states) if effort.reorder else _as_given(liveness)
    return _plan(liveness.flow, ordered.bound, _placed(liveness, ordered, effort))


def _as_given(liveness: Liveness) -> Ordered:
    order = tuple(range(len(liveness.flow.needs)))
    peak = liveness.peak(order)
    return Ordered(order, peak, peak)


@dataclass(frozen=True)
class _Arena:
    """Offsets for the blocks of a layout, and the bytes they take."""

    size: int
    order: tuple[int, ...]
    layout: Layout
    offsets: Sequence[int]


def _placed(liveness: Liveness, ordered: Ordered, effort: Effort) -> _Arena:
    """The smallest arena found; every order tried has the peak of `ordered`, so an arena of this size is the smallest.

    First fit suffices for nearly all networks. Else other orders are tried, and then the solver is asked.
    """
    peak, found = ordered.peak, [_first_fit(liveness, ordered, ordered.order)]
    for seed in range(effort.other_orders if effort.reorder else 0):
        if found[-1].size <= peak:
            return found[-1]
        order = other_order(liveness, peak, seed, effort.states)
        if order is not None and liveness.peak(order) <= peak:
            found.append(_first_fit(liveness, ordered, order))
    found.sort(key=lambda arena: arena.size)
    best = found[0]
    for arena in found[: effort.solved]:
        if best.size > peak:
            best = _solved(liveness, peak, arena, best)
    return best


def _first_fit(liveness: Liveness, ordered: Ordered, order: tuple[int, ...]) -> _Arena:
    """In an order, by first fit: writing in place where it must be, or else wherever it can be."""
    found = []
    for allowed in (ordered.peak, 0):
        layout = layout_of(liveness, order, allowed)
        packer = Packer(layout.blocks)
        offsets = packer.pack(ordered.peak)
        found.append(_Arena(liveness.flow.whole_units(packer.height(offsets)), order, layout, offsets))
        if found[-1].size <= ordered.peak:
            break
    return min(found, key=lambda arena: arena.size)


def _solved(liveness: Liveness, peak: int, arena: _Arena, best: _Arena) -> _Arena:
    """What the solver finds in the order of an arena, if it is smaller than the best one."""
    flow = liveness.flow
    homes = [arena.layout.homes[group] for group in range(len(flow.alignments))]
    hint = [arena.offsets[block] + into for block, into in homes]
    solved = solve_offsets(flow, arena.order, hint, peak, best.size)
    if solved is None:
        return best
    layout, offsets = solved
    return _Arena(flow.whole_units(Packer(layout.blocks).height(offsets)), arena.order, layout, offsets)


def _plan(flow: Flow, bound_bytes: int, found: _Arena) -> MemoryPlan:
    steps, order, layout, offsets = flow.problem.steps, found.order, found.layout, found.offsets
    lives = lifetimes(flow, order)
    place = {step: at for at, step in enumerate(order)}

    def offset(group: int, at: int) -> int:
        block, into = layout.homes[group]
        return offsets[block] + into + at

    stored = tuple(
        Placed(name, offset(r.group, r.at), r.size, *life)
        for name, r, life in zip(flow.pieces, flow.ranges, lives, strict=True)
    )
    views = []
    for name, r in flow.places.items():
        below = [lives[number] for number in flow.below[name]]
        first, last = min(life[0] for life in below), max(life[1] for life in below)
        if len(below) > 1 or flow.pieces[flow.below[name][0]] != name:
            views.append(Placed(name, offset(r.group, r.at), r.size, first, last))
    scratch = []
    for step, block in layout.scratch.items():
        size = layout.blocks[block].rectangles[0].size
        scratch.append(Placed(steps[step].name, offsets[block], size, place[step], place[step]))
    ways = ((steps[step].name, way.overwrite) for step, way in layout.in_place.items())
    in_place = tuple(InPlace(name, way.output, way.input) for name, way in ways)
    given = order == tuple(range(len(order)))
    names = tuple(steps[step].name for step in order)
    return MemoryPlan(names, stored, tuple(views), tuple(scratch), in_place, found.size, bound_bytes, not given)
