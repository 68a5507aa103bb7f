"""A normalisation that folds into no layer becomes one itself, so that integers can do it.

    BatchNormalization(x) = scale_c x + shift_c   ->   Conv(x, scale [C, 1, 1, 1], shift), depthwise, 1 x 1

Source: BatchNormalization and Conv of the ONNX operator set.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from codesign.graph.graph import Graph, constant_of, node_name, shape_of
from codesign.graph.operators import BatchNormalization
from codesign.rewriting.building import Builder


def norms_as_layers(graph: Graph) -> Iterator[str]:
    """Rewrite every normalisation of feature maps; yields the names of their nodes."""
    for node in graph.nodes:
        view = BatchNormalization.of(node)
        affine = _affine(view) if view is not None else None
        if view is None or affine is None or len(shape_of(view.x)) < 3:
            continue
        scale, shift = affine
        channels, rank = len(scale), len(shape_of(view.x))
        builder, name = Builder(graph, node), node_name(node)
        weights = builder.constant(scale.reshape(channels, *[1] * (rank - 1)).astype(np.float32), "scale")
        bias = builder.constant(shift.astype(np.float32), "shift")
        shape = shape_of(view.x)
        builder.replace(builder.add("Conv", view.x, weights, bias, shape=shape, group=channels))
        yield name


def _affine(view: BatchNormalization) -> tuple[np.ndarray, np.ndarray] | None:
    """Scale and shift of every channel, float64; None where they are no constants."""
    values: list[ir.Value] = [view.scale, view.shift, view.mean, view.variance]
    constants = [array.astype(np.float64) for value in values if (array := constant_of(value)) is not None]
    if len(constants) < len(values) or len(view.node.outputs) > 1:
        return None
    scale, shift, mean, variance = constants
    factor = scale / np.sqrt(variance + view.epsilon)
    return factor, shift - mean * factor
