"""The first convolutions of a network, which read its input, and zeros around what they read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from codesign.graph.graph import Graph, constant_of, shape_of
from codesign.graph.operators import Convolution, is_operator
from codesign.rewriting.edit import insert_before
from codesign.rewriting.record import DeclinedRecord as Declined

# What prepares an image for a network: normalisation, layout, cropping and scaling, joined and parted channels.
_PREPARING = (
    *("Add", "Sub", "Mul", "Div", "Neg", "Cast", "Clip", "BatchNormalization", "Identity"),
    *("QuantizeLinear", "DequantizeLinear"),
    *("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Gather", "Slice", "Split", "Concat", "Pad", "Resize"),
)
Sides = tuple[tuple[int, int], ...]


def first_convolutions(graph: Graph) -> list[Convolution]:
    """Convolutions that read an input of the graph, with nothing in between but what prepares it."""
    prepared, found = set(graph.inputs), []
    for node in graph.nodes:
        reads = [value for value in node.inputs if value is not None and constant_of(value) is None]
        if (view := Convolution.of(node)) is not None and view.x in prepared:
            found.append(view)
        elif reads and is_operator(node, *_PREPARING) and all(value in prepared for value in reads):
            prepared.update(node.outputs)
    return found


def without_first_convolution(graph: Graph) -> Declined:
    """What a pass over first convolutions says where there is none."""
    names = ", ".join(str(value.name) for value in graph.inputs)
    return Declined(names, "no convolution reads it before anything else is computed")


def with_zeros(graph: Graph, reader: ir.Node, value: ir.Value, sides: Sides) -> ir.Value:
    """`value` with zeros before and behind along every axis, as a new Pad in front of `reader`.

    sides: (before, behind) per axis; a negative number behind cuts positions off instead, as a Slice.
    """
    cuts = [(axis, behind) for axis, (_, behind) in enumerate(sides) if behind < 0]
    if cuts:
        value = _cut(graph, reader, value, cuts)
    grown = [(before, max(0, behind)) for before, behind in sides]
    if not any(map(any, grown)):
        return value
    shape = [size + sum(added) for size, added in zip(shape_of(value), grown, strict=True)]
    pads = np.array([before for before, _ in grown] + [behind for _, behind in grown], np.int64)
    return insert_before(graph, reader, "Pad", [value, pads], shape, role="pad", mode="constant")


def _cut(graph: Graph, reader: ir.Node, value: ir.Value, cuts: Sequence[tuple[int, int]]) -> ir.Value:
    shape, axes = list(shape_of(value)), [axis for axis, _ in cuts]
    for axis, behind in cuts:
        shape[axis] += behind
    terms = ([0] * len(cuts), [shape[axis] for axis in axes], axes)
    return insert_before(
        graph, reader, "Slice", [value, *(np.array(term, np.int64) for term in terms)], shape, role="cut"
    )
