"""Integer convolution of channel-blocked tensors: uint8 inputs, int8 weights, int32 sums in vector registers.

Signed inputs are kept as x + 128 in uint8, which is what dot-product instructions take (AVX-512 VNNI: four products of
a uint8 and an int8 added to an int32, exactly). The zero point and the 128 leave through the bias:

    sum (x - z) w + b  =  sum x w  +  (b - z sum w)

where zeros of padding are stored as z. Machines without such an instruction multiply in int32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from tvm import tirx
from tvm.tirx.script.builder import ir as T

from codesign.lowering.processor.arguments import Buffers
from codesign.lowering.processor.convolution import Convolution, pack_weights
from codesign.lowering.processor.depthwise import Depthwise, pack_depthwise
from codesign.lowering.processor.layout import Layout
from codesign.lowering.processor.registers import Expression, load, splat, store, vector

DEPTH = 4  # products a dot-product instruction adds up in a lane
SIGNED_OFFSET = 128  # what is added to an int8 to keep it in a uint8
_ONES_APART = 1.5 * 2.0**23
_BITS_OF_ONES_APART = 0x4B400000


class _Sums:
    """Of integer kernels that write their sums."""

    types: ClassVar[tuple[str, str, str, str]] = ("uint8", "int8", "int32", "int32")

    def _zero(self) -> Expression:
        return T.int32(0)

    def _other_arguments(self) -> list[Any]:
        return []

    def _finished(self, total: Expression, tensors: list[Any], place: Sequence[Expression]) -> Expression:
        del tensors, place
        return total


@dataclass(frozen=True)
class IntegerConvolution(_Sums, Convolution):
    """Sums of one convolution as int32. source.lanes: a multiple of DEPTH. vnni: with AVX-512 VNNI and 16 lanes."""

    vnni: bool = True

    depth: ClassVar[int] = DEPTH

    def _added(self, total: Expression, buffers: Buffers, index: Expression, weight: Expression) -> Expression:
        if self.vnni:
            four = T.reinterpret("int32", buffers.x[vector(index, DEPTH)])
            weights = T.reinterpret("int8x64", load(buffers.w, weight, DEPTH * self.lanes))
            return _intrinsic("vpdpbusd", total, T.reinterpret("uint8x64", T.broadcast(four, self.lanes)), weights)
        for part in range(DEPTH):
            own = T.cast(buffers.w[T.ramp(weight + part, DEPTH, self.lanes)], f"int32x{self.lanes}")
            total = total + splat(T.cast(buffers.x[index + part], "int32"), self.lanes) * own
        return total


@dataclass(frozen=True)
class IntegerDepthwise(_Sums, Depthwise):
    """Sums of one depthwise convolution as int32. vnni: with AVX-512 VNNI and 16 lanes, whose sums of two products of
    16 bits take one and a zero here. shuffles: with VBMI too. Then four columns are loaded at once and their bytes
    shuffled, so that a dot product takes four taps of a row (zeros behind the last):

        [4 columns, 16 lanes]  -->  [16 lanes, 4 columns]

    Of three taps and a stride of one, two neighbouring pixels share a shuffle: the second's weights begin with a zero.
    """

    vnni: bool = True
    shuffles: bool = False

    @property
    def four_taps(self) -> bool:
        """Whether a dot product takes four taps."""
        return self.vnni and self.shuffles and self.dilation[1] == 1

    @property
    def columns_issued(self) -> int:
        """Taps of a row it multiplies."""
        return -(-self.kernel[1] // DEPTH) * DEPTH if self.four_taps else self.kernel[1]

    @property
    def pixels_a_shuffle(self) -> int:
        """Neighbours that read the same four columns."""
        return 2 if self.four_taps and self.kernel[1] < DEPTH and self.stride[1] == 1 else 1

    @property
    def weight_elements(self) -> int:
        """Of the packed weights."""
        return self.bias_elements * self.kernel[0] * self.columns_issued * self.pixels_a_shuffle

    def packed(self, weights: np.ndarray) -> np.ndarray:
        """Weights [G, 1, FY, FX] as the kernel reads them, flat."""
        if not self.four_taps:
            return pack_depthwise(weights, self.result.lanes).reshape(-1)
        shifted = [
            np.pad(weights, ((0, 0), (0, 0), (0, 0), (shift, self.columns_issued - self.kernel[1] - shift)))
            for shift in range(self.pixels_a_shuffle)
        ]
        rows = [pack_depthwise(one, self.result.lanes) for one in shifted]  # [blocks, FY, columns, lanes]
        whole = np.stack(rows, axis=2)
        fours = whole.reshape(*whole.shape[:3], -1, DEPTH, self.result.lanes)
        return np.ascontiguousarray(fours.swapaxes(-1, -2)).reshape(-1)

    def _accumulate(
        self, buffers: Buffers, sums: dict[tuple[int, int], Any], origin: Expression, block: Expression
    ) -> None:
        if not self.four_taps:
            super()._accumulate(buffers, sums, origin, block)
            return
        lanes, share, fours = self.result.lanes, self.pixels_a_shuffle, self.columns_issued // DEPTH
        down, across = self.stride[0] * self.source.row_elements, self.stride[1] * lanes
        order = [column * lanes + lane for lane in range(lanes) for column in range(DEPTH)]
        with T.serial(0, self.kernel[0]) as fy:
            start_of_row = origin + fy * self.dilation[0] * self.source.row_elements
            for four in range(fours):
                for pixel, total in sums.items():
                    shift = pixel[1] % share
                    index = start_of_row + pixel[0] * down + (pixel[1] - shift) * across + four * DEPTH * lanes
                    codes = tirx.Shuffle([load(buffers.x, index, DEPTH * lanes)], order)
                    at = ((block * self.kernel[0] + fy) * share + shift) * fours + four
                    weights = load(buffers.w, at * DEPTH * lanes, DEPTH * lanes)
                    store(total, 0, lanes, _intrinsic("vpdpbusd", load(total, 0, lanes), codes, weights))

    def _added(self, total: Expression, inputs: Expression, weights: Expression) -> Expression:
        wide = f"int32x{self.result.lanes}"
        x, w = T.cast(inputs, wide), T.cast(weights, wide)
        if self.vnni:
            return _intrinsic("vpdpwssd", total, T.reinterpret("int16x32", x), T.reinterpret("int16x32", w))
        return total + x * w


@dataclass(frozen=True)
class Requantization:
    """Sums times a power of two as codes, kept as uint8: rounded half to even, clamped, plus the offset.

    low, high: the clamp, before the offset: saturation, or the bounds of an activation. offset: what is stored for 0,
    the zero point, and for int8 codes SIGNED_OFFSET as well. The ratio of every output channel is an argument of the
    kernel, after the bias: in_float, the power of two as float32, else the shift to the right, 0 or more.
    Sums: with shifts below 2^31 - 2^(shift - 1) in magnitude; in_float below 2^24, and 2^21 times the ratio.
    """

    low: int = -128
    high: int = 127
    offset: int = SIGNED_OFFSET
    in_float: bool = False

    @property
    def ratio_type(self) -> str:
        """Of the ratios."""
        return "float32" if self.in_float else "int32"

    def one_ratio(self, ratio: float, lanes: int) -> Expression:
        """A ratio all channels have, known in advance."""
        return splat(T.float32(ratio) if self.in_float else T.int32(int(ratio)), lanes)

    def codes(self, total: Expression, ratio: Expression, lanes: int) -> Expression:
        """A vector of sums as uint8."""
        return self._rounded_in_float(total, ratio, lanes) if self.in_float else self._shifted(total, ratio, lanes)

    def _shifted(self, total: Expression, shift: Expression, lanes: int) -> Expression:
        def number(value: int) -> Expression:
            return splat(T.int32(value), lanes)

        odd = T.bitwise_and(T.shift_right(total, shift), number(1))
        half = T.shift_right(T.shift_left(number(1), shift), number(1))  # 0 where nothing is shifted
        rounded = T.shift_right(total + tirx.max(half - number(1) + odd, number(0)), shift)
        code = tirx.max(tirx.min(rounded, number(self.high)), number(self.low))
        return T.cast(code + number(self.offset), f"uint8x{lanes}")

    def _rounded_in_float(self, total: Expression, factor: Expression, lanes: int) -> Expression:
        """Added to 1.5 * 2^23, where neighbours are one apart, a float32 is rounded half to even; then the integer
        stands in its last bits. The even part of the offset goes along; an odd one would make even codes odd.
        """
        odd = self.offset % 2
        even = self.offset - odd
        scaled = T.cast(total, f"float32x{lanes}") * factor + splat(T.float32(_ONES_APART + even), lanes)
        bits = T.reinterpret(f"int32x{lanes}", scaled)
        lowest, highest = (splat(T.int32(_BITS_OF_ONES_APART + even + end), lanes) for end in (self.low, self.high))
        limited = tirx.max(tirx.min(bits, highest), lowest)
        return T.cast(limited + splat(T.int32(1), lanes) if odd else limited, f"uint8x{lanes}")


class _Codes:
    """Of integer kernels that write uint8."""

    types: ClassVar[tuple[str, str, str, str]] = ("uint8", "int8", "int32", "uint8")
    result: Layout
    requantization: Requantization
    bias_elements: int

    def _zero(self) -> Expression:
        return T.uint8(self.requantization.offset)

    def _other_arguments(self) -> list[Any]:
        return [T.arg("ratios", T.buffer((self.bias_elements,), self.requantization.ratio_type))]

    def _finished(self, total: Expression, tensors: list[Any], place: Sequence[Expression]) -> Expression:
        lanes = self.result.lanes
        return self.requantization.codes(total, load(tensors[0], place[1] * lanes, lanes), lanes)


@dataclass(frozen=True)
class RequantizedConvolution(_Codes, IntegerConvolution):
    """An integer convolution that writes codes. result.lanes is `lanes`."""

    requantization: Requantization = Requantization()


@dataclass(frozen=True)
class RequantizedDepthwise(_Codes, IntegerDepthwise):
    """An integer depthwise convolution that writes codes."""

    requantization: Requantization = Requantization()


def _intrinsic(name: str, total: Expression, inputs: Expression, weights: Expression) -> Expression:
    """A dot product of AVX-512 VNNI added to 16 sums."""
    number = T.llvm_lookup_intrinsic_id(f"llvm.x86.avx512.{name}.512")
    return T.call_llvm_pure_intrin("int32x16", number, total, inputs, weights)


def pack_integer_weights(weights: np.ndarray, groups: int, kernel: IntegerConvolution) -> np.ndarray:
    """Weights [K, C / groups, FY, FX] int8 as `kernel` reads them: DEPTH inputs of a lane side by side."""
    packed = pack_weights(weights, groups, kernel)
    steps = packed.reshape(-1, kernel.source.lanes // DEPTH, DEPTH, kernel.lanes)
    return np.ascontiguousarray(steps.transpose(0, 1, 3, 2)).reshape(-1)


def pack_integer_bias(bias: np.ndarray | None, weights: np.ndarray, zero: int, lanes: int) -> np.ndarray:
    """Bias [K] int32 less what the zero point adds to every sum, filled up to whole vectors.

    weights: [K, C / groups, FY, FX]. zero: the uint8 that stands for 0. Raises OverflowError when it leaves int32.
    """
    sums = weights.reshape(weights.shape[0], -1).astype(np.int64).sum(axis=1)
    full = (0 if bias is None else bias.astype(np.int64)) - zero * sums
    if np.abs(full).max() >= 2**31:
        raise OverflowError("a bias with its zero point leaves int32")
    packed = np.zeros(-(-len(full) // lanes) * lanes, np.int32)
    packed[: len(full)] = full
    return packed
