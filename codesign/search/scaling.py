"""Coefficients that scale a network down: equations 2 and 3 of the EfficientNet-eLite paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_HALF_UP, Decimal

# Table 2: how often each of EfficientNet-B0's nine stages repeats its operator.
EFFICIENTNET_REPEATS = (1, 1, 2, 2, 3, 3, 4, 1, 1)
# Width, depth and resolution grow together in these steps (the grid search of the EfficientNet paper).
_WIDTH, _DEPTH, _RESOLUTION = Decimal("1.1"), Decimal("1.2"), Decimal("1.15")
_THREE_DECIMALS = Decimal("0.001")


@dataclass(frozen=True)
class Scaling:
    """Steps from the full network down; the first is 1.0.

    depths and widths: coefficients. totals: operators in all stages together. resolutions: sides in pixels.
    """

    depths: tuple[float, ...]
    totals: tuple[int, ...]
    widths: tuple[float, ...]
    resolutions: tuple[int, ...]


def scaled_down(repeats: Sequence[int], resolution: int, steps: int) -> Scaling:
    """The `steps` largest of every coefficient (fewer where depth has no more), from `resolution` pixels down.

    Depths go down by tenths, and one counts only if it changes the total of the stages, each rounded up (equation 2).
    Widths and resolutions follow the totals in the constant ratio 1.1 : 1.2 : 1.15 (equation 3), with sides rounded up.
    The ratios have three decimals, t / t1 rounded up, widths four: that alone gives the digits of Table 3, exact
    fractions do not (0.8657 where the table has 0.8666).
    """
    tenths = _depths(repeats, steps)
    totals = tuple(_total(repeats, tenth) for tenth in tenths)
    widths, sides = [], []
    for step, total in enumerate(totals):
        ratio = (Decimal(total) / totals[0]).quantize(_THREE_DECIMALS, ROUND_CEILING)
        widths.append(float(round(ratio * _relative(_WIDTH) ** step, 4)))
        sides.append(int((resolution * ratio * _relative(_RESOLUTION) ** step).to_integral_value(ROUND_CEILING)))
    return Scaling(tuple(tenth / 10 for tenth in tenths), totals, tuple(widths), tuple(sides))


def _depths(repeats: Sequence[int], steps: int) -> tuple[int, ...]:
    """Coefficients in tenths, from ten down to one."""
    kept = [10]
    for tenth in range(9, 0, -1):
        if len(kept) < steps and _total(repeats, tenth) < _total(repeats, kept[-1]):
            kept.append(tenth)
    return tuple(kept)


def _total(repeats: Sequence[int], tenths: int) -> int:
    return sum(-(-repeat * tenths // 10) for repeat in repeats)


def _relative(coefficient: Decimal) -> Decimal:
    return (coefficient / _DEPTH).quantize(_THREE_DECIMALS, ROUND_HALF_UP)
