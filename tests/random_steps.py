"""The blocks random networks are made of: plain data that builds itself, fitting its numbers to the tensor it finds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Literal

import numpy as np

from tests.random_builder import CHANNELS, Builder, Padding, Tensor

Activation = Literal[
    "", "Relu", "Clip", "LeakyRelu", "PRelu", "Sigmoid", "SiLU", "HardSwish", "HardSigmoid", "Tanh", "GELU"
]
Branch = Literal["3x3", "1x1", "1x3", "3x1", "identity", "1x1-3x3", "1x1-average", "depthwise"]
Side = Literal[1, 2, 3, 5]


@dataclass(frozen=True)
class Step:
    """One block. source: the live tensor it reads, 0 the newest."""

    source: int

    def build(self, net: Builder) -> None:
        """Add the block and publish what it makes; nothing where it does not fit."""
        net.publish(*self.results(net, net.find(self.source)))

    def results(self, net: Builder, x: Tensor) -> Iterator[Tensor]:
        """What the block makes of x."""
        raise NotImplementedError


def divisor(number: int, wanted: int) -> int:
    """The largest divisor that is not above `wanted`."""
    return next(size for size in range(min(number, wanted), 0, -1) if number % size == 0)


def finished(net: Builder, x: Tensor, norm: bool, activation: Activation) -> Tensor:
    """With a BatchNormalization and an activation, if wanted."""
    return net.activation(net.norm(x) if norm else x, activation)


@dataclass(frozen=True)
class Conv(Step):
    """A convolution; channels are made a multiple of the group."""

    channels: int
    kernel: tuple[Side, Side]
    stride: Literal[1, 2]
    group: int
    padding: Literal["same", "none", "uneven", "node"]
    bias: bool
    norm: bool
    activation: Activation

    def results(self, net: Builder, x: Tensor) -> Iterator[Tensor]:
        group = divisor(x.channels, self.group)
        channels = max(1, min(self.channels, CHANNELS) // group) * group
        pads: Padding | None = {"none": (0, 0, 0, 0), "uneven": (0, 1, 1, 0), "node": (0, 0, 0, 0)}.get(self.padding)
        x = padded(net, x) if self.padding == "node" else x
        made = net.conv(x, channels, self.kernel, stride=self.stride, group=group, pads=pads, bias=self.bias)
        yield finished(net, made, self.norm, self.activation)


def padded(net: Builder, x: Tensor) -> Tensor:
    """One row and column of zeros on every side, by a node."""
    shape = (x.shape[0], x.channels, x.size[0] + 2, x.size[1] + 2)
    return net.image("Pad", x, net.constant([0, 0, 1, 1, 0, 0, 1, 1]), shape=shape)


@dataclass(frozen=True)
class Depthwise(Step):
    """A convolution of one filter or two for each channel."""

    kernel: Side
    stride: Literal[1, 2]
    multiplier: Literal[1, 2]
    bias: bool
    norm: bool
    activation: Activation

    def results(self, net: Builder, x: Tensor) -> Iterator[Tensor]:
        channels = x.channels * (self.multiplier if x.channels * self.multiplier <= CHANNELS else 1)
        side = (self.kernel, self.kernel)
        made = net.conv(x, channels, side, stride=self.stride, group=x.channels, bias=self.bias)
        yield finished(net, made, self.norm, self.activation)


@dataclass(frozen=True)
class Twins(Step):
    """Two convolutions with the same weights, on x and on what the first makes of it, summed."""

    kernel: Side
    norm: bool

    def results(self, net: Builder, x: Tensor) -> Iterator[Tensor]:
        side = (self.kernel, self.kernel)
        weights = net.weights(x.channels, x.channels, self.kernel, self.kernel)
        first = net.conv(x, x.channels, side, pads=same(self.kernel), weights=weights)
        middle = finished(net, first, self.norm, "LeakyRelu")
        second = net.conv(middle, x.channels, side, pads=same(self.kernel), weights=weights)
        yield net.same("Add", middle, second)


def same(kernel: int) -> Padding:
    """Pads that keep the size, the odd one behind."""
    before, after = (kernel - 1) // 2, kernel // 2
    return before, before, after, after


@dataclass(frozen=True)
class Join(Step):
    """Two tensors of one shape, element by element; a projection of x where there is no other."""

    other: int
    operator: Literal["Add", "Mul", "Sub", "Max"]
    activation: Activation

    def results(self, net: Builder, x: Tensor) -> Iterator[Tensor]:
        others = [value for value in net.live if value.shape == x.shape and value is not x]
        other = others[self.other % len(others)] if others else net.conv(x, x.channels, bias=True)
        yield net.activation(net.same(self.operator, x, other), self.activation)


@dataclass(frozen=True)
class Concatenation(Step):
    """Along the channels, with others of the same size, possibly x itself."""

    others: tuple[int, ...]

    def results(self, net: Builder, x: Tensor) -> Iterator[Tensor]:
        fitting = [value for value in net.live if value.size == x.size]
        parts = [x]
        for index in self.others:
            part = fitting[index % len(fitting)]
            parts += [part] if sum(value.channels for value in parts) + part.channels <= CHANNELS else []
        shape = (x.shape[0], sum(part.channels for part in parts), *x.size)
        if len(parts) > 1:
            yield net.image("Concat", *parts, shape=shape, axis=1)


@dataclass(frozen=True)
class Split(Step):
    """Into parts along the channels, each of which lives on."""

    cuts: tuple[int, ...]
    operator: Literal["Split", "Slice"]

    def results(self, net: Builder, x: Tensor) -> Iterator[Tensor]:
        ends = sorted({0, x.channels, *(cut % x.channels for cut in self.cuts)})
        sizes = [end - start for start, end in pairwise(ends)]
        shapes = [(x.shape[0], size, *x.size) for size in sizes]
        if self.operator == "Split" and len(sizes) > 1:
            names = net.node("Split", x.name, net.constant(sizes), outputs=len(sizes), axis=1)
            yield from map(Tensor, names, shapes)
        elif len(sizes) > 1:
            for (start, end), shape in zip(pairwise(ends), shapes, strict=True):
                yield net.image("Slice", x, *map(net.constant, ([start], [end], [1])), shape=shape)


@dataclass(frozen=True)
class Shuffle(Step):
    """A channel shuffle: Reshape, Transpose, Reshape."""

    groups: int

    def results(self, net: Builder, x: Tensor) -> Iterator[Tensor]:
        groups = divisor(x.channels, self.groups)
        apart = net.reshape(x.name, x.shape[0], groups, x.channels // groups, *x.size)
        [turned] = net.node("Transpose", apart, perm=[0, 2, 1, 3, 4])
        yield Tensor(net.reshape(turned, *x.shape), x.shape)


@dataclass(frozen=True)
class Branches(Step):
    """Linear branches of one input, summed: what structural re-parameterisation merges."""

    kinds: tuple[Branch, ...]
    norm: bool
    activation: Activation

    def results(self, net: Builder, x: Tensor) -> Iterator[Tensor]:
        made = [self._branch(net, x, kind) for kind in self.kinds]
        total = made[0]
        for branch in made[1:]:
            total = net.same("Add", total, branch)
        yield net.activation(total, self.activation)

    def _branch(self, net: Builder, x: Tensor, kind: str) -> Tensor:
        match kind:
            case "identity":
                return net.norm(x)
            case "1x1-average":
                inner = finished(net, net.conv(x, x.channels), self.norm, "")
                made = net.same("AveragePool", inner, kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1)
            case "1x1-3x3":
                inner = finished(net, net.conv(x, min(CHANNELS, x.channels + 1)), self.norm, "")
                made = net.conv(inner, x.channels, (3, 3))
            case "depthwise":
                made = net.conv(x, x.channels, (3, 3), group=x.channels)
            case _:
                rows, columns = map(int, kind.split("x"))
                made = net.conv(x, x.channels, (rows, columns), bias=not self.norm)
        return finished(net, made, self.norm, "")


@dataclass(frozen=True)
class InvertedResidual(Step):
    """1x1 to more channels, depthwise, possibly a gate, 1x1 back, and x added."""

    channels: int
    kernel: Literal[3, 5]
    gate: bool
    activation: Activation

    def results(self, net: Builder, x: Tensor) -> Iterator[Tensor]:
        wide = finished(net, net.conv(x, self.channels), True, self.activation)
        deep = net.conv(wide, self.channels, (self.kernel, self.kernel), group=self.channels)
        deep = finished(net, deep, True, self.activation)
        deep = squeezed(net, deep, 4, "Sigmoid") if self.gate else deep
        yield net.same("Add", net.norm(net.conv(deep, x.channels)), x)


@dataclass(frozen=True)
class SqueezeExcite(Step):
    """x times a gate for each channel, made of the channels' averages."""

    reduction: Literal[1, 2, 4]
    gate: Literal["Sigmoid", "HardSigmoid"]

    def results(self, net: Builder, x: Tensor) -> Iterator[Tensor]:
        yield squeezed(net, x, self.reduction, self.gate)


