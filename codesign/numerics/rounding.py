"""Rounding of integers, half to even, in 64 bits: what IEEE 754 does to a float is done here to a sum.

2.5 -> 2    3.5 -> 4    -2.5 -> -2
"""

from __future__ import annotations

import numpy as np

Integers = np.ndarray


def divide_half_even(values: Integers, divisors: Integers | int) -> Integers:
    """values / divisors rounded half to even; divisors are positive. int64 in, int64 out, broadcast as numpy does."""
    values = np.asarray(values, np.int64)
    quotient, rest = np.divmod(values, divisors)  # floor; 0 <= rest < divisor
    up = (2 * rest > divisors) | ((2 * rest == divisors) & (quotient % 2 == 1))
    return np.asarray(quotient + up, np.int64)


def shift_half_even(values: Integers, shifts: Integers | int) -> Integers:
    """values / 2^shifts rounded half to even; shifts are 0 to 62. int64 in, int64 out, broadcast as numpy does.

    (v + 2^(s-1) - 1 + odd) >> s, odd: the lowest bit of v >> s; at a tie this rounds up exactly where that is odd.
    """
    values = np.asarray(values, np.int64)
    shifts = np.asarray(shifts, np.int64)
    half = np.left_shift(np.int64(1), np.maximum(shifts - 1, 0))
    odd = np.right_shift(values, shifts) & 1
    rounded = np.right_shift(values + half - 1 + odd, shifts)
    return np.where(shifts == 0, values, rounded)
