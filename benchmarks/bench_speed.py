"""How long the command takes, against its limits: `make bench MODELS=folder` (with mobilenetv2_1.0.onnx inside).

Prints the start-up of the command, the CPU seconds of an estimate and what it imports, and the wall seconds of a
compile. Exit code 1 when a limit is missed.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIGITS = ROOT / "examples" / "digits" / "digits.onnx"
MOBILENET = "mobilenetv2_1.0.onnx"
HEAVY = frozenset({"tvm", "tvm_ffi", "torch"})

HELP_SECONDS = 0.3
ESTIMATE_CPU_SECONDS = 3.0
COMPILE_SECONDS = 25.0


@dataclass(frozen=True)
class Run:
    """One run of the command: wall and CPU seconds, and, when traced, the top-level modules it imported."""

    wall_seconds: float
    cpu_seconds: float
    imported: frozenset[str]


def run(*arguments: str, traced: bool = False) -> Run:
    """Runs `codesign ARGUMENTS` in a fresh Python. Raises CalledProcessError when it fails."""
    command = [sys.executable, *(["-X", "importtime"] if traced else []), "-m", "codesign", *arguments]
    with tempfile.TemporaryFile("w+") as listing:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=listing, cwd=ROOT)
        _, status, usage = os.wait4(process.pid, 0)
        wall_seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        listing.seek(0)
        lines = listing.read().splitlines()
    if process.returncode:
        sys.stderr.write("\n".join(line for line in lines if not line.startswith("import time:")) + "\n")
        raise subprocess.CalledProcessError(process.returncode, command)
    imported = frozenset(
        line.rsplit("|", 1)[-1].strip().split(".")[0] for line in lines if line.startswith("import time:")
    )
    return Run(wall_seconds, usage.ru_utime + usage.ru_stime, imported)


def verdict(name: str, seconds: float, limit: float) -> bool:
    """Prints one line; True when the limit is kept."""
    kept = seconds <= limit
    print(f"{name:<58} {seconds:6.2f} s  (limit {limit:g} s){'' if kept else '  MISSED'}", flush=True)
    return kept


def bench_help() -> bool:
    seconds = statistics.median(run("--help").wall_seconds for _ in range(5))
    return verdict("codesign --help, wall, median of five", seconds, HELP_SECONDS)


def bench_estimate(model: Path) -> bool:
    done = run("estimate", str(model), "--hw", "edge_npu", "--json", traced=True)
    heavy = sorted(done.imported & HEAVY)
    print(f"estimate {model.name} imports {', '.join(heavy) or 'neither tvm nor torch'}")
    kept = verdict(f"codesign estimate {model.name} --hw edge_npu, CPU", done.cpu_seconds, ESTIMATE_CPU_SECONDS)
    return kept and not heavy


def bench_compile(model: Path) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        done = run("compile", str(model), "--hw", "edge_npu", "-o", str(Path(folder) / "build"))
    return verdict(f"codesign compile {model.name} --hw edge_npu, wall", done.wall_seconds, COMPILE_SECONDS)


def main() -> int:
    models = [DIGITS]
    if len(sys.argv) > 1:
        models.append(Path(sys.argv[1]) / MOBILENET)
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    kept = [bench_help()]
    for model in models:
        kept += [bench_estimate(model), bench_compile(model)]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
