"""Folding a per-channel scale and shift into the weights of the linear operator before or after it.

All arithmetic is float64; the result is cast to the type of the weights once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from codesign.graph.graph import Graph, constant_of, node_name, shape_of
from codesign.graph.operators import Convolution, Gemm, MatMul, TransposedConvolution, view_of
from codesign.rewriting.edit import insert_after, set_constant

Linear: TypeAlias = Convolution | TransposedConvolution | Gemm | MatMul


class CannotFoldError(Exception):
    """Why a scale and shift cannot go into an operator; the message completes `declined: ...`."""


@dataclass(frozen=True)
class ScaleShift:
    """x -> scale x + shift, per channel; both float64 [channels]."""

    scale: np.ndarray
    shift: np.ndarray


@dataclass(frozen=True)
class Folded:
    """New weights and bias (None: there is none and none is needed) of a linear operator, in the operator's type."""

    view: Linear
    weights: np.ndarray
    bias: np.ndarray | None

    @property
    def node(self) -> ir.Node:
        """The operator."""
        return self.view.node


def linear_of(node: ir.Node) -> Linear | None:
    """The view of a linear operator, or None."""
    found = view_of(node)
    return found if isinstance(found, Linear) else None


def channel_axes(view: Linear) -> tuple[int, int]:
    """The axis of the input an operator sums over, and the axis of its result the outputs lie on."""
    if isinstance(view, MatMul):
        return len(shape_of(view.x)) - 1, len(shape_of(view.y)) - 1
    return 1, 1


def fold_after(view: Linear, affine: ScaleShift, axis: int) -> Folded:
    """The operator that computes affine(operator(x)); axis: that of the output the channels lie on.

    Exact: scale (w x + b) + shift = (scale w) x + (scale b + shift), per output channel.
    Raises CannotFoldError.
    """
    weights, bias = _constants(view)
    _expect_channel_axis(view, axis)
    scale, shift = affine.scale, affine.shift
    match view:
        case Convolution():
            new = weights * scale.reshape(-1, *[1] * (weights.ndim - 1))
        case TransposedConvolution():
            new = (_by_group(weights, view.group) * _per_output(scale, view.group, weights.ndim)).reshape(weights.shape)
        case Gemm():
            new = weights * (scale[:, None] if view.transpose_w else scale)
        case MatMul():
            new = weights * scale
    return _folded(view, new, bias * scale + shift)


def fold_before(view: Linear, affine: ScaleShift) -> Folded:
    """The operator that computes operator(affine(x)), where the channels of x are those the operator sums over.

    Exact: w (scale x + shift) + b = (w scale) x + (w shift + b), as long as every output sums over whole windows of
    real elements: a padded zero would have to be -shift / scale. A transposed convolution's outputs sum over
    different numbers of inputs. Both are exact when shift is zero.
    Raises CannotFoldError.
    """
    weights, bias = _constants(view)
    scale, shift = affine.scale, affine.shift
    match view:
        case Convolution():
            if shift.any() and any(view.pads):
                raise CannotFoldError(f"{node_name(view.node)} pads with zeros, which the shift does not leave zero")
            scales, shifts = (_per_input(term, view, weights) for term in (scale, shift))
            return _folded(view, weights * scales, bias + (weights * shifts).reshape(len(weights), -1).sum(axis=1))
        case TransposedConvolution():
            if shift.any():
                raise CannotFoldError(f"outputs of {node_name(view.node)} sum over different numbers of inputs")
            return _folded(view, weights * scale.reshape(-1, *[1] * (weights.ndim - 1)), bias)
        case Gemm():
            if view.transpose_x:
                raise CannotFoldError(f"{node_name(view.node)} reads its input transposed")
            rows = (weights.T if view.transpose_w else weights) * scale[:, None]
            moved = view.alpha * (shift @ (weights.T if view.transpose_w else weights))
            return _folded(view, rows.T if view.transpose_w else rows, bias + moved)
        case MatMul():
            return _folded(view, weights * scale[:, None], shift @ weights)


def write(graph: Graph, folded: Folded) -> None:
    """Put folded weights and bias into the graph; a MatMul, which has no bias, is followed by an Add."""
    view = folded.view
    set_constant(graph, view.node, 1, folded.weights, "weight")
    if folded.bias is None:
        return
    if isinstance(view, MatMul):
        insert_after(graph, view.node, "Add", folded.bias, "bias")
        return
    set_constant(graph, view.node, 2, folded.bias, "bias")
    if isinstance(view, Gemm) and view.beta != 1.0:
        view.node.attributes["beta"] = ir.AttrFloat32("beta", 1.0)


def _constants(view: Linear) -> tuple[np.ndarray, np.ndarray]:
    """Weights and bias (zero when absent; a Gemm's times beta) as float64."""
    name = node_name(view.node)
    weights = constant_of(view.w)
    if weights is None:
        raise CannotFoldError(f"the weights of {name} are not constant")
    if isinstance(view, MatMul):
        if weights.ndim != 2:
            raise CannotFoldError(f"the weights of {name} are no matrix")
        return weights.astype(np.float64), np.zeros(weights.shape[1])
    bias = constant_of(view.b) if view.b is not None else np.zeros(1)
    if bias is None:
        raise CannotFoldError(f"the bias of {name} is not constant")
    beta = view.beta if isinstance(view, Gemm) else 1.0
    return weights.astype(np.float64), bias.astype(np.float64) * beta


def _expect_channel_axis(view: Linear, axis: int) -> None:
    _, expected = channel_axes(view)
    if axis != expected:
        raise CannotFoldError(
            f"the channels lie on axis {axis} of {node_name(view.node)}, its outputs on axis {expected}"
        )


def _folded(view: Linear, weights: np.ndarray, bias: np.ndarray) -> Folded:
    """Both cast to the type of the weights; an all-zero bias is left out where there was none."""
    original = constant_of(view.w)
    assert original is not None
    had_bias = not isinstance(view, MatMul) and view.b is not None
    with np.errstate(over="ignore"):
        cast = weights.astype(original.dtype)
        cast_bias = bias.astype(original.dtype) if had_bias or bias.any() else None
    for array in (cast, cast_bias):
        if array is not None and not np.isfinite(array.astype(np.float64)).all():
            raise CannotFoldError(f"the folded weights of {node_name(view.node)} do not fit {original.dtype}")
    return Folded(view, cast, cast_bias)


def _by_group(weights: np.ndarray, group: int) -> np.ndarray:
    """Weights [C, K / group, ...] of a transposed convolution as [group, C / group, K / group, ...]."""
    return weights.reshape(group, weights.shape[0] // group, *weights.shape[1:])


def _per_output(scale: np.ndarray, group: int, rank: int) -> np.ndarray:
    return scale.reshape(group, 1, -1, *[1] * (rank - 2))


def _per_input(term: np.ndarray, view: Convolution, weights: np.ndarray) -> np.ndarray:
    """A term per input channel, laid out to multiply weights [K, C / group, ...]: each group reads its own channels."""
    by_group = np.repeat(term.reshape(view.group, -1), len(weights) // view.group, axis=0)
    return by_group.reshape(*by_group.shape, *[1] * (weights.ndim - 2))
