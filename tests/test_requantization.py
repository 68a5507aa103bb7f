"""Rounding and requantisation, held against Python's exact fractions, whose `round` is half to even."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codesign.numerics.requantization import (
    NotRepresentableError,
    Ratio,
    Requantization,
    ratio_of,
    requantization,
)
from codesign.numerics.rounding import divide_half_even, shift_half_even

SUMS = st.integers(-(2**31) + 1, 2**31 - 1)
SCALES = st.floats(2.0**-20, 1.0, width=32, allow_subnormal=False)


@given(SUMS, st.integers(0, 40))
def test_shifts_round_half_to_even(value: int, shift: int) -> None:
    assert int(shift_half_even(np.array(value), shift)) == round(Fraction(value, 1 << shift))


@given(SUMS, st.integers(1, 10**6))
def test_divisions_round_half_to_even(value: int, divisor: int) -> None:
    assert int(divide_half_even(np.array(value), divisor)) == round(Fraction(value, divisor))


@pytest.mark.parametrize(("value", "expected"), [(5, 2), (7, 4), (-5, -2), (-7, -4), (6, 3), (-6, -3)])
def test_ties_go_to_the_even_neighbour(value: int, expected: int) -> None:
    assert int(shift_half_even(np.array(value), 1)) == expected


@given(SCALES, SCALES, SCALES, st.lists(st.integers(-(2**24), 2**24), min_size=1, max_size=40))
def test_any_ratio_gives_the_codes_of_exact_arithmetic(x: float, w: float, y: float, sums: list[int]) -> None:
    factor = Fraction(x) * Fraction(w) / Fraction(y)
    made = requantization((factor,), (2**24,), 3, -128, 127)
    near = [int((2 * code + 1) / (2 * factor)) + step for code in range(-128, 127, 17) for step in (-1, 0, 1)]
    tried = [total for total in (*sums, *near) if abs(total) <= 2**24]
    wanted = [min(max(round(total * factor) + 3, -128), 127) for total in tried]
    assert made.apply(np.array(tried)).tolist() == wanted


@given(st.integers(1, 400), st.integers(-6, 6))
def test_averages_divide_exactly(count: int, power: int) -> None:
    factor = Fraction(2) ** power / count
    largest = count * 128
    made = requantization((factor,), (largest,), 0, -128, 127)
    sums = np.arange(-largest, largest + 1, max(1, largest // 500))
    wanted = [min(max(round(int(total) * factor), -128), 127) for total in sums]
    assert made.apply(sums).tolist() == wanted


@given(st.integers(0, 30), SUMS)
def test_a_power_of_two_is_a_shift_alone(shift: int, total: int) -> None:
    made = requantization((Fraction(1, 1 << shift),), (2**31 - 1,), 0, -128, 127)
    assert made.is_shift and made.ratios == (Ratio(1, shift),)
    assert int(made.apply(np.array(total))) == min(max(round(Fraction(total, 1 << shift)), -128), 127)


def test_channels_have_ratios_of_their_own() -> None:
    made = requantization((Fraction(1, 2), Fraction(1, 8)), (1000, 1000), 0, -128, 127)
    assert made.apply(np.array([[12, 12], [20, 20]]), axis=1).tolist() == [[6, 2], [10, 2]]
    assert made.apply(np.array([[12, 12], [20, 20]]), axis=0).tolist() == [[6, 6], [2, 2]]


def test_equal_ratios_become_one() -> None:
    assert requantization((Fraction(1, 4),) * 3, (9, 9, 9), 0, -128, 127).ratios == (Ratio(1, 2),)


def test_what_fits_32_bits_is_said() -> None:
    def fits(ratio: Ratio, largest: int) -> bool:
        return Requantization((ratio,), 0, -128, 127, largest).fits_32_bits

    assert fits(Ratio(1, 8), 2**30)
    assert not fits(Ratio(1, 30), 2**31 - 2**29)  # the half added for rounding is too much
    assert not fits(Ratio(3, 8), 2**30)
    assert not fits(Ratio(1, 3, 7), 100)


def test_a_ratio_beyond_64_bits_is_refused() -> None:
    tie = Fraction(2**40 + 1, 2**60 + 2**30 + 1)
    with pytest.raises(NotRepresentableError, match="must be positive, not -1"):
        ratio_of(Fraction(-1), 100, -128, 127)
    assert ratio_of(tie, 100, -128, 127).divisor == 1  # no sum so small lies near a threshold


def test_a_tie_without_exact_multiplier_divides() -> None:
    """7 sums of 1/6 each: 3/6 is a tie no binary multiplier keeps."""
    ratio = ratio_of(Fraction(1, 6), 10_000, -128, 127)
    assert ratio == Ratio(1, 1, 3)
