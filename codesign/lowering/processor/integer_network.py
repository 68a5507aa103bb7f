"""Integer steps for a processor: convolutions, dense layers, sums, maxima and concatenations on blocks of codes.

Every tensor a step writes exists in two forms, blocked and as the network has it (see codesign.lowering.processor
.network). Steps with ratios that are no shifts, wide sums or other types stay with codesign.lowering.integers.calls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from tvm import relax

from codesign.lowering.frontend import Expression, NetworkImporter
from codesign.lowering.integers.calls import step_expression
from codesign.lowering.integers.requantizing import Requantizer
from codesign.lowering.processor.convolution import group_split
from codesign.lowering.processor.integer_borders import IntegerConversion, IntegerQuantization, few_channels
from codesign.lowering.processor.integer_convolution import (
    DEPTH,
    SIGNED_OFFSET,
    Requantization,
    RequantizedConvolution,
    RequantizedDepthwise,
    pack_integer_bias,
    pack_integer_weights,
)
from codesign.lowering.processor.integer_elementwise import (
    IntegerAverage,
    IntegerConcatenation,
    IntegerLookup,
    IntegerMaximum,
    IntegerProduct,
    IntegerSum,
)
from codesign.lowering.processor.layout import NO_HALO, Halo, Layout, widest
from codesign.lowering.processor.loops import Tile
from codesign.lowering.processor.network import MacKernel
from codesign.numerics.requantization import Requantization as Ratios
from codesign.numerics.steps import (
    AveragePool,
    Concatenate,
    Convolve,
    IntegerNetwork,
    Lookup,
    MaximumPool,
    Multiply,
    Product,
    Quantize,
    Step,
    Sum,
    Tensor,
)

_EXACT_IN_FLOAT32, _LARGEST_ROUNDED = 2**24, 2**21
_OFFSETS = {"int8": SIGNED_OFFSET, "uint8": 0}
Blocked = Convolve | Multiply | Sum | Product | Lookup | MaximumPool | AveragePool | Concatenate


@dataclass
class IntegerSteps:
    """Makes the steps of one network; `make` is what integer_calls takes. tile_of: by layer name.

    vnni, shuffles: with AVX-512's dot products, and its shuffles of bytes (VBMI).
    """

    importer: NetworkImporter
    network: IntegerNetwork
    lanes: int
    vnni: bool
    shuffles: bool
    threads: int
    tile_of: Callable[[str], Tile]
    kernels: dict[str, MacKernel] = field(default_factory=dict)  # by layer
    _halos: dict[str, Halo] = field(default_factory=dict)
    _blocked: set[str] = field(default_factory=set)
    _forms: dict[tuple[int, str, int], Expression] = field(default_factory=dict)
    _functions: dict[Any, Any] = field(default_factory=dict)
    _constants: dict[tuple[str, int], Expression] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for step in self.network.steps:
            if self._fits(step):
                self._blocked.add(step.output.name)
        for step in self.network.steps:
            if isinstance(step, Convolve) and step.output.name in self._blocked:
                name = step.inputs[0].name
                self._halos[name] = widest(self._halos.get(name, NO_HALO), self._halo_of(step))

    def make(self, builder: Any, step: Step, inputs: list[Expression]) -> Expression:
        """The codes of a step as the network has them."""
        if isinstance(step, Quantize):
            self._quantized_blocks(builder, step, inputs[0])
        if step.output.name not in self._blocked:
            return step_expression(builder, step, inputs)
        sources = [self._form(builder, step, tensor, x) for tensor, x in zip(step.inputs, inputs, strict=True)]
        kernel, arrays = self._kernel(step)
        if isinstance(kernel, MacKernel):
            self.kernels[step.name] = kernel
        constants = [self._constant(step, number, array) for number, array in enumerate(arrays)]
        layout = self._layout(step.output)
        made = self._call(builder, kernel, [*sources, *constants], layout, "uint8")
        self._forms[self.importer.functions, step.output.name, self.lanes] = made
        plain = replace(layout, lanes=1, halo=NO_HALO)
        offset = _OFFSETS[step.output.dtype]
        conversion = IntegerConversion(layout, plain, ("uint8", step.output.dtype), offset, 0, self.threads)
        flat = self._call(builder, conversion, [made], plain, step.output.dtype)
        return builder.emit(relax.op.reshape(flat, step.output.shape))

    def _fits(self, step: Step) -> bool:
        tensors = (*step.inputs, step.output)
        if not isinstance(step, Blocked) or any(tensor.dtype not in _OFFSETS for tensor in tensors):
            return False
        match step:
            case Convolve():
                narrow = step.sum_bits == 32 and step.weights.dtype == np.int8 and not step.transposed
                return (
                    narrow and len(step.output.shape) == 4 and _shifts(step.requantization) and self._groups_fit(step)
                )
            case Multiply():
                narrow = step.sum_bits == 32 and step.weights.dtype == np.int8
                return narrow and step.output.shape[:-1] == (1,) and _shifts(step.requantization)
        if len(step.inputs[0].shape) != 4 or any(tensor.name not in self._blocked for tensor in step.inputs):
            return False
        match step:
            case Sum() | Product():
                sizes = step.output.shape
                same = all(tensor.shape in (sizes, (*sizes[:2], 1, 1)) for tensor in step.inputs)
                return same and len(sizes) == 4 and _shifts(step.requantization)
            case MaximumPool():
                return step.dilations == (1, 1)
            case AveragePool():
                once = len(step.requantizations) == 1 and len(step.requantizations[0].ratios) == 1
                return once and step.dilations == (1, 1) and not any(step.pads) and _inside(step)
            case Lookup():
                return True
            case _:
                whole = all(tensor.shape[1] % self.lanes == 0 for tensor in step.inputs[:-1])
                return step.axis in (1, -3) and whole

    def _halo_of(self, step: Convolve) -> Halo:
        """Positions around its input a convolution reads; a depthwise one may read four columns at once."""
        taps_down, taps_across = (int(taps) for taps in step.weights.shape[2:])
        if self.vnni and self.shuffles and _is_depthwise(step) and step.dilations[1] == 1:
            taps_across = -(-taps_across // DEPTH) * DEPTH
        past = [
            (outputs - 1) * stride + (taps - 1) * dilation - pad - (inputs - 1)
            for outputs, stride, taps, dilation, pad, inputs in zip(
                step.output.shape[2:],
                step.strides,
                (taps_down, taps_across),
                step.dilations,
                step.pads[:2],
                step.inputs[0].shape[2:],
                strict=True,
            )
        ]
        return step.pads[0], step.pads[1], max(0, past[0]), max(0, past[1])

    def _groups_fit(self, step: Convolve) -> bool:
        if _is_depthwise(step):
            return True
        inputs, outputs = step.inputs[0].shape[1], step.output.shape[1]
        return group_split(step.group, outputs // step.group, inputs // step.group, self.lanes, self.lanes) is not None

    def _kernel(self, step: Step) -> tuple[Any, tuple[np.ndarray, ...]]:
        layouts = [self._source(step, tensor) for tensor in step.inputs]
        result, zero = self._layout(step.output), _stored_zero(step.output)
        match step:
            case Convolve():
                return self._convolution(step, layouts[0], result)
            case Multiply():
                weights = np.ascontiguousarray(step.weights.T)[:, :, None, None]
                one = (1, 1)
                alone = Convolve(
                    step.name, step.inputs, step.output, weights, step.bias, 1, one, one, (0, 0, 0, 0),
                    step.requantization,
                )  # fmt: skip
                return self._convolution(alone, layouts[0], result)
            case Sum() | Product():
                zeros = _stored_zero(step.inputs[0]), _stored_zero(step.inputs[1])
                clamp, pair = _clamp(step.requantization, step.output), (layouts[0], layouts[1])
                last = zeros, float(_ratios(step.requantization)[0]), clamp, self.threads
                if isinstance(step, Product):
                    return IntegerProduct(pair, result, *last), ()
                return IntegerSum(pair, result, step.multipliers, *last), ()
            case Lookup():
                table = _stored_table(step, result)
                shared = len(step.table) == 1
                return IntegerLookup(layouts[0], result, not shared, zero, self.shuffles, self.threads), (table,)
            case AveragePool():
                codes = Requantizer(step.requantizations[0], step.output.dtype)
                offset, centre = _OFFSETS[step.output.dtype], _stored_zero(step.inputs[0])
                window = step.kernel, step.strides
                return IntegerAverage(layouts[0], result, *window, centre, codes, offset, self.threads), ()
            case MaximumPool():
                pads = step.pads[0], step.pads[1]
                kernel = IntegerMaximum(layouts[0], result, step.kernel, step.strides, pads, zero, self.threads)
                return kernel, ()
            case _:
                return IntegerConcatenation(tuple(layouts), result, zero, self.threads), ()

    def _convolution(self, step: Convolve, source: Layout, result: Layout) -> tuple[Any, tuple[np.ndarray, ...]]:
        outputs, inputs = step.output.shape[1], step.inputs[0].shape[1]
        taps = step.weights.shape[2], step.weights.shape[3]
        window = (taps, step.strides, step.dilations, (step.pads[0], step.pads[1]))
        clamp, tile = _clamp(step.requantization, step.output), self.tile_of(step.name)
        bias = pack_integer_bias(step.bias, step.weights, _stored_zero(step.inputs[0]), self.lanes)
        own = _ratios(step.requantization)
        ratios = np.zeros(len(bias), own.dtype)
        ratios[:outputs] = own
        if _is_depthwise(step):
            tile = replace(tile, vectors=1)
            depthwise = RequantizedDepthwise(
                source, result, *window, tile, (), self.threads, self.vnni, self.shuffles, clamp
            )
            return depthwise, (depthwise.packed(step.weights), bias, ratios)
        groups = group_split(step.group, outputs // step.group, inputs // step.group, self.lanes, self.lanes)
        assert groups is not None
        kernel = RequantizedConvolution(
            source, result, *window, groups, self.lanes, tile, (), self.threads, self.vnni, clamp
        )
        return kernel, (pack_integer_weights(step.weights, step.group, kernel), bias, ratios)

    def _layout(self, tensor: Tensor) -> Layout:
        batch, channels, rows, columns = (*tensor.shape, 1, 1)[:4]
        return Layout(batch, channels, rows, columns, self.lanes, self._halos.get(tensor.name, NO_HALO))

    def _source(self, step: Step, tensor: Tensor) -> Layout:
        """The layout a step reads a tensor in: few channels that come from outside take one dot product each pixel."""
        layout = self._layout(tensor)
        few = isinstance(step, Convolve) and step.group == 1 and tensor.shape[1] <= DEPTH
        return replace(layout, lanes=DEPTH) if few and tensor.name not in self._blocked else layout

    def _form(self, builder: Any, step: Step, tensor: Tensor, x: Expression) -> Expression:
        layout = self._source(step, tensor)
        key = self.importer.functions, tensor.name, layout.lanes
        if key not in self._forms:
            plain = replace(layout, lanes=1, halo=NO_HALO)
            flat = builder.emit(relax.op.reshape(x, (plain.size,)))
            types = (tensor.dtype, "uint8")
            offset, zero = _OFFSETS[tensor.dtype], _stored_zero(tensor)
            conversion = IntegerConversion(plain, layout, types, offset, zero, self.threads)
            self._forms[key] = self._call(builder, conversion, [flat], layout, "uint8")
        return self._forms[key]

    def _quantized_blocks(self, builder: Any, step: Quantize, x: Expression) -> None:
        """Codes of a network's input in blocks at once, where a convolution reads few channels."""
        tensor = step.output
        readers = (reader for reader in self.network.steps if tensor in reader.inputs and self._fits(reader))
        for layout in {self._source(reader, tensor) for reader in readers}:
            plain = replace(layout, lanes=1, halo=NO_HALO)
            if not few_channels(plain, layout):
                continue
            assert tensor.scale is not None
            limits, zero = np.iinfo(tensor.dtype), tensor.zero_point
            low, high = int(limits.min) - zero, int(limits.max) - zero
            kernel = IntegerQuantization(
                plain, layout, tensor.scale, low, high, _stored_zero(tensor), self.threads
            )  # fmt: skip
            flat = builder.emit(relax.op.reshape(x, (plain.size,)))
            key = self.importer.functions, tensor.name, layout.lanes
            self._forms[key] = self._call(builder, kernel, [flat], layout, "uint8")

    def _constant(self, step: Step, number: int, array: np.ndarray) -> Expression:
        key = step.name, number
        if key not in self._constants:
            self._constants[key] = relax.const(np.ascontiguousarray(array), str(array.dtype))
        return self._constants[key]

    def _call(self, builder: Any, kernel: Any, arguments: list[Expression], layout: Layout, dtype: str) -> Expression:
        if kernel not in self._functions:
            function = kernel.function().without_attr("global_symbol").with_attr("op_pattern", 8)
            name = f"{type(kernel).__name__.lower()}_{len(self._functions):03}"
            self._functions[kernel] = self.importer.bb.add_func(function, name)
        out = relax.TensorType((layout.size,), dtype)
        return builder.emit(relax.call_tir(self._functions[kernel], arguments, out))


