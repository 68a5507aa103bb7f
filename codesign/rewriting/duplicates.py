"""Operators that compute once more what another one has computed already.

onnx_ir's CommonSubexpressionEliminationPass compares inputs by identity; exporters write a constant anew for every
operator that reads it, so that here small constants are compared by value.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator

import onnx_ir as ir

from codesign.graph.graph import constant_of
from codesign.graph.operators import is_operator

_SMALL_BYTES = 4096  # shapes, indices, scalars, biases; comparing whole weights would cost more than it finds
_RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli")
_GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def duplicates(nodes: Iterable[ir.Node]) -> Iterator[tuple[ir.Node, ir.Node]]:
    """Every node that computes the same from the same as an earlier one, with that one: (later, earlier)."""
    seen: dict[Hashable, ir.Node] = {}
    for node in nodes:
        if not is_operator(node, node.op_type) or is_operator(node, *_RANDOM, "Dropout", "Constant"):
            continue
        if any(attribute.type in _GRAPHS for attribute in node.attributes.values()):
            continue
        first = seen.setdefault(_key(node), node)
        if first is not node:
            yield node, first


def _key(node: ir.Node) -> Hashable:
    attributes = sorted((name, _frozen(attribute)) for name, attribute in node.attributes.items())
    wanted = tuple(bool(output.name) for output in node.outputs)
    return node.op_type, tuple(attributes), tuple(map(_input_key, node.inputs)), wanted


def _frozen(attribute: ir.Attr) -> str:
    """An attribute as text; a tensor by its content."""
    tensor = attribute.value if attribute.type is ir.AttributeType.TENSOR else None
    content = (tensor.shape, tensor.dtype, tensor.tobytes()) if tensor is not None else attribute.value
    return f"{attribute.type} {content!r}"


def _input_key(value: ir.Value | None) -> Hashable:
    array = constant_of(value) if value is not None and _is_small(value) else None
    return id(value) if array is None else (str(array.dtype), array.shape, array.tobytes())


def _is_small(value: ir.Value) -> bool:
    return value.const_value is not None and value.const_value.nbytes <= _SMALL_BYTES
