"""Cross-layer equalisation: channels of unlike ranges are scaled alike between two layers, by powers of two.

    conv -> relu -> conv'        W_i / s_i, b_i / s_i  ->  relu  ->  W'_{:,i} s_i

relu(x / s) = relu(x) / s for s > 0, so the network computes the same; with powers of two, to the last bit. Channel i of
the tensor in between had the range a_i and has a_i / s_i.

With one scale for all weights of a layer, s_i = sqrt(r_i / r'_i) makes the ranges of its weights equal, r_i of row i
of the first weights, r'_i of column i of the second (Nagel et al.). With a scale for every output channel those are
equal as it is, and the ranges of activations count. Before a depthwise layer, whose weights have a scale for every
channel, s_i is the power of two above a_i. Before another one s_i = a_i^p / r'_i^(1-p), r'_i relative to the range of
each row, shares what is unlike between activations and second weights (Xiao et al.). Of all that, for several p, and of
no change, the one is taken for which rounding activations and weights brings the least noise to the second layer's
sums.

Clip(0, c) is not homogeneous. A channel that reaches c on the calibration data keeps s_i = 1; another one gets
s_i >= a_i / c, so that it does not reach c now either: the same numbers as long as a channel stays within its
calibrated range.

Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, ICCV 2019,
arXiv:1906.04721, equations 10 and 11; Xiao et al., SmoothQuant, ICML 2023, arXiv:2211.10438, equation 4.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from codesign.graph.graph import Graph, constant_of, node_name
from codesign.graph.operators import Convolution, is_operator
from codesign.graph.samples import Samples
from codesign.quantization.ranges import Spread, spreads_of
from codesign.quantization.weighted import BIAS, Weighted
from codesign.rewriting.edit import set_constant

_LARGEST_EXPONENT = 12
_SHARES = (0.25, 0.5, 0.75)
_HOMOGENEOUS = ("Relu", "LeakyRelu", "PRelu", "Identity", "MaxPool", "AveragePool", "GlobalAveragePool")


@dataclass(frozen=True)
class Pair:
    """Two layers, and what lies between them. bound: c of a Clip(0, c) there, else infinite.

    middle: the tensor the second layer reads; between: the nodes from the first layer to it.
    """

    first: Weighted
    second: Weighted
    between: tuple[ir.Node, ...]
    bound: float

    @property
    def middle(self) -> str:
        """Name of the tensor the second layer reads."""
        return str(self.second.node.inputs[0].name)  # type: ignore[union-attr]

    @property
    def input(self) -> str:
        """Name of the tensor the first layer reads."""
        return str(self.first.node.inputs[0].name)  # type: ignore[union-attr]

    @property
    def is_depthwise(self) -> bool:
        """Whether the second layer's channel i reads channel i alone."""
        return self.second.weights.shape[1] == 1 and self.first.channels == self.second.channels > 1

    @property
    def name(self) -> str:
        """`conv1 -> conv2`."""
        return f"{node_name(self.first.node)} -> {node_name(self.second.node)}"


@dataclass(frozen=True)
class PairRanges:
    """What the data hold: in the tensor between two layers, and in what the first one reads."""

    middle: Spread
    first_input: Spread


@dataclass(frozen=True)
class Equalized:
    """A pair whose channels were scaled. channels: how many of them. clipped: a Clip lies between."""

    pair: str
    channels: int
    of: int
    clipped: bool

    def __str__(self) -> str:
        condition = ", the same as long as they stay within their calibrated range" if self.clipped else ""
        return f"equalised: {self.channels} of {self.of} channels scaled{condition}"


@dataclass(frozen=True)
class Kept:
    """A pair that stays as it is, and why."""

    pair: str
    reason: str


