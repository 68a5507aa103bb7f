"""The few edits every rewrite is made of; none of them touches a tensor that another graph or node still uses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from codesign.graph.graph import Graph, node_name


def set_constant(graph: Graph, node: ir.Node, index: int, array: np.ndarray, role: str) -> None:
    """Make input `index` of a node the constant `array`.

    An initializer only this input uses keeps its name; otherwise (shared, absent, a Constant node's output) a new one
    is called after the node and `role`. Weights are shared between copies of a graph, so no tensor is ever written to.
    """
    old = node.inputs[index] if index < len(node.inputs) else None
    if old is not None and old.is_initializer() and len(old.uses()) == 1 and not old.is_graph_output():
        old.const_value = ir.tensor(array, name=old.name)
        old.shape = ir.Shape(array.shape)
        old.dtype = ir.DataType.from_numpy(array.dtype)
        return
    value = new_constant(graph, f"{node_name(node)}.{role}", array)
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)
    remove_if_unused(graph, old)


def insert_before(
    graph: Graph,
    reader: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value | np.ndarray],
    shape: Sequence[int],
    *,
    role: str,
    **attributes: int | str,
) -> ir.Value:
    """The result of a new node in front of `reader`, both called after it and `role`; arrays become constants.

    shape: of the result, which has the type of the first input. Nobody reads it yet.
    """
    name = fresh_name(graph, f"{node_name(reader)}.{role}")
    values = [item if isinstance(item, ir.Value) else new_constant(graph, f"{name}.constant", item) for item in inputs]
    node = ir.node(op_type, values, attributes, name=name)
    result = node.outputs[0]
    result.name, result.shape, result.type = name, ir.Shape(shape), values[0].type
    graph.model.graph.insert_before(reader, node)
    return result


def remove_node(graph: Graph, node: ir.Node, replacement: ir.Value) -> None:
    """Take a node out; whoever read its first output reads `replacement`.

    A graph output keeps its name: `replacement`, which must then be another node's output, is renamed.
    """
    output = node.outputs[0]
    if output.is_graph_output():
        output.replace_all_uses_with(replacement, replace_graph_outputs=True)
        name, output.name = output.name, f"{output.name}.replaced"
        replacement.name = name
    else:
        output.replace_all_uses_with(replacement)
    inputs = list(node.inputs)
    graph.model.graph.remove(node, safe=True)
    for value in inputs:
        remove_if_unused(graph, value)


def insert_after(graph: Graph, node: ir.Node, op_type: str, array: np.ndarray, role: str) -> ir.Node:
    """The new node `y op constant` after a node that makes y; its result takes over y's name, readers and place.

    The new node is called after the old one, its operator and `role`.
    """
    y = node.outputs[0]
    name = fresh_name(graph, f"{node_name(node)}.{role}_{op_type.lower()}")
    added = ir.Node("", op_type, [y, None], name=name)
    result = added.outputs[0]
    result.shape, result.type = y.shape, y.type
    for use in [use for use in y.uses() if use.node is not added]:
        use.node.replace_input_with(use.idx, result)
    outputs = graph.model.graph.outputs
    for index, output in enumerate(outputs):
        if output is y:
            outputs[index] = result
    result.name, y.name = y.name, fresh_name(graph, f"{y.name}.before_{role}")
    graph.model.graph.insert_after(node, added)
    set_constant(graph, added, 1, array, role)
    return added


def remove_if_unused(graph: Graph, value: ir.Value | None) -> None:
    """Drop a constant (initializer or Constant node) that nothing reads any more."""
    if value is None or value.uses() or value.is_graph_output() or value.is_graph_input():
        return
    producer = value.producer()
    if value.is_initializer():
        graph.model.graph.initializers.pop(str(value.name))
    elif producer is not None and producer.op_type == "Constant":
        graph.model.graph.remove(producer, safe=True)


def remove_unread(graph: Graph, value: ir.Value | None) -> None:
    """Drop what makes a value nothing reads any more: its node, what only that node read, and so on backwards."""
    remove_if_unused(graph, value)
    node = value.producer() if value is not None else None
    if node is None or node.graph is None or any(out.uses() or out.is_graph_output() for out in node.outputs):
        return
    inputs = list(node.inputs)
    graph.model.graph.remove(node, safe=True)
    for source in inputs:
        remove_unread(graph, source)


def fresh_name(graph: Graph, wanted: str) -> str:
    """`wanted`, or `wanted.2`, `wanted.3`, ... if a value or node is called so already."""
    taken = set(graph.model.graph.initializers) | {value.name for value in graph.inputs}
    taken |= {name for node in graph.nodes for name in (node.name, *(output.name for output in node.outputs))}
    names = (wanted if number == 1 else f"{wanted}.{number}" for number in range(1, len(taken) + 2))
    return next(name for name in names if name not in taken)


def only_reader(value: ir.Value) -> ir.Node | None:
    """The one node that reads a value, or None when several do, none does, or it is an output of the graph."""
    uses = tuple(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None


def new_constant(graph: Graph, wanted: str, array: np.ndarray) -> ir.Value:
    """A new initializer, called so or with a number behind it."""
    name = fresh_name(graph, wanted)
    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    value.shape = ir.Shape(array.shape)
    value.dtype = ir.DataType.from_numpy(array.dtype)
    graph.model.graph.register_initializer(value)
    return value
