"""Activation memory on small problems: brute force, an independent check, and plans that must not pass it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import permutations

from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.planning.memory.checking import check_plan
from codesign.planning.memory.planning import Effort, plan_memory
from codesign.planning.memory.problem import MemoryProblem, Overwrite, Part, Step, Tensor

# ---- random problems


@st.composite
def problems(draw: st.DrawFn, most_steps: int = 7, most_units: int = 6) -> MemoryProblem:
    """A random graph of steps; some write in place, some results are views, some operands parts of a concatenation."""
    alignment = draw(st.sampled_from([1, 4]))
    tensors = [Tensor("x0", alignment * draw(st.integers(1, most_units)), alignment)]
    steps: list[Step] = []
    parts: list[Part] = []
    readable = ["x0"]  # tensors a step may read
    loose: list[str] = []  # stored alone so far: may still become a part
    for number in range(draw(st.integers(1, most_steps))):
        reads = tuple(draw(st.lists(st.sampled_from(readable), min_size=1, max_size=2, unique=True)))
        name = f"t{number}"
        size = draw(st.integers(1, most_units * alignment))
        tensors.append(Tensor(name, size, alignment))
        ways = tuple(Overwrite(name, read, draw(st.integers(0, 3))) for read in reads if draw(st.integers(0, 2)) == 0)
        steps.append(Step(f"s{number}", reads, (name,), draw(st.sampled_from([0, 0, 2])), ways))
        readable.append(name)
        loose.append(name)
        if draw(st.integers(0, 4)) == 0:
            tensors.append(Tensor(f"v{number}", size, alignment))
            parts.append(Part(f"v{number}", name))
            readable.append(f"v{number}")
            loose.remove(name)
        elif len(loose) > 1 and draw(st.integers(0, 3)) == 0:
            joined = draw(st.lists(st.sampled_from(loose), min_size=2, max_size=2, unique=True))
            at = 0
            sizes = {tensor.name: tensor.size_bytes for tensor in tensors}
            for member in joined:
                parts.append(Part(member, f"c{number}", at))
                at += sizes[member]
                loose.remove(member)
            tensors = [replace(t, alignment=1) if t.name in joined else t for t in tensors]
            tensors.append(Tensor(f"c{number}", at, alignment))
            readable.append(f"c{number}")
    outputs = tuple(draw(st.lists(st.sampled_from(readable), min_size=1, max_size=2, unique=True)))
    return MemoryProblem(tuple(tensors), tuple(steps), ("x0",), outputs, tuple(parts))


def orders(problem: MemoryProblem) -> Iterator[tuple[Step, ...]]:
    """Every order of the steps in which each finds what it reads: by names, without the planner's numbers."""
    makers = {name: step.name for step in problem.steps for name in step.writes}
    sources = {
        step.name: {makers[n] for r in step.reads for n in stored_below(problem, r) if n in makers}
        for step in problem.steps
    }
    for order in permutations(problem.steps):
        done: set[str] = set()
        for step in order:
            if sources[step.name] - done:
                break
            done.add(step.name)
        else:
            yield order


def stored_below(problem: MemoryProblem, name: str) -> set[str]:
    """Tensors that are written and share bytes with one: the operands of a concatenation, what a view is of."""
    below = {part.tensor: part.whole for part in problem.parts if part.tensor[0] == "v"}
    if name in below:
        return {below[name]}
    members = {part.tensor for part in problem.parts if part.whole == name}
    return members if name[0] == "c" else {name}


@settings(max_examples=150, deadline=None)
@given(problems())
def test_a_plan_runs(problem: MemoryProblem) -> None:
    plan = plan_memory(problem)
    assert check_plan(problem, plan) == []
    assert plan.bound_bytes <= plan.arena_bytes
    assert plan.arena_bytes <= plan_memory(problem, Effort(reorder=False)).arena_bytes or not plan.proven
