"""Where every activation lies in the arena, and in which order the steps run, as the memory planner has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from codesign.lowering.c_source.program import Call, CProgram, CTensor, Place
from codesign.lowering.c_source.program import Copy as CopyStep
from codesign.planning.memory.memory_plan import MemoryPlan
from codesign.planning.memory.planning import plan_memory
from codesign.planning.memory.problem import MemoryProblem, Overwrite, Step, Tensor

ALIGNMENT_BYTES = 8  # of the widest type there is


@dataclass(frozen=True)
class Arena:
    """offsets: of tensors, by name. scratch: of the steps that need some, by number. All in bytes.

    plan: the same with steps called like the first tensor they write.
    """

    offsets: dict[str, int]
    scratch: dict[int, int]
    plan: MemoryPlan

    @property
    def size_bytes(self) -> int:
        """Of all of it."""
        return self.plan.arena_bytes

    @property
    def bound_bytes(self) -> int:
        """No order of the steps and no placement needs less."""
        return self.plan.bound_bytes


def planned(program: CProgram) -> tuple[CProgram, Arena]:
    """The program with its steps in the order that needs least memory, and a place for everything."""
    best = _planned(program)
    if program.apart is None or not program.joined:
        return best
    # Written straight into a concatenation, all of it is in memory early on: now and then, copying needs less.
    copied = program.joined
    if _planned(program.apart(copied))[1].size_bytes >= best[1].size_bytes:
        return best
    chosen: frozenset[str] = frozenset()
    for whole in sorted(copied):
        other = _planned(program.apart(chosen | {whole}))
        if other[1].size_bytes < best[1].size_bytes:
            best, chosen = other, chosen | {whole}
    return best


def _planned(program: CProgram) -> tuple[CProgram, Arena]:
    names = {program.touched(step)[1][0]: step for step in program.steps}
    plan = plan_memory(_problem(program, names))
    ordered = replace(program, steps=tuple(names[name] for name in plan.order))
    return ordered, _arena(plan)


def _arena(plan: MemoryPlan) -> Arena:
    scratch = plan.scratch_offsets
    by_number = {number: scratch[name] for number, name in enumerate(plan.order) if name in scratch}
    return Arena(dict(plan.offsets), by_number, plan)


def _problem(program: CProgram, names: dict[str, Call | CopyStep]) -> MemoryProblem:
    """Inputs, outputs and constants lie elsewhere; what remains is the arena's."""
    inner = {name: t for name, t in program.tensors.items() if t.place is Place.ARENA and t.part is None}
    tensors = tuple(Tensor(name, tensor.size_bytes, ALIGNMENT_BYTES) for name, tensor in inner.items())
    writers: dict[str, list[str]] = {}  # by tensor that has memory of its own, the steps that wrote some of it
    steps = []
    for name, step in names.items():
        steps.append(_step(program, name, step, inner, writers))
        for made in program.touched(step)[1]:
            writers.setdefault(program.root(made), []).append(name)
    return MemoryProblem(tensors, tuple(steps))


def _step(
    program: CProgram,
    name: str,
    step: Call | CopyStep,
    inner: Mapping[str, CTensor],
    writers: Mapping[str, Sequence[str]],
) -> Step:
    """writers: before this step. The first to write a part makes all of it; the others find it there, and read it."""
    reads, writes = program.touched(step)
    overwrites = tuple(
        Overwrite(output, source, lead_bytes=-(-lead // ALIGNMENT_BYTES) * ALIGNMENT_BYTES)
        for source, output, lead in program.overwrites(step)
        if source in inner and output in inner and reads.count(source) == 1
    )
    made = dict.fromkeys(map(program.root, writes))
    read = dict.fromkeys([*map(program.root, reads), *(root for root in made if root in writers)])
    after = dict.fromkeys(
        writer for root in read for writer in writers.get(root, ())[: None if root not in made else 1]
    )
    return Step(
        name,
        tuple(root for root in read if root in inner),
        tuple(root for root in made if root in inner and root not in writers),
        program.scratch_bytes(step),
        overwrites,
        tuple(after),
    )
