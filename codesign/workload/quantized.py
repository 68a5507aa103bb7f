"""A quantised graph as layers: what stands between codes and codes is one, its quantisers and clamps included.

codes -> DequantizeLinear -> Conv -> Relu -> QuantizeLinear -> codes    -->    one layer Conv, codes in, codes out
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace

import onnx_ir as ir

from codesign.graph.codes import constant_codes, is_dequantize
from codesign.graph.graph import Graph, node_name
from codesign.graph.islands import Island, clamps_behind, islands_of
from codesign.vocabulary import OperationKind
from codesign.workload.layer import Layer
from codesign.workload.operators.host import host_nest
from codesign.workload.tensors import elements

MakeLayer = Callable[[ir.Node], Layer]
_BY_ELEMENT = (OperationKind.ACTIVATION, OperationKind.ELEMENTWISE)


def quantized_layers(graph: Graph, floating: Collection[str], layer_of: MakeLayer) -> Iterator[Layer]:
    """One Layer for each island, named after the operator that does its work; nodes one by one where that is unclear.

    floating: names of islands no integer step computes: they are host work, at the sizes of floats. layer_of: a node
    alone as a layer.
    """
    for island in islands_of(graph):
        layers = _layers(island, layer_of)
        if island.name in floating:
            nests = {node_name(node): host_nest(node) for node in island.nodes}
            layers = [replace(layer, nest=nests.get(layer.name, layer.nest), members=()) for layer in layers]
        yield from layers


def _layers(island: Island, layer_of: MakeLayer) -> list[Layer]:
    if not island.nodes:
        return [_between(island, layer_of(_border(island)))]
    work, _ = clamps_behind(island.nodes)
    parts = [_own_part(_with_codes(layer_of(node), node), node, island) for node in work]
    if len(parts) == 1:
        return [_between(island, parts[0])]
    if len(island.sources) == 1 and all(part.nest.kind in _BY_ELEMENT for part in parts):
        return [_between(island, _table(island, parts))]
    return _chained(island, parts)


def _border(island: Island) -> ir.Node:
    node = island.quantizer or island.result.producer()
    assert node is not None
    return node


def _between(island: Island, layer: Layer) -> Layer:
    """The layer with the codes it reads and makes as its tensors."""
    return replace(layer, inputs=_inputs(island), outputs=(str(island.output.name),))


def _inputs(island: Island) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(_codes(source).name) for source in island.sources))


def _codes(value: ir.Value) -> ir.Value:
    """What a DequantizeLinear reads, or the value itself."""
    node = value.producer()
    codes = node.inputs[0] if node is not None and is_dequantize(node) else value
    assert codes is not None
    return codes


def _with_codes(layer: Layer, node: ir.Node) -> Layer:
    """The layer with the parameters that are quantised constants."""
    constants = (constant_codes(value) for value in dict.fromkeys(node.inputs))
    return replace(layer, parameters=layer.parameters + sum(one.codes.size for one in constants if one is not None))


def _own_part(layer: Layer, node: ir.Node, island: Island) -> Layer:
    """Of a Split, what it moves for this island: each of its results has an island of its own."""
    if node.op_type != "Split" or layer.nest.kind is not OperationKind.DATA_MOVEMENT:
        return layer
    own = [
        value for value in node.outputs if value is island.result or any(u.node in island.nodes for u in value.uses())
    ]
    moved = elements(*own)
    return replace(layer, nest=replace(layer.nest, input_elements=moved, output_elements=moved))


def _table(island: Island, parts: Sequence[Layer]) -> Layer:
    """Element-wise work in one pass over the data."""
    last = parts[-1]
    nest = replace(
        last.nest,
        kind=OperationKind.ACTIVATION,
        input_elements=elements(island.sources[0]),
        operations=sum(part.nest.operations for part in parts),
    )
    return replace(last, nest=nest, parameters=sum(part.parameters for part in parts), members=tuple(parts))


def _chained(island: Island, parts: Sequence[Layer]) -> list[Layer]:
    """Nodes one by one: codes stand in the place of the numbers at both ends."""
    codes = {str(source.name): str(_codes(source).name) for source in island.sources}
    layers = [replace(part, inputs=tuple(codes.get(name, name) for name in part.inputs)) for part in parts]
    layers[-1] = replace(layers[-1], outputs=(str(island.output.name),))
    return layers
