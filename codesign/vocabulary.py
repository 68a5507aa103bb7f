"""The words every part shares: loop dimensions, operands and kinds of operation (design: Words)."""

from __future__ import annotations

from enum import StrEnum


class Dimension(StrEnum):
    """Loop dimensions; their order here is the canonical order of every size tuple."""

    B = "B"
    G = "G"
    K = "K"
    C = "C"
    OY = "OY"
    OX = "OX"
    FY = "FY"
    FX = "FX"


DIMENSIONS: tuple[Dimension, ...] = tuple(Dimension)
POSITION: dict[Dimension, int] = {dimension: at for at, dimension in enumerate(DIMENSIONS)}
REDUCTION: tuple[Dimension, ...] = (Dimension.C, Dimension.FY, Dimension.FX)


class Operand(StrEnum):
    """What a loop nest reads and writes."""

    WEIGHTS = "weights"
    INPUTS = "inputs"
    OUTPUTS = "outputs"


OPERANDS: tuple[Operand, ...] = tuple(Operand)
WEIGHTS, INPUTS, OUTPUTS = OPERANDS  # looking a member up takes as long as counting with it: for code that runs often

RELEVANT: dict[Operand, tuple[Dimension, ...]] = {
    Operand.WEIGHTS: (Dimension.G, Dimension.K, Dimension.C, Dimension.FY, Dimension.FX),
    Operand.INPUTS: (Dimension.B, Dimension.G, Dimension.C, Dimension.OY, Dimension.OX, Dimension.FY, Dimension.FX),
    Operand.OUTPUTS: (Dimension.B, Dimension.G, Dimension.K, Dimension.OY, Dimension.OX),
}
RELEVANT_AXES = {operand: tuple(POSITION[dimension] for dimension in RELEVANT[operand]) for operand in OPERANDS}
IRRELEVANT_AXES = {
    operand: tuple(axis for axis in range(len(DIMENSIONS)) if axis not in RELEVANT_AXES[operand])
    for operand in OPERANDS
}


class OperationKind(StrEnum):
    """What a layer does; engines, vector units and hosts list the kinds they run."""

    CONVOLUTION = "convolution"  # group 1
    GROUPED_CONVOLUTION = "grouped_convolution"
    DEPTHWISE_CONVOLUTION = "depthwise_convolution"  # one input channel a group
    TRANSPOSED_CONVOLUTION = "transposed_convolution"
    DENSE = "dense"  # constant weights, no window
    MATMUL = "matmul"  # both operands are activations
    MAX_POOL = "max_pool"
    AVERAGE_POOL = "average_pool"
    ELEMENTWISE = "elementwise"  # add, mul, sub, div, ... of two or more tensors
    ACTIVATION = "activation"  # one tensor in, the same shape out
    SOFTMAX = "softmax"
    NORMALIZATION = "normalization"
    REDUCTION = "reduction"
    RESIZE = "resize"
    DATA_MOVEMENT = "data_movement"  # transpose, concat, slice, pad, gather: bytes move, nothing is computed
    VIEW = "view"  # reshape, flatten, squeeze: no byte moves
    HOST = "host"  # known to no engine: host work, at least its bytes


MAC_KINDS = frozenset(
    {
        OperationKind.CONVOLUTION,
        OperationKind.GROUPED_CONVOLUTION,
        OperationKind.DEPTHWISE_CONVOLUTION,
        OperationKind.TRANSPOSED_CONVOLUTION,
        OperationKind.DENSE,
        OperationKind.MATMUL,
    }
)
# Kinds that are one matrix product for every group.
MATRIX_PRODUCTS = MAC_KINDS - {OperationKind.TRANSPOSED_CONVOLUTION}