def equalize(graph: Graph, samples: Samples, *, per_channel: bool) -> list[Equalized | Kept]:
    """Scale the channels between every pair of layers, in the order of the network; says what was done.

    per_channel: whether weights will have a scale for every output channel.
    """
    pairs = list(pairs_of(graph))
    if not pairs:
        return []
    names = dict.fromkeys(name for pair in pairs for name in (pair.middle, pair.input))
    spreads = spreads_of(graph, samples, names)
    found: list[Equalized | Kept] = []
    for pair in pairs:
        exponents = np.zeros(pair.first.channels, np.int64)
        ranges = PairRanges(spreads[pair.middle], spreads[pair.input])
        if len(ranges.middle.channels) != len(exponents):
            found.append(Kept(pair.name, "it does not read channel by channel what the first layer makes"))
            continue
        exponents = scale_exponents(pair, ranges, per_channel=per_channel)
        found.append(_equalized(graph, pair, exponents, ranges))
        spreads[pair.middle] = ranges.middle.scaled(exponents)  # the next pair begins with it
    return found


def pairs_of(graph: Graph) -> Iterator[Pair]:
    """Convolutions with nothing but a homogeneous function or Clip(0, c) between, that nobody else reads."""
    for node in graph.nodes:
        second = Weighted.of(node) if is_operator(node, "Conv") else ""
        if isinstance(second, str) or not _takes_columns(second):
            continue
        between: list[ir.Node] = []
        bound = np.inf
        value = node.inputs[0]
        while value is not None and len(value.uses()) == 1 and not value.is_graph_output():
            producer = value.producer()
            if producer is None:
                break
            if is_operator(producer, "Conv"):
                first = Weighted.of(producer)
                if not isinstance(first, str):
                    yield Pair(first, second, tuple(reversed(between)), bound)
                break
            limit = _bound(producer)
            if limit is None:
                break
            bound = min(bound, limit)
            between.append(producer)
            value = producer.inputs[0]


def _takes_columns(layer: Weighted) -> bool:
    """One group, or depthwise with one output channel a group."""
    view = Convolution.of(layer.node)
    return view is not None and (view.group == 1 or view.group == view.in_channels == view.out_channels)


def _bound(node: ir.Node) -> float | None:
    """c of Clip(0, c); infinite for what is homogeneous channel by channel; None for what is neither."""
    if is_operator(node, "Clip"):
        bounds = [constant_of(value) for value in node.inputs[1:]]
        low, high = (*bounds, None, None)[:2]
        if low is None or float(low) != 0:
            return None
        return np.inf if high is None else float(high)
    return np.inf if is_operator(node, *_HOMOGENEOUS) else None


def _equalized(graph: Graph, pair: Pair, exponents: np.ndarray, ranges: PairRanges) -> Equalized | Kept:
    changed = int(np.count_nonzero(exponents))
    if not changed:
        everywhere = (ranges.middle.channels >= pair.bound).all()
        return Kept(pair.name, f"every channel reaches {pair.bound:g}" if everywhere else "its ranges suit as they are")
    apply_exponents(graph, pair, exponents)
    return Equalized(pair.name, changed, len(exponents), bool(np.isfinite(pair.bound)))


def scale_exponents(pair: Pair, ranges: PairRanges, *, per_channel: bool) -> np.ndarray:
    """log2 of s_i of every channel."""
    largest = ranges.middle.channels.astype(np.float64)
    columns = column_ranges(pair, per_channel=per_channel)
    live = (largest > 0) & (columns > 0)
    if not live.any():
        return np.zeros(len(largest), np.int64)
    log_ranges, log_columns = np.log2(np.where(live, largest, 1)), np.log2(np.where(live, columns, 1))
    wanted = [np.ceil(log_ranges) - np.ceil(log_ranges[live].max())]
    if not (per_channel and pair.is_depthwise):
        wanted += [share * log_ranges - (1 - share) * log_columns for share in _SHARES]
    if not per_channel:
        rows = np.abs(pair.first.rows).max(axis=1)
        wanted.append(np.log2(np.where(rows > 0, rows, 1)) / 2 - log_columns / 2)
    tried = [np.zeros(len(largest), np.int64), *(_bounded(pair, each, largest, live) for each in wanted)]
    return min(tried, key=lambda exponents: predicted_noise(pair, exponents, ranges, per_channel=per_channel))


