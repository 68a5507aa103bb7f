"""Cycle formulas of vendors that `validation.py` holds the model against, written anew from their definitions."""

from __future__ import annotations

from codesign.workload.loop_nest import LoopNest

PROCESSORS = 64


def max78000_cycles(channels: int, size: int, outputs: int, kernel: int, pool: int = 1) -> int:
    """Cycles of one layer on a MAX78000 after MaximIntegratedAI/ai8x-synthesis izer/latency.py.

    channels, outputs: of input and output. size: rows and columns of the input before pooling. kernel: 1, or 3 with a
    padding of 1. pool: window and stride of the pooling on the way in, 1 for none. Stride 1, nothing streamed.
    """
    passes = -(-channels // PROCESSORS)
    pad = kernel // 2
    pooled = size // pool
    lead = kernel - 1 - pad  # columns and rows read before the first output
    zero, datum = passes * 2, passes * (pool * pool + 1)  # a state to read each pixel of the window, one to store
    edge = 2 * pad * (zero + 1)
    output_row = passes * pooled * outputs
    side = pad * (zero + 1) + zero * pad
    data_row = side + lead * (datum + 1) + (pooled - pad) * datum
    bottom_row = side + lead * (zero + 1) + (pooled - pad) * zero
    first_rows = pad * (edge + pooled * (zero + 1)) + lead * (edge + pooled * (datum + 1))
    return first_rows + (data_row + output_row) * (pooled - lead) + pad * (bottom_row + output_row)


def nvdla_cycles(nest: LoopNest) -> float:
    """MAC cycles of a convolution on 2,048 MACs after NVDLA_OpenSource_Performance.xlsx (column without CVSRAM)."""
    _, _, outputs, _, _, _, kernel_rows, kernel_columns = nest.sizes
    folds = nest.stride[0] * nest.stride[1]
    winograd = 2.25 if (kernel_rows, kernel_columns) == (3, 3) else 1
    taps = kernel_rows * kernel_columns / folds
    return _folded_channels(nest) * _folded_pixels(nest) * _up(outputs, 128) * taps / 2048 / winograd


def nvdla_kib(nest: LoopNest, *, pooled: int, added: bool) -> float:
    """KiB a convolution moves to and from DRAM after the same sheet.

    pooled: stride of the pooling fused behind it. added: a residual operand is read as well. Of the operand that does
    not fit the 512 KiB buffer beside the other nothing is read twice in this network but where the sheet says so.
    """
    _, _, outputs, _, rows, columns, kernel_rows, kernel_columns = nest.sizes
    channels = _folded_channels(nest)
    taps = -(-kernel_rows // nest.stride[0]) * -(-kernel_columns // nest.stride[1])
    winograd = 16 / 9 if (kernel_rows, kernel_columns) == (3, 3) else 1
    written = (rows // pooled) * (columns // pooled) * _up(outputs, 16) / 1024
    read = channels * _folded_pixels(nest) / 1024 + channels * taps * outputs / 1024 * winograd
    return read + written * (2 if added else 1)


def _folded_channels(nest: LoopNest) -> int:
    return _up(nest.sizes[3] * nest.stride[0] * nest.stride[1], 16)


def _folded_pixels(nest: LoopNest) -> int:
    return -(-nest.input_rows // nest.stride[0]) * -(-nest.input_columns // nest.stride[1])


def _up(size: int, step: int) -> int:
    return -(-size // step) * step
