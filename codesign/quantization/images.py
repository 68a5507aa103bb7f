"""Pixels folded into the first layer: the network takes uint8 images, and no float is computed before it.

    before:  x = (pixel - mean_c) scale_c -> Conv(W, b)
    after:   pixel (uint8) -> DQ(2^-k, zero point z) -> Conv(W scale_c 2^k, b + sum of W_c scale_c (z - mean_c))

Every product and sum is the same. Where the convolution pads with zeros, the old network read x = 0, which is the pixel
mean_c, and the new one reads the pixel z: exact where every mean_c is z, a whole number, and approximate at the borders
otherwise. Calibration data stays what the float network takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import frexp

import numpy as np

from codesign.errors import CodesignError
from codesign.graph.graph import Graph, node_name, shape_of
from codesign.graph.operators import Convolution
from codesign.graph.samples import Samples
from codesign.quantization.formats import FixedPoint
from codesign.quantization.weighted import BIAS, Weighted
from codesign.rewriting.edit import set_constant

_FRACTION_BITS = 7  # of pixel - zero point, where the scales do not say
_LARGEST_PIXEL = 255
WHERE = "quantize: image"


@dataclass(frozen=True)
class Pixels:
    """What a float network computes from pixels before its first layer: (pixel - mean) x scale, [channels] or [1]."""

    mean: tuple[float, ...]
    scale: tuple[float, ...]

    @staticmethod
    def of(mean: str, scale: str) -> Pixels:
        """From numbers separated by `;`. Raises ValueError for anything else, and for scales of 0."""
        found = Pixels(_numbers(mean or "0"), _numbers(scale or "1"))
        if any(each == 0 for each in found.scale):
            raise ValueError("image_scale must not be 0")
        return found


@dataclass(frozen=True)
class FoldedImage:
    """What was done. name: of the input; form: of its codes; where: the first layer; detail: for people."""

    name: str
    form: FixedPoint
    where: str
    detail: str


def fold_image(graph: Graph, samples: Samples, pixels: Pixels) -> tuple[Samples, FoldedImage]:
    """Change the first layer to read pixels less their zero point; the input's type changes when the graph is written.

    Returns the samples as the changed float network takes them. Raises CodesignError when the input is read by anything
    but one convolution, or has another number of channels.
    """
    layer = _first_layer(graph)
    name = str(graph.inputs[0].name)
    channels = shape_of(graph.inputs[0])[1]
    mean, scale = (_per_channel(numbers, channels) for numbers in (pixels.mean, pixels.scale))
    zero_point = int(np.clip(np.rint(mean.mean()), 0, _LARGEST_PIXEL))
    form = FixedPoint(8, _fraction_bits(scale), zero_point)
    shape = [1, -1, *[1] * (layer.weights.ndim - 2)]
    shifted = (layer.weights * (scale * (zero_point - mean)).reshape(shape)).sum(axis=tuple(range(1, len(shape))))
    factor = (scale * 2.0**form.fraction_bits).reshape(shape)
    old_bias = 0 if layer.bias is None else layer.bias
    if layer.bias is not None or shifted.any():
        set_constant(graph, layer.node, BIAS, np.asarray(old_bias + shifted, np.float32), "bias")
    set_constant(graph, layer.node, 1, np.asarray(layer.weights * factor, np.float32), "weights")
    outside = [_share_outside(run[name], mean, scale) for run in samples.runs]
    runs = tuple(_moved(run, name, mean, scale, form) for run in samples.runs)
    padded = any(_pads(layer)) and bool((mean != zero_point).any())
    return replace(samples, runs=runs), FoldedImage(
        name, form, node_name(layer.node), _detail(form, max(outside), padded=padded)
    )


def _first_layer(graph: Graph) -> Weighted:
    if len(graph.inputs) != 1 or len(shape_of(graph.inputs[0])) != 4:
        raise CodesignError(WHERE, f"{graph.name} does not take one image", "leave out image_mean and image_scale")
    value = graph.inputs[0]
    readers = [use.node for use in value.uses()]
    layer = Weighted.of(readers[0]) if len(readers) == 1 and readers[0].op_type == "Conv" else ""
    if isinstance(layer, str) or layer.node.attributes.get_int("group", 1) != 1:
        read = ", ".join(node_name(node) for node in readers)
        problem = f"{value.name} is read by {read}, and pixels fold into one convolution of one group only"
        raise CodesignError(WHERE, problem, "run the passes that change the first layer after this one")
    return layer


def _moved(
    run: Mapping[str, np.ndarray], name: str, mean: np.ndarray, scale: np.ndarray, form: FixedPoint
) -> dict[str, np.ndarray]:
    codes = np.clip(np.rint(_pixel(run[name], mean, scale)), 0, _LARGEST_PIXEL) - form.zero_point
    return {**run, name: np.asarray(np.ldexp(codes, -form.fraction_bits), np.float32)}


def _pixel(array: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    shape = [1, -1, 1, 1]
    return np.asarray(array / scale.reshape(shape) + mean.reshape(shape))


def _share_outside(array: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> float:
    """The share of numbers that no pixel gives."""
    pixel = _pixel(array, mean, scale)
    return float(np.mean((pixel < -0.5) | (pixel > _LARGEST_PIXEL + 0.5)))


def _fraction_bits(scale: np.ndarray) -> int:
    """Those with which the weights stay as they are, where the channels' one scale is a power of two."""
    fraction, exponent = frexp(abs(float(scale[0])))
    return 1 - exponent if fraction == 0.5 and (np.abs(scale) == abs(scale[0])).all() else _FRACTION_BITS


def _pads(layer: Weighted) -> Sequence[int]:
    view = Convolution.of(layer.node)
    assert view is not None
    return view.pads


def _detail(form: FixedPoint, outside: float, *, padded: bool) -> str:
    kind = "APPROXIMATE at the borders: zero padding now is the pixel, not each channel's mean" if padded else "EXACT"
    more = f"; {outside:.0%} of a calibration sample lie outside 0 ... 255" if outside else ""
    return f"takes uint8 pixels, zero point {form.zero_point}: {kind}{more}"


def _per_channel(numbers: Sequence[float], channels: int) -> np.ndarray:
    if len(numbers) not in (1, channels):
        problem = f"{len(numbers)} numbers for {channels} channels"
        raise CodesignError(WHERE, problem, "give one number for all channels, or one for each, separated by ;")
    return np.broadcast_to(np.array(numbers, np.float64), (channels,))


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(";"))
    except ValueError as error:
        raise ValueError(f"image_mean and image_scale are numbers separated by ;, not {text}") from error
