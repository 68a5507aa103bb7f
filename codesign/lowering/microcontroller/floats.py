"""Float convolutions and dense layers of a network, each with what follows it, as kernels with sums in registers.

Conv -> Add(x, other) -> Relu    -->    one call; everything else is left to TVM's own lowering
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from tvm import relax

from codesign.graph.graph import Graph, constant_of, node_name, shape_of
from codesign.graph.operators import Convolution, Gemm, view_of
from codesign.lowering.c_source.names import identifier
from codesign.lowering.frontend import Convert, Expression, NetworkImporter
from codesign.lowering.microcontroller.blocks import FLOAT_BITS, Block, Blocks
from codesign.lowering.microcontroller.convolution import Window
from codesign.lowering.microcontroller.float_convolution import (
    FloatLayer,
    float_convolution,
    x_shape,
    y_elements,
)
from codesign.lowering.microcontroller.float_depthwise import float_depthwise
from codesign.lowering.microcontroller.joining import join
from codesign.lowering.microcontroller.macs import macs_of_function
from codesign.lowering.processor.epilogue import AddTensor, Step
from codesign.lowering.processor.layout import Layout
from codesign.lowering.processor.steps import GraphStep, find_steps, is_depthwise

MANY_PIXELS = Block(4, 4)
ONE_PIXEL = Block(1, 8)
KNOWN = tuple(
    Block(pixels, channels) for pixels in (1, 2, 4, 8) for channels in (1, 2, 4, 8) if pixels * channels <= 16
)
_DEPTHWISE = Block(4, 1)


def float_steps(graph: Graph) -> list[GraphStep]:
    """Convolutions and dense layers with the nodes their kernels do as well."""
    return [step for step in find_steps(graph, 1) if isinstance(view_of(step.head), Convolution | Gemm)]


def concatenations(importer: NetworkImporter, graph: Graph) -> dict[str, Convert]:
    """A lowering, by node name, of every Concat that alone reads its operands: they can be written into its result.

    Others are left to TVM, which computes them on the way into what reads them.
    """
    found: dict[str, Convert] = {}
    for node in graph.nodes:
        values = [value for value in node.inputs if value is not None]
        if node.op_type != "Concat" or any(value in graph.outputs for value in values):
            continue
        if all(len(value.uses()) == 1 and value.producer() is not None for value in values):
            found[node_name(node)] = _joined(importer, node)
    return found


def _joined(importer: NetworkImporter, node: ir.Node) -> Convert:
    result = node.outputs[0]
    axis = node.attributes.get_int("axis", 0) % len(shape_of(result))

    def convert(builder: Any, inputs: Sequence[Expression]) -> Expression:
        del inputs
        operands = [importer.expression(str(value.name)) for value in node.inputs if value is not None]
        return join(builder, operands, axis, str(result.name))

    return convert


@dataclass
class FloatSteps:
    """The lowering of such steps. kernels: by step name, what was built. blocks: of convolutions and dense layers."""

    importer: NetworkImporter
    blocks: Blocks = field(default_factory=Blocks)
    kernels: dict[str, FloatLayer] = field(default_factory=dict)
    _functions: dict[tuple[Callable[[FloatLayer], Any], FloatLayer], Any] = field(default_factory=dict)

    def converts(self, steps: Sequence[GraphStep]) -> dict[str, Convert]:
        """A lowering for every node of every step, by node name."""
        found: dict[str, Convert] = {}
        for step in steps:
            found.update({node_name(node): self.importer.nothing(node_name(node)) for node in step.nodes[:-1]})
            found[node_name(step.nodes[-1])] = self._convert(step)
        return found

    def _convert(self, step: GraphStep) -> Convert:
        layer, constants, make = _layer_of(step, self.blocks)
        self.kernels[step.name] = layer

        def convert(builder: Any, _: Sequence[Expression]) -> Expression:
            if (make, layer) not in self._functions:
                name = f"float_{type(view_of(step.head)).__name__.lower()}_{len(self._functions)}"
                function = make(layer)
                self._functions[make, layer] = builder.add_func(function, name)
                self._check(step.name, make, function)
            x, *added = (self.importer.expression(str(value.name)) for value in step.reads)
            operands = [
                builder.emit(relax.op.reshape(x, x_shape(layer))),
                *(relax.const(array) for array in constants),
                *(builder.emit(relax.op.reshape(value, (y_elements(layer),))) for value in added),
            ]
            kind = relax.TensorType((y_elements(layer),), "float32")
            call = relax.call_tir(self._functions[make, layer], operands, kind)
            made = builder.emit(call, identifier(str(step.result.name)))
            return builder.emit(relax.op.reshape(made, shape_of(step.result)))

        return convert

    def _check(self, name: str, make: Callable[[FloatLayer], Any], function: Any) -> None:
        if make is float_convolution:
            self.blocks.check(name, macs_of_function(function), self.kernels[name].macs)


def _layer_of(step: GraphStep, blocks: Blocks) -> tuple[FloatLayer, list[np.ndarray], Callable[[FloatLayer], Any]]:
    """The kernel's sizes, its constants, and who builds it."""
    match view_of(step.head):
        case Convolution() as view:
            window, images, groups = _window_of(view), shape_of(view.x)[0], view.group
            weights, bias = _constant(view.w), constant_of(view.b)
            depthwise = is_depthwise(view)
        case Gemm() as view:
            window, images, groups = Window.of_rows(1, view.in_features, view.out_features), 1, 1
            weights = _constant(view.w) if view.transpose_w else _constant(view.w).T
            bias = constant_of(view.b)
            bias = None if bias is None else np.broadcast_to(bias.reshape(-1), (view.out_features,))
            depthwise = False
        case other:
            raise TypeError(f"{step.name}: no kernel for {type(other).__name__}")
    pixels = window.output_rows * window.output_columns
    own = MANY_PIXELS if pixels > 1 else ONE_PIXEL
    block = _DEPTHWISE if depthwise else blocks.block(step.name, own, KNOWN, FLOAT_BITS)
    added = Layout(images, groups * window.outputs, 1, pixels, 1)
    extras: tuple[Step, ...] = tuple(AddTensor(added) if isinstance(e, ir.Value) else e for e in step.extras)
    layer = FloatLayer(window, images, groups, extras, block)
    return (
        layer,
        [layer.packed_weights(weights), layer.packed_bias(bias)],
        (float_depthwise if depthwise else float_convolution),
    )


def _window_of(view: Convolution) -> Window:
    channels, outputs = view.in_channels // view.group, view.out_channels // view.group
    (rows, columns), (output_rows, output_columns) = view.input_size, view.output_size
    if view.kernel == view.strides == (1, 1) and not any(view.pads):
        return Window.of_rows(rows * columns, channels, outputs)
    sizes = (rows, columns, channels, output_rows, output_columns, outputs)
    return Window(*sizes, view.kernel, view.strides, view.dilations, view.pads)


def _constant(value: ir.Value) -> np.ndarray:
    found = constant_of(value)
    assert found is not None
    return found
