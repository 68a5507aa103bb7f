"""Sizes of the tensors around a node: what it reads while the network runs, what it writes, how many bytes."""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil, prod

import onnx_ir as ir

from codesign.graph.graph import shape_of

_CONSTANT_CHAIN = 4  # DequantizeLinear, Cast, Reshape, Transpose
Sizes = tuple[int, int, int, int, int, int, int, int]


def is_constant(value: ir.Value, nodes_between: int = _CONSTANT_CHAIN) -> bool:
    """Whether a value is known before the network runs: an initializer, or computed from initializers alone.

    Import folds constants except what a quantiser wrote, so only `nodes_between` nodes are looked back over.
    """
    if value.const_value is not None:
        return True
    producer = value.producer()
    return producer is not None and nodes_between > 0 and is_computed_once(producer, nodes_between - 1)


def is_computed_once(node: ir.Node, nodes_between: int = _CONSTANT_CHAIN) -> bool:
    """Whether a node is a Constant or reads constants alone, as the DequantizeLinear of quantised weights does."""
    values = [value for value in node.inputs if value is not None]
    return node.op_type == "Constant" or (bool(values) and all(is_constant(value, nodes_between) for value in values))


def activations(node: ir.Node) -> tuple[ir.Value, ...]:
    """Distinct values a node reads that are no constants, in order. `Mul(x, x)` reads x once."""
    found = dict.fromkeys(value for value in node.inputs if value is not None)
    return tuple(value for value in found if not is_constant(value))


def results(node: ir.Node) -> tuple[ir.Value, ...]:
    """The outputs a node makes (optional ones left out by the file have no name)."""
    return tuple(value for value in node.outputs if value.name)


def elements(*values: ir.Value) -> int:
    """Elements of all values together."""
    return sum(prod(shape_of(value)) for value in values)


def element_bytes(value: ir.Value) -> int:
    """Bytes an element takes as stored in the file; 4-bit types count as a whole byte. Unknown types as 4 bytes."""
    return max(1, ceil(value.dtype.itemsize)) if value.dtype is not None else 4


def tensor_bytes(values: Iterable[ir.Value]) -> int:
    """Bytes of all values together."""
    return sum(elements(value) * element_bytes(value) for value in values)


def sizes_of(shape: tuple[int, ...], window: tuple[int, int] = (1, 1)) -> Sizes:
    """A result of this shape as loop sizes: batch B, channels G, rows OY, columns OX; K and C are 1.

    [n] is n columns, [b, g] one position, [b, g, l] a row; beyond four dimensions all but the last count as rows.
    """
    if len(shape) < 2:
        return 1, 1, 1, 1, 1, prod(shape), *window
    batch, channels, *space = shape
    columns = space[-1] if space else 1
    return batch, channels, 1, 1, prod(space[:-1]), columns, *window
