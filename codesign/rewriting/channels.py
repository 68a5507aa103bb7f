"""Orders of channels: a tensor whose elements along one axis come in another order, or only some of them.

Everything an order meets on its way through a network is indexing: of parameters, of weights' rows and columns, of the
parts of a concatenation. What cannot be done by indexing raises CannotReorderError.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import numpy as np
import onnx_ir as ir

from codesign.graph.graph import constant_of, node_name, shape_of
from codesign.graph.operators import is_operator, optional_input

Sizes = tuple[int, ...]


class CannotReorderError(Exception):
    """Why channels cannot come in another order; the message completes `declined: ...`."""


def named(node: ir.Node) -> str:
    """`Conv /features/0/Conv`, for reasons."""
    return f"{node.op_type} {node_name(node)}"


@dataclass(frozen=True)
class Order:
    """Along `axis`, new[i] = old[index[i]]; old has `size` elements there."""

    axis: int
    index: tuple[int, ...]
    size: int

    @classmethod
    def of(cls, axis: int, index: np.ndarray | range, size: int) -> Order:
        """From any kind of indices."""
        return cls(axis, tuple(int(place) for place in index), size)

    @property
    def is_identity(self) -> bool:
        """Whether nothing changes."""
        return self.index == tuple(range(self.size))

    @property
    def is_permutation(self) -> bool:
        """Whether every old element comes exactly once."""
        return len(self.index) == self.size and len(set(self.index)) == self.size

    def inverted(self) -> Order:
        """What leads back; of a permutation."""
        return Order.of(self.axis, np.argsort(self.index), self.size)

    def on(self, axis: int) -> Order:
        """The same along another axis."""
        return Order(axis, self.index, self.size)

    def take(self, array: np.ndarray, axis: int) -> np.ndarray:
        """An array in the new order along an axis of its own."""
        return np.take(array, self.index, axis=axis)

    def part(self, start: int, end: int) -> Order | None:
        """The order within old elements start to end, if the new ones in their place are those; else None."""
        inside = [place - start for place in self.index[start:end]]
        if not self.is_permutation or any(not 0 <= place < end - start for place in inside):
            return None
        return Order(self.axis, tuple(inside), end - start)

    def blocks(self, length: int) -> Blocks | None:
        """The order as blocks of `length` elements, each made of elements of one old block; or None."""
        if length == self.size:
            return Blocks(np.array([0]), np.array([self.index]))
        if self.size % length or len(self.index) % length:
            return None
        table = np.array(self.index).reshape(-1, length)
        sources = table // length
        return Blocks(sources[:, 0], table % length) if (sources == sources[:, :1]).all() else None

    def reshaped(self, before: Sizes, after: Sizes) -> Order | None:
        """The same order on a tensor that was reshaped from `before` to `after`, or None where it is not one axis."""
        outer = prod(before[: self.axis])
        candidates = [place for place in range(len(after)) if prod(after[:place]) == outer]
        for place in candidates:
            if after[place] == self.size:
                return self.on(place)
        for place in candidates:
            if (order := self._merged(before, after, place) or self._cut(after, place)) is not None:
                return order
        return None

    def _merged(self, before: Sizes, after: Sizes, place: int) -> Order | None:
        """Each element followed by those of the axes behind it, which the reshape joined to it."""
        joined = [prod(before[self.axis : end]) for end in range(self.axis + 1, len(before) + 1)]
        if self.size == 1 or after[place] not in joined:
            return None
        inner = after[place] // self.size
        index = (np.array(self.index)[:, None] * inner + np.arange(inner)).reshape(-1)
        return Order.of(place, index, after[place])

    def _cut(self, after: Sizes, place: int) -> Order | None:
        """Whole runs of elements, which the reshape made elements of the outer one of several axes."""
        if after[place] <= 1 or self.size % after[place]:
            return None
        found = self.blocks(self.size // after[place])
        if found is None or not found.keeps_insides:
            return None
        return Order.of(place, found.sources, after[place])


@dataclass(frozen=True)
class Blocks:
    """Block b of the new order is block sources[b] of the old one, its elements in the order insides[b]."""

    sources: np.ndarray
    insides: np.ndarray

    @property
    def keeps_insides(self) -> bool:
        """Whether blocks move as a whole."""
        return bool((self.insides == np.arange(self.insides.shape[1])).all())

    def are_complete(self, length: int) -> bool:
        """Whether every block holds each of its `length` elements once."""
        return np.array_equal(np.sort(self.insides, axis=1), np.tile(np.arange(length), (len(self.insides), 1)))


def whole_blocks(axis: int, sources: np.ndarray, length: int, count: int) -> Order:
    """The order that moves blocks of `length`, out of `count`, as a whole."""
    index = (sources[:, None] * length + np.arange(length)).reshape(-1)
    return Order.of(axis, index, count * length)


@dataclass(frozen=True)
class Shuffle:
    """Operators that only bring the elements of x along one axis into an order (or pick some): y = order(x)."""

    nodes: tuple[ir.Node, ...]
    x: ir.Value
    y: ir.Value
    order: Order


def shuffle_at(node: ir.Node) -> Shuffle | None:
    """The shuffle that ends with a node: Reshape-Transpose-Reshape, Gather by a constant list, or a reversing Slice."""
    x = node.inputs[0] if node.inputs else None
    if x is None or constant_of(x) is not None:
        return None
    if is_operator(node, "Gather"):
        return _gather(node, x)
    return _reversal(node, x) if is_operator(node, "Slice") else _reshapes(node)


def _gather(node: ir.Node, x: ir.Value) -> Shuffle | None:
    indices = constant_of(node.inputs[1])
    axis = node.attributes.get_int("axis", 0) % len(shape_of(x))
    if indices is None or indices.ndim != 1 or axis == 0:
        return None
    size = shape_of(x)[axis]
    return Shuffle((node,), x, node.outputs[0], Order.of(axis, indices % size, size))


def _reversal(node: ir.Node, x: ir.Value) -> Shuffle | None:
    """A Slice of everything, backwards (channels from RGB to BGR)."""
    axes, steps = (constant_of(optional_input(node, index)) for index in (3, 4))
    if axes is None or steps is None or steps.tolist() != [-1] or shape_of(x) != shape_of(node.outputs[0]):
        return None
    axis = int(axes[0]) % len(shape_of(x))
    size = shape_of(x)[axis]
    return Shuffle((node,), x, node.outputs[0], Order.of(axis, range(size - 1, -1, -1), size)) if axis else None


def _reshapes(last: ir.Node) -> Shuffle | None:
    """A Reshape that cuts one axis into several, a Transpose of those, and a Reshape that joins them again."""
    nodes = [last]
    for op in ("Transpose", "Reshape"):
        value = nodes[0].inputs[0]
        producer = value.producer() if value is not None else None
        if producer is None or not is_operator(producer, op) or value is None or value.is_graph_output():
            return None
        nodes.insert(0, producer)
    first, transpose, _ = nodes
    x = first.inputs[0]
    if not is_operator(last, "Reshape") or x is None or shape_of(x) != shape_of(last.outputs[0]):
        return None
    if any(len(early.outputs[0].uses()) > 1 for early in (first, transpose)):
        return None
    order = _order_of(shape_of(x), shape_of(first.outputs[0]), transpose.attributes.get_ints("perm"))
    return Shuffle(tuple(nodes), x, last.outputs[0], order) if order is not None and order.axis else None


def _order_of(shape: Sizes, cut: Sizes, given: Sequence[int] | None) -> Order | None:
    """The order along one axis of `shape` that a transposition of the axes it was cut into makes, or None."""
    places = tuple(given) if given else tuple(reversed(range(len(cut))))
    moved = [place for place, axis in enumerate(places) if place != axis] or [0]
    edges = [prod(cut[:place]) for place in range(len(cut) + 1)]
    ends = np.cumprod((1, *shape)).tolist()
    for axis, (begin, end) in enumerate(pairwise(ends)):
        if begin not in edges or end not in edges or shape[axis] == 1:
            continue
        first, last = edges.index(begin), len(edges) - 1 - edges[::-1].index(end)
        if first <= moved[0] and moved[-1] < last:
            within = tuple(place - first for place in places[first:last])
            table = np.arange(shape[axis]).reshape(cut[first:last])
            return Order.of(axis, table.transpose(within).reshape(-1), shape[axis])
    return None
