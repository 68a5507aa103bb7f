"""The integer reading of a network: steps over codes, each with its parameters as integers. Pure data.

A tensor of codes stands for the numbers scale * (code - zero_point). Every step says what it computes in its docstring;
codesign.numerics.execution does it in numpy, and everything else that runs codes is held against that.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from codesign.numerics.requantization import Requantization

Pair = tuple[int, int]
Pads = tuple[int, int, int, int]
_MOST_LOOPS = 8


@dataclass(frozen=True)
class Tensor:
    """A tensor between steps. dtype: numpy's name; scale, zero_point: of codes, None and 0 for any other tensor."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None = None
    zero_point: int = 0

    @property
    def is_codes(self) -> bool:
        """Whether it holds codes of a quantised tensor."""
        return self.scale is not None

    @property
    def elements(self) -> int:
        """How many it holds."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def size_bytes(self) -> int:
        """Bytes it takes."""
        return self.elements * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, eq=False)
class Step:
    """name: the node's a user recognises. nodes: names of all nodes it stands for."""

    name: str
    inputs: tuple[Tensor, ...]
    output: Tensor
    nodes: tuple[str, ...] = field(default=(), kw_only=True)


@dataclass(frozen=True, eq=False)
class Convolve(Step):
    """y[b, k] = requantise(sum over c, fy, fx of (x - x.zero_point) * weights + bias[k]); padding adds nothing.

    weights: int8 or int16 [K, C / group, FY, FX], zero points taken away; of a transposed convolution [C, K / group,
    FY, FX], as ONNX stores them. bias: int32 [K]. sum_bits: 32, or 64 where sums may exceed 32 bits.
    """

    weights: np.ndarray
    bias: np.ndarray
    group: int
    strides: Pair
    dilations: Pair
    pads: Pads
    requantization: Requantization
    transposed: bool = False
    sum_bits: int = 32


@dataclass(frozen=True, eq=False)
class Multiply(Step):
    """Product with constants: y[..., n] = requantise(sum over k of (x[..., k] - zero point) * weights[k, n] + bias[n]).

    weights: int8 or int16 [K, N], zero points taken away. bias: int32 [N].
    """

    weights: np.ndarray
    bias: np.ndarray
    requantization: Requantization
    sum_bits: int = 32


@dataclass(frozen=True, eq=False)
class MultiplyTensors(Step):
    """Matrix product of two tensors of codes, stacked as numpy stacks them; zero points taken away first."""

    requantization: Requantization
    sum_bits: int = 32


@dataclass(frozen=True, eq=False)
class Sum(Step):
    """y = requantise(m0 * (x0 - z0) + m1 * (x1 - z1)), element by element, broadcast."""

    multipliers: tuple[int, int]
    requantization: Requantization


@dataclass(frozen=True, eq=False)
class Product(Step):
    """y = requantise((x0 - z0) * (x1 - z1)), element by element, broadcast."""

    requantization: Requantization


@dataclass(frozen=True, eq=False)
class Constant(Step):
    """Codes known in advance. values: of the output's shape and type."""

    values: np.ndarray


@dataclass(frozen=True, eq=False)
class Lookup(Step):
    """y = table[x]. table: [1 or channels (axis 1), codes], the smallest code first."""

    table: np.ndarray


@dataclass(frozen=True, eq=False)
class MaximumPool(Step):
    """The largest code of a window; padding never wins."""

    kernel: Pair
    strides: Pair
    dilations: Pair
    pads: Pads


@dataclass(frozen=True, eq=False)
class AveragePool(Step):
    """requantise(sum of x - x.zero_point over a window), by one ratio for every number of elements in a window.

    counts: [OY, OX] index of the ratio in `requantizations`. Padding adds nothing to the sum.
    """

    kernel: Pair
    strides: Pair
    dilations: Pair
    pads: Pads
    counts: np.ndarray
    requantizations: tuple[Requantization, ...]


@dataclass(frozen=True, eq=False)
class Concatenate(Step):
    """Inputs one behind the other along an axis; their codes mean the same."""

    axis: int


