"""Graph: an onnx_ir model with static shapes, and the few questions every part asks of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir


@dataclass(frozen=True)
class TensorBound:
    """A tensor whose size depends on data: it never holds more than `elements` elements of `element_bytes` bytes."""

    name: str
    elements: int
    element_bytes: int


@dataclass(frozen=True)
class HostTail:
    """The data-dependent end of a network (NonMaxSuppression, NonZero, TopK, ...), which runs on the host.

    model: a complete onnx_ir model from the cut tensors to the original outputs. nodes: (name, operator) of its nodes
    in order. bounds: an upper bound for every output of every node.
    """

    model: ir.Model
    nodes: tuple[tuple[str, str], ...]
    bounds: tuple[TensorBound, ...]


@dataclass(frozen=True)
class Graph:
    """A network after import. The onnx_ir model inside is mutable: passes work on `copy()`.

    name: what reports call it. source: the file it was read from (None for a module). sha256: of that file.
    host_tail: what was cut off at the end because its sizes depend on data; the graph then ends at the tail's inputs.
    """

    model: ir.Model
    name: str
    sha256: str
    source: Path | None = None
    host_tail: HostTail | None = None

    @property
    def nodes(self) -> list[ir.Node]:
        """Nodes in topological order."""
        return list(self.model.graph)

    @property
    def inputs(self) -> list[ir.Value]:
        """Activation inputs (weights are never among them)."""
        return list(self.model.graph.inputs)

    @property
    def outputs(self) -> list[ir.Value]:
        """Outputs, in the original's order."""
        return list(self.model.graph.outputs)

    def copy(self) -> Graph:
        """The same network with an onnx_ir model of its own; weights are shared, not copied."""
        return replace(self, model=self.model.clone())


def node_name(node: ir.Node) -> str:
    """The name users recognise: the node's own, or its first output's."""
    return node.name or str(node.outputs[0].name)


def shape_of(value: ir.Value) -> tuple[int, ...]:
    """Static shape. Raises ValueError when a size is unknown."""
    if value.shape is None or not value.shape.is_static():
        raise ValueError(f"{value.name}: shape {value.shape} is not static")
    return tuple(int(size) for size in value.shape)  # type: ignore[arg-type]


def constant_of(value: ir.Value | None) -> np.ndarray | None:
    """The constant a value holds (initializer or Constant node), or None."""
    if value is None or value.const_value is None:
        return None
    return value.const_value.numpy()


def is_along_channels(array: np.ndarray, rank: int) -> bool:
    """Whether a constant broadcasts along axis 1 of a tensor of that rank alone, or is a single number."""
    if array.size == 1:
        return True
    sizes = (1,) * (rank - array.ndim) + array.shape
    return rank > 1 and len(sizes) == rank and sizes[1] == array.size
