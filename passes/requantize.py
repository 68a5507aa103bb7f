"""Give the tensors of a quantised network scales that are powers of two."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from codesign.graph.codes import ConstantCodes, constant_codes, is_dequantize, is_quantize, scaling_of
from codesign.graph.graph import Graph, node_name
from codesign.graph.operators import Convolution, Gemm, TransposedConvolution, view_of
from codesign.rewriting.edit import set_constant
from codesign.rewriting.graph_pass import Applied, Declined, Effect, GraphPass, Outcome, PassContext

_INT32 = 2**31 - 1


@dataclass(frozen=True)
class Requantize(GraphPass):
    """Give the tensors of a quantised network scales that are powers of two.

    before:  QuantizeLinear(scale 0.0301, zero point 117)    requantised by a multiplication and a shift
    after:   QuantizeLinear(scale 2^-5, zero point 110)      requantised by a shift

    A tensor's new scale is the next power of two above the old one, and its zero point lies where the same numbers are
    still covered: nothing saturates that did not before, and a step between two codes grows to less than twice its
    size. A weight tensor takes, channel by channel, the power of two on either side of its old scale with the smaller
    squared error, and zero point 0. Biases follow the scales of inputs and weights. APPROXIMATE: numbers are rounded
    to other steps. Declined are biases that leave 32 bits. Networks that are not quantised are left alone.

    Source: dynamic fixed point, in which scales are powers of two (Huang et al., eCNN, MICRO 2019).
    """

    name: ClassVar[str] = "requantize"
    effect: ClassVar[Effect] = Effect.APPROXIMATE

    def run(self, graph: Graph, context: PassContext) -> list[Outcome]:
        """Activations, then weights, then the biases that depend on both."""
        biases = {node: bias for node in graph.nodes if (bias := _bias(node)) is not None}
        outcomes = [*_activations(graph), *_weights(graph, set(biases.values()))]
        for node, bias in biases.items():
            outcomes += _rescaled_bias(graph, node, bias)
        return outcomes


def _activations(graph: Graph) -> Iterator[Outcome]:
    for node in graph.nodes:
        if not (is_quantize(node) or is_dequantize(node)):
            continue
        old = scaling_of(node)
        assert old is not None
        scale = 2.0 ** np.ceil(np.log2(old.scale))
        if scale == old.scale:
            continue
        zero = _zero_point(old.zero_point, old.lowest, old.highest, old.scale / scale)
        set_constant(graph, node, 1, np.array(scale, np.float32), "scale")
        set_constant(graph, node, 2, np.array(zero, old.dtype), "zero_point")
        if node.op_type == "QuantizeLinear":
            detail = f"scale {old.scale:.4g}, zero point {old.zero_point} -> 2^{int(np.log2(scale))}, {zero}"
            yield Applied(node_name(node), detail)


def _zero_point(zero: int, lowest: int, highest: int, ratio: float) -> int:
    """Where the codes of the old range, `ratio` as wide now, still lie between the lowest and the highest."""
    below, above = np.ceil((zero - lowest) * ratio), np.ceil((highest - zero) * ratio)
    kept = round(zero * ratio)
    return int(min(max(kept, lowest + below), highest - above))


def _weights(graph: Graph, biases: set[ir.Node]) -> Iterator[Outcome]:
    for node in graph.nodes:
        codes = constant_codes(node.outputs[0]) if node not in biases and node.outputs else None
        if codes is None or _are_powers(codes.scales):
            continue
        scales, made = _nearest(codes)
        whole = codes.scales.size == 1
        set_constant(graph, node, 0, made, "codes")
        set_constant(graph, node, 1, scales.reshape(() if whole else -1), "scale")
        set_constant(graph, node, 2, np.zeros(() if whole else scales.shape, made.dtype), "zero_point")
        yield Applied(node_name(node), f"{scales.size} scale{'s' * (scales.size != 1)} of constants")


def _nearest(codes: ConstantCodes) -> tuple[np.ndarray, np.ndarray]:
    """Scales and int8 (int16) codes, by the power of two beside each old scale that changes the numbers less."""
    numbers = np.moveaxis(np.atleast_1d(codes.numbers), codes.axis if codes.scales.size > 1 else 0, 0)
    rows = numbers.reshape(codes.scales.size, -1).astype(np.float64)
    dtype = np.int8 if codes.codes.dtype.itemsize == 1 else np.int16
    limits = np.iinfo(dtype)
    best: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
    for power in (np.ceil(np.log2(codes.scales)), np.floor(np.log2(codes.scales))):
        scale = 2.0 ** power.astype(np.float64)
        made = np.clip(np.rint(rows / scale[:, None]), limits.min, limits.max)
        error = ((made * scale[:, None] - rows) ** 2).sum(axis=1)
        if best is None:
            best = (scale, made, error)
        else:
            better = error < best[2]
            best = (
                np.where(better, scale, best[0]),
                np.where(better[:, None], made, best[1]),
                np.minimum(error, best[2]),
            )
    assert best is not None
    shaped = np.moveaxis(best[1].reshape(numbers.shape), 0, codes.axis if codes.scales.size > 1 else 0)
    return best[0].astype(np.float32), np.ascontiguousarray(shaped.reshape(codes.codes.shape)).astype(dtype)


def _bias(node: ir.Node) -> ir.Node | None:
    """The DequantizeLinear that makes the bias of a convolution or matrix product."""
    view = view_of(node)
    if not isinstance(view, Convolution | TransposedConvolution | Gemm) or view.b is None:
        return None
    return view.b.producer() if constant_codes(view.b) is not None and constant_codes(view.w) is not None else None


def _rescaled_bias(graph: Graph, node: ir.Node, bias: ir.Node) -> Iterator[Outcome]:
    view = view_of(node)
    assert isinstance(view, Convolution | TransposedConvolution | Gemm)
    weights, codes, source = constant_codes(view.w), constant_codes(bias.outputs[0]), view.x.producer()
    scaling = scaling_of(source) if source is not None else None
    if weights is None or codes is None or scaling is None:
        return
    units = np.asarray(weights.scales * np.float32(scaling.scale), np.float32)
    if codes.scales.size == units.size and (codes.scales == units).all():
        return
    made = np.rint(codes.numbers.astype(np.float64) / np.broadcast_to(units, codes.codes.shape))
    if (np.abs(made) > _INT32).any():
        yield Declined(node_name(node), "its bias leaves 32 bits at the new scales")
        return
    set_constant(graph, bias, 0, made.astype(np.int32), "codes")
    set_constant(graph, bias, 1, units if units.size > 1 else units.reshape(()), "scale")
    if len(bias.inputs) > 2 and bias.inputs[2] is not None:
        set_constant(graph, bias, 2, np.zeros(units.shape if units.size > 1 else (), np.int32), "zero_point")


def _are_powers(scales: np.ndarray) -> bool:
    return bool((np.frexp(scales)[0] == 0.5).all())
