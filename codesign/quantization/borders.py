"""A quantised network whose inputs and outputs are codes: what a sensor or another network on integers is joined to.

x -> QuantizeLinear -> ... -> DequantizeLinear -> y    -->    x (codes) -> ... -> y (codes)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from codesign.graph.codes import is_dequantize, is_quantize, scaling_of
from codesign.graph.graph import Graph


@dataclass(frozen=True)
class CodesAtBorders:
    """graph: inputs and outputs as codes where they can be. codes: by their names, which tensor of the network as it
    was they are."""

    graph: Graph
    codes: dict[str, str]


def with_codes_at_borders(graph: Graph) -> CodesAtBorders:
    """A copy without the quantisers at its ends; inputs and outputs keep their names.

    An input stays what it is where it is read as numbers too, an output where its codes are an input or another output.
    """
    copy = graph.copy()
    codes = {**_inputs(copy.model.graph), **_outputs(copy.model.graph)}
    return CodesAtBorders(copy, codes)


def _inputs(graph: ir.Graph) -> dict[str, str]:
    taken: dict[str, str] = {}
    for at, value in enumerate(graph.inputs):
        readers = list(dict.fromkeys(use.node for use in value.uses()))
        scalings = {scaling_of(reader) for reader in readers if is_quantize(reader)}
        if len(scalings) != 1 or not all(map(is_quantize, readers)) or value.is_graph_output():
            continue
        (scaling,) = scalings
        assert scaling is not None
        taken[str(value.name)] = str(readers[0].outputs[0].name)
        dtype = ir.DataType.from_numpy(np.dtype(scaling.dtype))
        new = ir.Value(name=value.name, shape=value.shape, type=ir.TensorType(dtype))
        for reader in readers:
            reader.outputs[0].replace_all_uses_with(new, replace_graph_outputs=True)
            graph.remove(reader, safe=True)
        graph.inputs[at] = new
    return taken


def _outputs(graph: ir.Graph) -> dict[str, str]:
    taken: dict[str, str] = {}
    for at, value in enumerate(graph.outputs):
        node = value.producer()
        codes = node.inputs[0] if node is not None and is_dequantize(node) else None
        if codes is None or codes.is_graph_output() or codes.producer() is None:
            continue
        taken[str(value.name)] = str(codes.name)
        graph.outputs[at] = codes
        codes.name, value.name = value.name, f"{value.name}.numbers"
        if node is not None and not value.uses():
            graph.remove(node, safe=True)
    return taken
