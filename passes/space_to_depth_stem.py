"""space-to-depth-stem: a strided first convolution on few channels becomes an unstrided one on many."""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd, prod
from typing import Annotated, ClassVar

import numpy as np
import onnx_ir as ir

from codesign.graph.graph import Graph, constant_of, node_name, shape_of
from codesign.graph.operators import Convolution
from codesign.graph.windows import Pair
from codesign.rewriting.edit import insert_before, set_constant
from codesign.rewriting.graph_pass import Applied, Declined, Effect, GraphPass, Outcome, PassContext
from codesign.rewriting.stem import first_convolutions, with_zeros, without_first_convolution

_FEW_CHANNELS = 8
_LARGEST_FACTOR_UNASKED = 4
_Blocks = dict[tuple[object, ...], ir.Value]


@dataclass(frozen=True)
class SpaceToDepthStem(GraphPass):
    """Lets the first convolution read blocks of pixels as channels, so that it fills an array's lanes.

    before:  x [1, 3, 224, 224] -> Conv 7x7 stride 2 pads 3 -> y [1, 64, 112, 112]
    after:   x -> SpaceToDepth(2) -> [1, 12, 112, 112] -> Conv 4x4 stride 1 pads 2 1 -> y

    Exact: with s the stride, position i of the input is place i mod s of block i div s. A window of a convolution
    whose padding is a multiple of s starts at the first place of a block, so its kernel, filled up with zeros to whole
    blocks, sees the same numbers as a kernel over blocks. Where the padding is no multiple of s, zeros are put in front
    of the kernel, or in front of the input where that makes a smaller kernel. An input that ends within a block is
    filled up with zeros behind (Pad), or cut (Slice) when no window reads the end. The graph's input stays as it is.

    The zeros of the kernel are multiplied too: 7x7 on 3 channels becomes 4x4 on 12, 31% more MACs, and 3x3 becomes 2x2,
    78% more; the outcome names the factor. SpaceToDepth and Pad move the image once each, and cost that.

    Looked at are the convolutions that read an input of the graph, at most after what prepares it (normalisation,
    layout). Declined are grouped and dilated ones, more than 8 channels, 1x1 kernels, weights that are not constant,
    and a stride above 4 unless `factor` asks for it (a 16x16 stride 16 patch embedding becomes 1x1 on 768 channels).

    Source: "Automatic Space to Depth Transform in MLIR Bridge", TensorFlow documentation, space_to_depth.md (stride
    2, first convolutions of image models); SpaceToDepth of the ONNX operator set.
    """

    name: ClassVar[str] = "space-to-depth-stem"
    effect: ClassVar[Effect] = Effect.EXACT

    factor: Annotated[int, "rows and columns of a block, a divisor of the stride; 0: the stride"] = 0

    def __post_init__(self) -> None:
        """Raise ValueError for a factor that makes no blocks."""
        if self.factor != 0 and self.factor < 2:
            raise ValueError(f"factor must be 0 or at least 2, not {self.factor}")

    def run(self, graph: Graph, context: PassContext) -> list[Outcome]:
        """Rewrite every first convolution; those that read the same blocks share them."""
        blocks: _Blocks = {}
        outcomes = [self._rewrite(graph, view, blocks) for view in first_convolutions(graph)]
        return outcomes or [without_first_convolution(graph)]

    def _rewrite(self, graph: Graph, view: Convolution, blocks: _Blocks) -> Outcome:
        name, factor = node_name(view.node), self.factor or gcd(*view.strides)
        reason = _reason_against(view) or self._reason_against(view, factor)
        if reason:
            return Declined(name, reason)
        axes = tuple(_Axis.of(view, place, factor) for place in (0, 1))
        detail = _detail(view, axes, factor)
        _apply(graph, view, axes, factor, blocks)
        return Applied(name, detail)

    def _reason_against(self, view: Convolution, factor: int) -> str:
        stride = f"its stride is {_times(view.strides)}"
        if any(size % factor for size in view.strides):
            return f"{stride}, no multiple of {factor}"
        if factor == 1:
            return f"{stride}, which leaves no block of pixels to read at once"
        if not self.factor and factor > _LARGEST_FACTOR_UNASKED:
            channels = view.in_channels * factor**2
            return f"{stride}: {channels} channels of {view.in_channels}; factor={factor} asks for it"
        if min(view.input_size) < factor:
            return f"its input of {_times(view.input_size)} is smaller than a block of {factor}x{factor}"
        return ""


