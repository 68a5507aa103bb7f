"""What is known of the channels while a graph is walked from its inputs to its outputs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
import onnx_ir as ir

from codesign.graph.graph import constant_of, node_name, shape_of
from codesign.graph.segments import (
    CannotAlignError,
    Dimension,
    Frozen,
    Reason,
    agree,
    cut,
    entries_of,
    freeze,
    resolved,
)

Axes = tuple[Dimension | None, ...]


class Extra(IntEnum):
    """What new channels of a tensor hold: zeros, or numbers that are finite. (Nothing follows for frozen ones.)"""

    ZERO = 0
    FINITE = 1


@dataclass(frozen=True)
class Parameter:
    """A constant with channels: input `index` of a node, its axes, and what a new channel's entries are."""

    node: ir.Node
    index: int
    axes: Axes
    fill: float


@dataclass(frozen=True)
class Selection:
    """Nodes whose result takes the entries `indices` of `source` along an axis; their counts are free of each other."""

    nodes: tuple[ir.Node, ...]
    source: ir.Value
    result: ir.Value
    axis: int
    indices: np.ndarray
    before: Dimension
    after: Dimension


@dataclass
class Tracker:
    """The dimensions of every tensor so far (None: an axis that is never changed), and what constants must follow."""

    axes: dict[ir.Value, Axes] = field(default_factory=dict)
    extras: dict[ir.Value, Extra] = field(default_factory=dict)
    parameters: list[Parameter] = field(default_factory=list)
    selections: list[Selection] = field(default_factory=list)
    done: set[ir.Node] = field(default_factory=set)

    def axes_of(self, value: ir.Value | None) -> Axes:
        """The dimensions of a tensor; a constant has none."""
        if value is None:
            return ()
        found = self.axes.get(value)
        if found is None:
            return (None,) * len(shape_of(value))
        return tuple(None if axis is None else resolved(axis) for axis in found)

    def extra_of(self, value: ir.Value | None) -> Extra:
        """What its new channels hold."""
        return self.extras.get(value, Extra.ZERO) if value is not None else Extra.ZERO

    def set(self, value: ir.Value, axes: Sequence[Dimension | None], extra: Extra = Extra.ZERO) -> None:
        """What a node makes."""
        self.axes[value] = tuple(axes)
        self.extras[value] = extra

    def parameter(self, node: ir.Node, index: int, axes: Sequence[Dimension | None], fill: float = 0.0) -> None:
        """A constant input that follows its dimensions. Where it is none, the dimensions are frozen."""
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is None or not any(axes):
            return
        if constant_of(value) is None:
            for axis in axes:
                self.freeze(axis, Reason.NOT_CONSTANT, node)
            return
        self.parameters.append(Parameter(node, index, tuple(axes), fill))

    def freeze(
        self,
        dimension: Dimension | None,
        reason: Reason,
        where: ir.Node | str,
        grows: bool = True,
        shrinks: bool = True,
    ) -> None:
        """Forbid changes of a dimension, if it is one. where: the node, or the name of the tensor, that says so."""
        if dimension is not None:
            name = where if isinstance(where, str) else node_name(where)
            freeze(dimension, Frozen(reason, name, grows, shrinks))

    def freeze_all(self, node: ir.Node, reason: Reason) -> None:
        """Nothing is understood: everything the node reads is frozen, and what it makes has no channels."""
        for value in node.inputs:
            for axis in self.axes_of(value):
                self.freeze(axis, reason, node)

    def agree(self, dimensions: Iterable[Dimension | None], node: ir.Node) -> Dimension | None:
        """One dimension for several that stand at one place; frozen where one is not of channels or does not align."""
        given = list(dimensions)
        channels = [dimension for dimension in given if dimension is not None]
        if not channels:
            return None
        first, *others = channels
        try:
            for other in others:
                agree(first, other)
        except CannotAlignError:
            for dimension in channels:
                self.freeze(dimension, Reason.RESHAPE, node)
        if len(channels) < len(given):
            self.freeze(first, Reason.NOT_CONSTANT, node)
        return resolved(first)

    def cut(self, dimension: Dimension | None, sizes: Sequence[int], node: ir.Node) -> list[Dimension | None]:
        """Consecutive pieces of a dimension; if they cannot be had it is frozen, and so are new ones in their place."""
        if dimension is None:
            return [None] * len(sizes)
        try:
            return list(cut(dimension, sizes))
        except CannotAlignError:
            self.freeze(dimension, Reason.RESHAPE, node)
            return [None] * len(sizes)

    def tile(self, dimension: Dimension | None, count: int, node: ir.Node) -> Dimension | None:
        """The one piece a dimension consists of `count` times, as groups and heads do: its pieces are made one."""
        if dimension is None:
            return None
        size = entries_of(dimension) // count
        return self.agree(self.cut(dimension, [size] * count, node), node)
