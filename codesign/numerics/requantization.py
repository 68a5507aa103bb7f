"""Requantisation: how a sum of products becomes a code again, in integers alone.

    code = clamp(round_half_even(sum * multiplier / (divisor * 2^shift)) + zero_point, minimum, maximum)

Scales that are powers of two need a shift and nothing else. Any other ratio of scales becomes a multiplication and a
shift, held against exact fractions at every one of the thresholds between two codes: where the two ways differ for a
sum that can occur, more bits are taken, and where even these do not do, a division.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor

import numpy as np

from codesign.numerics.rounding import divide_half_even, shift_half_even

_WORD_BITS = 62  # of a signed 64-bit product; one bit stays free for the rounding
_SHORT_BITS = 31  # a 32 x 32 bit multiplication, one instruction on most processors


class NotRepresentableError(ValueError):
    """A ratio of scales no 64-bit arithmetic here gives exactly."""


@dataclass(frozen=True)
class Ratio:
    """One channel's factor multiplier / (divisor * 2^shift)."""

    multiplier: int
    shift: int
    divisor: int = 1

    @property
    def value(self) -> Fraction:
        """The factor itself."""
        return Fraction(self.multiplier, self.divisor << self.shift)


@dataclass(frozen=True)
class Requantization:
    """ratios: one for all channels, or one each. minimum, maximum: in codes, zero point included.

    largest_sum: the largest magnitude of a sum it is exact for.
    """

    ratios: tuple[Ratio, ...]
    zero_point: int
    minimum: int
    maximum: int
    largest_sum: int

    @property
    def is_shift(self) -> bool:
        """Whether every ratio is a power of two not above 1: nothing is multiplied or divided."""
        return all(ratio.multiplier == 1 and ratio.divisor == 1 for ratio in self.ratios)

    @property
    def fits_32_bits(self) -> bool:
        """Whether nothing on the way exceeds 32 bits, the half added for rounding included."""
        return all(
            ratio.divisor == 1
            and ratio.shift < _SHORT_BITS
            and self.largest_sum * ratio.multiplier + (1 << ratio.shift) // 2 < 1 << _SHORT_BITS
            for ratio in self.ratios
        )

    def apply(self, sums: np.ndarray, axis: int = 0) -> np.ndarray:
        """Codes (int64) of sums (integers); with several ratios they lie along `axis`."""
        multiplier, shift, divisor = self._arrays(sums.ndim, axis)
        product = np.asarray(sums, np.int64) * multiplier
        if (divisor == 1).all():
            rounded = shift_half_even(product, shift)
        else:
            rounded = divide_half_even(product, divisor << shift)
        return np.asarray(np.clip(rounded + self.zero_point, self.minimum, self.maximum))

    def _arrays(self, rank: int, axis: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if len(self.ratios) == 1:
            shape: tuple[int, ...] = (1,) * rank
        else:
            shape = tuple(len(self.ratios) if at == axis % rank else 1 for at in range(rank))
        columns = zip(*((ratio.multiplier, ratio.shift, ratio.divisor) for ratio in self.ratios), strict=True)
        multiplier, shift, divisor = (np.array(column, np.int64).reshape(shape) for column in columns)
        return multiplier, shift, divisor


def requantization(
    factors: Iterable[Fraction], largest_sums: Sequence[int], zero_point: int, minimum: int, maximum: int
) -> Requantization:
    """The requantisation that equals round_half_even(sum * factor) + zero_point, clamped, for all sums that can occur.

    factors: positive, one or one a channel. largest_sums: of each channel (or one), the largest magnitude of its sum.
    Raises NotRepresentableError.
    """
    factors = tuple(factors)
    bounds = tuple(largest_sums) * (len(factors) if len(largest_sums) == 1 else 1)
    codes = (minimum - zero_point, maximum - zero_point)
    found: dict[tuple[Fraction, int], Ratio] = {}
    for key in zip(factors, bounds, strict=True):
        if key not in found:
            found[key] = ratio_of(*key, *codes)
    ratios = tuple(found[key] for key in zip(factors, bounds, strict=True))
    if len(set(ratios)) == 1:
        ratios = ratios[:1]
    return Requantization(ratios, zero_point, minimum, maximum, max(bounds))


def ratio_of(factor: Fraction, largest_sum: int, minimum: int, maximum: int) -> Ratio:
    """A ratio that takes every sum up to largest_sum to the code `factor` takes it to.

    minimum, maximum: of the codes, zero point taken away. Raises NotRepresentableError when there is none in 64 bits.
    """
    if factor <= 0:
        raise NotRepresentableError(f"a ratio of scales must be positive, not {factor}")
    if factor.denominator & (factor.denominator - 1) == 0:
        exact = Ratio(factor.numerator, factor.denominator.bit_length() - 1)
        if _fits(exact, largest_sum):
            return exact
    most = _WORD_BITS - max(1, largest_sum).bit_length()
    for bits in dict.fromkeys((min(_SHORT_BITS, most), most)):
        doubtful = _doubtful_codes(factor, largest_sum, minimum, maximum, bits)
        wanted = _thresholds(factor, largest_sum, doubtful)
        for ratio in _near(factor, bits):
            if _fits(ratio, largest_sum) and _thresholds(ratio.value, largest_sum, doubtful) == wanted:
                return ratio
    return _as_division(factor, largest_sum)


def _near(factor: Fraction, bits: int) -> Iterable[Ratio]:
    """The multiplications of `bits` bits closest to a factor."""
    shift = bits - (floor(factor).bit_length() if factor >= 1 else 1 - floor(1 / factor).bit_length())
    shift = min(max(shift, 0), _WORD_BITS)
    scaled = factor * 2**shift
    nearest = round(scaled)
    for multiplier in sorted((nearest - 1, nearest, nearest + 1), key=lambda one: abs(one - scaled)):
        if multiplier > 0:
            reduced = (multiplier & -multiplier).bit_length() - 1
            reduced = min(reduced, shift)
            yield Ratio(multiplier >> reduced, shift - reduced)


def _as_division(factor: Fraction, largest_sum: int) -> Ratio:
    power = (factor.denominator & -factor.denominator).bit_length() - 1
    ratio = Ratio(factor.numerator, power, factor.denominator >> power)
    if not _fits(ratio, largest_sum):
        raise NotRepresentableError(f"the ratio of scales {float(factor):.9g} needs more than 64 bits")
    return ratio


def _fits(ratio: Ratio, largest_sum: int) -> bool:
    small_enough = ratio.shift <= _WORD_BITS and ratio.divisor << ratio.shift < 2**_WORD_BITS
    return small_enough and largest_sum * ratio.multiplier < 2**_WORD_BITS


def _doubtful_codes(factor: Fraction, largest_sum: int, minimum: int, maximum: int, bits: int) -> list[int]:
    """Codes whose threshold lies so close to an integer that a multiplier of `bits` bits might be on its other side.

    A multiplier next to the best one is off by two units in its last place at most, and so are the thresholds; those
    of the other codes are the same integers. The float64 quotients here are off by far less.
    """
    codes = np.arange(minimum, maximum)
    places = (codes + 0.5) / float(factor)
    tolerance = (np.abs(places) + 1) * (2.0 ** (2 - bits) + 2.0**-49)
    close = np.abs(places - np.rint(places)) <= tolerance
    return [int(code) for code in codes[close & (np.abs(places) <= largest_sum + 1 + tolerance)]]


def _thresholds(factor: Fraction, largest_sum: int, codes: Iterable[int]) -> list[int]:
    """For each of the codes, the largest sum that does not exceed it, cut at the sums that occur."""
    numerator, denominator = factor.numerator, factor.denominator
    found = []
    for code in codes:
        # sum * factor <= code + 1/2, where the tie goes to the even code
        bound, rest = divmod((2 * code + 1) * denominator, 2 * numerator)
        if rest == 0 and code % 2:
            bound -= 1
        found.append(max(-largest_sum - 1, min(largest_sum, bound)))
    return found
