"""The profile of the machine at hand: the shipped host_cpu.yaml with the figures that could be read or measured.

What cannot be known from here (energies, what caches deliver) stays as assumed as it is there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from codesign.hardware.loading import shipped_folder

SHIPPED = "host_cpu.yaml"
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_SPARE_REGISTERS = 4  # of the shipped file: 28 of 32 hold sums


@dataclass(frozen=True)
class CacheSizes:
    """Of one core, in bytes."""

    first_bytes: int
    second_bytes: int
    line_bytes: int


@dataclass(frozen=True)
class ProcessorFacts:
    """What is known of a processor. cpu: LLVM's name of it. gflops: measured on one core with vector multiply-adds.
    caches: None where the system does not tell."""

    cpu: str
    vector_bits: int
    vector_registers: int
    gflops: float
    caches: CacheSizes | None

    @property
    def core_mhz(self) -> float:
        """The clock at which two vector multiply-adds a cycle make the measured rate."""
        return 1e3 * self.gflops / (4 * self.vector_bits // 32)

    @property
    def block(self) -> int:
        """Vectors of sums."""
        return self.vector_registers - _SPARE_REGISTERS


def read_caches(folder: Path = _CACHES) -> CacheSizes | None:
    """Data caches as Linux lists them; None where it lists none."""
    sizes: dict[int, int] = {}
    line_bytes = 0
    for entry in sorted(folder.glob("index*")):
        if (entry / "type").read_text().strip() in ("Data", "Unified"):
            level = int((entry / "level").read_text())
            sizes[level] = _bytes((entry / "size").read_text().strip())
            line_bytes = int((entry / "coherency_line_size").read_text())
    return CacheSizes(sizes[1], sizes[2], line_bytes) if {1, 2} <= sizes.keys() else None


def profile_text(facts: ProcessorFacts, name: str) -> str:
    """The shipped profile as YAML with the figures of another processor."""
    text = (shipped_folder() / SHIPPED).read_text(encoding="utf-8")
    table = dict(replacements(facts, name))
    missing = [old for old in table if old not in text]
    if missing:
        raise RuntimeError(f"internal error: {SHIPPED} has no {missing[0]!r}")
    # In one go: what was put in for one thing may be what stands for another.
    return re.sub("|".join(map(re.escape, table)), lambda match: table[match.group()], text)


def replacements(facts: ProcessorFacts, name: str) -> list[tuple[str, str]]:
    """What stands in the shipped file, and what stands there for this processor."""
    lanes, block, vector_bytes = facts.vector_bits // 32, facts.block, facts.vector_bits // 8
    cycles = block / 2  # of the core, in a step of the block
    here = "this machine"
    found = [
        ("name: host_cpu\n", f"name: {name}\n"),
        (_line("description: "), f"description: one core of {here} ({facts.cpu}), written by codesign hw detect\n"),
        ("clock_mhz: 198\n", f"clock_mhz: {facts.core_mhz / cycles:.3g}\n"),
        (_line("# A cycle is one step"), f"# A cycle is one step of {block} vector multiply-adds, two a core cycle.\n"),
        ("{size: 16, ", f"{{size: {lanes}, "),
        ("{size: 28, ", f"{{size: {block}, "),
        ("  lanes: 16\n", f"  lanes: {lanes}\n"),
        ("bytes_per_cycle: 896}", f"bytes_per_cycle: {cycles * vector_bytes:g}}}"),
        ("bytes_per_cycle: 56}", f"bytes_per_cycle: {cycles * 4:g}}}"),
        ("bytes_per_cycle: 1792}", f"bytes_per_cycle: {2 * cycles * vector_bytes:g}}}"),
        ("bytes_per_cycle: 672}", f"bytes_per_cycle: {cycles * vector_bytes * 3 / 4:g}}}"),
        ("bytes_per_cycle: 448}", f"bytes_per_cycle: {cycles * vector_bytes / 2:g}}}"),
        ("bytes_per_cycle: 112}", f"bytes_per_cycle: {cycles * 8:g}}}"),
        ("vector_bits: 512\n", f"vector_bits: {facts.vector_bits}\n"),
        ("vector_registers: 32\n", f"vector_registers: {facts.vector_registers}\n"),
        (
            _between("    177.4 GFLOP/s", "over 14\n"),
            f"    {facts.gflops:.1f} GFLOP/s measured on one core with vector multiply-adds: {4 * lanes} a core cycle"
            f" at {facts.core_mhz:.0f} MHz, over {cycles:g}\n",
        ),
        (_between("    avx512f among", "core)\n"), f"    features LLVM reports of {here}, {facts.cpu}\n"),
        ("    32 with AVX-512: ", f"    {facts.vector_registers} with vectors of {facts.vector_bits} bits: "),
        ("    28 of 32 vector registers", f"    {block} of {facts.vector_registers} vector registers"),
    ]
    if facts.caches is not None:
        kib = facts.caches.first_bytes // 1024
        found += [
            ("size_bytes: 24_576\n", f"size_bytes: {facts.caches.first_bytes // 2}\n"),
            ("size_bytes: 2_097_152\n", f"size_bytes: {facts.caches.second_bytes}\n"),
            ("cache_line_bytes: 64\n", f"cache_line_bytes: {facts.caches.line_bytes}\n"),
            ("half of 48 KiB", f"half of {kib} KiB"),
            ("the machine this file was made on", here),
        ]
    return found


def _bytes(text: str) -> int:
    factors = {"K": 1024, "M": 1024**2, "G": 1024**3}
    return int(text[:-1]) * factors[text[-1]] if text[-1] in factors else int(text)


def _line(start: str) -> str:
    """The whole line of the shipped file that begins so."""
    return _between(start, "\n")


def _between(start: str, end: str) -> str:
    text = (shipped_folder() / SHIPPED).read_text(encoding="utf-8")
    at = text.index(start)
    return text[at : text.index(end, at) + len(end)]
