"""What one memory or one row of multipliers takes of an FPGA: block RAMs, LUTs, DSP slices."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from codesign.hardware.board import BlockRam, Dsp

LUT_RAM_WORDS = 128  # up to so many words a memory goes into LUTs, as Xilinx/finn does (bram_estimation of its MVAU)
LUT_MULTIPLIER_BITS = 4  # up to so many bits multipliers go into LUTs (finn-examples mobilenet-v1: 4 bits lut, 8 dsp)


@dataclass(frozen=True)
class Implementation:
    """How multipliers are put into DSP slices.

    packed: several narrow products in one slice, as the board's `packings` allow (AMD WP486). double_pumped: slices run
    at twice the clock and do two products a cycle (AMD PG338 calls it DSP double data rate). Plain synthesis does
    neither.
    """

    packed: bool = False
    double_pumped: bool = False


PLAIN = Implementation()


def block_rams(ram: BlockRam, width_bits: int, words: int, *, whole_bytes: bool = False) -> int:
    """Block RAMs of a memory with one read and one write port: the least number over the shapes of a block.

    width_bits: of a word read or written in one cycle. whole_bytes: every byte stays in one block and parity bits idle
    (9 bits hold 8), as for buffers written byte by byte; otherwise parity bits hold data too.
    """
    return min(
        ceil(width_bits / (bits - bits // 9 if whole_bytes else bits)) * ceil(words / depth)
        for depth, bits in ram.shapes
    )


def is_lut_ram(ram: BlockRam, width_bits: int, words: int) -> bool:
    """Whether a memory goes into LUTs and registers: at most 128 words, or fewer bits than synthesis gives a block."""
    return words <= LUT_RAM_WORDS or width_bits * words < ram.least_bits


def is_lut_multiplier(lut_inputs: int, bits: tuple[int, int], how: Implementation) -> bool:
    """Whether a multiplier goes into LUTs: both operands narrow, 6-input LUTs, and no packing into DSP slices asked."""
    return max(bits) <= LUT_MULTIPLIER_BITS and lut_inputs == 6 and not how.packed


def lut_multiplier_luts(weights_bits: int, activations_bits: int) -> int:
    """6-input LUTs of one multiplier: (2 ceil((W + A) / 6) - 1) (W + A), FINN-R (Blott et al., TRETS 11(3) 2018)."""
    bits = weights_bits + activations_bits
    return (2 * ceil(bits / 6) - 1) * bits


def slices_per_product(dsp: Dsp, bits: tuple[int, int]) -> int:
    """DSP slices of one wide product, cut into pieces: all but the top piece of a signed operand are unsigned, so each
    takes one bit less than the slice's operand has. The better of the two ways round."""
    return min(
        ceil(max(1, first - 1) / (dsp.multiplier_bits[0] - 1)) * ceil(max(1, second - 1) / (dsp.multiplier_bits[1] - 1))
        for first, second in (bits, bits[::-1])
    )


def dsp_slices(dsp: Dsp, bits: tuple[int, int], alike: int, rest: int, how: Implementation) -> int:
    """DSP slices of alike x rest multipliers, of which `alike` at a time share one operand (1: none do).

    bits: widths of the two operands. Multipliers are packed where `how` says so and the board can, then double-pumped.
    """
    count = alike * rest * slices_per_product(dsp, bits)
    if how.packed:
        for packing in dsp.packings:
            if max(bits) <= packing.operand_bits:
                packed = (
                    ceil(alike / packing.products) * rest
                    if packing.shared_operand
                    else ceil(alike * rest / packing.products)
                )
                count = min(count, packed)
    return ceil(count / 2) if how.double_pumped else count
