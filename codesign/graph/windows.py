"""Windows: kernel, strides, dilations and pads of a sliding operator, with ONNX's defaults and auto_pad resolved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

Pair = tuple[int, int]
Pads = tuple[int, int, int, int]


@dataclass(frozen=True)
class Window:
    """Rows before columns; pads are top, left, bottom, right. rank: spatial dimensions of the node (1 or 2)."""

    kernel: Pair
    strides: Pair
    dilations: Pair
    pads: Pads
    rank: int

    @classmethod
    def whole(cls, sizes: Sequence[int]) -> Window:
        """A window as large as the feature map."""
        return cls(_pair(sizes, 1), (1, 1), (1, 1), (0, 0, 0, 0), len(sizes))


def convolution_window(node: ir.Node, sizes: Sequence[int], kernel: Sequence[int]) -> Window:
    """The window of a Conv over `sizes`; the kernel is that of the weights."""
    strides, dilations = _steps(node, len(sizes))
    pads = _input_pads(node, sizes, kernel, strides, dilations)
    return _window(kernel, strides, dilations, pads)


def pool_window(node: ir.Node, sizes: Sequence[int]) -> Window:
    """The window of a MaxPool or AveragePool over `sizes`; the kernel is the node's attribute."""
    return convolution_window(node, sizes, node.attributes["kernel_shape"].as_ints())


def transposed_window(node: ir.Node, sizes: Sequence[int], kernel: Sequence[int]) -> tuple[Window, Pair]:
    """The window of a ConvTranspose and its output padding (rows, columns), output_shape and auto_pad resolved.

    Per dimension: output = stride (input - 1) + output_padding + dilation (kernel - 1) + 1 - pads.
    """
    rank = len(sizes)
    strides, dilations = _steps(node, rank)
    extra = list(node.attributes.get_ints("output_padding") or [0] * rank)
    pads = list(node.attributes.get_ints("pads") or [0] * (2 * rank))
    wanted = node.attributes.get_ints("output_shape")
    mode = node.attributes.get_string("auto_pad", "NOTSET")
    if wanted is None and mode.startswith("SAME"):
        wanted = [size * stride for size, stride in zip(sizes, strides, strict=True)]
    if wanted is not None:
        for axis, size in enumerate(wanted[-rank:]):
            reach = strides[axis] * (sizes[axis] - 1) + dilations[axis] * (kernel[axis] - 1) + 1
            total = reach + extra[axis] - size
            # A wanted size beyond the window's reach is filled at the end with zeros, as output padding is.
            extra[axis] += max(0, -total)
            pads[axis], pads[axis + rank] = _split(max(0, total), more_at_end=mode == "SAME_UPPER")
    return _window(kernel, strides, dilations, pads), _pair(extra, 0)


def _steps(node: ir.Node, rank: int) -> tuple[Sequence[int], Sequence[int]]:
    strides = node.attributes.get_ints("strides") or [1] * rank
    dilations = node.attributes.get_ints("dilations") or [1] * rank
    return strides, dilations


def _input_pads(
    node: ir.Node, sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int]
) -> list[int]:
    """Pads in ONNX order (all begins, then all ends)."""
    rank = len(sizes)
    mode = node.attributes.get_string("auto_pad", "NOTSET")
    if mode == "VALID":
        return [0] * (2 * rank)
    if not mode.startswith("SAME"):
        return list(node.attributes.get_ints("pads") or [0] * (2 * rank))
    pads = [0] * (2 * rank)
    for axis, size in enumerate(sizes):
        steps = -(-size // strides[axis])
        total = (steps - 1) * strides[axis] + dilations[axis] * (kernel[axis] - 1) + 1 - size
        pads[axis], pads[axis + rank] = _split(max(0, total), more_at_end=mode == "SAME_UPPER")
    return pads


def _split(total: int, *, more_at_end: bool) -> tuple[int, int]:
    """Padding before and after; an odd one goes to the end when `more_at_end`."""
    small, large = total // 2, total - total // 2
    return (small, large) if more_at_end else (large, small)


def _window(kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], pads: Sequence[int]) -> Window:
    rank = len(kernel)
    begin, end = _pair(pads[:rank], 0), _pair(pads[rank:], 0)
    return Window(_pair(kernel, 1), _pair(strides, 1), _pair(dilations, 1), begin + end, rank)


def _pair(sizes: Sequence[int], missing: int) -> Pair:
    """(rows, columns); a 1-D size is a row of height `missing`."""
    return (missing, int(sizes[0])) if len(sizes) == 1 else (int(sizes[0]), int(sizes[1]))
