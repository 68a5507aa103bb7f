"""Parts of a graph run alone with onnxruntime: tables are what the float operators themselves make of every code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from codesign.graph.graph import constant_of

_FATAL = 4  # onnxruntime's log level: its complaints come back as exceptions


class Fragment:
    """Nodes of a graph as a model of their own, opened once.

    inputs: values it is fed; everything else its nodes read are constants, or made by constants' DequantizeLinear.
    Shapes are not stored, so that it may be fed other sizes than the graph has.
    """

    def __init__(self, graph: ir.Graph, nodes: Sequence[ir.Node], inputs: Sequence[ir.Value], output: ir.Value) -> None:
        import onnxruntime

        self._inputs = tuple(str(value.name) for value in inputs)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _FATAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        model = _model(graph, nodes, inputs, output)
        self._session: Any = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def run(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """The output for arrays by name."""
        return np.asarray(self._session.run(None, {name: arrays[name] for name in self._inputs})[0])


def _model(graph: ir.Graph, nodes: Sequence[ir.Node], inputs: Sequence[ir.Value], output: ir.Value) -> onnx.ModelProto:
    all_nodes = with_constants(nodes, inputs)
    made = {value for node in all_nodes for value in node.outputs}
    read = dict.fromkeys(value for node in all_nodes for value in node.inputs if value is not None)
    constants = [value for value in read if value not in made and value not in set(inputs)]
    initializers = [onnx.numpy_helper.from_array(_array(value), str(value.name)) for value in constants]
    proto = onnx.helper.make_graph(
        [ir.to_proto(node) for node in all_nodes],
        "fragment",
        [_info(value) for value in inputs],
        [_info(output)],
        initializers,
    )
    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in graph.opset_imports.items()]
    return onnx.helper.make_model(proto, opset_imports=opsets, ir_version=10)


def with_constants(nodes: Sequence[ir.Node], inputs: Sequence[ir.Value]) -> list[ir.Node]:
    """The nodes, and before them those that make quantised constants they read."""
    found: dict[ir.Node, None] = {}

    def visit(node: ir.Node) -> None:
        for value in node.inputs:
            producer = value.producer() if value is not None and value not in given else None
            if producer is not None and value is not None and constant_of(value) is None and producer not in found:
                visit(producer)
        found[node] = None

    given = set(inputs)
    for node in nodes:
        if node not in found:
            visit(node)
    return list(found)


def _array(value: ir.Value) -> np.ndarray:
    array = constant_of(value)
    if array is None:
        raise ValueError(f"{value.name} is no constant of the fragment")
    return array


def _info(value: ir.Value) -> onnx.ValueInfoProto:
    """An input or output without its sizes."""
    dtype = value.dtype if value.dtype is not None else ir.DataType.FLOAT
    return onnx.helper.make_tensor_value_info(str(value.name), int(dtype), None)
