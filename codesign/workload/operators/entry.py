"""What the table knows of one operator: how it becomes a LoopNest, and which of its constants were learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from codesign.workload.loop_nest import LoopNest


def none_learned(_: ir.Node) -> tuple[ir.Value, ...]:
    """No parameters: constants of this operator are sizes, bounds or indices."""
    return ()


def at(*places: int) -> Callable[[ir.Node], tuple[ir.Value, ...]]:
    """Constants at these inputs were learned, whatever their size and type (quantised weights are integers)."""

    def learned(node: ir.Node) -> tuple[ir.Value, ...]:
        given = (node.inputs[place] for place in places if place < len(node.inputs))
        return tuple(value for value in given if value is not None and value.const_value is not None)

    return learned


def vectors(node: ir.Node) -> tuple[ir.Value, ...]:
    """Float constants of more than one element were learned (layer scale, position embedding, class token).

    A single number beside an activation is arithmetic of the network (x / sqrt(d), x + 3).
    """
    return tuple(value for value in node.inputs if value is not None and _is_float_vector(value))


def _is_float_vector(value: ir.Value) -> bool:
    tensor = value.const_value
    return tensor is not None and tensor.dtype.is_floating_point() and tensor.size > 1


@dataclass(frozen=True)
class Entry:
    """nest: the node as loops, or None for a form it cannot read (the node is then host work).

    learned: the values among its inputs that count as parameters.
    """

    nest: Callable[[ir.Node], LoopNest | None]
    learned: Callable[[ir.Node], tuple[ir.Value, ...]] = none_learned


Entries = Mapping[str, Entry]
