"""The whole network as one Relax module: compute layers are calls of their scheduled TIR, the rest stays Relax.

graph --TVM's ONNX converters--> Relax --layers with a schedule--> call_tir(schedule)
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import onnx_ir as ir

from codesign.errors import DoesNotFitError
from codesign.graph.codes import is_quantize, is_quantized
from codesign.graph.graph import Graph, node_name
from codesign.graph.operators import Convolution, Gemm, MatMul, TransposedConvolution, view_of
from codesign.lowering.borders import call_layer
from codesign.lowering.frontend import Convert, Expression, NetworkImporter
from codesign.lowering.integers.calls import integer_calls, step_expression
from codesign.lowering.integers.scheduled import Scheduled, scheduled_step
from codesign.lowering.interface import Interface, Tensor
from codesign.lowering.microcontroller.blocks import Blocks
from codesign.lowering.microcontroller.channels_last import channels_last_calls
from codesign.lowering.microcontroller.floats import FloatSteps, concatenations, float_steps
from codesign.lowering.schedule import ScheduledLayer
from codesign.mapping.mapping import Mapping as LayerMapping
from codesign.numerics.steps import Step
from codesign.quantization.reading import integer_network
from codesign.workload.loop_nest import LoopNest

_LOG = logging.getLogger(__name__)
MAIN = "main"
MAIN_LAYERS = "main_layers"
NOTHING_SCHEDULED: Mapping[str, ScheduledLayer] = MappingProxyType({})
_OPAQUE = 8  # TVM's OpPatternKind: never fused with its neighbours


@dataclass(frozen=True)
class LoweredNetwork:
    """module: an IRModule with `main` (inputs -> outputs) and `main_layers` (inputs -> outputs and layers), not yet
    legalised. host_tail: what runs after it, if anything."""

    module: Any
    interface: Interface
    host_tail: ir.Model | None = None


def build_network(
    graph: Graph,
    scheduled: Mapping[str, ScheduledLayer] = NOTHING_SCHEDULED,
    observed: Sequence[str] | None = None,
    *,
    channels_last: bool = False,
    blocks: Blocks | None = None,
) -> LoweredNetwork:
    """Lower a graph. scheduled: by layer (= node) name; nodes without one are left to TVM's own lowering.

    observed: tensors `main_layers` returns; without it, what every convolution and matrix product writes.
    channels_last: kernels for small processors; integer steps keep images that way. blocks: of these kernels.
    Raises DoesNotFitError with every node TVM cannot lower; RuntimeError when a layer is not its node's.
    """
    nodes = {node_name(node): node for node in graph.nodes}
    importer = NetworkImporter(graph)
    functions = _functions(importer, scheduled)
    if is_quantized(graph) and channels_last:
        importer.own.update(channels_last_calls(importer, integer_network(graph), blocks or Blocks()))
    elif is_quantized(graph):
        importer.own.update(_integer_calls(importer, graph, nodes, scheduled, functions))
    elif channels_last:
        steps = float_steps(graph)
        importer.own.update(concatenations(importer, graph))
        importer.own.update(FloatSteps(importer, blocks or Blocks()).converts(steps))
        return lowered(graph, importer, [str(step.result.name) for step in steps])
    else:
        importer.own.update(_layer_calls(nodes, scheduled, functions))
    watched = _watched(graph, scheduled) if observed is None else tuple(observed)
    return lowered(graph, importer, watched)


def lowered(graph: Graph, importer: NetworkImporter, watched: Sequence[str]) -> LoweredNetwork:
    """Both functions of a network. importer: with all lowerings of its own. watched: tensors `main_layers` returns."""
    values = {str(value.name): value for node in graph.nodes for value in node.outputs}
    interface = Interface(
        inputs=tuple(Tensor.of(value) for value in graph.inputs),
        outputs=tuple(Tensor.of(value) for value in graph.outputs),
        layers=tuple(Tensor.of(values[name]) for name in watched),
        host_tail=graph.host_tail is not None,
    )
    outputs = [tensor.name for tensor in interface.outputs]
    importer.add_function(MAIN, outputs)
    if importer.problems:
        raise DoesNotFitError.of(importer.problems.values())
    importer.add_function(MAIN_LAYERS, [*outputs, *watched])
    tail = graph.host_tail.model if graph.host_tail is not None else None
    return LoweredNetwork(importer.bb.get(), interface, tail)


def _watched(graph: Graph, scheduled: Collection[str]) -> tuple[str, ...]:
    """What `main_layers` returns: all codes of a quantised network, what compute layers write of any other."""
    if not is_quantized(graph):
        return compute_outputs(graph, scheduled)
    return tuple(str(node.outputs[0].name) for node in graph.nodes if is_quantize(node))


def compute_outputs(graph: Graph, scheduled: Collection[str] = ()) -> tuple[str, ...]:
    """What convolutions, matrix products and the nodes named in `scheduled` write, in order."""
    compute = (Convolution, TransposedConvolution, Gemm, MatMul)
    nodes = [node for node in graph.nodes if isinstance(view_of(node), compute) or node_name(node) in scheduled]
    return tuple(str(node.outputs[0].name) for node in nodes)


Functions = dict[tuple[LoopNest, LayerMapping, str], Any]


def _functions(importer: NetworkImporter, scheduled: Mapping[str, ScheduledLayer]) -> Functions:
    """Every scheduled function in the module, once."""
    functions: Functions = {}
    for layer in scheduled.values():
        if _key(layer) not in functions:
            opaque = layer.function.without_attr("global_symbol").with_attr("op_pattern", _OPAQUE)
            functions[_key(layer)] = importer.bb.add_func(opaque, layer.name)
    return functions


def _key(layer: ScheduledLayer) -> tuple[LoopNest, LayerMapping, str]:
    return layer.nest, layer.mapping, _operand_type(layer)


def _layer_calls(
    nodes: Mapping[str, ir.Node], scheduled: Mapping[str, ScheduledLayer], functions: Functions
) -> dict[str, Convert]:
    """A lowering for every layer's node. Identical layers share one function in the module."""
    calls: dict[str, Convert] = {}
    for name, layer in scheduled.items():
        if name not in nodes:
            raise RuntimeError(f"internal error: layer {name}: the graph has no such node")
        if not _same_types(nodes[name], layer):
            _LOG.warning("%s: its tensors are not %s; TVM lowers it without its schedule", name, _operand_type(layer))
            continue
        calls[name] = call_layer(nodes[name], layer, functions[_key(layer)])
    return calls


def _integer_calls(
    importer: NetworkImporter,
    graph: Graph,
    nodes: Mapping[str, ir.Node],
    scheduled: Mapping[str, ScheduledLayer],
    functions: Functions,
) -> dict[str, Convert]:
    """A lowering for every integer step, by its schedule if it has one."""

    def make(builder: Any, step: Step, inputs: list[Expression]) -> Expression:
        layer = scheduled.get(step.name)
        if layer is None or not isinstance(step, Scheduled):
            return step_expression(builder, step, inputs)
        return scheduled_step(builder, step, nodes[step.name], layer, functions[_key(layer)], inputs)

    return integer_calls(importer, integer_network(graph), make)


def _same_types(node: ir.Node, layer: ScheduledLayer) -> bool:
    """Whether a node's operands are of the type its function takes (integer layers come with scales of their own)."""
    operands = [value for value in node.inputs[:2] if value is not None and value.dtype is not None]
    return all(str(value.dtype.numpy()) == _operand_type(layer) for value in operands if value.dtype is not None)


def _operand_type(layer: ScheduledLayer) -> str:
    return str(layer.function.params[0].dtype)
