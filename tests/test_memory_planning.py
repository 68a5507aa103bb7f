"""Activation memory on small problems: brute force, an independent check, and plans that must not pass it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import permutations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.planning.memory.checking import check_plan
from codesign.planning.memory.planning import Effort, plan_memory
from codesign.planning.memory.problem import MemoryProblem, Overwrite, Part, Step, Tensor

Token = tuple[str, int]  # a byte of a tensor that is written


@dataclass(frozen=True)
class Case:
    """A problem, and what every tensor consists of: bytes of tensors that are written."""

    problem: MemoryProblem
    contents: dict[str, tuple[Token, ...]]


@st.composite
def cases(draw: st.DrawFn, most_steps: int = 6, alignments: tuple[int, ...] = (1, 4)) -> Case:
    """A random graph: some steps write in place, some tensors are views or halves of others, some are joined."""
    alignment = draw(st.sampled_from(alignments))
    tensors: dict[str, Tensor] = {}
    contents: dict[str, tuple[Token, ...]] = {}
    steps: list[Step] = []
    parts: list[Part] = []
    loose: list[str] = []  # tensors that share no memory yet

    def written(name: str, size: int) -> None:
        tensors[name] = Tensor(name, size, alignment)
        contents[name] = tuple((name, byte) for byte in range(size))
        loose.append(name)

    def part(name: str, whole: str, at: int, size: int) -> None:
        tensors[name] = Tensor(name, size, 1)
        parts.append(Part(name, whole, at))
        contents[name] = contents[whole][at : at + size]

    written("x", draw(st.integers(1, 24)))
    for number in range(draw(st.integers(1, most_steps))):
        readable = sorted(contents)
        reads = tuple(draw(st.lists(st.sampled_from(readable), min_size=1, max_size=2, unique=True)))
        name = f"t{number}"
        written(name, draw(st.integers(1, 24)))
        ways = [Overwrite(name, read, draw(st.integers(0, 3))) for read in reads if draw(st.booleans())]
        steps.append(Step(f"s{number}", reads, (name,), draw(st.sampled_from([0, 0, 2])), tuple(ways)))
        change = draw(st.sampled_from(["", "", "view", "halves", "join"]))
        size = tensors[name].size_bytes
        if change == "view":
            part(f"v{number}", name, 0, size)
            loose.remove(name)
        elif change == "halves" and size > 1:
            middle = draw(st.integers(1, size - 1))
            part(f"a{number}", name, 0, middle)
            part(f"b{number}", name, middle, size - middle)
            loose.remove(name)
        elif change == "join" and len(loose) > 1:
            one, other = draw(st.lists(st.sampled_from(loose), min_size=2, max_size=2, unique=True))
            joined = f"c{number}"
            sizes = tensors[one].size_bytes, tensors[other].size_bytes
            tensors[joined] = Tensor(joined, sum(sizes), alignment)
            tensors |= {operand: replace(tensors[operand], alignment=1) for operand in (one, other)}
            parts += [Part(one, joined, 0), Part(other, joined, sizes[0])]
            contents[joined] = contents[one] + contents[other]
            loose.remove(one)
            loose.remove(other)
    outputs = tuple(draw(st.lists(st.sampled_from(sorted(contents)), min_size=1, max_size=2, unique=True)))
    problem = MemoryProblem(tuple(tensors.values()), tuple(steps), ("x",), outputs, tuple(parts))
    return Case(problem, contents)


# ---- brute force, byte by byte


def running_orders(case: Case) -> Iterator[tuple[Step, ...]]:
    """Every order in which each step finds what it reads."""
    for order in permutations(case.problem.steps):
        there = {"x"}
        for step in order:
            if {name for read in step.reads for name, _ in case.contents[read]} - there:
                break
            there |= set(step.writes)
        else:
            yield order


def needed_after(case: Case, order: tuple[Step, ...], at: int) -> set[Token]:
    """Bytes that a later step reads, or that stay."""
    names = [name for step in order[at + 1 :] for name in step.reads] + list(case.problem.outputs)
    if not any("x" in {name for name, _ in case.contents[read]} for step in order for read in step.reads):
        names.append("x")  # an input nobody reads stays
    return {token for name in names for token in case.contents[name]}


def ways_in_place(case: Case, order: tuple[Step, ...], at: int) -> list[Overwrite]:
    """Ways to write over what nobody needs after the step."""
    later, contents = needed_after(case, order, at), case.contents
    return [
        way
        for way in order[at].overwrites
        if len(contents[way.output]) <= len(contents[way.input]) and later.isdisjoint(contents[way.input])
    ]


def live_bytes(case: Case, order: tuple[Step, ...], at: int) -> int:
    """Least bytes that must be in memory while a step runs."""
    step, contents = order[at], case.contents
    there = {"x"} | {name for earlier in order[:at] for name in earlier.writes}
    needed = needed_after(case, order, at) | {token for name in step.reads for token in contents[name]}
    live = {token for token in needed if token[0] in there} | {t for name in step.writes for t in contents[name]}
    saved = [len(contents[way.output]) - way.scratch_bytes for way in ways_in_place(case, order, at)]
    return len(live) + step.scratch_bytes - max([0, *saved])


def least_peak(case: Case) -> int:
    """The least peak of all orders."""
    return min(max(live_bytes(case, order, at) for at in range(len(order))) for order in running_orders(case))


@settings(max_examples=120, deadline=None)
@given(cases())
def test_a_plan_runs(case: Case) -> None:
    plan = plan_memory(case.problem)
    assert check_plan(case.problem, plan) == []
    assert plan == plan_memory(case.problem)


@settings(max_examples=120, deadline=None)
@given(cases(alignments=(1,)))
def test_the_bound_is_the_least_peak_of_all_orders(case: Case) -> None:
    plan = plan_memory(case.problem)
    at_start = len(case.contents["x"])
    assert plan.bound_bytes == max(least_peak(case), at_start)
    assert plan.proven == (plan.arena_bytes == plan.bound_bytes)


@settings(max_examples=60, deadline=None)
@given(cases(most_steps=5))
def test_a_search_cut_short_keeps_its_word(case: Case) -> None:
    """With hardly any states, the bound still holds and the plan still runs."""
    least = plan_memory(case.problem)
    hasty = plan_memory(case.problem, Effort(states=2, other_orders=0, solved=0))
    assert hasty.bound_bytes <= least.bound_bytes <= least.arena_bytes
    assert check_plan(case.problem, hasty) == []


def test_a_proven_arena_is_the_least_by_trying_every_offset() -> None:
    """Three tensors in a row, alone in every order and at every offset: nothing below the planner's arena runs."""
    for sizes in ((2, 3, 4), (4, 1, 4), (3, 3, 1)):
        problem = chain(sizes)
        plan = plan_memory(problem)
        assert plan.proven
        names = [tensor.name for tensor in problem.tensors]
        for offsets in product(range(plan.arena_bytes), repeat=len(sizes)):
            stored = tuple(replace(placed, offset_bytes=offsets[names.index(placed.tensor)]) for placed in plan.stored)
            smaller = replace(plan, stored=stored, arena_bytes=plan.arena_bytes - 1, bound_bytes=0)
            assert check_plan(problem, smaller) != []


def chain(sizes: tuple[int, ...]) -> MemoryProblem:
    """Tensors of these sizes, each made of the one before."""
    tensors = tuple(Tensor(f"t{number}", size, 1) for number, size in enumerate(sizes))
    steps = tuple(Step(f"s{number}", (f"t{number}",), (f"t{number + 1}",)) for number in range(len(sizes) - 1))
    return MemoryProblem(tensors, steps, ("t0",), (f"t{len(sizes) - 1}",))
