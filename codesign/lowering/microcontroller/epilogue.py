"""From a sum to a code at the end of a kernel: for shifts, half a unit is added to the bias once and for all.

    (sum + half - 1 + odd) >> shift   -->   bias' = bias + half;  whole = sum' >> shift, made even where nothing is left

Both round half to even: sum' >> shift rounds half up, and only in a tie, where no bit is left below, is that one too
many for an odd result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from codesign.lowering.integers.requantizing import Requantizer
from codesign.lowering.microcontroller.building import Expression

_SATURATING = {(-128, 127): "saturated_8", (0, 127): "saturated_7"}


@dataclass(frozen=True)
class Epilogue:
    """What follows the sums of a layer. bias: int64 [K], the zero point's share taken off."""

    requantizer: Requantizer
    bias: np.ndarray

    @property
    def dtype(self) -> str:
        """Type of the codes."""
        return self.requantizer.dtype

    @property
    def is_short(self) -> bool:
        """Whether every ratio is a shift of at least 1 and all fits 32 bits."""
        limits = self.requantizer.requantization
        return limits.is_shift and limits.fits_32_bits and min(ratio.shift for ratio in limits.ratios) > 0

    @property
    def whole_bias(self) -> np.ndarray:
        """int64 [K]: what the sums begin with."""
        halves = [1 << (ratio.shift - 1) for ratio in self.requantizer.requantization.ratios] if self.is_short else 0
        return self.bias + np.asarray(halves, np.int64)

    def constants(self) -> tuple[np.ndarray, ...]:
        """The bias, int32, and what requantising reads."""
        return (self.whole_bias.astype(np.int32), *self.requantizer.constants)

    def codes(self, total: Expression, ratios: tuple[Any, ...], channel: Expression) -> Expression:
        """The code of a sum that began with the bias."""
        from tvm import tirx

        if not self.is_short:
            return self.requantizer.codes(total, ratios, channel)
        limits = self.requantizer.requantization
        shift = ratios[0][channel] if ratios else tirx.const(limits.ratios[0].shift, "int32")
        value = tirx.call_extern("int32", "rounded_shift", total, shift)
        value = value + tirx.const(limits.zero_point, "int32") if limits.zero_point else value
        saturating = _SATURATING.get((limits.minimum, limits.maximum))
        if saturating is not None:
            return tirx.call_extern("int32", saturating, value).astype(self.dtype)
        low, high = (tirx.const(limit, "int32") for limit in (limits.minimum, limits.maximum))
        return tirx.max(tirx.min(value, high), low).astype(self.dtype)
