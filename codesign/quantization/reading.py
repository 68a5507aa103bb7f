"""From a quantised graph to its integer network: an island becomes a step, or says why it stays in floating point."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import onnx_ir as ir

from codesign.graph.codes import is_dequantize, scaling_of
from codesign.graph.graph import Graph, shape_of
from codesign.graph.islands import Island, islands_of
from codesign.graph.operators import Pool, is_operator, view_of
from codesign.numerics.execution import RunFloating
from codesign.numerics.requantization import NotRepresentableError
from codesign.numerics.steps import Dequantize, Floating, IntegerNetwork, Quantize, Step, Tensor
from codesign.quantization.elementwise_steps import is_table, lookup_step, product_steps, softmax_step, sum_steps
from codesign.quantization.fragments import Fragment
from codesign.quantization.linear_steps import linear_step
from codesign.quantization.move_steps import concatenate_steps, fill_steps, is_move, is_resize, move_steps, resize_mode
from codesign.quantization.site import Site, StaysFloatError, codes_tensor, number_tensor, site_of
from codesign.quantization.window_steps import average_step, is_average, linear_resize_step, maximum_steps, pool_factor


def integer_network(graph: Graph) -> IntegerNetwork:
    """The integer reading of a quantised graph, whose shapes are static.

    What has no integer step is a Floating step with the reason; a float graph becomes one such step for each output.
    """
    islands = islands_of(graph)
    steps: list[Step] = []
    for island in islands:
        steps += _steps(graph.model.graph, island)
    made = {step.output.name: step.output for step in steps}
    inputs = tuple(_input_tensor(value) for value in graph.inputs)
    known = {tensor.name: tensor for tensor in inputs} | made
    outputs = tuple(known.get(str(value.name)) or number_tensor(value) for value in graph.outputs)
    return IntegerNetwork(inputs, outputs, tuple(steps))


def run_floating(graph: Graph) -> RunFloating:
    """Runs the floating steps of a graph's integer network with onnxruntime."""
    islands = {str(island.output.name): island for island in islands_of(graph)}
    opened: dict[str, Fragment] = {}

    def run(step: Floating, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        name = step.output.name
        if name not in opened:
            island = islands[name]
            opened[name] = Fragment(graph.model.graph, _nodes(island), _inputs(island), island.output)
        return opened[name].run(arrays)

    return run


def _nodes(island: Island) -> list[ir.Node]:
    """Of an island, quantisers at its borders included."""
    borders = (source.producer() for source in island.sources)
    before = [node for node in borders if node is not None and is_dequantize(node)]
    behind = [island.quantizer] if island.quantizer is not None else []
    return [*dict.fromkeys(before), *island.nodes, *behind]


def _inputs(island: Island) -> list[ir.Value]:
    """The codes, and floats, an island reads."""
    values: dict[ir.Value, None] = {}
    for source in island.sources:
        node = source.producer()
        read = node.inputs[0] if node is not None and is_dequantize(node) else source
        assert read is not None
        values[read] = None
    return list(values)


def _input_tensor(value: ir.Value) -> Tensor:
    """A network input: codes where only a DequantizeLinear reads it."""
    for use in value.uses():
        scaling = scaling_of(use.node) if is_dequantize(use.node) else None
        if scaling is not None:
            return Tensor(str(value.name), shape_of(value), scaling.dtype, scaling.scale, scaling.zero_point)
    return number_tensor(value)


def _steps(graph: ir.Graph, island: Island) -> Iterator[Step]:
    border = _border_step(island)
    if border is not None:
        yield border
        return
    try:
        site = site_of(graph, island)
        yield from _integer_steps(site)
    except (StaysFloatError, NotRepresentableError) as reason:
        yield _floating(island, str(reason))


def _border_step(island: Island) -> Step | None:
    """Numbers to codes or codes to numbers, without any work between."""
    if island.nodes:
        return None
    (source,) = island.sources
    producer = source.producer()
    scaling = scaling_of(producer) if producer is not None and is_dequantize(producer) else None
    if island.quantizer is None:
        assert scaling is not None
        before = codes_tensor(source, scaling)
        return Dequantize(island.name, (before,), number_tensor(island.result), nodes=island.node_names)
    if scaling is not None:
        return None
    target = scaling_of(island.quantizer)
    assert target is not None
    codes = island.output
    after = Tensor(str(codes.name), shape_of(codes), target.dtype, target.scale, target.zero_point)
    return Quantize(island.name, (number_tensor(source),), after, nodes=island.node_names)


def _integer_steps(site: Site) -> tuple[Step, ...]:
    if is_table(site.island):
        return (lookup_step(site),)
    if is_move(site.work):
        return move_steps(site)
    view = view_of(site.work[0])
    if isinstance(view, Pool):
        return _pool_steps(site, view)
    make = _STEPS.get(site.node.op_type)
    if make is None or not is_operator(site.node, site.node.op_type):
        raise StaysFloatError(f"{site.node.op_type} has no integer step")
    made = make(site)
    return made if isinstance(made, tuple) else (made,)


def _pool_steps(site: Site, view: Pool) -> tuple[Step, ...]:
    factor = pool_factor(site.work)
    if factor is None or (factor != 1 and not is_average(view)):
        raise StaysFloatError(f"no integer step for {', '.join(node.op_type for node in site.work)} together")
    return (average_step(site, view, factor),) if is_average(view) else maximum_steps(site, view)


def _resize_step(site: Site) -> Step:
    mode = resize_mode(site.node)
    if mode not in ("linear", "bilinear") or not is_resize(site.node):
        raise StaysFloatError(f"a Resize of mode {mode}")
    return linear_resize_step(site)


_STEPS: Mapping[str, Callable[[Site], Step | tuple[Step, ...]]] = {
    "Conv": linear_step,
    "ConvTranspose": linear_step,
    "Gemm": linear_step,
    "MatMul": linear_step,
    "Add": sum_steps,
    "Sub": sum_steps,
    "Mul": product_steps,
    "Softmax": softmax_step,
    "Concat": concatenate_steps,
    "Pad": fill_steps,
    "Resize": _resize_step,
    "Upsample": _resize_step,
}


def _floating(island: Island, reason: str) -> Floating:
    inputs: list[Tensor] = []
    for source in island.sources:
        node = source.producer()
        scaling = scaling_of(node) if node is not None and is_dequantize(node) else None
        inputs.append(number_tensor(source) if scaling is None else codes_tensor(source, scaling))
    target = scaling_of(island.quantizer) if island.quantizer is not None else None
    value = island.output
    if target is None:
        output = number_tensor(value)
    else:
        output = Tensor(str(value.name), shape_of(value), target.dtype, target.scale, target.zero_point)
    return Floating(island.name, tuple(inputs), output, reason, nodes=island.node_names)
