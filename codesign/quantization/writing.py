"""Writes QuantizeLinear and DequantizeLinear into a graph: the form onnxruntime and every reading of codesign runs.

    t -> QuantizeLinear -> t_quantized -> DequantizeLinear -> t_dequantized -> readers

An output of the graph keeps its name: what is computed is then called t_float, and the dequantised tensor t.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from codesign.graph.graph import Graph, constant_of, node_name
from codesign.quantization.formats import FixedPoint
from codesign.quantization.weighted import BIAS, Weighted
from codesign.quantization.weights import WeightCodes


@dataclass
class QdqWriter:
    """Adds nodes and constants to a graph."""

    graph: Graph
    taken: set[str] = field(init=False)

    def __post_init__(self) -> None:
        self.taken = set(self.graph.model.graph.initializers) | {str(value.name) for value in self.graph.inputs}
        for node in self.graph.nodes:
            self.taken |= {str(node.name), *(str(output.name) for output in node.outputs)}

    def activation(self, value: ir.Value, form: FixedPoint) -> None:
        """All readers of a tensor read it rounded."""
        name = str(value.name)
        readers = tuple(value.uses())
        places = [at for at, output in enumerate(self.graph.model.graph.outputs) if output is value]
        scale = self._constant(f"{name}_scale", np.array(form.scale, np.float32))
        zero = self._constant(f"{name}_zero_point", np.zeros((), form.dtype))
        codes = self._node("QuantizeLinear", [value, scale, zero], f"{name}_quantized", value, form.dtype)
        rounded = self._node("DequantizeLinear", [codes, scale, zero], f"{name}_dequantized", value)
        self._insert(value.producer(), codes, rounded)
        for use in readers:
            use.node.replace_input_with(use.idx, rounded)
        for at in places:
            self.graph.model.graph.outputs[at] = rounded
        if places:
            value.name = self._fresh(f"{name}_float")
            rounded.name = name

    def pixels(self, value: ir.Value, form: FixedPoint) -> None:
        """An input of the graph holds codes itself; its readers read what they mean."""
        name, readers = str(value.name), tuple(value.uses())
        value.type = ir.TensorType(ir.DataType.from_numpy(form.dtype))  # copies of the graph share the old one
        scale = self._constant(f"{name}_scale", np.array(form.scale, np.float32))
        zero = self._constant(f"{name}_zero_point", np.array(form.zero_point, form.dtype))
        rounded = self._node("DequantizeLinear", [value, scale, zero], f"{name}_dequantized", value)
        self._insert(None, rounded)
        for use in readers:
            use.node.replace_input_with(use.idx, rounded)

    def layer(self, layer: Weighted, codes: WeightCodes) -> None:
        """The node reads int8 weights, and an int32 bias where it has one."""
        node, old = layer.node, layer.node.inputs[1]
        stored = str(old.name) if old is not None else f"{node_name(node)}.weights"
        axis = layer.axis if len(codes.fraction_bits) == codes.weights.shape[layer.axis] else None
        self._replace(node, 1, stored, codes.weights, codes.fraction_bits, axis)
        if codes.bias is not None:
            before = node.inputs[BIAS] if len(node.inputs) > BIAS else None
            stored = str(before.name) if before is not None else f"{node_name(node)}.bias"
            node.resize_inputs(max(len(node.inputs), BIAS + 1))
            axis = 0 if len(codes.bias_fraction_bits) == len(codes.bias) else None
            self._replace(node, BIAS, stored, codes.bias, codes.bias_fraction_bits, axis)

    def constant(self, node: ir.Node, index: int, form: FixedPoint) -> None:
        """A constant the node reads becomes codes."""
        array = constant_of(node.inputs[index])
        assert array is not None and node.inputs[index] is not None
        bits = np.array([form.fraction_bits])
        self._replace(node, index, str(node.inputs[index].name), form.codes(array), bits, None)  # type: ignore[union-attr]

    def _replace(
        self, node: ir.Node, index: int, name: str, codes: np.ndarray, fraction_bits: np.ndarray, axis: int | None
    ) -> None:
        old = node.inputs[index]
        scales = np.ldexp(np.float32(1), -fraction_bits).astype(np.float32)
        scale = self._constant(f"{name}_scale", scales if axis is not None else scales.reshape(-1)[0])
        values = [self._constant(f"{name}_quantized", codes), scale]
        if codes.dtype != np.int32:  # int32 has no zero point
            zeros = np.zeros(scales.shape if axis is not None else (), codes.dtype)
            values.append(self._constant(f"{name}_zero_point", zeros))
        attributes = {} if axis is None else {"axis": axis}
        rounded = self._node("DequantizeLinear", values, f"{name}_dequantized", values[0], None, attributes)
        producer = rounded.producer()
        assert producer is not None
        self.graph.model.graph.insert_before(node, producer)
        node.replace_input_with(index, rounded)
        if old is not None and not old.uses() and old.is_initializer() and not old.is_graph_output():
            self.graph.model.graph.initializers.pop(str(old.name))

    def _insert(self, producer: ir.Node | None, *values: ir.Value) -> None:
        nodes = [node for value in values if (node := value.producer()) is not None]
        if producer is not None:
            self.graph.model.graph.insert_after(producer, nodes)
        else:
            self.graph.model.graph.insert_before(self.graph.nodes[0], nodes)

    def _node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value],
        name: str,
        like: ir.Value,
        dtype: np.dtype | None = None,
        attributes: dict[str, int] | None = None,
    ) -> ir.Value:
        name = self._fresh(name)
        node = ir.Node("", op_type, inputs, ir.convenience.convert_attributes(attributes or {}), name=name)
        made = node.outputs[0]
        made.name, made.shape = name, like.shape
        made.dtype = ir.DataType.FLOAT if dtype is None else ir.DataType.from_numpy(dtype)
        return made

    def _constant(self, name: str, array: np.ndarray) -> ir.Value:
        name = self._fresh(name)
        array = np.asarray(array)
        value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        value.shape, value.dtype = ir.Shape(array.shape), ir.DataType.from_numpy(array.dtype)
        self.graph.model.graph.register_initializer(value)
        return value

    def _fresh(self, wanted: str) -> str:
        """`wanted`, or `wanted.2`, `wanted.3`, ... where it is taken."""
        name, number = wanted, 1
        while name in self.taken:
            number += 1
            name = f"{wanted}.{number}"
        self.taken.add(name)
        return name
