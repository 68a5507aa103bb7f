"""Where every activation lies in the arena, and in which order the steps run, as the memory planner has it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from codesign.lowering.c_source.program import Call, CProgram, Place
from codesign.lowering.c_source.program import Copy as CopyStep
from codesign.planning.memory.memory_plan import MemoryPlan
from codesign.planning.memory.planning import Effort, plan_memory
from codesign.planning.memory.problem import MemoryProblem, Overwrite, Step, Tensor

ALIGNMENT_BYTES = 8  # of the widest type there is


@dataclass(frozen=True)
class Arena:
    """offsets: of tensors, by name. scratch: of the steps that need some, by number. All in bytes.

    bound_bytes: no order of the steps and no placement needs less.
    """

    size_bytes: int
    offsets: dict[str, int]
    scratch: dict[int, int]
    bound_bytes: int


def planned(program: CProgram) -> tuple[CProgram, Arena]:
    """The program with its steps in the order that needs least memory, and a place for everything."""
    names = {_name(number): step for number, step in enumerate(program.steps)}
    # Outputs lie outside the arena, so the planner would not know that a step waits for one.
    outputs = {tensor.name for tensor in program.outputs}
    waits = any(outputs.intersection(program.touched(step)[0]) for step in program.steps)
    plan = plan_memory(_problem(program, names), Effort(reorder=not waits))
    ordered = replace(program, steps=tuple(names[name] for name in plan.order))
    return ordered, _arena(plan)


def _arena(plan: MemoryPlan) -> Arena:
    scratch = plan.scratch_offsets
    by_number = {number: scratch[name] for number, name in enumerate(plan.order) if name in scratch}
    return Arena(plan.arena_bytes, dict(plan.offsets), by_number, plan.bound_bytes)


def _name(number: int) -> str:
    return f"step_{number}"


def _problem(program: CProgram, names: dict[str, Call | CopyStep]) -> MemoryProblem:
    """Inputs, outputs and constants lie elsewhere; what remains is the arena's."""
    inner = {name for name, tensor in program.tensors.items() if tensor.place is Place.ARENA}
    tensors = tuple(
        Tensor(name, tensor.size_bytes, ALIGNMENT_BYTES) for name, tensor in program.tensors.items() if name in inner
    )
    return MemoryProblem(tensors, tuple(_step(program, name, step, inner) for name, step in names.items()))


def _step(program: CProgram, name: str, step: Call | CopyStep, inner: set[str]) -> Step:
    reads, writes = program.touched(step)
    overwrites = tuple(
        Overwrite(output, source, lead_bytes=-(-lead // ALIGNMENT_BYTES) * ALIGNMENT_BYTES)
        for source, output, lead in program.overwrites(step)
        if source in inner and output in inner and reads.count(source) == 1
    )
    kept = [tuple(dict.fromkeys(name for name in names if name in inner)) for names in (reads, writes)]
    return Step(name, kept[0], kept[1], program.scratch_bytes(step), overwrites)
