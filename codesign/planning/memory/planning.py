"""plan_memory: from a problem to a plan: the order, then offsets; more is tried only where first fit falls short."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from codesign.planning.memory.flow import Flow, flow_of
from codesign.planning.memory.liveness import Liveness
from codesign.planning.memory.memory_plan import InPlace, MemoryPlan, Placed
from codesign.planning.memory.ordering import STATES, Ordered, best_order, other_order
from codesign.planning.memory.packing import Packer
from codesign.planning.memory.problem import MemoryProblem
from codesign.planning.memory.rectangles import Layout, layout_of, lifetimes
from codesign.planning.memory.solver import solve_offsets

_ROUNDS = 100  # of blocks that change places


@dataclass(frozen=True)
class Effort:
    """How much is tried. states: of the search for an order. reorder: whether another order may be chosen.

    other_orders: as good, in which blocks may be easier to place. solved: how many layouts the solver is asked about.
    """

    states: int = STATES
    reorder: bool = True
    other_orders: int = 24
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

    First fit suffices for nearly all networks. Else blocks change places, then steps do, and then the solver is asked.
    """
    layouts = list(_layouts(liveness, ordered.order, ordered.peak))
    arenas = [_packed(liveness, ordered, layout, 0) for layout in layouts]
    if min(arena.size for arena in arenas) > ordered.peak:
        arenas += [_packed(liveness, ordered, layout, _ROUNDS) for layout in layouts]
    for seed in range(effort.other_orders if effort.reorder else 0):
        if min(arena.size for arena in arenas) <= ordered.peak:
            break
        order = other_order(liveness, ordered.peak, seed, effort.states)
        if order is not None and liveness.peak(order) <= ordered.peak:
            other = replace(ordered, order=order)
            arenas += [_packed(liveness, other, layout, 0) for layout in _layouts(liveness, order, ordered.peak)]
    arenas.sort(key=lambda arena: arena.size)
    return _solved(liveness, ordered, arenas, effort)


def _layouts(liveness: Liveness, order: Sequence[int], peak: int) -> Iterator[Layout]:
    """In place where it must be, and wherever it can."""
    yield layout_of(liveness, order, peak)
    yield layout_of(liveness, order, 0)


def _packed(liveness: Liveness, ordered: Ordered, layout: Layout, rounds: int) -> _Arena:
    packer = Packer(layout.blocks)
    offsets = packer.pack(ordered.peak, rounds)
    return _Arena(liveness.flow.whole_units(packer.height(offsets)), ordered.order, layout, offsets)


def _solved(liveness: Liveness, ordered: Ordered, arenas: Sequence[_Arena], effort: Effort) -> _Arena:
    """The best of some arenas, the smallest first, after the solver had a try at the first few of them."""
    best, flow = arenas[0], liveness.flow
    for arena in arenas[: effort.solved]:
        if best.size <= ordered.peak:
            break
        homes = [arena.layout.homes[group] for group in range(len(flow.alignments))]
        hint = [arena.offsets[block] + into for block, into in homes]
        solved = solve_offsets(flow, arena.order, hint, ordered.peak, best.size)
        if solved is not None:
            layout, offsets = solved
            size = flow.whole_units(Packer(layout.blocks).height(offsets))
            best = _Arena(size, arena.order, layout, offsets)
    return best


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
