"""Blocks of random networks in which the channels meet: attention, and normalisations and reductions over them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod, sqrt
from typing import Literal

import numpy as np

from tests.random_builder import Builder, Tensor
from tests.random_steps import Step, divisor

_ENOUGH = 8  # of so few numbers or less, a normalisation leaves mostly signs


@dataclass(frozen=True)
class ChannelGate(Step):
    """ECA: the channels' averages convolved along the channels, a gate, a product."""

    def results(self, net: Builder, x: Tensor) -> Iterator[Tensor]:
        batch = x.shape[0]
        row = net.reshape(net.reduced("ReduceMean", x, [2, 3]).name, batch, 1, x.channels)
        [mixed] = net.node("Conv", row, net.gaussian(1, 1, 3), pads=[1, 1])
        [gate] = net.node("Sigmoid", net.reshape(mixed, batch, x.channels, 1, 1))
        yield net.same("Mul", x, gate)


@dataclass(frozen=True)
class SpatialGate(Step):
    """x times a gate for each pixel, made of the mean and the largest of its channels."""

    def results(self, net: Builder, x: Tensor) -> Iterator[Tensor]:
        mean, largest = (net.reduced(operator, x, [1]) for operator in ("ReduceMean", "ReduceMax"))
        both = net.image("Concat", mean, largest, shape=(x.shape[0], 2, *x.size), axis=1)
        yield net.same("Mul", x, net.activation(net.conv(both, 1, (3, 3), bias=True), "Sigmoid"))


@dataclass(frozen=True)
class GroupNorm(Step):
    """As PyTorch exports it: Reshape, InstanceNormalization, Reshape, scale and shift."""

    groups: int

    def results(self, net: Builder, x: Tensor) -> Iterator[Tensor]:
        groups = divisor(x.channels, self.groups)
        if prod(x.shape[1:]) // groups <= _ENOUGH:
            return
        flat = net.reshape(x.name, x.shape[0], groups, -1)
        ones, zeros = net.constant(np.ones(groups)), net.constant(np.zeros(groups))
        [normal] = net.node("InstanceNormalization", flat, ones, zeros)
        scaled = net.image("Mul", net.reshape(normal, *x.shape), net.gaussian(x.channels, 1, 1), shape=x.shape)
        yield net.same("Add", scaled, net.gaussian(x.channels, 1, 1))


@dataclass(frozen=True)
class LayerNorm(Step):
    """Over the channels of each pixel, between two transpositions."""

    whole: bool

    def results(self, net: Builder, x: Tensor) -> Iterator[Tensor]:
        if x.channels <= _ENOUGH:
            return
        [turned] = net.node("Transpose", x.name, perm=[0, 2, 3, 1])
        scale, shift = net.gaussian(x.channels), net.gaussian(x.channels)
        if self.whole and net.opset >= 17:
            [normal] = net.node("LayerNormalization", turned, scale, shift, axis=-1)
        else:
            normal = self._apart(net, turned, scale, shift)
        yield net.image("Transpose", normal, shape=x.shape, perm=[0, 3, 1, 2])

    def _apart(self, net: Builder, x: str, scale: str, shift: str) -> str:
        def mean(value: str) -> str:
            if net.opset >= 18:
                return net.node("ReduceMean", value, net.constant([-1]))[0]
            return net.node("ReduceMean", value, axes=[-1])[0]

        [centred] = net.node("Sub", x, mean(x))
        [square] = net.node("Mul", centred, centred)
        [shifted] = net.node("Add", mean(square), net.constant(np.array(1e-3)))
        [root] = net.node("Sqrt", shifted)
        [normal] = net.node("Div", centred, root)
        [scaled] = net.node("Mul", normal, scale)
        return net.node("Add", scaled, shift)[0]


@dataclass(frozen=True)
class ChannelSoftmax(Step):
    """Weights of the channels in each pixel, times x."""

    def results(self, net: Builder, x: Tensor) -> Iterator[Tensor]:
        yield net.same("Mul", x, net.same("Softmax", x, axis=1))


@dataclass(frozen=True)
class Attention(Step):
    """Self-attention over the pixels, heads beside each other in the channels, and x added."""

    heads: Literal[1, 2, 3]
    width: int

    def results(self, net: Builder, x: Tensor) -> Iterator[Tensor]:
        channels, pixels = self.heads * self.width, prod(x.size)

        def heads(bias: bool) -> str:
            part = net.conv(x, channels, bias=bias)
            return net.reshape(part.name, x.shape[0], self.heads, self.width, pixels)

        [queries] = net.node("Transpose", heads(True), perm=[0, 1, 3, 2])
        [scores] = net.node("MatMul", queries, heads(False))
        [scaled] = net.node("Mul", scores, net.constant(np.array(1 / sqrt(self.width))))
        [shares] = net.node("Softmax", scaled, axis=-1)
        [values] = net.node("Transpose", heads(True), perm=[0, 1, 3, 2])
        [mixed] = net.node("MatMul", shares, values)
        [turned] = net.node("Transpose", mixed, perm=[0, 1, 3, 2])
        joined = Tensor(net.reshape(turned, x.shape[0], channels, *x.size), (x.shape[0], channels, *x.size))
        yield net.same("Add", net.conv(joined, x.channels, bias=True), x)
