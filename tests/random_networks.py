"""Random small networks for hypothesis: a list of steps, each of which reads tensors that are live when its turn comes.

`networks()` draws a `Network`: plain data, printed when a test fails. A step says which live tensor it reads by how
long ago that was made (0: the newest) and fits its numbers to what it finds, so a network with a step left out is a
network too: that is how hypothesis shrinks one. What no step has read goes to the head. The outputs depend on the
input: a network that Relu has killed is not handed out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Literal, get_args

import numpy as np
import onnx
from hypothesis import assume
from hypothesis import strategies as st

from codesign.graph.graph import Graph
from tests.pass_models import graph_of, normal, run
from tests.random_builder import CHANNELS, Builder, Tensor
from tests.random_mixers import Attention, ChannelGate, ChannelSoftmax, GroupNorm, LayerNorm, SpatialGate
from tests.random_steps import (
    Branch,
    Branches,
    Concatenation,
    Conv,
    Depthwise,
    Function,
    InvertedResidual,
    Join,
    Nothing,
    Pool,
    Scale,
    Shuffle,
    Split,
    SqueezeExcite,
    Step,
    Twins,
    Upsample,
)

FELT = 1e-2  # by how much another input changes every output, at least
CLASSES = 5
# In the order in which hypothesis prefers them, the plainest first; a convolution is drawn as often as it occurs.
STEPS: tuple[type[Step], ...] = (
    *(Conv, Join, Conv, Function, Concatenation, Conv, Depthwise, InvertedResidual, Conv, Branches),
    *(Pool, Shuffle, Split, SqueezeExcite, Scale, Twins, Upsample, Nothing),
)
MIXING_CHANNELS: tuple[type[Step], ...] = (ChannelGate, SpatialGate, GroupNorm, LayerNorm, ChannelSoftmax, Attention)

# Fields of the same name mean the same in every step; all others are drawn from their Literal or bool.
_FIELDS: dict[str, st.SearchStrategy[object]] = {
    "source": st.integers(0, 5),
    "other": st.integers(0, 3),
    "others": st.lists(st.integers(0, 3), min_size=1, max_size=2).map(tuple),
    "channels": st.integers(1, CHANNELS),
    "group": st.integers(1, 4),
    "groups": st.integers(2, 4),
    "kinds": st.lists(st.sampled_from(get_args(Branch)), min_size=2, max_size=4).map(tuple),
    "width": st.integers(1, 4),
    "cuts": st.lists(st.integers(1, CHANNELS - 1), min_size=1, max_size=2).map(tuple),
}


def steps(kinds: Sequence[type[Step]]) -> st.SearchStrategy[Step]:
    """One block of one of these kinds."""
    return st.sampled_from(kinds).flatmap(lambda kind: st.builds(kind, **_drawn(kind)))


def _drawn(kind: type[Step]) -> dict[str, st.SearchStrategy[object]]:
    return {name: strategy for name, strategy in _FIELDS.items() if name in kind.__dataclass_fields__}


@dataclass(frozen=True)
class Network:
    """A network as it was drawn. taps: live tensors, counted from the newest, that are outputs besides the head's.

    head: what becomes of tensors nobody reads: pooled into a dense layer, flattened into one, or outputs themselves.
    """

    shape: tuple[int, int, int, int]
    steps: tuple[Step, ...]
    head: Literal["pooled", "flattened", "outputs"]
    taps: tuple[int, ...]
    opset: int
    seed: int

    @cached_property
    def proto(self) -> onnx.ModelProto:
        """The ONNX model."""
        net = Builder(self.shape, self.opset, self.seed)
        for step in self.steps:
            step.build(net)
        read = {name for node in net.nodes for name in node.input}
        ends = [value for value in net.live if value.name not in read]
        outputs: dict[str, tuple[int, ...]] = {net.find(tap).name: net.find(tap).shape for tap in self.taps}
        match self.head:
            case "outputs":
                outputs |= {value.name: value.shape for value in ends}
            case _:
                outputs |= classifier(net, ends or [net.find(0)], self.head == "pooled")
        outputs.pop(net.input.name, None)
        return net.proto(outputs)

    @cached_property
    def graph(self) -> Graph:
        """The imported model; copy it before changing it."""
        return graph_of(self.proto)

    def feeds(self, seed: int) -> dict[str, np.ndarray]:
        """Gaussian input."""
        return {"x": normal(np.random.default_rng(seed), *self.shape)}

    @property
    def is_live(self) -> bool:
        """Whether every output depends on the input and is finite."""
        if not self.proto.graph.output:
            return False
        one, other = (run(self.proto, self.feeds(seed)) for seed in (1, 2))
        return all(np.abs(one[name] - other[name]).max() > FELT * np.abs(one[name]).max() for name in one)


def classifier(net: Builder, values: Sequence[Tensor], pooled: bool) -> dict[str, tuple[int, ...]]:
    """A dense layer on all of these, averaged or flattened."""
    batch, flat, features = net.input.shape[0], [], 0
    for value in values:
        [mean] = net.node("GlobalAveragePool", value.name) if pooled else [value.name]
        flat += net.node("Flatten", mean)
        features += value.channels if pooled else prod(value.shape[1:])
    [joined] = net.node("Concat", *flat, axis=1) if len(flat) > 1 else flat
    [scores] = net.node("Gemm", joined, net.weights(CLASSES, features), net.gaussian(CLASSES), transB=1)
    return {scores: (batch, CLASSES)}


@st.composite
def networks(draw: st.DrawFn, kinds: Sequence[type[Step]] = (*STEPS, *MIXING_CHANNELS), largest: int = 8) -> Network:
    """A network of up to `largest` blocks of these kinds, whose every output depends on its input."""
    network = Network(
        shape=(draw(st.integers(1, 2)), draw(st.integers(1, 4)), draw(st.integers(4, 12)), draw(st.integers(4, 12))),
        steps=tuple(draw(st.lists(steps(kinds), min_size=1, max_size=largest))),
        head=draw(st.sampled_from(("pooled", "outputs", "flattened"))),
        taps=tuple(draw(st.lists(st.integers(0, 3), max_size=1))),
        opset=draw(st.integers(13, 18)),
        seed=draw(st.integers(0, 999)),
    )
    assume(network.is_live)
    return network
