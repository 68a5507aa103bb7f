"""README.md of the folder: how to call the network, and what it needs."""

from __future__ import annotations

from collections.abc import Sequence

from codesign.artifacts.c_folder.arena import Arena
from codesign.artifacts.c_folder.checking import TestVector
from codesign.artifacts.c_folder.measuring import Sizes
from codesign.artifacts.c_folder.sources import Sources
from codesign.lowering.c_source.names import comment_text
from codesign.lowering.c_source.program import CProgram, Place

_TEXT = """# {title}

Plain C99, no memory allocation, no library but {libraries}. {calls}

    #include "model.h"

    {prefix}_run({arguments});

`{prefix}_run_in(arena, ...)` does the same in {upper}_ARENA_BYTES bytes of the caller's (8-byte aligned), so several
may run at a time. Arrays must not overlap. Compile with `-fno-strict-aliasing`: tensors of several types share the
arena. Right shifts of negative integers must be arithmetic, as all compilers for such machines make them.

    make check    # build, run the test vector, compare
    make qemu     # the same on an emulated Cortex-M4, with the instructions it took

Test vector: {origin}

## What it needs

| | bytes |
|---|---|
| arena (RAM) | {arena}{proven} |
| inputs and outputs (the caller's) | {borders} |
| constants in weights.c (flash) | {constants} |

{copies}

{sizes}
"""


def readme(sources: Sources, vector: TestVector, sizes: Sequence[Sizes]) -> str:
    """The text, with figures of the compilers that were there."""
    program = sources.program
    constants = sum(t.size_bytes for t in program.tensors.values() if t.place is Place.CONSTANT)
    uses_math = any(kernel.uses_math for kernel in program.kernels.values())
    steps = f"It makes {len(program.steps)} steps with {len(program.kernels)} kernels."
    return _TEXT.format(
        title=comment_text(sources.title),
        libraries="libc and libm" if uses_math else "libc",
        calls=steps,
        prefix=sources.prefix,
        upper=sources.upper,
        arguments=", ".join(tensor.name for tensor in (*program.inputs, *program.outputs)),
        origin=comment_text(vector.origin),
        arena=sources.arena.size_bytes,
        proven=proven_text(sources.arena),
        borders=program.border_bytes,
        constants=constants,
        copies=copies_text(sources.program),
        sizes=_table(sizes),
    )


def copies_text(program: CProgram) -> str:
    """What concatenations and outputs take besides."""
    joined = f"{len(program.joined)} concatenations have operands written into them straight away"
    return f"{joined}; {program.copied_bytes} bytes are copied in a run."


def proven_text(arena: Arena) -> str:
    """How good the plan of the memory is."""
    if arena.size_bytes <= arena.bound_bytes:
        return ", the least there can be"
    return f", at least {arena.bound_bytes} are needed"


def _table(sizes: Sequence[Sizes]) -> str:
    if not sizes:
        return "No compiler was there to measure code and stack with."
    rows = [f"| {s.machine} | {s.compiler} | {s.text_bytes} | {s.static_bytes} | {s.stack_bytes} |" for s in sizes]
    head = [
        "model.c alone, measured (static includes the arena; stack is that of the run function and its deepest kernel,"
    ]
    head += [
        "functions of libm not counted):",
        "",
        "| machine | compiler | code | static | stack |",
        "|---|---|---|---|---|",
    ]
    return "\n".join([*head, *rows])
