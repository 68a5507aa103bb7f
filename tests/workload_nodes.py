"""One node as a network, run by onnxruntime (or onnx's reference) so that every shape in it is a real one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx.reference import ReferenceEvaluator

from codesign.graph.graph import Graph
from codesign.workload.layer import Layer
from codesign.workload.layers import layers_of

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Node:
    """inputs: data in order, None where left out; constant: places that are initializers."""

    op: str
    inputs: tuple[Array | None, ...]
    constant: tuple[int, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1
    opset: int = 18
    domain: str = ""
    reference: bool = False

    def model(self) -> onnx.ModelProto:
        """The node alone; outputs y0, y1, ... of no stated type."""
        names = ["" if given is None else f"x{place}" for place, given in enumerate(self.inputs)]
        results = [f"y{number}" for number in range(self.outputs)]
        node = onnx.helper.make_node(self.op, names, results, name="node", domain=self.domain, **self.attributes)
        given = {name: value for name, value in zip(names, self.inputs, strict=True) if value is not None}
        weights = {f"x{place}" for place in self.constant}
        return onnx.helper.make_model(
            onnx.helper.make_graph(
                [node],
                self.op,
                [
                    onnx.helper.make_tensor_value_info(
                        name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
                    )
                    for name, value in given.items()
                    if name not in weights
                ],
                [onnx.ValueInfoProto(name=name) for name in results],
                [onnx.numpy_helper.from_array(value, name) for name, value in given.items() if name in weights],
            ),
            opset_imports=[onnx.helper.make_opsetid("", self.opset), onnx.helper.make_opsetid("test", 1)],
            ir_version=10,
        )

    def run(self) -> list[Array]:
        """What the node makes of its inputs."""
        model = self.model()
        feeds = {value.name: self.inputs[int(value.name[1:])] for value in model.graph.input}
        if self.reference:
            return list(ReferenceEvaluator(model).run(None, feeds))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return list(session.run(None, feeds))

    def graph(self, results: list[Array]) -> Graph:
        """The node as a Graph whose result shapes and types are those of `results`."""
        model = ir.from_proto(self.model())
        for value, array in zip(model.graph.outputs, results, strict=True):
            value.shape = ir.Shape(array.shape)
            value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
        return Graph(model, self.op, "")

    def layer(self, results: list[Array] | None = None) -> Layer:
        """The node as a layer."""
        (layer,) = layers_of(self.graph(self.run() if results is None else results))
        return layer

    @property
    def activations(self) -> list[Array]:
        """Arrays that are no initializers."""
        return [given for place, given in enumerate(self.inputs) if given is not None and place not in self.constant]
