"""Fixed point with power-of-two scales: codes, and fraction bits chosen for the least squared error.

A number x is held as the integer q = clamp(round_half_even(x 2^f)), f being the fraction bits, and means q 2^-f.
Source: dynamic fixed point as in Huang et al., eCNN, MICRO 2019, section 4.3 (arXiv:1910.05680).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import floor, log2

import numpy as np

CANDIDATES = 8  # fraction bits tried: the most that saturate nothing, and up to 7 more
_LEAST, _MOST = -24, 60
_CHUNK = 1 << 14


@dataclass(frozen=True)
class FixedPoint:
    """Signed integers of so many bits, times 2^-fraction_bits; with a zero point, unsigned ones, less it, times that.

    low, high: of a code less the zero point.
    """

    bits: int
    fraction_bits: int
    zero_point: int | None = None

    @property
    def scale(self) -> float:
        """What one step means."""
        return 2.0**-self.fraction_bits

    @property
    def low(self) -> int:
        """The least code."""
        return -(1 << (self.bits - 1)) if self.zero_point is None else -self.zero_point

    @property
    def high(self) -> int:
        """The greatest code."""
        return self.low + (1 << self.bits) - 1

    @property
    def dtype(self) -> np.dtype:
        """Of the codes."""
        return np.dtype(f"{'' if self.zero_point is None else 'u'}int{self.bits}")

    def codes(self, numbers: np.ndarray) -> np.ndarray:
        """Numbers as codes, rounded half to even, saturated."""
        whole = np.rint(np.ldexp(numbers, self.fraction_bits))
        return np.asarray(np.clip(whole, self.low, self.high) + (self.zero_point or 0), self.dtype)

    def rounded(self, numbers: np.ndarray) -> np.ndarray:
        """What the codes of numbers mean, in the type of the numbers."""
        whole = self.codes(numbers).astype(numbers.dtype) - numbers.dtype.type(self.zero_point or 0)
        return np.asarray(np.ldexp(whole, -self.fraction_bits))

    def __str__(self) -> str:
        return f"{self.dtype} x 2^{-self.fraction_bits}"


def widest(low: float, high: float, bits: int) -> FixedPoint:
    """The most fraction bits with which no number of low ... high saturates. Raises ValueError for zeros alone."""
    largest = max(-low, high)
    if not largest > 0:
        raise ValueError("all numbers are zero")
    found = FixedPoint(bits, min(_MOST, floor(log2(2 ** (bits - 1) / largest)) + 1))
    while not _holds(found, low, high) and found.fraction_bits > _LEAST:
        found = FixedPoint(bits, found.fraction_bits - 1)
    return found


def _holds(form: FixedPoint, low: float, high: float) -> bool:
    ends = np.rint(np.ldexp(np.array([low, high], np.float64), form.fraction_bits))
    return bool(ends[0] >= form.low and ends[1] <= form.high)


@dataclass
class ErrorSums:
    """Squared error and saturated numbers of every candidate, over all arrays given to `add`."""

    candidates: Sequence[FixedPoint]
    errors: np.ndarray = field(init=False)
    saturated: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.errors = np.zeros(len(self.candidates))
        self.saturated = np.zeros(len(self.candidates), np.int64)

    @classmethod
    def around(cls, widest_form: FixedPoint, count: int = CANDIDATES) -> ErrorSums:
        """For the widest format and those of more fraction bits, which round less and saturate more."""
        bits, first = widest_form.bits, widest_form.fraction_bits
        return cls([FixedPoint(bits, each) for each in range(first, first + count)])

    def add(self, numbers: np.ndarray) -> None:
        """Count one more array."""
        flat = numbers.ravel()
        for start in range(0, flat.size, _CHUNK):  # what fits a cache is gone over once for every candidate
            self._add(flat[start : start + _CHUNK])

    def _add(self, flat: np.ndarray) -> None:
        for at, form in enumerate(self.candidates):
            scaled = flat * flat.dtype.type(2.0**form.fraction_bits)  # exact; np.ldexp takes several times as long
            whole = np.rint(scaled)
            codes = np.clip(whole, form.low, form.high)
            self.saturated[at] += int(np.count_nonzero(codes != whole))
            codes -= scaled
            self.errors[at] += float(np.dot(codes, codes)) * form.scale**2

    @property
    def best(self) -> int:
        """Place of the candidate of least squared error; of equals the one that saturates less."""
        return int(np.argmin(self.errors))


def format_of(constant: np.ndarray, *, least_squares: bool) -> FixedPoint:
    """The 8-bit format of a constant: that of least squared error, or the widest; any holds zeros."""
    if not constant.any():
        return FixedPoint(8, 0)
    sums = ErrorSums.around(widest(float(constant.min()), float(constant.max()), 8))
    sums.add(constant.astype(np.float64))
    return sums.candidates[sums.best if least_squares else 0]
