"""What a layer with MACs computes, as an unscheduled TIR function over the loops of its LoopNest.

Convolutions read their input through a stage `pad_temp`, which holds exactly the positions the loops touch: zeros of
the padding and of a dilated input included, rows nobody reads left out. The scheduler turns it into the outermost copy
on chip, so padding zeros are made there and are never traffic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from codesign.mapping.window import Window, windows_of
from codesign.vocabulary import Dimension, Operand, OperationKind
from codesign.workload.loop_nest import LoopNest

PAD_STAGE = "pad_temp"
COMPUTE_STAGE = "outputs"
ACCUMULATORS = {"float32": "float32", "int8": "int32", "int16": "int32"}

Expression = Any  # an expression of TIR; tvm carries no types


def layer_function(nest: LoopNest, name: str, dtype: str = "float32") -> Any:
    """The layer as a PrimFunc called `name` over the buffers inputs, weights, outputs (in this order).

    Convolutions: inputs [B, G, C, IY, IX], weights [G, K, C, FY, FX], outputs [B, G, K, OY, OX]. Transposed
    convolutions: the same, weights [G, C, K, FY, FX] with the taps as ONNX stores them (flipped against the loops).
    Dense and matmul: inputs [G, OX, C], weights [G, C, K], outputs [G, OX, K]. Outputs are of the accumulator's type
    (int32 for int8 and int16). Raises ValueError for a nest without MACs and for a matrix product with other loops.
    """
    from tvm import te

    match nest.kind:
        case OperationKind.DENSE | OperationKind.MATMUL:
            buffers = _matrix_product(nest, dtype)
        case _ if nest.has_macs:
            buffers = _convolution(nest, dtype)
        case _:
            raise ValueError(f"{name}: {nest.kind} has no multiply-accumulates to schedule")
    return te.create_prim_func(list(buffers)).with_attr("global_symbol", name)


def loop_order(nest: LoopNest) -> tuple[Dimension, ...]:
    """Dimensions of the loops around the compute block of layer_function, outermost first."""
    match nest.kind:
        case OperationKind.DENSE | OperationKind.MATMUL:
            return Dimension.G, Dimension.OX, Dimension.K, Dimension.C, Dimension.FY, Dimension.FX
        case _:
            outputs = Dimension.B, Dimension.G, Dimension.K, Dimension.OY, Dimension.OX
            return *outputs, Dimension.C, Dimension.FY, Dimension.FX


def index_letters(nest: LoopNest) -> dict[Operand, tuple[str, ...]]:
    """Names of the indices of each buffer of layer_function."""
    match nest.kind:
        case OperationKind.DENSE | OperationKind.MATMUL:
            inputs, weights, outputs = "g ox c", "g c k", "g ox k"
        case OperationKind.TRANSPOSED_CONVOLUTION:
            inputs, weights, outputs = "b g c y x", "g c k fy fx", "b g k oy ox"
        case _:
            inputs, weights, outputs = "b g c y x", "g k c fy fx", "b g k oy ox"
    return {
        Operand.INPUTS: tuple(inputs.split()),
        Operand.WEIGHTS: tuple(weights.split()),
        Operand.OUTPUTS: tuple(outputs.split()),
    }


def _matrix_product(nest: LoopNest, dtype: str) -> tuple[Any, Any, Any]:
    from tvm import te

    batch, groups, outputs, channels, rows, columns, taps_down, taps_across = nest.sizes
    if (batch, rows, taps_down, taps_across) != (1, 1, 1, 1):
        raise ValueError(f"{nest.kind}: B, OY, FY and FX must be 1, not {(batch, rows, taps_down, taps_across)}")
    left = te.placeholder((groups, columns, channels), dtype, "inputs")
    right = te.placeholder((groups, channels, outputs), dtype, "weights")
    axes = _reduction_axes(nest)
    channel = axes[0]
    product = te.compute(
        (groups, columns, outputs),
        lambda g, ox, k: te.sum(_multiply(left[g, ox, channel], right[g, channel, k], dtype), axis=axes),
        name=COMPUTE_STAGE,
    )
    return left, right, product


def _convolution(nest: LoopNest, dtype: str) -> tuple[Any, Any, Any]:
    from tvm import te

    batch, groups, outputs, channels, rows, columns, taps_down, taps_across = nest.sizes
    vertical, horizontal = (_Axis(window) for window in windows_of(nest))
    image = te.placeholder((batch, groups, channels, nest.input_rows, nest.input_columns), dtype, "inputs")
    transposed = nest.kind is OperationKind.TRANSPOSED_CONVOLUTION
    order = (groups, channels, outputs) if transposed else (groups, outputs, channels)
    kernel = te.placeholder((*order, taps_down, taps_across), dtype, "weights")
    padded = _pad_stage(image, (batch, groups, channels), vertical, horizontal, dtype)
    axes = _reduction_axes(nest)
    c, fy, fx = axes

    def element(b: Expression, g: Expression, k: Expression, oy: Expression, ox: Expression) -> Expression:
        value = padded[b, g, c, vertical.touched(oy, fy), horizontal.touched(ox, fx)]
        flipped = (taps_down - 1 - fy, taps_across - 1 - fx)
        weight = kernel[g, c, k, *flipped] if transposed else kernel[g, k, c, fy, fx]
        return te.sum(_multiply(value, weight, dtype), axis=axes)

    return image, kernel, te.compute((batch, groups, outputs, rows, columns), element, name=COMPUTE_STAGE)


def input_matrix(nest: LoopNest, image: Expression) -> Expression:
    """im2col: what a convolution's windows see, as a tensor expression [G, C, FY, FX, B, OY, OX].

    nest: the convolution's own loops. image: [B, G, C, IY, IX]. Viewed as [1, G, C*FY*FX, 1, B*OY*OX] the result is the
    input of layer_function for `nest.as_matrix_product()`. Zeros of the padding are elements of it.
    """
    from tvm import te

    batch, groups, _, channels, rows, columns, taps_down, taps_across = nest.sizes
    vertical, horizontal = (_Axis(window) for window in windows_of(nest))
    padded = _pad_stage(image, (batch, groups, channels), vertical, horizontal, image.dtype)
    return te.compute(
        (groups, channels, taps_down, taps_across, batch, rows, columns),
        lambda g, c, fy, fx, b, oy, ox: padded[b, g, c, vertical.touched(oy, fy), horizontal.touched(ox, fx)],
        name="input_matrix",
    )


def _reduction_axes(nest: LoopNest) -> list[Any]:
    from tvm import te

    return [
        te.reduce_axis((0, nest.size(dimension)), dimension.value.lower())
        for dimension in (Dimension.C, Dimension.FY, Dimension.FX)
    ]


def _multiply(value: Expression, weight: Expression, dtype: str) -> Expression:
    accumulator = ACCUMULATORS[dtype]
    if accumulator == dtype:
        return value * weight
    return value.astype(accumulator) * weight.astype(accumulator)


@dataclass(frozen=True)
class _Axis:
    """Indices along one axis of the pad stage. With one tap the stage has one position per output."""

    window: Window

    @property
    def extent(self) -> int:
        return self.window.hull(self.window.outputs, self.window.taps)

    @property
    def step(self) -> int:
        """Input positions between neighbours in the stage."""
        return self.window.stride if self.window.taps == 1 else 1

    def touched(self, output: Expression, tap: Expression) -> Expression:
        """Position in the stage that an output and a tap read."""
        if self.window.taps == 1:
            return output
        return output * self.window.stride + tap * self.window.dilation

    def position(self, at: Expression) -> Expression:
        """Position in the (dilated) input of a position in the stage."""
        return at * self.step - self.window.pad

    def real(self, at: Expression) -> list[Expression]:
        """Conditions under which the input has an element there; those that always hold are left out."""
        window = self.window
        position = self.position(at)
        end = (window.size - 1) * window.input_dilation + 1
        conditions = []
        if window.pad > 0:
            conditions.append(position >= 0)
        if (self.extent - 1) * self.step - window.pad >= end:
            conditions.append(position < end)
        if window.input_dilation > 1:
            conditions.append(position % window.input_dilation == 0)
        return conditions

    def element(self, at: Expression) -> Expression:
        """Index of the real element there."""
        if self.window.input_dilation == 1:
            return self.position(at)
        return self.position(at) // self.window.input_dilation


def _pad_stage(image: Any, outer: tuple[int, int, int], vertical: _Axis, horizontal: _Axis, dtype: str) -> Any:
    from tvm import te, tirx

    def element(b: Expression, g: Expression, c: Expression, y: Expression, x: Expression) -> Expression:
        value = image[b, g, c, vertical.element(y), horizontal.element(x)]
        conditions = vertical.real(y) + horizontal.real(x)
        if not conditions:
            return value
        return tirx.if_then_else(tirx.all(*conditions), value, tirx.const(0, dtype))

    return te.compute((*outer, vertical.extent, horizontal.extent), element, name=PAD_STAGE)
