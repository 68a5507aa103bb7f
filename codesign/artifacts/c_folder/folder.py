"""Writes the folder: sources, test vector, Makefile, README."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from codesign.artifacts.c_folder.arena import planned
from codesign.artifacts.c_folder.checking import TestVector, main_source, vector_header, vector_source
from codesign.artifacts.c_folder.makefile import makefile
from codesign.artifacts.c_folder.measuring import measured
from codesign.artifacts.c_folder.prefix import DEFAULT_PREFIX, check_prefix
from codesign.artifacts.c_folder.readme import readme
from codesign.artifacts.c_folder.sources import Sources
from codesign.lowering.c_source.helpers import MICROKERNEL_FILE, microkernels
from codesign.lowering.c_source.program import CProgram
from codesign.planning.memory.memory_plan import MemoryPlan

BOARD = "mps2_an386"
_BOARD_FILES = ("start.c", "probe.h", "board.ld")


def write_c_folder(
    program: CProgram,
    vector: TestVector,
    folder: Path,
    title: str,
    prefix: str = DEFAULT_PREFIX,
    notes: Mapping[str, str] | None = None,
) -> MemoryPlan:
    """Write the program into a new folder. title: what it is made of, one line. notes: on inputs and outputs, by name.

    Returns where its activations lie; inputs and outputs are the caller's. Raises CodesignError for a prefix C does not
    take.
    """
    sources = write_sources(program, vector, folder, title, prefix, notes)
    (folder / "README.md").write_text(readme(sources, vector, measured(folder, prefix)), encoding="utf-8")
    return sources.arena.plan


def write_sources(
    program: CProgram, vector: TestVector, folder: Path, title: str, prefix: str, notes: Mapping[str, str] | None = None
) -> Sources:
    """Everything but the README, whose figures need a compiler."""
    check_prefix(prefix)
    ordered, arena = planned(program)
    sources = Sources(ordered, arena, prefix, title, notes or {})
    texts = {
        "model.h": sources.header(),
        "model.c": sources.source(),
        "weights.h": sources.weights_header(),
        "weights.c": sources.weights(),
        "test_vector.h": vector_header(sources),
        "test_vector.c": vector_source(sources, vector),
        "main.c": main_source(sources, vector),
        "Makefile": makefile(prefix, floating_point=is_floating(program)),
    }
    texts |= {MICROKERNEL_FILE: microkernels()} if sources.has_microkernels else {}
    texts |= {f"{BOARD}/{name}": (files(__package__) / BOARD / name).read_text("utf-8") for name in _BOARD_FILES}
    (folder / BOARD).mkdir(parents=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return sources


def is_floating(program: CProgram) -> bool:
    """Whether any tensor of a program is of floating point."""
    return any(tensor.dtype.startswith("float") for tensor in program.tensors.values())
