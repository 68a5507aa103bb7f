"""Cycle formulas of vendors that `validation.py` holds the model against, written anew from their definitions."""

from __future__ import annotations

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
