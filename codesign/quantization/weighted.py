"""Layers with weights: which axis of their weights is the output channel, and where their bias stands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from codesign.graph.graph import constant_of
from codesign.graph.operators import Convolution, Gemm, MatMul, TransposedConvolution, view_of

BIAS = 2  # the input of Conv, ConvTranspose and Gemm that holds it


@dataclass(frozen=True)
class Weighted:
    """A layer with constant weights. axis: of the output channels in its weights (None: it has one).

    groups: of a transposed convolution, whose weights hold the channels of one group along `axis`.
    """

    node: ir.Node
    axis: int
    groups: int = 1
    takes_bias: bool = True

    @property
    def weights(self) -> np.ndarray:
        """The float weights."""
        found = constant_of(self.node.inputs[1])
        assert found is not None
        return found

    @property
    def channels(self) -> int:
        """Output channels, all groups together."""
        return int(self.weights.shape[self.axis]) * self.groups

    @property
    def bias(self) -> np.ndarray | None:
        """[channels], or None where there is none."""
        value = self.node.inputs[BIAS] if len(self.node.inputs) > BIAS else None
        found = constant_of(value)
        return None if found is None else np.broadcast_to(found.reshape(-1), (self.channels,))

    @property
    def rows(self) -> np.ndarray:
        """The weights of one channel along `axis` each: [channels / groups, ...]."""
        moved = np.moveaxis(self.weights, self.axis, 0)
        return np.asarray(moved.reshape(len(moved), -1), np.float64)

    @staticmethod
    def of(node: ir.Node) -> Weighted | str:
        """The layer, or why it stays float."""
        try:
            view = view_of(node)
        except ValueError as error:
            return str(error)
        if view is None:
            return "its window has no integer form here"
        if constant_of(node.inputs[1]) is None:
            return "the product of two activations has no integer form here"
        if constant_of(node.inputs[0]) is not None:
            return "its left side is constant"
        bias = node.inputs[BIAS] if len(node.inputs) > BIAS else None
        if bias is not None and constant_of(bias) is None:
            return "its bias is no constant"
        match view:
            case Convolution():
                return Weighted(node, 0)
            case TransposedConvolution():
                return Weighted(node, 1, view.group)
            case Gemm():
                return _gemm(view)
            case MatMul():
                weights = constant_of(view.w)
                assert weights is not None
                return Weighted(node, 1, takes_bias=False) if weights.ndim == 2 else "its weights are no matrix"
        return "it has no integer form here"


def _gemm(view: Gemm) -> Weighted | str:
    if view.transpose_x or view.alpha != 1 or view.beta not in (0, 1):
        return "alpha, beta or transA have no integer form here"
    bias = constant_of(view.b)
    if bias is not None and (bias.ndim > 1 and bias.shape[0] != 1):
        return "its bias is a matrix"
    return Weighted(view.node, 0 if view.transpose_w else 1)
