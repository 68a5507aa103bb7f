"""Requantisation as TIR expressions: shifts where scales are powers of two, 64-bit products and divisions elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from codesign.numerics.requantization import Requantization

Expression = Any  # an expression of TIR; tvm carries no types


@dataclass(frozen=True)
class Requantizer:
    """One requantisation. constants: arrays [channels] it reads, by the order of the tensors `codes` is given."""

    requantization: Requantization
    dtype: str

    @property
    def per_channel(self) -> bool:
        """Whether ratios differ from channel to channel."""
        return len(self.requantization.ratios) > 1

    @property
    def constants(self) -> tuple[np.ndarray, ...]:
        """shift, and multiplier and divisor where any is not 1; none where one ratio serves all channels."""
        if not self.per_channel:
            return ()
        ratios = self.requantization.ratios
        arrays = [np.array([ratio.shift for ratio in ratios], np.int32)]
        if self._multiplies:
            arrays.append(np.array([ratio.multiplier for ratio in ratios], np.int64))
        if self._divides:
            arrays.append(np.array([ratio.divisor for ratio in ratios], np.int64))
        return tuple(arrays)

    @property
    def _multiplies(self) -> bool:
        return any(ratio.multiplier != 1 for ratio in self.requantization.ratios)

    @property
    def _divides(self) -> bool:
        return any(ratio.divisor != 1 for ratio in self.requantization.ratios)

    def codes(self, total: Expression, tensors: tuple[Any, ...] = (), channel: Expression = None) -> Expression:
        """Codes of a sum (int32 or int64). tensors: of `constants`, read at `channel`."""
        from tvm import te, tirx

        total = total + tirx.const(0, total.dtype) if isinstance(total, te.TensorSlice) else total
        narrow = self.requantization.fits_32_bits and str(total.ty.dtype) == "int32"
        dtype = "int32" if narrow else "int64"
        value = total.astype(dtype)
        shift, multiplier, divisor = (item.astype(dtype) for item in self._parameters(tensors, channel))
        if self._multiplies:
            value = value * multiplier
        value = self._divided(value, shift, divisor) if self._divides else self._shifted(value, shift, dtype)
        limits = self.requantization
        value = value + tirx.const(limits.zero_point, dtype) if limits.zero_point else value
        value = tirx.max(tirx.min(value, tirx.const(limits.maximum, dtype)), tirx.const(limits.minimum, dtype))
        return value.astype(self.dtype)

    def _parameters(self, tensors: tuple[Any, ...], channel: Expression) -> tuple[Expression, Expression, Expression]:
        from tvm import tirx

        first = self.requantization.ratios[0]
        if not self.per_channel:
            numbers = (first.shift, first.multiplier, first.divisor)
            return tuple(tirx.const(number, "int64") for number in numbers)
        rest = list(tensors[1:])
        multiplier = rest.pop(0)[channel] if self._multiplies else tirx.const(1, "int64")
        divisor = rest.pop(0)[channel] if self._divides else tirx.const(1, "int64")
        return tensors[0][channel], multiplier, divisor

    def _shifted(self, value: Expression, shift: Expression, dtype: str) -> Expression:
        """(v + 2^(s-1) - 1 + odd) >> s, as codesign.numerics.rounding has it."""
        from tvm import tirx

        shifts = [ratio.shift for ratio in self.requantization.ratios]
        one = tirx.const(1, dtype)
        if max(shifts) == 0:
            return value
        odd = (value >> shift) & one
        if min(shifts) > 0:
            return (value + ((one << (shift - one)) - one) + odd) >> shift
        half = (one << shift) >> one
        some = tirx.min(shift, one)
        return (value + half - some + (odd & some)) >> shift

    def _divided(self, value: Expression, shift: Expression, divisor: Expression) -> Expression:
        """Rounded half to even by a whole division, where no multiplication gives the same."""
        from tvm import tirx

        whole = divisor << shift
        quotient = tirx.floordiv(value, whole)
        twice = (value - quotient * whole) * tirx.const(2, "int64")
        odd = (quotient & tirx.const(1, "int64")) == tirx.const(1, "int64")
        up = tirx.any(twice > whole, tirx.all(twice == whole, odd))
        return quotient + tirx.Select(up, tirx.const(1, "int64"), tirx.const(0, "int64"))
