"""A graph as Relax functions: TVM's ONNX converters node by node, except where a node brings a lowering of its own.

TVM's importer is used below its public door (the release is pinned) because converting is per node there: a node's name
finds its schedule, every tensor keeps its name, and one bad node does not hide the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from tvm import relax
from tvm.relax.frontend.onnx.onnx_frontend import ONNXGraphImporter

from codesign.errors import Problem
from codesign.graph.graph import Graph, node_name, shape_of
from codesign.importers.simplify import proto_without_weights

Expression = Any  # a Relax expression; tvm carries no types
Convert = Callable[[Any, Sequence[Expression]], Expression]  # block builder, inputs -> the node's only output


class NetworkImporter(ONNXGraphImporter):  # type: ignore[misc]
    """Adds functions over the same graph to one module.

    functions: how many were begun.
    own: by node name, what replaces TVM's converter; fill it before adding functions. problems: by node name, what
    could not be converted; such a node's outputs are zeros, so the module is of no use then.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__({}, "float32", sanitize=False)
        self._proto, self._weights = proto_without_weights(graph.model)
        self._ir_nodes = {node_name(node): node for node in graph.nodes}
        self._where = str(graph.source or graph.name)
        self.own: dict[str, Convert] = {}
        self.opset = graph.model.graph.opset_imports[""]
        self.problems: dict[str, Problem] = {}
        self.functions = 0
        self._nodes: dict[str, Expression] = {}
        self._parse_graph_initializers(self._proto.graph)
        self._constants = dict(self._nodes)

    def add_function(self, name: str, tensors: Sequence[str]) -> None:
        """A function from the graph's inputs to a tuple of the named tensors."""
        self.functions += 1
        self._nodes = dict(self._constants)
        self._inputs: dict[str, Expression] = {}
        self._parse_graph_input(self._proto.graph)
        parameters = [self._inputs[value.name] for value in self._proto.graph.input if value.name not in self._weights]
        with self.bb.function(name, params=parameters):
            with self.bb.dataflow():
                self._construct_nodes(self._proto.graph)
                result = self.bb.emit_output(relax.Tuple([self._nodes[tensor] for tensor in tensors]))
            self.bb.emit_func_output(result)

    def expression(self, tensor: str) -> Expression:
        """What stands for a tensor of the function being added. Raises KeyError before its node was reached."""
        return self._nodes[tensor]

    def nothing(self, node: str) -> Convert:
        """What stands for a node whose results nobody reads any more."""
        results = [relax.const(np.zeros((), np.float32)) for _ in self._ir_nodes[node].outputs]
        return lambda builder, inputs: results[0] if len(results) == 1 else relax.Tuple(results)

    def _parse_graph_initializers(self, graph: Any) -> None:
        super()._parse_graph_initializers(graph)
        for name, tensor in self._weights.items():
            self._nodes[name] = relax.const(tensor.numpy(), str(tensor.numpy().dtype))

    def _convert_operator(self, op_name: str, inputs: Any, attrs: dict[str, Any], opset: int) -> Expression:
        node = self._ir_nodes[attrs["tvm_custom"]["name"]]
        own = self.own.get(node_name(node))
        if own is not None:
            return self._bound(own(self.bb, inputs))
        try:
            result = self._bound(self._converted(node, inputs, attrs))
            _check_shapes(node, result)
            return result
        except Exception as error:  # TVM raises anything; all of them become one problem that names the node
            reason = (str(error) or type(error).__name__).strip().splitlines()[-1]
            name = node_name(node)
            text = f"TVM cannot lower this {node.op_type}: {reason}"
            self.problems[name] = Problem(f"{self._where}: node {name}", text)
            return _zeros(node)

    def _converted(self, node: ir.Node, inputs: Any, attrs: dict[str, Any]) -> Expression:
        if node.domain not in ("", "ai.onnx"):
            raise NotImplementedError(f"its operator set {node.domain!r} is unknown to TVM")
        return super()._convert_operator(node.op_type, inputs, attrs, self.opset)

    def _bound(self, result: Expression) -> Expression:
        """A call bound to a variable: otherwise every reader would evaluate it again."""
        return self.bb.emit(result) if isinstance(result, relax.Call) else result


def _check_shapes(node: ir.Node, result: Expression) -> None:
    """Raise ValueError when TVM's idea of a result differs from ONNX's."""
    results = list(result.fields) if isinstance(result, relax.Tuple) else [result]
    for value, found in zip(node.outputs, results, strict=False):
        if isinstance(found.ty, relax.TensorType) and isinstance(found.ty.shape, relax.ShapeExpr):
            sizes = tuple(int(size) for size in found.ty.shape)
            if sizes != shape_of(value):
                raise ValueError(f"it makes {value.name} of shape {sizes}, ONNX {shape_of(value)}")


def _zeros(node: ir.Node) -> Expression:
    constants = [relax.const(np.zeros(shape_of(value), value.dtype.numpy())) for value in node.outputs if value.dtype]
    return constants[0] if len(constants) == 1 else relax.Tuple(constants)
