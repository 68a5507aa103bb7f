"""Chains of element-wise nodes that compute a function of one tensor: a table of 256 entries for int8 codes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import onnx_ir as ir

from codesign.graph.graph import Graph, constant_of, is_along_channels, shape_of
from codesign.graph.marks import data_inputs, source_of, used_outside
from codesign.graph.operators import is_operator

_CURVED = (
    *("Relu", "LeakyRelu", "PRelu", "ThresholdedRelu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Swish", "Tanh"),
    *("Elu", "Celu", "Selu", "Gelu", "Mish", "Softplus", "Softsign", "Exp", "Log", "Erf", "Max", "Min", "Abs", "Sqrt"),
)
_ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Neg", "Pow", "Reciprocal")
_MOST_NODES = 16


def chains_of(graph: Graph, is_taken: Callable[[ir.Node], bool]) -> list[tuple[ir.Node, ...]]:
    """Every chain, the longest first found from the end, each node in one at most; nodes in topological order.

    is_taken: nodes that belong to another layer. A chain of one node counts; one that changes the shape does not.
    """
    order = {node: at for at, node in enumerate(graph.nodes)}
    taken: set[ir.Node] = set()
    found = []
    for node in reversed(graph.nodes):
        if node in taken or is_taken(node) or not is_elementwise(node):
            continue
        regions = [region for region in _regions(node, order, taken, is_taken) if _is_closed(region)]
        if regions:
            taken.update(regions[-1])
            found.append(regions[-1])
    return found


def is_elementwise(node: ir.Node) -> bool:
    """One float32 result, element by element, of tensors and single numbers; PRelu may have a slope a channel."""
    if not is_operator(node, *_CURVED, *_ARITHMETIC) or len(node.outputs) != 1:
        return False
    if node.outputs[0].dtype is not ir.DataType.FLOAT:
        return False
    constants = [array for array in map(constant_of, node.inputs) if array is not None]
    if is_operator(node, "PRelu"):
        return all(is_along_channels(array, len(shape_of(node.outputs[0]))) for array in constants)
    return all(array.size == 1 for array in constants)


def _is_closed(nodes: tuple[ir.Node, ...]) -> bool:
    return source_of(nodes) is not None and used_outside(nodes) is None


def _regions(
    last: ir.Node, order: dict[ir.Node, int], taken: set[ir.Node], is_taken: Callable[[ir.Node], bool]
) -> Iterator[tuple[ir.Node, ...]]:
    """Ever more nodes that end at `last` and read one value: the producer of the latest value read is added."""
    nodes, read = {last}, set(data_inputs(last))
    while read and len(nodes) <= _MOST_NODES:
        if len(read) == 1:
            yield tuple(sorted(nodes, key=order.__getitem__))
        latest = max(read, key=lambda value: order.get(value.producer(), -1))  # type: ignore[arg-type]
        producer = latest.producer()
        if producer is None or producer in taken or is_taken(producer) or not is_elementwise(producer):
            return
        nodes.add(producer)
        read = (read - {latest}) | set(data_inputs(producer))
