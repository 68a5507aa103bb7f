"""Formats of activations: what tensors share a scale, what they hold over the calibration data, and the best format."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from codesign.errors import CodesignError, Problem
from codesign.graph.graph import Graph, node_name
from codesign.graph.samples import Samples
from codesign.quantization.formats import CANDIDATES, ErrorSums, FixedPoint, widest
from codesign.quantization.islands import Division
from codesign.quantization.running import open_graph

BITS, WIDE_BITS = 8, 16  # of activations


@dataclass(frozen=True)
class Spread:
    """What a tensor held: least and greatest number; of every channel (axis 1) largest magnitude and sum of squares."""

    low: float
    high: float
    channels: np.ndarray
    squares: np.ndarray
    count: int

    def __or__(self, other: Spread) -> Spread:
        low, high = min(self.low, other.low), max(self.high, other.high)
        largest, squares = np.maximum(self.channels, other.channels), self.squares + other.squares
        return Spread(low, high, largest, squares, self.count + other.count)

    def scaled(self, exponents: np.ndarray) -> Spread:
        """With every channel divided by 2^exponents. low and high are those of magnitudes."""
        channels, squares = np.ldexp(self.channels, -exponents), np.ldexp(self.squares, -2 * exponents)
        largest = float(channels.max())
        return Spread(-largest, largest, channels, squares, self.count)


@dataclass(frozen=True)
class ScaleGroup:
    """Tensors with one scale. sources: those among them that are computed, not moved; they decide it."""

    tensors: tuple[str, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Measured:
    """The format of a group, and what it does to the data. saturated: numbers of its sources beyond the range."""

    form: FixedPoint
    error: float
    power: float
    saturated: Mapping[str, int]


def scale_groups(division: Division) -> list[ScaleGroup]:
    """Every tensor at a border in one group, in the order of their first tensors."""
    group_of = {str(value.name): [str(value.name)] for value in division.tensors}
    moved: set[str] = set()
    for island in division.islands:
        if not island.shares_scale:
            continue
        moved.update(str(value.name) for value in island.outputs)
        names = [str(value.name) for value in (*island.inputs, *island.outputs)]
        first = group_of[names[0]]
        for name in names[1:]:
            other = group_of[name]
            if other is not first:
                first += other
                group_of |= dict.fromkeys(other, first)
    lists = {id(members): members for members in group_of.values()}.values()
    return [ScaleGroup(tuple(members), tuple(name for name in members if name not in moved)) for members in lists]


def spreads_of(graph: Graph, samples: Samples, names: Collection[str]) -> dict[str, Spread]:
    """What tensors hold over the samples, one run in memory at a time."""
    runner = open_graph(graph, tuple(names))
    found: dict[str, Spread] = {}
    for run in samples.runs:
        for name, array in runner.run(run).items():
            spread = _spread(array)
            found[name] = found[name] | spread if name in found else spread
    return found


def _spread(array: np.ndarray) -> Spread:
    by_channel = array[None] if array.ndim < 2 else np.moveaxis(array, 1, 0).reshape(array.shape[1], -1)
    largest = np.abs(by_channel).max(axis=-1)
    squares = np.einsum("...i,...i->...", by_channel, by_channel, dtype=np.float64)
    return Spread(float(array.min()), float(array.max()), np.atleast_1d(largest), np.atleast_1d(squares), array.size)


def check_spreads(graph: Graph, spreads: Mapping[str, Spread], names: Collection[str], source: str) -> None:
    """Raises CodesignError naming every layer whose tensor holds one number throughout, or no finite one."""
    problems = []
    for name in names:
        spread = spreads[name]
        if not np.isfinite([spread.low, spread.high]).all():
            problems.append(Problem(_place(graph, name), f"{name} is not finite over {source}", "check the data"))
        elif spread.low == spread.high and (spread.count > 1 or spread.low == 0):
            problem = f"{name} is {spread.low:g} throughout {source}: no range can be chosen"
            problems.append(Problem(_place(graph, name), problem, "calibrate with more varied data"))
    if problems:
        raise CodesignError.of(problems)


def _place(graph: Graph, name: str) -> str:
    for node in graph.nodes:
        if any(output.name == name for output in node.outputs):
            return f"{graph.name}: {node_name(node)}"
    return f"{graph.name}: input {name}"


def formats_of(
    graph: Graph,
    samples: Samples,
    groups: Collection[ScaleGroup],
    spreads: Mapping[str, Spread],
    bits: int,
    *,
    least_squares: bool,
) -> dict[ScaleGroup, Measured]:
    """The format of every group: that of least squared error, or the widest, which saturates nothing here."""
    count = CANDIDATES if least_squares else 1
    sums = {group: _sums(group, spreads, bits, count) for group in groups}
    runner = open_graph(graph, [name for group in groups for name in group.sources])
    power = dict.fromkeys(groups, 0.0)
    per_source: dict[str, ErrorSums] = {
        name: ErrorSums(sums[group].candidates) for group in groups for name in group.sources
    }
    group_of = {name: group for group in groups for name in group.sources}
    for run in samples.runs:
        for name, array in runner.run(run).items():
            per_source[name].add(array)
            flat = array.ravel().astype(np.float64)
            power[group_of[name]] += float(np.dot(flat, flat))
    return {group: _measured(sums[group], group, per_source, power[group]) for group in groups}


def _sums(group: ScaleGroup, spreads: Mapping[str, Spread], bits: int, count: int) -> ErrorSums:
    low = min(spreads[name].low for name in group.sources)
    high = max(spreads[name].high for name in group.sources)
    return ErrorSums.around(widest(low, high, bits), count)


def _measured(sums: ErrorSums, group: ScaleGroup, per_source: Mapping[str, ErrorSums], power: float) -> Measured:
    for name in group.sources:
        sums.errors += per_source[name].errors
    best = sums.best
    saturated = {name: int(per_source[name].saturated[best]) for name in group.sources}
    return Measured(sums.candidates[best], float(sums.errors[best]), power, saturated)