def _bounded(pair: Pair, wanted: np.ndarray, largest: np.ndarray, live: np.ndarray) -> np.ndarray:
    """Whole exponents. A common factor changes nothing: the live channel of the largest range keeps its own."""
    exponents = np.where(live, np.rint(wanted - wanted[np.argmax(np.where(live, largest, 0))]), 0)
    if np.isfinite(pair.bound):
        least = np.ceil(np.log2(np.where(live, largest, 1) / pair.bound))
        exponents = np.where((largest >= pair.bound) | ~live, 0, np.maximum(exponents, least))
    return np.asarray(np.clip(exponents, -_LARGEST_EXPONENT, _LARGEST_EXPONENT), np.int64)


def predicted_noise(pair: Pair, exponents: np.ndarray, ranges: PairRanges, *, per_channel: bool) -> float:
    """Of the second layer's sums, up to a common factor: of rounding its input, its weights, and the first weights.

    A number rounded to steps of d is off by d^2 / 12 on average, squared. A scale for every row of the first weights
    makes their noise the same whatever the exponents.
    """
    factors, middle = np.exp2(exponents.astype(np.float64)), ranges.middle
    shape = [-1, 1, 1] if pair.is_depthwise else [1, -1, 1]
    weights = pair.second.weights.astype(np.float64)
    rows = weights.reshape(len(weights), weights.shape[1], -1) * factors.reshape(shape)
    squares = np.square(rows).sum()
    noise = _step((middle.channels / factors).max()) ** 2 * squares
    mean_squares = middle.squares / factors**2 * len(factors) / middle.count
    largest = np.abs(rows).max(axis=(1, 2)) if per_channel else np.full(len(rows), np.abs(rows).max())
    read = mean_squares if pair.is_depthwise else np.full(len(rows), mean_squares.sum())
    noise += float(np.sum(_step(largest) ** 2 * read)) * rows.shape[2]
    if not per_channel:
        first = pair.first.rows
        fan_in_power = first.shape[1] * ranges.first_input.squares.sum() / ranges.first_input.count
        noise += _step((np.abs(first).max(axis=1) / factors).max()) ** 2 * fan_in_power * squares
    return float(noise)


def _step(largest: np.ndarray) -> np.ndarray:
    """A power of two in proportion to the step of a format that holds numbers of this size."""
    return np.asarray(np.exp2(np.ceil(np.log2(np.maximum(largest, np.finfo(np.float64).tiny)))))


def column_ranges(pair: Pair, *, per_channel: bool) -> np.ndarray:
    """Largest weight of the second layer that every channel meets; relative to its row with a scale for each row."""
    weights = np.abs(pair.second.weights.astype(np.float64))
    axes = tuple(range(2, weights.ndim))
    matrix = weights.max(axis=axes)
    if pair.is_depthwise:
        return np.asarray(matrix[:, 0])
    if per_channel:
        matrix = matrix / np.maximum(matrix.max(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return np.asarray(matrix.max(axis=0))


def apply_exponents(graph: Graph, pair: Pair, exponents: np.ndarray) -> None:
    """Divide the first layer's channels by 2^exponents, and multiply the second's inputs by them."""
    first, second = pair.first, pair.second
    shape = [-1] + [1] * (first.weights.ndim - 1)
    set_constant(graph, first.node, 1, np.ldexp(first.weights, -exponents.reshape(shape)), "weights")
    if first.bias is not None:
        set_constant(graph, first.node, BIAS, np.ldexp(first.bias, -exponents), "bias")
    shape = [-1, *shape[1:]] if pair.is_depthwise else [1, -1, *[1] * (second.weights.ndim - 2)]
    set_constant(graph, second.node, 1, np.ldexp(second.weights, exponents.reshape(shape)), "weights")
