"""Runs the C of a build on an emulated Cortex-M4: instructions (never called cycles), stack, and whether it agrees.

QEMU counts nothing itself: under `-icount shift=0` an instruction takes a nanosecond of virtual time, and the board
has a timer that ticks every 40 of them. `calibrated` holds that against loops of known length.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

TOOLS = ("make", "arm-none-eabi-gcc", "qemu-system-arm")
INSTRUCTIONS_PER_TICK = 40
_LONGEST_SECONDS = 1800
_LOOP = """#include <stdint.h>
#include <stdio.h>
#include "probe.h"

/* {turns} turns of two instructions. */
int main(void)
{{
    uint32_t left = {turns}U;

    PROBE_BEGIN();
    __asm__ volatile("1: subs %0, %0, #1\\n bne 1b" : "+r"(left) : : "cc");
    PROBE_END();
    return 0;
}}
"""


@dataclass(frozen=True)
class Emulated:
    """One run of the test vector. instructions: exact to 40. stack_bytes: the most the network used, libm included."""

    instructions: int
    stack_bytes: int
    ok: bool
    output: str


def missing_tools() -> list[str]:
    """What would have to be installed."""
    return [tool for tool in TOOLS if shutil.which(tool) is None]


def emulate(build: Path) -> Emulated:
    """Build c/ of a build folder (or that folder itself) for a Cortex-M4 and run it. Files are added to the folder.

    Raises RuntimeError with the compiler's or QEMU's words when it cannot be built or does not end.
    """
    folder = build / "c" if (build / "c").is_dir() else build
    _make(folder, "cortex_m4.elf")
    return _run(folder)


def calibrated(folder: Path, board: Path, turns: int) -> int:
    """Instructions the probe reports for a loop of `turns` turns of two. board: a folder mps2_an386."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "main.c").write_text(_LOOP.format(turns=turns), encoding="utf-8")
    command = ["arm-none-eabi-gcc", "-O2", "-mcpu=cortex-m4", "-mthumb", f"-I{board}", "-nostartfiles"]
    command += ["--specs=nano.specs", "--specs=nosys.specs", "-T", str(board / "board.ld")]
    command += ["-Wl,--no-warn-rwx-segments", "main.c", str(board / "start.c"), "-o", "cortex_m4.elf"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return _run(folder).instructions


def _make(folder: Path, target: str) -> None:
    done = subprocess.run(["make", target], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{folder.name}: {done.stderr}")


def _run(folder: Path) -> Emulated:
    command = ["qemu-system-arm", "-M", "mps2-an386", "-nographic", "-monitor", "none"]
    command += ["-semihosting-config", "enable=on,target=native", "-icount", "shift=0", "-kernel", "cortex_m4.elf"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=_LONGEST_SECONDS)
    text = done.stdout + done.stderr
    ticks = re.search(r"^ticks: (\d+)$", text, re.MULTILINE)
    stack = re.search(r"^stack bytes: (\d+)$", text, re.MULTILINE)
    if ticks is None or stack is None:
        raise RuntimeError(f"{folder.name}: the emulated board did not report: {text}")
    return Emulated(int(ticks[1]) * INSTRUCTIONS_PER_TICK, int(stack[1]), done.returncode == 0, text)
