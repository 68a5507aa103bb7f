"""A network for a processor: steps of the graph become calls of kernels on channel-blocked tensors.

A tensor a step writes exists in two forms, channel-blocked and as ONNX has it; the second is emitted for whoever reads
it that way and dropped when nobody does. So borders are converted where they are, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import numpy as np
import onnx_ir as ir
from tvm import relax

from codesign.graph.graph import Graph, constant_of, node_name, shape_of
from codesign.graph.operators import Convolution, Gemm, Pool, is_operator, view_of
from codesign.lowering.frontend import Convert, Expression, NetworkImporter
from codesign.lowering.processor.convolution import Convolution as ConvolutionKernel
from codesign.lowering.processor.convolution import group_split, pack_bias, pack_weights
from codesign.lowering.processor.depthwise import Depthwise, pack_depthwise
from codesign.lowering.processor.elementwise import Concatenation, Conversion, Elementwise
from codesign.lowering.processor.epilogue import AddTensor, Step
from codesign.lowering.processor.layout import NO_HALO, Halo, Layout, widest
from codesign.lowering.processor.loops import Tile
from codesign.lowering.processor.pooling import Pooling
from codesign.lowering.processor.steps import GraphStep, is_depthwise
from codesign.vocabulary import OperationKind

TileOf = Callable[[GraphStep], Tile]
MacKernel = ConvolutionKernel | Depthwise
AnyMacKernel = TypeVar("AnyMacKernel", ConvolutionKernel, Depthwise)
Best = Callable[[MacKernel], Tile]  # the register block to use instead of a kernel's own


class Kernel(Protocol):
    """What every kernel can do."""

    def function(self) -> Any:
        """Its PrimFunc."""


@dataclass
class ProcessorNetwork:
    """The lowering of one network's steps. tile_of: the register block of a step with MACs. best: a better one."""

    graph: Graph
    importer: NetworkImporter
    steps: Sequence[GraphStep]
    lanes: int
    tile_of: TileOf
    threads: int
    best: Best
    kernels: dict[str, Kernel] = field(default_factory=dict)  # by step
    _functions: dict[Kernel, Any] = field(default_factory=dict)
    _forms: dict[tuple[int, str, Layout], Expression] = field(default_factory=dict)
    _constants: dict[tuple[str, str], Expression] = field(default_factory=dict)
    _halos: dict[tuple[str, int], Halo] = field(default_factory=dict)
    _made: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._made = {str(step.result.name) for step in self.steps}
        for step in self.steps:
            for number, value in enumerate(step.reads):
                key = str(value.name), self._read_lanes(step, value)
                needed = _halo_needed(step) if number == 0 else NO_HALO
                self._halos[key] = widest(self._halos.get(key, NO_HALO), needed)

    def converts(self) -> dict[str, Convert]:
        """A lowering for every node of every step, by node name."""
        found: dict[str, Convert] = {}
        for step in self.steps:
            for node in step.nodes[:-1]:
                found[node_name(node)] = _placeholder(node)
            found[node_name(step.nodes[-1])] = self._convert(step)
        return found

    def _convert(self, step: GraphStep) -> Convert:
        def convert(builder: Any, _: Sequence[Expression]) -> Expression:
            result = self._layout(step.result, self.lanes)
            kernel, constants = self._kernel(step, result)
            self.kernels[step.name] = kernel
            tensors = [self._form(builder, value, self._read_lanes(step, value)) for value in step.reads]
            own = 1 if constants else len(step.reads)
            arguments = [*tensors[:own], *constants, *tensors[own:]]
            blocked = self._call(builder, kernel, arguments, result)
            self._forms[self.importer.functions, str(step.result.name), result] = blocked
            return self._plain(builder, blocked, result, shape_of(step.result))

        return convert

    def _kernel(self, step: GraphStep, result: Layout) -> tuple[Kernel, list[Expression]]:
        """The step's kernel and its packed weights and bias."""
        source = self._layout(step.reads[0], self._read_lanes(step, step.reads[0]))
        extras: tuple[Step, ...] = tuple(
            AddTensor(self._layout(extra, self.lanes)) if isinstance(extra, ir.Value) else extra
            for extra in step.extras
        )
        match view_of(step.head):
            case Convolution() as view:
                return self._convolution(step, view, source, result, extras)
            case Gemm() as view:
                return self._dense(step, view, source, result, extras)
            case Pool() as view:
                maximum = view.kind is OperationKind.MAX_POOL
                real_only = any(view.pads) and not view.count_include_pad
                pads = view.pads[:2]
                kernel = Pooling(source, result, view.kernel, view.strides, pads, maximum, real_only, self.threads)
                return kernel, []
        if is_operator(step.head, "Concat"):
            sources = tuple(self._layout(value, self.lanes) for value in step.reads)
            return Concatenation(sources, result, self.threads), []
        second = None if len(step.head.inputs) < 2 or step.head.inputs[1] is None else step.head.inputs[1]
        binary = second is not None and constant_of(second) is None
        other = self._layout(second, self.lanes) if second is not None and binary else None
        operator = step.head.op_type if binary else ""
        return Elementwise(source, other, result, operator, extras, self.threads), []

    def _convolution(
        self, step: GraphStep, view: Convolution, source: Layout, result: Layout, extras: tuple[Step, ...]
    ) -> tuple[Kernel, list[Expression]]:
        tile, window = self.tile_of(step), (view.kernel, view.strides, view.dilations, view.pads[:2])
        weights = _constant(view.w).reshape(*shape_of(view.w)[:2], *view.kernel)
        bias = pack_bias(constant_of(view.b), view.out_channels, self.lanes)
        if is_depthwise(view):
            depthwise = self._with_best(Depthwise(source, result, *window, tile, extras, self.threads))
            packed = pack_depthwise(weights, self.lanes)
            return depthwise, [self._once(step, "weights", packed), self._once(step, "bias", bias)]
        outputs, inputs = view.out_channels // view.group, view.in_channels // view.group
        groups = group_split(view.group, outputs, inputs, self.lanes, source.lanes)
        assert groups is not None
        kernel = self._with_best(
            ConvolutionKernel(source, result, *window, groups, self.lanes, tile, extras, self.threads)
        )
        packed = pack_weights(weights, view.group, kernel)
        return kernel, [self._once(step, "weights", packed), self._once(step, "bias", bias)]

    def _dense(
        self, step: GraphStep, view: Gemm, source: Layout, result: Layout, extras: tuple[Step, ...]
    ) -> tuple[Kernel, list[Expression]]:
        weights = _constant(view.w) if view.transpose_w else _constant(view.w).T
        bias = constant_of(view.b)
        filled = None if bias is None else np.broadcast_to(bias.reshape(-1), (view.out_features,))
        one = (1, 1)
        tile = self.tile_of(step)
        kernel = self._with_best(
            ConvolutionKernel(source, result, one, one, one, (0, 0), 1, self.lanes, tile, extras, self.threads)
        )
        packed = pack_weights(weights[:, :, None, None], 1, kernel)
        packed_bias = pack_bias(filled, view.out_features, self.lanes)
        return kernel, [self._once(step, "weights", packed), self._once(step, "bias", packed_bias)]

    def _with_best(self, kernel: AnyMacKernel) -> AnyMacKernel:
        return replace(kernel, tile=self.best(kernel))

    def _once(self, step: GraphStep, what: str, array: np.ndarray) -> Expression:
        key = step.name, what
        if key not in self._constants:
            self._constants[key] = relax.const(np.ascontiguousarray(array.reshape(-1)))
        return self._constants[key]

    def _read_lanes(self, step: GraphStep, value: ir.Value) -> int:
        """Lanes of the layout a step reads a value in: few channels that come from outside stay as they are."""
        if str(value.name) in self._made:
            return self.lanes
        view = view_of(step.head)
        if isinstance(view, Gemm):
            return 1
        few = isinstance(view, Convolution) and view.group == 1 and view.in_channels < self.lanes
        return 1 if few and value is step.reads[0] else self.lanes

    def _layout(self, value: ir.Value, lanes: int) -> Layout:
        batch, channels, *sizes = shape_of(value)
        rows, columns = (1, 1, *sizes)[-2:]
        return Layout(batch, channels, rows, columns, lanes, self._halos.get((str(value.name), lanes), NO_HALO))

    def _form(self, builder: Any, value: ir.Value, lanes: int) -> Expression:
        """A value in the layout of its readers."""
        layout = self._layout(value, lanes)
        key = self.importer.functions, str(value.name), layout
        if key not in self._forms:
            made = self._forms.get((key[0], key[1], self._layout(value, self.lanes)))
            assert made is None or lanes == self.lanes, "a step's own result is read with the lanes it was written with"
            batch, channels, rows, columns = layout.batch, layout.channels, layout.rows, layout.columns
            plain = Layout(batch, channels, rows, columns, 1)
            flat = builder.emit(relax.op.reshape(self.importer.expression(str(value.name)), (plain.size,)))
            self._forms[key] = self._converted(builder, flat, plain, layout)
        return self._forms[key]

    def _plain(self, builder: Any, blocked: Expression, layout: Layout, shape: tuple[int, ...]) -> Expression:
        plain = Layout(layout.batch, layout.channels, layout.rows, layout.columns, 1)
        return builder.emit(relax.op.reshape(self._converted(builder, blocked, layout, plain), shape))

    def _converted(self, builder: Any, tensor: Expression, source: Layout, result: Layout) -> Expression:
        if _same_memory(source, result):
            return tensor
        return self._call(builder, Conversion(source, result, self.threads), [tensor], result)

    def _call(self, builder: Any, kernel: Kernel, arguments: list[Expression], result: Layout) -> Expression:
        if kernel not in self._functions:
            function = kernel.function().without_attr("global_symbol").with_attr("op_pattern", 8)
            name = f"{type(kernel).__name__.lower()}_{len(self._functions):03}"
            self._functions[kernel] = self.importer.bb.add_func(function, name)
        call = relax.call_tir(self._functions[kernel], arguments, relax.TensorType((result.size,), "float32"))
        return builder.emit(call)