@dataclass(frozen=True, eq=False)
class Move(Step):
    """y.flat[i] = x.flat[source[i]]: reshapes, transpositions, slices, nearest resizing.

    source: int64 [elements of y], or None where every element stays in its place.
    """

    source: np.ndarray | None

    @cached_property
    def affine(self) -> Affine | None:
        """The source as a sum of strides, or None when it is none."""
        if self.source is None:
            return Affine(0, (self.output.elements,), (1,))
        return affine_of(self.source)


@dataclass(frozen=True, eq=False)
class Fill(Step):
    """A border of one code: y is `value` everywhere but where x lies.

    begins: per dimension, the place of x in y; negative where x begins outside. What lies outside y is cut off.
    """

    begins: tuple[int, ...]
    value: int


@dataclass(frozen=True, eq=False)
class Interpolate(Step):
    """Linear resizing: along both axes y takes two neighbours with integer weights, then requantises.

    rows, columns: int64 [size, 4]: first neighbour, second neighbour, first weight, second weight.
    """

    rows: np.ndarray
    columns: np.ndarray
    requantization: Requantization


@dataclass(frozen=True, eq=False)
class Softmax(Step):
    """y = clamp(round_half_even(e[max - x] * numerator / sum of e) + zero_point) along an axis.

    exponentials: int64 [codes], exp(-d * scale) in units of 2^-fraction_bits; d = 0 comes first.
    """

    axis: int
    exponentials: np.ndarray
    numerator: int
    minimum: int
    maximum: int


@dataclass(frozen=True, eq=False)
class Quantize(Step):
    """Codes of numbers: clamp(round_half_even(x / scale) + zero_point)."""


@dataclass(frozen=True, eq=False)
class Dequantize(Step):
    """Numbers of codes: (x - zero_point) * scale, float32."""


@dataclass(frozen=True, eq=False)
class Floating(Step):
    """Operators left in floating point, from codes (or numbers) to codes (or numbers). reason: why."""

    reason: str


@dataclass(frozen=True)
class IntegerNetwork:
    """inputs, outputs: tensors of the network in its own order. steps: in the order of execution."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    steps: tuple[Step, ...]

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by name."""
        made = (step.output for step in self.steps)
        return {tensor.name: tensor for tensor in (*self.inputs, *made)}

    @property
    def floating(self) -> tuple[Floating, ...]:
        """The steps that stay in floating point."""
        return tuple(step for step in self.steps if isinstance(step, Floating))


@dataclass(frozen=True)
class Affine:
    """source[i] = offset + sum of strides * indices, the indices those of i in an array of these sizes."""

    offset: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]


def affine_of(source: np.ndarray) -> Affine | None:
    """Loops that walk a source, or None when it takes more than eight."""
    sizes: list[int] = []
    strides: list[int] = []
    rest = np.asarray(source, np.int64).reshape(-1)
    while len(rest) > 1 and len(sizes) < _MOST_LOOPS:
        size, stride = _run(rest)
        if size == 1:
            return None
        sizes.append(size)
        strides.append(stride)
        rest = rest[::size]
    if len(rest) > 1:
        return None
    return Affine(int(rest[0]), tuple(reversed(sizes)) or (1,), tuple(reversed(strides)) or (0,))


def _run(source: np.ndarray) -> Pair:
    """The longest run of equal steps that repeats throughout: its length, a divisor of the whole, and its step."""
    stride = int(source[1] - source[0])
    breaks = np.flatnonzero(np.diff(source) != stride)
    longest = len(source) if len(breaks) == 0 else int(breaks[0]) + 1
    for size in range(longest, 1, -1):
        if len(source) % size == 0 and _repeats(source, size, stride):
            return size, stride
    return 1, 0


def _repeats(source: np.ndarray, size: int, stride: int) -> bool:
    rows = source.reshape(-1, size)
    return bool((rows == rows[:, :1] + stride * np.arange(size)).all())
