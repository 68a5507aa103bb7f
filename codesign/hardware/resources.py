"""What a machine takes of an FPGA: DSP slices and block RAMs by engine and memory, and whether a board has them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil

from codesign.hardware.board import Board
from codesign.hardware.primitives import (
    PLAIN,
    Implementation,
    block_rams,
    dsp_slices,
    is_lut_multiplier,
    is_lut_ram,
    lut_multiplier_luts,
)
from codesign.hardware.profile import HardwareProfile
from codesign.hardware.sections import Axis, Engine, Memory
from codesign.vocabulary import RELEVANT, Operand

BLOCK_CAPACITY_BITS = 16_384  # of an 18 Kb block, without its parity bits


@dataclass(frozen=True)
class Amounts:
    """So much of every resource. storage_bits: small memories, in LUTs used as memory and in flip-flops."""

    dsp_slices: int = 0
    block_rams: int = 0
    luts: int = 0
    storage_bits: int = 0

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(*(mine + theirs for mine, theirs in zip(self.all, other.all, strict=True)))

    @property
    def all(self) -> tuple[int, int, int, int]:
        """In the order of RESOURCES."""
        return self.dsp_slices, self.block_rams, self.luts, self.storage_bits


RESOURCES = ("DSP slices", "block RAMs of 18 Kb", "LUTs", "bits of LUT RAM and registers")


@dataclass(frozen=True)
class Line:
    """What one engine or memory takes. part: its dotted path in the profile. built_as: in words."""

    part: str
    built_as: str
    amounts: Amounts


@dataclass(frozen=True)
class Estimate:
    """What a machine takes, part by part."""

    lines: tuple[Line, ...]

    @property
    def total(self) -> Amounts:
        """Of all parts together."""
        return sum((line.amounts for line in self.lines), Amounts())


def available(board: Board) -> Amounts:
    """All a board has."""
    storage_bits = board.lut_ram_bits + board.flip_flops
    return Amounts(board.dsp.count, board.block_ram.count, board.luts, storage_bits)


def estimate(profile: HardwareProfile, board: Board, how: Implementation = PLAIN) -> Estimate:
    """Resources of every engine and every on-chip memory.

    Engines: one multiplier a lane, products added inside the DSP slices; lanes and cells of several engines count once.
    Memories: one read and one write port as wide as the wider of the two ports; see `block_rams` and `is_lut_ram`. A
    memory without ports is registers if it is small, else counted by its bits. Not counted, for want of a published
    formula: adders outside the slices, control, address generation, the vector unit, the host, the interface to the
    off-chip memory.
    """
    built = [name for name, engine in profile.engines.items() if engine.same_lanes_as is None]
    engines = (_engine_line(name, profile, board, how) for name in built)
    cells = ((name, memory) for name, memory in _on_chip(profile) if memory.same_cells_as is None)
    memories = (_memory_line(name, memory, profile, board) for name, memory in cells)
    return Estimate((*engines, *memories))


def _on_chip(profile: HardwareProfile) -> Iterator[tuple[str, Memory]]:
    yield from list(profile.memories.items())[:-1]


def _engine_line(name: str, profile: HardwareProfile, board: Board, how: Implementation) -> Line:
    engine = profile.engines[name]
    widest = engine.operand_bits or 64
    bits = (min(profile.precision.weights_bits, widest), min(profile.precision.activations_bits, widest))
    multipliers = f"{engine.peak_macs_per_cycle:,} multipliers of {bits[0]} x {bits[1]} bits"
    if is_lut_multiplier(board.lut_inputs, bits, how):
        luts = engine.peak_macs_per_cycle * lut_multiplier_luts(*bits)
        return Line(f"engines.{name}", f"{multipliers}, in LUTs", Amounts(luts=luts))
    slices = min(
        dsp_slices(board.dsp, bits, alike, engine.peak_macs_per_cycle // alike, how) for alike in _lanes_alike(engine)
    )
    return Line(f"engines.{name}", multipliers, Amounts(dsp_slices=slices))


def _lanes_alike(engine: Engine) -> Iterator[int]:
    """Sizes of the axes whose lanes share an operand; 1 stands for none."""
    yield 1
    yield from (axis.size for axis in engine.axes.values() if not axis.in_turn and _shares_an_operand(axis))


def _shares_an_operand(axis: Axis) -> bool:
    """Whether all lanes along an axis have the weight or the input in common, whatever the mapper spreads over it."""
    return any(
        all(dimension not in RELEVANT[operand] for dimension in axis.unrolls)
        for operand in (Operand.WEIGHTS, Operand.INPUTS)
    )


def _memory_line(name: str, memory: Memory, profile: HardwareProfile, board: Board) -> Line:
    part = f"memories.{name}"
    size_bits = 8 * (memory.size_bytes or 0)
    copies = (profile.total_bytes(name) or 0) // (memory.size_bytes or 1)
    sizes = f"{copies:,} x {memory.size_bytes:,} bytes"
    ports = memory.ports
    widths = [port.bytes_per_cycle for port in (ports.read, ports.write, ports.read_write) if port is not None]
    if not widths:
        if size_bits < board.block_ram.least_bits:
            return Line(part, f"{sizes}, registers", Amounts(storage_bits=copies * size_bits))
        blocks = copies * ceil(size_bits / BLOCK_CAPACITY_BITS)
        return Line(part, f"{sizes}, no port given: by size", Amounts(block_rams=blocks))
    width_bits = 8 * ceil(max(widths))
    words = ceil(size_bits / width_bits)
    shape = f"{sizes}, {words:,} words of {width_bits:,} bits"
    if is_lut_ram(board.block_ram, width_bits, words):
        return Line(part, f"{shape}, in LUTs", Amounts(storage_bits=copies * size_bits))
    blocks = copies * block_rams(board.block_ram, width_bits, words, whole_bytes=True)
    return Line(part, shape, Amounts(block_rams=blocks))
