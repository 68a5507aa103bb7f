"""Sizes of model.c as compilers make it: code, constants, memory, stack. Only what was measured is told."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

_OPTIONS = ("-std=c99", "-O2", "-fno-strict-aliasing", "-fstack-usage", "-c", "model.c", "-o")
COMPILERS = {
    "this machine": ("gcc", "size", ()),
    "Cortex-M4": ("arm-none-eabi-gcc", "arm-none-eabi-size", ("-mcpu=cortex-m4", "-mthumb")),
}
_LONGEST_SECONDS = 300


@dataclass(frozen=True)
class Sizes:
    """model.c on one machine. text_bytes: code and its own constants. static_bytes: the arena and other variables.
    stack_bytes: frames of the run functions and of the kernel with the largest; functions of libm not counted."""

    machine: str
    compiler: str
    text_bytes: int
    static_bytes: int
    stack_bytes: int


def measured(folder: Path, prefix: str) -> list[Sizes]:
    """Sizes with every compiler there is."""
    found = []
    for machine, (compiler, size, options) in COMPILERS.items():
        if shutil.which(compiler) and shutil.which(size):
            found.append(_sizes(folder, prefix, machine, (compiler, size), options))
    return found


def _sizes(folder: Path, prefix: str, machine: str, tools: tuple[str, str], options: tuple[str, ...]) -> Sizes:
    with tempfile.TemporaryDirectory(prefix="codesign-") as name:
        built = Path(name) / "model.o"
        _run(folder, [tools[0], *options, *_OPTIONS, str(built)])
        text, data, zeros = map(int, _run(folder, [tools[1], str(built)]).splitlines()[1].split()[:3])
        stack = _stack(built.with_suffix(".su").read_text(encoding="utf-8"), prefix)
    version = _run(folder, [tools[0], "-dumpfullversion"]).strip()
    return Sizes(machine, f"{tools[0]} {version} -O2", text + data, data + zeros, stack)


def _stack(usage: str, prefix: str) -> int:
    """Frames of the run functions, and of the deepest function they call."""
    frames = {}
    for line in usage.splitlines():
        place, size, _ = line.split("\t")
        frames[place.rpartition(":")[2]] = int(size)
    outer = sum(frames.pop(f"{prefix}_{name}", 0) for name in ("run", "run_in"))
    return outer + max(frames.values(), default=0)


def _run(folder: Path, command: list[str]) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=_LONGEST_SECONDS)
    if done.returncode != 0:
        raise RuntimeError(f"internal error: {command[0]} refuses the C written for the network: {done.stderr[:2000]}")
    return done.stdout