def squeezed(net: Builder, x: Tensor, reduction: int, gate: str) -> Tensor:
    """Average, 1x1, activation, 1x1, gate, product."""
    mean = net.reduced("ReduceMean", x, [2, 3])
    narrow = net.activation(net.conv(mean, max(1, x.channels // reduction), bias=True), "SiLU")
    return net.same("Mul", x, net.activation(net.conv(narrow, x.channels, bias=True), gate))


@dataclass(frozen=True)
class Pool(Step):
    """A pooling window; padding is one on every side where the window allows it."""

    operator: Literal["MaxPool", "AveragePool"]
    kernel: Literal[2, 3]
    stride: Literal[1, 2]
    padding: Literal[0, 1]
    counts_padding: bool

    def results(self, net: Builder, x: Tensor) -> Iterator[Tensor]:
        if min(x.size) < self.kernel:
            return
        rows, columns = ((size + 2 * self.padding - self.kernel) // self.stride + 1 for size in x.size)
        more = {"count_include_pad": int(self.counts_padding)} if self.operator == "AveragePool" else {}
        window = {"kernel_shape": [self.kernel] * 2, "strides": [self.stride] * 2, "pads": [self.padding] * 4}
        yield net.image(self.operator, x, shape=(*x.shape[:2], rows, columns), **window, **more)


@dataclass(frozen=True)
class Function(Step):
    """A normalisation, an activation, or both."""

    norm: bool
    activation: Activation

    def results(self, net: Builder, x: Tensor) -> Iterator[Tensor]:
        if self.norm or self.activation:
            yield finished(net, x, self.norm, self.activation)


@dataclass(frozen=True)
class Scale(Step):
    """A constant on either side of an operator, one number or one for each channel."""

    operator: Literal["Add", "Mul", "Sub", "Div"]
    per_channel: bool
    first: bool

    def results(self, net: Builder, x: Tensor) -> Iterator[Tensor]:
        shape = (1, x.channels, 1, 1) if self.per_channel else ()
        sign = net.random.choice([-1.0, 1.0], shape)
        constant = net.constant(sign * net.random.uniform(0.5, 2.0, shape))
        first = self.first and self.operator != "Div"  # nothing here may be divided by: it might be zero
        inputs = (constant, x) if first else (x, constant)
        yield net.image(self.operator, *inputs, shape=x.shape)


@dataclass(frozen=True)
class Upsample(Step):
    """Twice the rows and columns."""

    operator: Literal["ConvTranspose", "Resize"]
    group: int
    norm: bool

    def results(self, net: Builder, x: Tensor) -> Iterator[Tensor]:
        if max(x.size) > 8:
            return
        shape = (*x.shape[:2], x.size[0] * 2, x.size[1] * 2)
        if self.operator == "Resize":
            scales = net.constant(np.array([1.0, 1.0, 2.0, 2.0]))
            made = net.image("Resize", x, "", scales, shape=shape, mode="nearest", nearest_mode="floor")
        else:
            group = divisor(x.channels, self.group)
            weights = net.weights(x.channels, x.channels // group, 2, 2)
            made = net.image("ConvTranspose", x, weights, shape=shape, strides=[2, 2], group=group)
        yield finished(net, made, self.norm, "")


@dataclass(frozen=True)
class Nothing(Step):
    """Nodes that leave the numbers as they are."""

    kind: Literal["Identity", "Dropout", "Reshape", "Transpose", "Pad", "Mul", "Add"]

    def results(self, net: Builder, x: Tensor) -> Iterator[Tensor]:
        match self.kind:
            case "Reshape":
                flat = net.reshape(x.name, x.shape[0], x.channels, prod(x.size))
                yield Tensor(net.reshape(flat, *x.shape), x.shape)
            case "Transpose":
                [turned] = net.node("Transpose", x.name, perm=[0, 2, 3, 1])
                yield net.image("Transpose", turned, shape=x.shape, perm=[0, 3, 1, 2])
            case "Pad":
                yield net.same("Pad", x, net.constant([0] * 8))
            case "Mul" | "Add":
                yield net.same(self.kind, x, net.constant(np.array(float(self.kind == "Mul"))))
            case _:
                yield net.same(self.kind, x)
