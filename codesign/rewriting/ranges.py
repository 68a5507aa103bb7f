"""Between which two numbers every element of a tensor lies, as far as the operator that makes it says so."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np
import onnx_ir as ir

from codesign.graph.graph import constant_of
from codesign.graph.operators import Pool, is_operator, optional_input

_DEEPEST = 16  # how many operators that only move elements are looked through
_MOVES = (
    *("Identity", "Dropout", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Expand", "Tile"),
    *("Slice", "Split", "Gather", "DepthToSpace", "SpaceToDepth", "GlobalMaxPool", "GlobalAveragePool"),
)


@dataclass(frozen=True)
class Range:
    """low <= element <= high; infinite where nothing is known."""

    low: float = -inf
    high: float = inf

    def contains(self, other: Range) -> bool:
        """Whether no element of `other` lies outside."""
        return self.low <= other.low and other.high <= self.high

    def and_zero(self) -> Range:
        """The range when zeros of a padding are averaged in."""
        return Range(min(self.low, 0.0), max(self.high, 0.0))


_EVERYTHING = Range()
_OF_OPERATOR = {
    "Relu": Range(0.0),
    "Softplus": Range(0.0),
    "Exp": Range(0.0),
    "Abs": Range(0.0),
    "Sqrt": Range(0.0),
    "Sigmoid": Range(0.0, 1.0),
    "HardSigmoid": Range(0.0, 1.0),
    "Softmax": Range(0.0, 1.0),
    "Tanh": Range(-1.0, 1.0),
    "Erf": Range(-1.0, 1.0),
}


def range_of(value: ir.Value | None, deepest: int = _DEEPEST) -> Range:
    """The range of a value; deepest: how many more operators to look through."""
    node = value.producer() if value is not None else None
    if node is None or deepest == 0 or not is_operator(node, node.op_type):
        return _EVERYTHING
    if node.op_type == "Relu":
        return Range(0.0, max(0.0, range_of(node.inputs[0], deepest - 1).high))
    if node.op_type == "Clip":
        return clip_bounds(node) or _EVERYTHING
    if node.op_type == "Concat":
        parts = [range_of(part, deepest - 1) for part in node.inputs]
        return Range(min(part.low for part in parts), max(part.high for part in parts))
    if node.op_type in _MOVES:
        return range_of(node.inputs[0], deepest - 1)
    if (pool := Pool.of(node)) is not None and node.op_type in ("MaxPool", "AveragePool"):
        inside = range_of(node.inputs[0], deepest - 1)
        return inside.and_zero() if pool.count_include_pad else inside
    return _OF_OPERATOR.get(node.op_type, _EVERYTHING)


def clip_bounds(node: ir.Node) -> Range | None:
    """What a Clip lets pass; the lowest and the largest number of its type are no bound. None: not constant."""
    low = _bound(optional_input(node, 1), -inf)
    high = _bound(optional_input(node, 2), inf)
    return None if low is None or high is None else Range(low, high)


def _bound(value: ir.Value | None, absent: float) -> float | None:
    if value is None:
        return absent
    constant = constant_of(value)
    if constant is None or constant.size != 1:
        return None
    number = float(constant.reshape(-1)[0])
    is_no_bound = np.issubdtype(constant.dtype, np.floating) and abs(number) >= np.finfo(constant.dtype).max
    return absent if is_no_bound and np.sign(number) == np.sign(absent) else number
