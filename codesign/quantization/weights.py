"""Weights and biases as integers, so that sums of products stay within 32 bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from codesign.quantization.formats import FixedPoint, widest
from codesign.quantization.weighted import Weighted

BITS = 8
_CANDIDATES = 4
_LARGEST_SUM = 2**31 - 1
_DEFAULT = 7  # fraction bits of weights that are all zero


@dataclass(frozen=True)
class WeightCodes:
    """A layer's integers.

    weights: int8, shaped as the float ones. fraction_bits: [channels along the axis], or [1] for one scale.
    bias: int32 [channels] at the scale of the sums, or None. coarser: channels whose scale was raised so that
    no sum leaves 32 bits.
    """

    weights: np.ndarray
    fraction_bits: np.ndarray
    bias: np.ndarray | None
    bias_fraction_bits: np.ndarray
    coarser: int

    def rounded(self, axis: int) -> np.ndarray:
        """What the weights mean, float32."""
        shape = [-1 if at == axis else 1 for at in range(self.weights.ndim)]
        return np.asarray(np.ldexp(self.weights.astype(np.float32), -self.fraction_bits.reshape(shape)))

    @property
    def rounded_bias(self) -> np.ndarray | None:
        """What the bias means, float32 [channels]."""
        if self.bias is None:
            return None
        return np.asarray(np.ldexp(self.bias.astype(np.float64), -self.bias_fraction_bits), np.float32)


def weight_codes(
    layer: Weighted, x: FixedPoint, bias: np.ndarray | None, *, per_channel: bool, least_squares: bool
) -> WeightCodes:
    """The integers of a layer whose input has the format x; `bias`: what is to be added, [channels] or None."""
    rows = layer.rows
    chosen = best_fraction_bits(rows if per_channel else rows.reshape(1, -1), least_squares=least_squares)
    added = np.zeros(layer.channels) if bias is None else bias.astype(np.float64)
    per_row = np.abs(added).reshape(layer.groups, len(rows)).max(axis=0)
    fitting = np.broadcast_to(chosen, (len(rows),)).copy()
    while (over := _sums(rows, fitting, per_row, x) > _LARGEST_SUM).any():
        fitting[over] -= 1
        if not per_channel:
            fitting[:] = fitting.min()
    kept = fitting if per_channel else fitting[:1]
    codes = _coded(rows, fitting).astype(np.int8)
    shape = np.moveaxis(layer.weights, layer.axis, 0).shape
    weights = np.ascontiguousarray(np.moveaxis(codes.reshape(shape), 0, layer.axis))
    bias_bits = np.tile(kept, layer.groups if per_channel else 1) + x.fraction_bits
    integers = None if bias is None else np.rint(np.ldexp(added, bias_bits)).astype(np.int32)
    return WeightCodes(weights, kept, integers, bias_bits, int(np.count_nonzero(fitting != chosen)))


def best_fraction_bits(rows: np.ndarray, *, least_squares: bool) -> np.ndarray:
    """For every row: those of least squared error, or the most that saturate nothing. Zeros take what others have."""
    found = np.zeros(len(rows), np.int64)
    largest = np.abs(rows).max(axis=1)
    live = np.flatnonzero(largest)
    for row in live:
        found[row] = widest(float(rows[row].min()), float(rows[row].max()), BITS).fraction_bits
    if least_squares and len(live):
        tried = [found + more for more in range(_CANDIDATES)]
        errors = [np.square(np.ldexp(_coded(rows, bits), -bits[:, None]) - rows).sum(axis=1) for bits in tried]
        found = found + np.argmin(errors, axis=0)
    found[largest == 0] = found[live].max() if len(live) else _DEFAULT
    return found


def _coded(rows: np.ndarray, fraction_bits: np.ndarray) -> np.ndarray:
    form = FixedPoint(BITS, 0)
    return np.asarray(np.clip(np.rint(np.ldexp(rows, fraction_bits[:, None])), form.low, form.high))


def _sums(rows: np.ndarray, fraction_bits: np.ndarray, bias: np.ndarray, x: FixedPoint) -> np.ndarray:
    """No sum of a channel is larger: all weights meet the largest code of the input."""
    products = np.abs(_coded(rows, fraction_bits)).sum(axis=1) * max(-x.low, x.high)
    return np.asarray(products + np.rint(np.ldexp(bias, fraction_bits + x.fraction_bits)))