def _reason_against(view: Convolution) -> str:
    if view.rank != 2:
        return "it has one spatial dimension, and blocks need two"
    if view.group != 1:
        return f"its {view.group} groups read channels of their own"
    if view.dilations != (1, 1):
        return f"its kernel is dilated by {_times(view.dilations)}"
    if view.in_channels > _FEW_CHANNELS:
        return f"it reads {view.in_channels} channels; more than {_FEW_CHANNELS} are not few"
    if constant_of(view.w) is None:
        return "its weights are not constant"
    if view.kernel == (1, 1) and view.strides != (1, 1):
        return "a 1x1 kernel would be multiplied with all the positions it leaves out"
    return ""


@dataclass(frozen=True)
class _Axis:
    """Rows or columns of the new convolution.

    before, behind: zeros around the input (behind negative: positions cut off). lead: zeros in front of the kernel.
    taps, pads, stride: of the new convolution, in blocks.
    """

    before: int
    behind: int
    lead: int
    taps: int
    pads: Pair
    stride: int

    @classmethod
    def of(cls, view: Convolution, place: int, factor: int) -> _Axis:
        """place: 0 for rows, 1 for columns."""
        size, kernel, pad = view.input_size[place], view.kernel[place], view.pads[place]
        before, lead = 0, -pad % factor
        if _blocks(lead + kernel, factor) > _blocks(kernel, factor):
            before, lead = pad % factor, 0
        taps, begin = _blocks(lead + kernel, factor), (pad - before + lead) // factor
        stride = view.strides[place] // factor
        # Blocks of the input up to the last one a window reads; a last block that is not whole may lie beyond.
        needed = (view.output_size[place] - 1) * stride + taps - begin
        blocks = _blocks(before + size, factor)
        if blocks - needed >= stride:
            blocks = (before + size) // factor
        end = max(0, needed - blocks)
        return cls(before, blocks * factor - before - size, lead, taps, (begin, end), stride)


def _apply(graph: Graph, view: Convolution, axes: tuple[_Axis, ...], factor: int, blocks: _Blocks) -> None:
    node, sides = view.node, ((0, 0), (0, 0), *((axis.before, axis.behind) for axis in axes))
    key = (view.x, sides, factor)
    if key not in blocks:
        blocks[key] = _blocks_of(graph, node, with_zeros(graph, node, view.x, sides), factor)
    weights = constant_of(view.w)
    assert weights is not None
    node.replace_input_with(0, blocks[key])
    set_constant(graph, node, 1, _over_blocks(weights, axes, factor), "weight")
    node.attributes.pop("auto_pad", None)
    pads = [axis.pads[side] for side in (0, 1) for axis in axes]
    for name, values in (
        ("kernel_shape", [axis.taps for axis in axes]),
        ("strides", [axis.stride for axis in axes]),
        ("pads", pads),
    ):
        node.attributes[name] = ir.AttrInt64s(name, values)


def _blocks_of(graph: Graph, node: ir.Node, value: ir.Value, factor: int) -> ir.Value:
    batch, channels, rows, columns = shape_of(value)
    shape = (batch, channels * factor**2, rows // factor, columns // factor)
    return insert_before(graph, node, "SpaceToDepth", [value], shape, role="space_to_depth", blocksize=factor)


def _over_blocks(weights: np.ndarray, axes: tuple[_Axis, ...], factor: int) -> np.ndarray:
    """Weights [K, C, FY, FX] as [K, factor factor C, taps, taps], channels in SpaceToDepth's order: place, then C."""
    outputs, channels, *kernel = weights.shape
    fill = [(axis.lead, axis.taps * factor - axis.lead - size) for axis, size in zip(axes, kernel, strict=True)]
    whole = np.pad(weights, [(0, 0), (0, 0), *fill])
    rows, columns = (axis.taps for axis in axes)
    parted = whole.reshape(outputs, channels, rows, factor, columns, factor)
    return parted.transpose(0, 3, 5, 1, 2, 4).reshape(outputs, channels * factor**2, rows, columns)


def _detail(view: Convolution, axes: tuple[_Axis, ...], factor: int) -> str:
    taps, strides = (axes[0].taps, axes[1].taps), (axes[0].stride, axes[1].stride)
    growth = prod(taps) * factor**2 / prod(view.kernel)
    return (
        f"{_times(view.kernel)} stride {_times(view.strides)} on {view.in_channels} channels became "
        f"{_times(taps)} stride {_times(strides)} on {view.in_channels * factor**2}; MACs x {growth:.2f}"
    )


def _blocks(size: int, factor: int) -> int:
    return -(-size // factor)


def _times(sizes: Pair) -> str:
    return "x".join(map(str, sizes))
