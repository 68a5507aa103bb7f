"""New nodes for a rewrite: they stand before the node they replace, are named after it and have static shapes.

After import every graph is at operator set 18 or newer: reductions take their axes as an input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import onnx_ir as ir

from codesign.graph.graph import Graph, node_name, shape_of
from codesign.rewriting.edit import fresh_name, new_constant, remove_node


@dataclass(frozen=True)
class Builder:
    """Adds nodes before `node`, which `replace` then takes out; a result of type and shape known from its inputs."""

    graph: Graph
    node: ir.Node

    def constant(self, array: np.ndarray, role: str) -> ir.Value:
        """An initializer."""
        return new_constant(self.graph, f"{node_name(self.node)}.{role}", array)

    def number(self, value: float, like: ir.Value, role: str) -> ir.Value:
        """A single number of the type of `like`."""
        assert like.dtype is not None
        return self.constant(np.array(value, like.dtype.numpy()), role)

    def add(
        self,
        op_type: str,
        *inputs: ir.Value | None,
        shape: Sequence[int] | None = None,
        **attributes: int | float | Sequence[int],
    ) -> ir.Value:
        """The result of a new node, of its first input's type. shape: left out, its inputs' as numpy broadcasts."""
        name = fresh_name(self.graph, f"{node_name(self.node)}.{op_type}")
        node = ir.Node("", op_type, inputs, ir.convenience.convert_attributes(attributes), name=name)
        result, first = node.outputs[0], inputs[0]
        assert first is not None and first.dtype is not None
        given = [shape_of(value) for value in inputs if value is not None]
        result.name, result.dtype = name, first.dtype
        result.shape = ir.Shape(np.broadcast_shapes(*given) if shape is None else shape)
        self.graph.model.graph.insert_before(self.node, node)
        return result

    def reduce(self, op_type: str, x: ir.Value, axis: int) -> ir.Value:
        """A reduction along one axis, which stays with size 1."""
        shape = [1 if place == axis else size for place, size in enumerate(shape_of(x))]
        return self.add(op_type, x, self.constant(np.array([axis], np.int64), "axes"), shape=shape, keepdims=1)

    def reshape(self, x: ir.Value, shape: Sequence[int]) -> ir.Value:
        """The same elements in this shape, one size of which may be -1, the rest; x itself when it has it."""
        old = shape_of(x)
        new = tuple(-prod(old) // prod(shape) if size == -1 else size for size in shape)
        if new == old:
            return x
        return self.add("Reshape", x, self.constant(np.array(new, np.int64), "shape"), shape=new)

    def replace(self, result: ir.Value) -> None:
        """Take the node out; whoever read its first output reads `result`, which takes over its name."""
        name = self.node.outputs[0].name
        remove_node(self.graph, self.node, result)
        result.name = name
