"""plan_memory: from a problem to a plan: the order, then offsets, then the solver where first fit falls short."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from codesign.planning.memory.flow import Flow, flow_of
from codesign.planning.memory.liveness import Liveness
from codesign.planning.memory.memory_plan import InPlace, MemoryPlan, Placed
from codesign.planning.memory.ordering import STATES, Ordered, best_order
from codesign.planning.memory.packing import Packer
from codesign.planning.memory.problem import MemoryProblem
from codesign.planning.memory.rectangles import Layout, layout_of, lifetimes
from codesign.planning.memory.solver import DETERMINISTIC_SECONDS, solve_offsets

_LARGEST_SOLVED = 600  # blocks; above, the solver finds nothing better within its limit


@dataclass(frozen=True)
class Effort:
    """How much is tried. states: of the search for an order. solver_seconds: deterministic ones of the solver; 0: none.

    reorder: whether another order may be chosen.
    """

    states: int = STATES
    solver_seconds: float = DETERMINISTIC_SECONDS
    reorder: bool = True


_USUAL = Effort()


def plan_memory(problem: MemoryProblem, effort: Effort = _USUAL) -> MemoryPlan:
    """An order and offsets with a small arena, and a bound no plan goes below. The same every time it is called.

    The bound is over all orders and placements; without `effort.reorder`, over placements in the order given. Raises
    ValueError when the problem contradicts itself.
    """
    liveness = Liveness(flow_of(problem))
    ordered = best_order(liveness, effort.states) if effort.reorder else _as_given(liveness)
    layout, offsets = _placed(liveness, ordered, effort)
    return _plan(liveness.flow, ordered, layout, offsets)


def _as_given(liveness: Liveness) -> Ordered:
    order = tuple(range(len(liveness.flow.needs)))
    peak = liveness.peak(order)
    return Ordered(order, peak, peak)


def _placed(liveness: Liveness, ordered: Ordered, effort: Effort) -> tuple[Layout, Sequence[int]]:
    """The layout with the smallest arena, and offsets of its blocks."""
    flow = liveness.flow
    layouts = [layout_of(liveness, ordered.order, ordered.peak), layout_of(liveness, ordered.order, 0)]
    packed: list[tuple[int, int, list[int]]] = []
    for rounds in (0, None):
        for number, layout in enumerate(layouts):
            packer = Packer(layout.blocks)
            offsets = packer.pack(ordered.peak) if rounds is None else packer.pack(ordered.peak, rounds)
            packed.append((flow.whole_units(packer.height(offsets)), number, offsets))
            if packed[-1][0] <= ordered.peak:
                return layout, offsets
    height, number, offsets = min(packed)
    if effort.solver_seconds and len(layouts[number].blocks) <= _LARGEST_SOLVED:
        blocks = layouts[number].blocks
        solved = solve_offsets(blocks, offsets, flow.unit, ordered.peak, height, effort.solver_seconds)
        offsets = offsets if solved is None else solved
    return layouts[number], offsets


def _plan(flow: Flow, ordered: Ordered, layout: Layout, offsets: Sequence[int]) -> MemoryPlan:
    steps, order = flow.problem.steps, ordered.order
    lives = lifetimes(flow, order)
    place = {step: at for at, step in enumerate(order)}

    def offset(group: int, at: int) -> int:
        block, into = layout.homes[group]
        return offsets[block] + into + at

    stored = tuple(
        Placed(name, offset(r.group, r.at), r.size, *life)
        for name, r, life in zip(flow.stored, flow.ranges, lives, strict=True)
    )
    views = []
    for name, r in flow.views.items():
        below = [lives[number] for number in flow.below([name])]
        first, last = min(life[0] for life in below), max(life[1] for life in below)
        views.append(Placed(name, offset(r.group, r.at), r.size, first, last))
    scratch = []
    for step, block in layout.scratch.items():
        size = layout.blocks[block].rectangles[0].size
        scratch.append(Placed(steps[step].name, offsets[block], size, place[step], place[step]))
    in_place = tuple(
        InPlace(steps[step].name, flow.stored[way.output], way.input) for step, way in layout.in_place.items()
    )
    top = max((placed.end_bytes for placed in (*stored, *scratch)), default=0)
    given = order == tuple(range(len(order)))
    names = tuple(steps[step].name for step in order)
    arena = flow.whole_units(top)
    return MemoryPlan(names, stored, tuple(views), tuple(scratch), in_place, arena, ordered.bound, not given)
