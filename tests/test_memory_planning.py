"""Activation memory on small problems: brute force, an independent check, and plans that must not pass it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import permutations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.planning.memory.checking import check_plan
from codesign.planning.memory.memory_plan import InPlace, MemoryPlan
from codesign.planning.memory.planning import Effort, plan_memory
from codesign.planning.memory.problem import MemoryProblem, Overwrite, Part, Step, Tensor

Token = tuple[str, int]  # a byte of a tensor that is written


@dataclass(frozen=True)
class Case:
    """A problem, and what every tensor consists of: bytes of tensors that are written."""

    problem: MemoryProblem
    contents: dict[str, tuple[Token, ...]]


BESIDE = st.tuples(st.integers(0, 3), st.sampled_from([0, 0, 4, 5]))  # scratch, and the lead of what is written


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
        ways = [Overwrite(name, read, *draw(BESIDE)) for read in reads if draw(st.booleans())]
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
        if len(contents[way.output]) <= len(contents[way.input]) + way.lead_bytes
        and later.isdisjoint(contents[way.input])
    ]


def live_bytes(case: Case, order: tuple[Step, ...], at: int) -> int:
    """Least bytes that must be in memory while a step runs."""
    step, contents = order[at], case.contents
    there = {"x"} | {name for earlier in order[:at] for name in earlier.writes}
    needed = needed_after(case, order, at) | {token for name in step.reads for token in contents[name]}
    live = {token for token in needed if token[0] in there} | {t for name in step.writes for t in contents[name]}
    saved = [len(contents[way.output]) - way.scratch_bytes - way.lead_bytes for way in ways_in_place(case, order, at)]
    return len(live) + step.scratch_bytes - max([0, *saved])


def least_peak(case: Case) -> int:
    """The least peak of all orders."""
    return min(max(live_bytes(case, order, at) for at in range(len(order))) for order in running_orders(case))


@settings(max_examples=60, deadline=None)
@given(cases())
def test_a_plan_runs(case: Case) -> None:
    plan = plan_memory(case.problem)
    assert check_plan(case.problem, plan) == []
    assert plan == plan_memory(case.problem)


@settings(max_examples=60, deadline=None)
@given(cases(alignments=(1,)))
def test_the_bound_is_the_least_peak_of_all_orders(case: Case) -> None:
    plan = plan_memory(case.problem)
    at_start = len(case.contents["x"])
    assert plan.bound_bytes == max(least_peak(case), at_start)
    assert plan.proven == (plan.arena_bytes == plan.bound_bytes)


@settings(max_examples=40, deadline=None)
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


# ---- plans that must not pass


CONV = MemoryProblem(
    (Tensor("x", 32), Tensor("y", 16), Tensor("z", 16), Tensor("v", 8, 1), Tensor("w", 8)),
    (
        Step("one", ("x",), ("y",), scratch_bytes=8, overwrites=(Overwrite("y", "x", 4),)),
        Step("two", ("y",), ("z",)),
        Step("three", ("v", "y"), ("w",)),
    ),
    ("x",),
    ("w", "z"),
    (Part("v", "z", 8),),
)


# Without writing in place.
PLAIN = replace(CONV, steps=(replace(CONV.steps[0], overwrites=()), *CONV.steps[1:]))


def moved(plan: MemoryPlan, **offsets: int) -> MemoryPlan:
    """The plan with tensors at other offsets."""
    pieces = {placed.tensor for placed in (*plan.stored, *plan.views)}
    assert offsets.keys() <= pieces
    return replace(
        plan,
        stored=tuple(replace(p, offset_bytes=offsets.get(p.tensor, p.offset_bytes)) for p in plan.stored),
        views=tuple(replace(p, offset_bytes=offsets.get(p.tensor, p.offset_bytes)) for p in plan.views),
    )


def test_the_check_sees_what_is_wrong() -> None:
    plan = plan_memory(PLAIN)
    assert check_plan(PLAIN, plan) == [] and plan.proven and plan.arena_bytes == 64
    x, y, z = (plan.offsets[name] for name in "xyz")
    assert check_plan(PLAIN, moved(plan, y=x))[0] == "step one writes y over x"
    assert check_plan(PLAIN, moved(plan, z=y, v=y + 8)) == [
        "step two writes z over y",
        "step three reads y, which is not there",
    ]
    assert check_plan(PLAIN, moved(plan, v=z)) == ["v is not 8 bytes into z"]
    assert check_plan(PLAIN, moved(plan, y=y + 8)) == [f"y lies at {y + 8}, which its alignment forbids"]
    assert check_plan(PLAIN, replace(plan, arena_bytes=48, bound_bytes=0))[0].endswith("lies outside the arena")
    assert check_plan(PLAIN, replace(plan, bound_bytes=65)) == ["the arena is smaller than the bound"]
    assert check_plan(PLAIN, replace(plan, order=("two", "one", "three")))[0] == "step two reads y, which is not there"
    assert check_plan(PLAIN, replace(plan, order=("one", "two"))) == ["the order does not hold every step once"]
    assert check_plan(PLAIN, replace(plan, scratch=())) == ["step one has no room for 8 bytes of scratch"]
    assert check_plan(PLAIN, replace(plan, stored=plan.stored[1:])) == [
        "not every tensor has a place, or others have one"
    ]


def test_an_output_must_stay_and_in_place_must_be_in_place() -> None:
    tensors = (Tensor("a", 16), Tensor("b", 16), Tensor("c", 16))
    steps = (Step("one", ("a",), ("b",), overwrites=(Overwrite("b", "a"),)), Step("two", ("b",), ("c",)))
    problem = MemoryProblem(tensors, steps, ("a",), ("c", "b"))
    plan = plan_memory(problem)
    assert plan.arena_bytes == 32 and plan.in_place == ()
    overwritten = moved(plan, c=plan.offsets["b"])
    assert check_plan(problem, overwritten) == ["step two writes c over b", "output b is not there at the end"]
    claimed = replace(plan, in_place=(InPlace("one", "b", "a"),))
    assert check_plan(problem, claimed) == ["step one writes b beside a"]


def test_an_output_may_begin_before_the_input_it_lies_over() -> None:
    """A step that writes 16 bytes behind its reading, and one that must run in between though it reads nothing."""
    tensors = (Tensor("a", 64), Tensor("b", 64), Tensor("c", 16))
    behind = Step("behind", ("a",), ("b",), overwrites=(Overwrite("b", "a", lead_bytes=16),), after=("first",))
    problem = MemoryProblem(tensors, (Step("first", (), ("c",)), behind), ("a",), ("b",))
    plan = plan_memory(problem)
    assert check_plan(problem, plan) == [] and plan.proven
    assert plan.arena_bytes == 80 and plan.offsets["a"] - plan.offsets["b"] == 16
    assert check_plan(problem, moved(plan, b=plan.offsets["a"])) == ["step behind writes b beside a"]
    assert check_plan(problem, replace(plan, order=plan.order[::-1]))[0] == "step behind runs before first"


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (replace(CONV, tensors=CONV.tensors[1:]), "no tensor is called x"),
        (replace(CONV, steps=CONV.steps[1:]), "nobody writes all of tensor y"),
        (replace(CONV, steps=CONV.steps[::-1]), "step three runs before what it reads is written"),
        (replace(CONV, inputs=("x", "y")), "tensor y is written twice, or is an input that is written"),
        (replace(CONV, steps=(*CONV.steps, Step("s", (), (), after=("t",)))), "step s runs after t, which is no step"),
        (replace(CONV, tensors=(*CONV.tensors, Tensor("x", 3))), "two tensors have one name"),
        (replace(CONV, steps=(*CONV.steps, Step("one", (), ()))), "two steps have one name"),
        (replace(CONV, tensors=(*CONV.tensors, Tensor("e", 0))), "tensor e has 0 bytes at alignment 16"),
        (replace(CONV, parts=(Part("v", "z", 9),)), "nobody writes all of tensor v"),
        (replace(CONV, parts=(*CONV.parts, Part("v", "z", 0))), "tensor v cannot lie 0 bytes into z"),
        (replace(CONV, parts=(*CONV.parts, Part("y", "z"))), "tensors y and z are written to the same bytes"),
        (replace(CONV, parts=(Part("w", "y", 8),)), "tensors y and w are written to the same bytes"),
        (
            replace(CONV, tensors=(*CONV.tensors[:2], Tensor("z", 16), Tensor("v", 8), CONV.tensors[4])),
            "tensor v lies 8 bytes into others, which its alignment forbids",
        ),
        (
            replace(CONV, steps=(Step("one", ("x",), ("y",), overwrites=(Overwrite("x", "y"),)), *CONV.steps[1:])),
            "step one does not write x from y",
        ),
    ],
)
def test_a_problem_that_contradicts_itself_is_refused(problem: MemoryProblem, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        plan_memory(problem)


# ---- what first fit does not find


def test_the_solver_finds_what_first_fit_does_not() -> None:
    """Five tensors whose lifetimes interlock; the solver proves the arena, and without it the gap is said."""
    problem = interlocked()
    hasty = plan_memory(problem, Effort(reorder=False, solved=0))
    plan = plan_memory(problem, Effort(reorder=False))
    assert check_plan(problem, plan) == [] and check_plan(problem, hasty) == []
    assert plan.proven and not hasty.proven
    assert hasty.gap == pytest.approx((hasty.arena_bytes - plan.arena_bytes) / plan.arena_bytes)


def interlocked() -> MemoryProblem:
    """Tensors by first and last step and size; first fit by no ranking gets below 8 bytes, and 7 are enough."""
    lives = ((4, 4, 3), (0, 0, 4), (2, 2, 2), (0, 2, 2), (1, 4, 3))
    steps = tuple(
        Step(
            f"s{at}",
            tuple(f"t{number}" for number, (first, last, _) in enumerate(lives) if first < at <= last),
            tuple(f"t{number}" for number, (first, _, _) in enumerate(lives) if first == at),
        )
        for at in range(5)
    )
    return MemoryProblem(tuple(Tensor(f"t{number}", size, 1) for number, (*_, size) in enumerate(lives)), steps)
