"""Operators that compute nothing: views, in which no byte moves, and data movement."""

from __future__ import annotations

from math import ceil

import onnx_ir as ir

from codesign.graph.graph import constant_of, shape_of
from codesign.graph.operators import optional_input
from codesign.vocabulary import OperationKind
from codesign.workload.loop_nest import LoopNest
from codesign.workload.operators.entry import Entries, Entry, at, vectors
from codesign.workload.operators.streaming import streaming_nest
from codesign.workload.tensors import activations, elements, results, sizes_of


def view(node: ir.Node) -> LoopNest:
    """The same elements in the same order under another shape or name."""
    return streaming_nest(node, OperationKind.VIEW)


def transpose(node: ir.Node) -> LoopNest:
    """A view when only dimensions of size 1 change places."""
    assert node.inputs[0] is not None
    shape = shape_of(node.inputs[0])
    order = node.attributes.get_ints("perm") or list(reversed(range(len(shape))))
    moved = [axis for axis in order if shape[axis] != 1]
    return view(node) if moved == sorted(moved) else _movement(node)


def reshaping_copy(node: ir.Node) -> LoopNest:
    """Concat, Split, Expand, Tile: a view when the one tensor read comes out whole in the same shape."""
    reads = activations(node)
    same = len(reads) == 1 and shape_of(reads[0]) == shape_of(node.outputs[0])
    if same:
        return view(node)
    return _movement(node, shape_of(reads[0]) if node.op_type == "Split" and reads else None)


def pad(node: ir.Node) -> LoopNest:
    """A view when nothing is added or taken away."""
    pads = constant_of(optional_input(node, 1))
    return view(node) if pads is not None and not pads.any() else _movement(node)


def part(node: ir.Node) -> LoopNest:
    """Slice, Gather and their like read what they write (and their indices), not the whole tensor.

    A slice with all elements in their order is a view.
    """
    data = node.inputs[0]
    assert data is not None
    steps = constant_of(optional_input(node, 4)) if node.op_type == "Slice" else None
    forward = steps is None or bool((steps > 0).all())
    if node.op_type == "Slice" and forward and shape_of(data) == shape_of(node.outputs[0]):
        return view(node)
    reads = activations(node)
    written = elements(*results(node))
    rest = elements(*(value for value in reads if value is not data))
    return LoopNest(
        OperationKind.DATA_MOVEMENT,
        sizes_of(shape_of(node.outputs[0])),
        input_elements=rest + (min(written, elements(data)) if data in reads else 0),
        output_elements=written,
    )


def cast(node: ir.Node) -> LoopNest:
    """Cast, CastLike: a view when the type stays."""
    assert node.inputs[0] is not None
    return view(node) if node.inputs[0].dtype == node.outputs[0].dtype else _movement(node)


def movement(node: ir.Node) -> LoopNest:
    """All activations read, all results written."""
    return _movement(node)


def resize(node: ir.Node) -> LoopNest:
    """Resize, Upsample: every result weighs `taps` elements (2 taps - 1 operations); nearest picks one (1 operation).

    Taps per resized axis: linear 2, cubic 4, times the shrinking factor with antialias.
    """
    assert node.inputs[0] is not None
    old, new = shape_of(node.inputs[0]), shape_of(node.outputs[0])
    if old == new and optional_input(node, 1) is None:
        return view(node)
    per_axis = {"nearest": 1, "cubic": 4}.get(node.attributes.get_string("mode", "nearest"), 2)
    smooth = per_axis > 1 and bool(node.attributes.get_int("antialias", 0))
    taps = 1
    for before, after in zip(old, new, strict=True):
        if before != after:
            taps *= per_axis * max(1, ceil(before / after) if smooth else 1)
    return streaming_nest(node, OperationKind.RESIZE, (2 * taps - 1) * elements(node.outputs[0]))


def _movement(node: ir.Node, shape: tuple[int, ...] | None = None) -> LoopNest:
    return streaming_nest(node, OperationKind.DATA_MOVEMENT, shape=shape)


_VIEWS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout", "Constant", "BitCast", "Optional")
_MOVEMENTS = (
    *("DepthToSpace", "SpaceToDepth", "ReverseSequence", "CenterCropPad", "Trilu", "OneHot", "EyeLike"),
    *("ConstantOfShape", "Range", "Scatter", "ScatterElements", "ScatterND"),
)
ENTRIES: Entries = {
    **{name: Entry(view) for name in _VIEWS},
    **{name: Entry(movement) for name in _MOVEMENTS},
    **{name: Entry(part, at(0)) for name in ("Gather", "GatherElements", "GatherND")},
    **{name: Entry(reshaping_copy, vectors) for name in ("Concat", "Expand", "Tile")},
    "Split": Entry(reshaping_copy),
    "Slice": Entry(part),
    "Pad": Entry(pad),
    "Transpose": Entry(transpose),
    "Cast": Entry(cast),
    "CastLike": Entry(cast),
    "Resize": Entry(resize),
    "Upsample": Entry(resize),
}