def _same_memory(first: Layout, second: Layout) -> bool:
    """Whether two layouts of one feature map put every element at the same place."""
    if first == second:
        return True
    one_pixel = first.rows * first.columns == 1 and not any(first.halo) and not any(second.halo)
    return one_pixel and first.blocks * first.lanes == second.blocks * second.lanes


def _halo_needed(step: GraphStep) -> Halo:
    """Zeros around what the head reads: every position its windows touch outside of the image."""
    view = view_of(step.head)
    if isinstance(view, Gemm) or not isinstance(view, Convolution | Pool):
        return NO_HALO
    if isinstance(view, Pool) and view.kind is OperationKind.MAX_POOL:
        return NO_HALO
    past = [
        (outputs - 1) * stride + (taps - 1) * dilation - pad - (inputs - 1)
        for outputs, stride, taps, dilation, pad, inputs in zip(
            view.output_size, view.strides, view.kernel, view.dilations, view.pads[:2], view.input_size, strict=True
        )
    ]
    return view.pads[0], view.pads[1], max(0, past[0]), max(0, past[1])


def _placeholder(node: ir.Node) -> Convert:
    """For a node inside a step: nobody reads it."""
    shape = shape_of(node.outputs[0])
    return lambda builder, inputs: relax.op.zeros(shape, "float32")


def _constant(value: ir.Value) -> np.ndarray:
    found = constant_of(value)
    assert found is not None
    return found
