"""check_plan: holds a MemoryPlan against its problem by running it.

It shares no code with the planner: steps run in the plan's order on an arena in which every byte remembers which byte
of which tensor was written there last, and a step that reads anything else than what was written for it is a fault.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from codesign.planning.memory.memory_plan import InPlace, MemoryPlan
from codesign.planning.memory.problem import MemoryProblem, Overwrite, Step

_NOBODY = -1
Span = tuple[int, int, str]  # begin, end, tensor; scratch has no name


def check_plan(problem: MemoryProblem, plan: MemoryPlan) -> list[str]:
    """What is wrong with a plan, in words; nothing when it is right."""
    found = list(_places(problem, plan))
    return found or list(_Run(problem, plan).faults())


def _places(problem: MemoryProblem, plan: MemoryPlan) -> Iterator[str]:
    """Faults of the plan that show without running it."""
    offsets = plan.offsets
    if sorted(plan.order) != sorted(step.name for step in problem.steps):
        yield "the order does not hold every step once"
    if set(offsets) != {tensor.name for tensor in problem.tensors}:
        yield "not every tensor has a place, or others have one"
        return
    for tensor in problem.tensors:
        if offsets[tensor.name] < 0 or offsets[tensor.name] + tensor.size_bytes > plan.arena_bytes:
            yield f"{tensor.name} lies outside the arena"
        if offsets[tensor.name] % tensor.alignment:
            yield f"{tensor.name} lies at {offsets[tensor.name]}, which its alignment forbids"
    for placed in plan.scratch:
        if placed.offset_bytes < 0 or placed.end_bytes > plan.arena_bytes:
            yield f"scratch of {placed.tensor} lies outside the arena"
    for part in problem.parts:
        if offsets[part.tensor] != offsets[part.whole] + part.offset_bytes:
            yield f"{part.tensor} is not {part.offset_bytes} bytes into {part.whole}"
    if plan.arena_bytes < plan.bound_bytes:
        yield "the arena is smaller than the bound"


@dataclass
class _Run:
    """The arena while steps run. tags: of the first byte of every tensor that is written; bytes count up from there."""

    problem: MemoryProblem
    plan: MemoryPlan
    arena: NDArray[np.int64] = field(init=False)
    tags: dict[str, int] = field(init=False)
    sizes: dict[str, int] = field(init=False)
    below: dict[str, list[str]] = field(init=False)

    def __post_init__(self) -> None:
        self.sizes = {tensor.name: tensor.size_bytes for tensor in self.problem.tensors}
        self.arena = np.full(self.plan.arena_bytes, _NOBODY, dtype=np.int64)
        self.tags, tag = {}, 0
        for name in (*self.problem.inputs, *(name for step in self.problem.steps for name in step.writes)):
            self.tags[name] = tag
            tag += self.sizes[name]
        self.offsets = dict(self.plan.offsets)
        together = _sharing(self.problem)
        self.below = {name: [n for n in together[name] if n in self.tags] for name in self.sizes}

    def faults(self) -> Iterator[str]:
        """Whatever goes wrong from the first step to the outputs."""
        steps = {step.name: step for step in self.problem.steps}
        taken = {entry.step: entry for entry in self.plan.in_place}
        for name in self.problem.inputs:
            self._write(name)
        if not all(self._is_there(name) for name in self.problem.inputs):
            yield "two inputs lie on the same bytes"
        done: set[str] = set()
        for number, name in enumerate(self.plan.order):
            for before in steps[name].after:
                if before not in done:
                    yield f"step {name} runs before {before}"
            done.add(name)
            yield from self._step(number, steps[name], taken.get(name))
        for name in self.problem.outputs:
            if not self._is_there(name):
                yield f"output {name} is not there at the end"

    def _step(self, number: int, step: Step, in_place: InPlace | None) -> Iterator[str]:
        for name in step.reads:
            if not self._is_there(name):
                yield f"step {step.name} reads {name}, which is not there"
        way = self._way(step, in_place)
        room = step.scratch_bytes + (0 if way is None else way.scratch_bytes)
        if way is not None and self.offsets[way.output] + way.lead_bytes != self.offsets[way.input]:
            yield f"step {step.name} writes {way.output} beside {way.input}"
        written = [self._span(name) for name in step.writes]
        if room:
            found = [p for p in self.plan.scratch if p.tensor == step.name and p.first_step == number]
            if not found or found[0].size_bytes < room:
                yield f"step {step.name} has no room for {room} bytes of scratch"
            else:
                written.append((found[0].offset_bytes, found[0].end_bytes, ""))
        yield from self._overlaps(step, written, in_place)
        for low, high, _ in written:
            self.arena[low:high] = _NOBODY
        for name in step.writes:
            self._write(name)

    def _overlaps(self, step: Step, written: list[Span], in_place: InPlace | None) -> Iterator[str]:
        """Writes over what the step reads or writes besides. In place the output may lie within its input."""
        for number, (low, high, name) in enumerate(written):
            for other_low, other_high, other in (*map(self._span, step.reads), *written[number + 1 :]):
                if low < other_high and other_low < high:
                    within = in_place is not None and name == in_place.output and other in step.reads
                    begin, end, _ = self._span(in_place.input) if within and in_place else (0, 0, "")
                    if not (begin <= max(low, other_low) and min(high, other_high) <= end):
                        yield f"step {step.name} writes {name or 'scratch'} over {other or 'scratch'}"

    def _way(self, step: Step, in_place: InPlace | None) -> Overwrite | None:
        """What the problem allows of what the plan says of a step; its tensors lie as the problem has it."""
        if in_place is None:
            return None
        return next(w for w in step.overwrites if (w.output, w.input) == (in_place.output, in_place.input))

    def _span(self, name: str) -> Span:
        return self.offsets[name], self.offsets[name] + self.sizes[name], name

    def _write(self, name: str) -> None:
        low, high, _ = self._span(name)
        self.arena[low:high] = np.arange(self.tags[name], self.tags[name] + high - low)

    def _is_there(self, name: str) -> bool:
        """Whether a tensor's bytes are those written for it, or for the tensors it shares them with."""
        low, high, _ = self._span(name)
        wanted = np.full(high - low, _NOBODY, dtype=np.int64)
        for other in [name] if name in self.tags else self.below[name]:
            begin, end, _ = self._span(other)
            first, last = max(low, begin), min(high, end)
            if first < last:
                tag = self.tags[other] - begin
                wanted[first - low : last - low] = np.arange(first + tag, last + tag)
        return bool((wanted != _NOBODY).all()) and bool((self.arena[low:high] == wanted).all())


def _sharing(problem: MemoryProblem) -> dict[str, list[str]]:
    """By tensor, all tensors that share memory with it by way of parts, itself among them."""
    beside: dict[str, list[str]] = {tensor.name: [] for tensor in problem.tensors}
    for part in problem.parts:
        beside[part.tensor].append(part.whole)
        beside[part.whole].append(part.tensor)
    found: dict[str, list[str]] = {}
    for name in beside:
        together = found.get(name, [name])
        for member in together:
            if member not in found:
                found[member] = together
                together += [other for other in beside[member] if other not in found]
    return found
