"""LoopNest: one layer as the loops it runs, independent of any machine.

for b, g, k, oy, ox:                    (output elements)
    for c, fy, fx:                      (reduction)
        O[b, g, k, oy, ox] += W[g, k, c, fy, fx] * I[b, g, c, oy*sy + fy*dy - top, ox*sx + fx*dx - left]
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod

from codesign.vocabulary import (
    INPUTS,
    MAC_KINDS,
    MATRIX_PRODUCTS,
    OUTPUTS,
    POSITION,
    RELEVANT_AXES,
    Dimension,
    Operand,
    OperationKind,
)


@dataclass(frozen=True)
class LoopNest:
    """The loops of one layer.

    For the kinds in MAC_KINDS the sizes, strides, dilations and pads say everything. For all others the sizes are
    the output's (G channels, OY, OX, and the window FY, FX of a pooling); what they read is `input_elements` and what
    they do is `operations` (arithmetic operations in total, 0 for data movement). Of kind HOST, input_elements and
    output_elements are bytes: the host keeps tensors in the file's own types, not at an engine's precision.

    sizes: extents in the order of DIMENSIONS. stride, dilation: rows, columns. pads: top, left, bottom, right (zeros
    made on chip, never traffic). input_rows, input_columns: the real, unpadded input. input_dilation: zeros inserted
    between input elements (a transposed convolution with stride s is a convolution over an input dilated by s).
    """

    kind: OperationKind
    sizes: tuple[int, int, int, int, int, int, int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    input_rows: int = 1
    input_columns: int = 1
    input_dilation: tuple[int, int] = (1, 1)
    input_elements: int = 0
    output_elements: int = 0
    operations: int = 0

    def size(self, dimension: Dimension) -> int:
        """Extent of one dimension."""
        return self.sizes[POSITION[dimension]]

    def as_matrix_product(self) -> LoopNest:
        """The same MACs as a product of two matrices for every group: im2col.

            C' = C*FY*FX, OX' = B*OY*OX:    O[g, k, ox'] += W[g, k, c'] * I[g, c', ox']

        A convolution of its kind with one tap and one row: its inputs are the im2col matrix, every value once for every
        window it lies in and the zeros of the padding among them, and all of it is read. Matrix products stay as they
        are. Raises ValueError for a nest without MACs and for a transposed convolution: most of its matrix would be
        zeros inserted between the inputs.
        """
        if self.kind not in MATRIX_PRODUCTS:
            raise ValueError(f"{self.kind} is no matrix product")
        batch, groups, outputs, channels, rows, columns, kernel_rows, kernel_columns = self.sizes
        pixels = batch * rows * columns
        return LoopNest(
            self.kind,
            (1, groups, outputs, channels * kernel_rows * kernel_columns, 1, pixels, 1, 1),
            input_rows=1,
            input_columns=pixels,
        )

    @property
    def has_macs(self) -> bool:
        """True for the kinds an array engine runs."""
        return self.kind in MAC_KINDS

    @cached_property
    def loop_macs(self) -> int:
        """Multiply-accumulates of the loops as written: the product of all sizes (0 when the layer has none)."""
        return prod(self.sizes) if self.has_macs else 0

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of the operator: those of the loops, less the inserted zeros of a dilated input.

        A transposed convolution counts every (input element, kernel element) pair once, as PyTorch's counters do.
        """
        if self.kind is not OperationKind.TRANSPOSED_CONVOLUTION:
            return self.loop_macs
        batch, groups, outputs, channels, _, _, kernel_rows, kernel_columns = self.sizes
        return batch * groups * outputs * channels * self.input_rows * self.input_columns * kernel_rows * kernel_columns

    def elements(self, operand: Operand) -> int:
        """Elements of one operand's whole tensor (inputs: all real elements, touched or not)."""
        if operand is INPUTS:
            if not self.has_macs:
                return self.input_elements
            batch, groups, _, channels = self.sizes[:4]
            return batch * groups * channels * self.input_rows * self.input_columns
        if not self.has_macs:
            return self.output_elements if operand is OUTPUTS else 0
        return prod([self.sizes[axis] for axis in RELEVANT_AXES[operand]])
