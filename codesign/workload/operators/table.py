"""The table of operators: one line per file of this folder; each file lists its own operators in ENTRIES."""

from __future__ import annotations

from codesign.workload.operators import (
    convolution,
    elementwise,
    host,
    matrix,
    movement,
    normalization,
    pooling,
    reduction,
)
from codesign.workload.operators.entry import Entries

OPERATORS: Entries = {
    **convolution.ENTRIES,
    **matrix.ENTRIES,
    **pooling.ENTRIES,
    **elementwise.ENTRIES,
    **normalization.ENTRIES,
    **reduction.ENTRIES,
    **movement.ENTRIES,
    **host.ENTRIES,
}
