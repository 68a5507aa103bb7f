"""One layer as a stage of a streaming pipeline: its foldings, and the cycles and resources of each.

Umuroglu et al., FINN (FPGA 2017) and Blott et al., FINN-R (TRETS 11(3), 2018): every layer has an engine of its own, a
matrix-vector unit of PE processing elements with SIMD lanes each. All weights stay on the chip.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, log2

from codesign.hardware.board import Board
from codesign.hardware.primitives import (
    Implementation,
    block_rams,
    dsp_slices,
    is_lut_multiplier,
    is_lut_ram,
    lut_multiplier_luts,
)
from codesign.hardware.resources import Amounts
from codesign.vocabulary import OperationKind
from codesign.workload.layer import Layer

UNIT_LUTS = 300  # c0 of FINN-R: control of a unit
LUT_FACTOR = 1.1  # c1 of FINN-R
WEIGHT_WORDS_PER_LUT = 64
WINDOW_WORDS_PER_LUT = 38  # Xilinx/finn rtl/convolutioninputgenerator_rtl.py


@dataclass(frozen=True)
class Target:
    """What a pipeline is built on and how. bits: of every weight and every activation. how: see Implementation."""

    board: Board
    bits: int
    how: Implementation


@dataclass(frozen=True)
class Folding:
    """pe: outputs computed at a time. simd: inputs of each multiplied at a time; it divides the input channels."""

    pe: int
    simd: int


@dataclass(frozen=True)
class Stage:
    """A layer with weights as a matrix of `rows` outputs by `channels` x `window` inputs, for `vectors` positions.

    A depthwise layer has one channel a row: its lanes are spread over rows alone.
    """

    layer: Layer
    rows: int
    channels: int
    window: int
    vectors: int

    @classmethod
    def of(cls, layer: Layer) -> Stage:
        """The matrix of a convolution (group 1 or depthwise) or dense layer of batch 1."""
        _, groups, outputs, channels, height, width, kernel_rows, kernel_columns = layer.nest.sizes
        return cls(layer, groups * outputs, channels, kernel_rows * kernel_columns, height * width)

    @property
    def is_depthwise(self) -> bool:
        """Whether every output channel reads one input channel of its own."""
        return self.layer.nest.kind is OperationKind.DEPTHWISE_CONVOLUTION

    @property
    def weights(self) -> int:
        """Elements of the matrix."""
        return self.rows * self.channels * self.window

    def foldings(self) -> Iterator[Folding]:
        """Every PE that divides the output channels with every SIMD that divides the input channels."""
        for pe in _divisors(self.rows):
            for simd in _divisors(self.channels):
                yield Folding(pe, simd)

    def cycles(self, folding: Folding) -> int:
        """Cycles of one image: of the matrix-vector unit, or of its window generator if that is slower."""
        return max(self.unit_cycles(folding), self._window_cycles(folding))

    def unit_cycles(self, folding: Folding) -> int:
        """Cycles of one image in the matrix-vector unit."""
        return self.vectors * self.weights // (folding.pe * folding.simd)

    def amounts(self, folding: Folding, target: Target) -> Amounts:
        """Resources of both units and the weights. LUTs only on boards of 6-input LUTs, which FINN-R was fitted to."""
        width_bits, words = self.weight_memory(folding, target.bits)
        amounts = self._arithmetic(folding, target) + _memory(width_bits, words, WEIGHT_WORDS_PER_LUT, target)
        if self.window == 1:
            return amounts
        control = Amounts(luts=UNIT_LUTS if target.board.lut_inputs == 6 else 0)
        width_bits, words = self._window_memory(folding, target.bits)
        return amounts + control + _memory(width_bits, words, WINDOW_WORDS_PER_LUT, target)

    def weight_memory(self, folding: Folding, bits: int) -> tuple[int, int]:
        """(bits of a word, words) of the weights: one word holds what all lanes take in a cycle."""
        lanes = folding.pe * folding.simd
        return lanes * bits, self.weights // lanes

    def _arithmetic(self, folding: Folding, target: Target) -> Amounts:
        """Multipliers, adder trees and accumulators: LUTs by FINN-R, DSP slices by `dsp_slices`."""
        bits = (target.bits, target.bits)
        in_luts = is_lut_multiplier(target.board.lut_inputs, bits, target.how)
        alike, rest = (1, folding.pe) if self.is_depthwise else (folding.pe, folding.simd)
        slices = 0 if in_luts else dsp_slices(target.board.dsp, bits, alike, rest, target.how)
        if target.board.lut_inputs != 6:
            return Amounts(dsp_slices=slices)
        return Amounts(dsp_slices=slices, luts=unit_luts(self.channels * self.window, folding, *bits, in_luts))

    def _spread(self, folding: Folding) -> tuple[int, int]:
        """(channels the window generator moves at a time, words it takes for all channels of a pixel)."""
        at_a_time = folding.pe if self.is_depthwise else folding.simd
        return at_a_time, (self.rows if self.is_depthwise else self.channels) // at_a_time

    def _window_memory(self, folding: Folding, bits: int) -> tuple[int, int]:
        """(bits of a word, words) the window generator keeps: the rows a window spans, more if a stride skips rows."""
        at_a_time, words = self._spread(folding)
        stride = self.layer.nest.stride
        skipped = max(0, stride[1] - 1 - self.window) + max(0, (stride[0] - 1) * self._row_pixels - self.window)
        return at_a_time * bits, (self._span_pixels + skipped) * words

    def _window_cycles(self, folding: Folding) -> int:
        """Of one image: filling, then every output row's windows or its input rows, whichever takes longer."""
        if self.window == 1:
            return 0
        *_, height, width, _, _ = self.layer.nest.sizes
        _, words = self._spread(folding)
        return words * (
            self._span_pixels + height * max(width * self.window, self.layer.nest.stride[1] * self._row_pixels)
        )

    @property
    def _row_pixels(self) -> int:
        """Of a padded input row."""
        nest = self.layer.nest
        return nest.input_columns + nest.pads[1] + nest.pads[3]

    @property
    def _span_pixels(self) -> int:
        """From the first pixel of a window to its last, in the order they arrive."""
        nest = self.layer.nest
        reach = [(size - 1) * step for size, step in zip(nest.sizes[6:], nest.dilation, strict=True)]
        return reach[0] * self._row_pixels + reach[1] + 1


