"""fold-batch-norm: batch normalisation goes into the weights of the linear operator before or after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from codesign.graph.graph import Graph, constant_of, node_name, shape_of
from codesign.graph.operators import BatchNormalization, is_operator
from codesign.rewriting.affine import Affine
from codesign.rewriting.affine_walk import Stretch, fold_backwards, fold_forwards
from codesign.rewriting.graph_pass import Applied, Declined, Effect, GraphPass, Outcome, PassContext
from codesign.rewriting.linear import CannotFoldError, ScaleShift


@dataclass(frozen=True)
class FoldBatchNorm(GraphPass):
    """Folds batch normalisation into the weights of the operator before it, or else those after it.

    before:  x -> Conv(w, b) -> BatchNormalization(scale, shift, mean, variance) -> y
    after:   x -> Conv(w', b') -> y

        s  = scale / sqrt(variance + epsilon)        one factor per channel, in float64
        w' = s w                                     b' = s (b - mean) + shift

    Exact: at inference a normalisation is s x + t with constant s and t, and s (w x + b) + t = (s w) x + (s b + t).
    The operator is a convolution of any grouping, a transposed convolution, or a dense layer (Gemm, MatMul), also
    with reshapes, transpositions, the concatenation or split of such results or the addition of a constant in
    between, as long as the channels stay apart.

    Folding forwards, w (s x + t) + b = (w s) x + (w t + b), needs windows of real elements only: it is declined for
    a convolution that pads with zeros unless t is zero. Everything that reads the result must take it.

    A normalisation also stays where its neighbour's result is used elsewhere, where its statistics are not
    constants, and in training mode.

    Source: the definition of BatchNormalization in the ONNX operator set; folding as in Jacob et al., "Quantization and
    Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018, section 3.2.
    """

    name: ClassVar[str] = "fold-batch-norm"
    effect: ClassVar[Effect] = Effect.EXACT

    def run(self, graph: Graph, context: PassContext) -> list[Outcome]:
        """Fold until nothing folds any more: a fold can make room for the next."""
        outcomes: list[Outcome] = []
        while True:
            sweep = [_fold(graph, node) for node in graph.nodes if is_operator(node, "BatchNormalization")]
            applied = [outcome for outcome in sweep if isinstance(outcome, Applied)]
            outcomes += applied
            if not applied:
                return outcomes + sweep


def _fold(graph: Graph, node: ir.Node) -> Outcome:
    name = node_name(node)
    try:
        affine = _affine_of(node)
    except CannotFoldError as error:
        return Declined(name, str(error))
    stretch = Stretch((node,), 0)
    try:
        return Applied(name, fold_backwards(graph, stretch, affine))
    except CannotFoldError as error:
        backwards = str(error)
    try:
        return Applied(name, fold_forwards(graph, stretch, affine))
    except CannotFoldError as error:
        return Declined(name, f"backwards: {backwards}; forwards: {error}")


def _affine_of(node: ir.Node) -> Affine:
    """What the normalisation computes."""
    norm = BatchNormalization.of(node)
    if norm is None:
        raise CannotFoldError("it is in training mode")
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        raise CannotFoldError("its batch statistics are used")
    terms = [constant_of(value) for value in (norm.scale, norm.shift, norm.mean, norm.variance)]
    if any(term is None for term in terms):
        raise CannotFoldError("its statistics are not constants")
    scale, shift, mean, variance = (term.astype(np.float64) for term in terms if term is not None)
    channels = shape_of(norm.x)[1]
    if any(term.shape != (channels,) for term in (scale, shift, mean, variance)):
        raise CannotFoldError(f"its statistics are not one number for each of the {channels} channels")
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = scale / np.sqrt(variance + norm.epsilon)
        affine = ScaleShift(factor, shift - factor * mean)
    if not (np.isfinite(affine.scale).all() and np.isfinite(affine.shift).all()):
        raise CannotFoldError("a variance is not positive")
    return Affine.of_channels(affine, 1, len(shape_of(norm.x)))