def _is_depthwise(step: Convolve) -> bool:
    return step.group == step.inputs[0].shape[1] == step.output.shape[1] and step.group > 1


def _shifts(ratios: Ratios) -> bool:
    return _in_float(ratios) or (ratios.is_shift and ratios.fits_32_bits)


def _in_float(ratios: Ratios) -> bool:
    """Whether all sums are exact in float32 and, times a power of two, leave room for rounding there."""
    return ratios.largest_sum < _EXACT_IN_FLOAT32 and all(
        ratio.divisor == 1 and ratio.multiplier.bit_count() == 1 and ratios.largest_sum * ratio.value < _LARGEST_ROUNDED
        for ratio in ratios.ratios
    )


def _ratios(ratios: Ratios) -> np.ndarray:
    """As the kernels take them: powers of two, or shifts to the right."""
    if _in_float(ratios):
        return np.array([float(ratio.value) for ratio in ratios.ratios], np.float32)
    return np.array([ratio.shift for ratio in ratios.ratios], np.int32)


def _inside(step: AveragePool) -> bool:
    """Whether every window lies in the image."""
    ends = zip(step.output.shape[2:], step.strides, step.kernel, step.inputs[0].shape[2:], strict=False)
    return all((outputs - 1) * stride + taps <= inputs for outputs, stride, taps, inputs in ends)


def _stored_table(step: Lookup, result: Layout) -> np.ndarray:
    """Codes of a table as they are stored, by stored code; zeros for idle lanes."""
    table = (step.table.astype(np.int64) + _OFFSETS[step.output.dtype]).astype(np.uint8)
    if len(table) == 1:
        return table.reshape(-1)
    full = np.zeros((result.blocks * result.lanes, table.shape[1]), np.uint8)
    full[: len(table)] = table
    return full.reshape(-1)


def _stored_zero(tensor: Tensor) -> int:
    """What a blocked tensor holds for the number 0."""
    return tensor.zero_point + _OFFSETS[tensor.dtype]


def _clamp(ratios: Ratios, output: Tensor) -> Requantization:
    zero = ratios.zero_point
    offset = zero + _OFFSETS[output.dtype]
    return Requantization(ratios.minimum - zero, ratios.maximum - zero, offset, _in_float(ratios))