def unit_luts(inputs: int, folding: Folding, weights_bits: int, activations_bits: int, multipliers: bool) -> int:
    """6-input LUTs of a matrix-vector unit without its memory: c0 + c1 PE (multipliers + adder tree + accumulator).

    FINN-R, as Xilinx/finn hls/matrixvectoractivation_hls.py has it. inputs: summed up for one output. multipliers:
    whether they are built of LUTs. Thresholds are not counted.
    """
    bits = weights_bits + activations_bits
    products = folding.simd * lut_multiplier_luts(weights_bits, activations_bits) if multipliers else 0
    lane = products + bits * (2 * folding.simd - 1) + accumulator_bits(inputs, weights_bits, activations_bits)
    return int(UNIT_LUTS + LUT_FACTOR * folding.pe * lane)


def accumulator_bits(inputs: int, weights_bits: int, activations_bits: int) -> int:
    """Bits that hold every sum of signed weights by unsigned activations: the data type bound of arXiv:2301.13376."""
    alpha = log2(inputs) + weights_bits + activations_bits - 1
    return ceil(alpha + log2(1 + 2**-alpha) + 1)


def _memory(width_bits: int, words: int, words_per_lut: int, target: Target) -> Amounts:
    """A memory in block RAMs or, shallow or small, in LUTs; bits where LUTs have no formula."""
    if not is_lut_ram(target.board.block_ram, width_bits, words):
        return Amounts(block_rams=block_rams(target.board.block_ram, width_bits, words))
    if target.board.lut_inputs != 6:
        return Amounts(storage_bits=width_bits * words)
    return Amounts(luts=width_bits * ceil(words / words_per_lut))


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]
