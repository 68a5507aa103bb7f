"""Which channels the operators that move data tie together: concatenations, splits, reshapes, reductions, windows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import prod

import numpy as np
import onnx_ir as ir

from codesign.graph.graph import constant_of, shape_of
from codesign.graph.operators import optional_input, reduction_axes
from codesign.graph.segments import Dimension, Reason, fresh, repeated
from codesign.graph.tracking import Axes, Extra, Selection, Tracker


def window(tracker: Tracker, node: ir.Node) -> None:
    """Poolings, resizing: every channel for itself, rows and columns change."""
    x, y = node.inputs[0], node.outputs[0]
    assert x is not None
    batch, channels, *space = tracker.axes_of(x)
    for axis in space:
        tracker.freeze(axis, Reason.NEIGHBOURS, node)
    for output in node.outputs:
        tracker.set(output, (batch, channels, *[None] * len(space)), tracker.extra_of(x))
    if len(shape_of(y)) != len(shape_of(x)):
        tracker.freeze_all(node, Reason.OPERATOR)


def resize(tracker: Tracker, node: ir.Node) -> None:
    """Resize, Upsample: axes that keep their size keep their channels."""
    x, y = node.inputs[0], node.outputs[0]
    assert x is not None
    kept = [old == new for old, new in zip(shape_of(x), shape_of(y), strict=True)]
    axes = tracker.axes_of(x)
    for axis, keeps in zip(axes, kept, strict=True):
        if not keeps:
            tracker.freeze(axis, Reason.NEIGHBOURS, node)
    result = [axis if keeps else None for axis, keeps in zip(axes, kept, strict=True)]
    tracker.set(y, result, tracker.extra_of(x))


def reduction(tracker: Tracker, node: ir.Node) -> None:
    """ReduceMean, ReduceMax, ...: not over channels; over rows and columns a zero channel stays one."""
    x, y = node.inputs[0], node.outputs[0]
    axes, reduced = tracker.axes_of(x), reduction_axes(node)
    if reduced is None:
        tracker.freeze_all(node, Reason.OPERATOR)
        return
    for place in reduced:
        tracker.freeze(axes[place], Reason.REDUCTION, node)
    keeps = bool(node.attributes.get_int("keepdims", 1))
    result = [None if place in reduced else axis for place, axis in enumerate(axes) if keeps or place not in reduced]
    logarithm = node.op_type in ("ReduceLogSum", "ReduceLogSumExp", "ReduceProd")
    if logarithm:
        for axis in result:
            tracker.freeze(axis, Reason.NOT_FINITE, node, shrinks=False)
    tracker.set(y, result, tracker.extra_of(x))


def along_axis(tracker: Tracker, node: ir.Node) -> None:
    """Softmax, ArgMax, CumSum, TopK, ...: not along channels."""
    axes = tracker.axes_of(node.inputs[0])
    default = 0 if node.op_type.startswith("Arg") else -1
    given = constant_of(optional_input(node, 1)) if node.op_type == "CumSum" else None
    axis = int(given.reshape(-1)[0]) if given is not None else node.attributes.get_int("axis", default)
    tracker.freeze(axes[axis % len(axes)], Reason.REDUCTION, node)
    for output in node.outputs:
        shape = shape_of(output)
        same = len(shape) == len(axes)
        kept = [dimension for place, dimension in enumerate(axes) if same or place != axis % len(axes)]
        tracker.set(output, kept, Extra.FINITE)


def concatenation(tracker: Tracker, node: ir.Node) -> None:
    """Concat: the segments of its operands keep their places; what lies on other axes agrees."""
    y = node.outputs[0]
    axis = node.attributes.get_int("axis", 0) % len(shape_of(y))
    operands = [value for value in node.inputs if value is not None]
    columns = [tracker.axes_of(value) for value in operands]
    result: list[Dimension | None] = []
    for place in range(len(shape_of(y))):
        along = [axes[place] for axes in columns]
        if place != axis:
            result.append(tracker.agree(along, node))
        elif not any(along):
            result.append(None)
        else:
            result.append(sum((_part(tracker, node, *pair, axis) for pair in zip(along, operands, strict=True)), ()))
    tracker.set(y, result, max(tracker.extra_of(value) for value in operands))


def _part(tracker: Tracker, node: ir.Node, part: Dimension | None, value: ir.Value, axis: int) -> Dimension:
    """The operand's own dimension, or a frozen one for what is no channels."""
    if part is not None:
        return part
    fixed = fresh(shape_of(value)[axis])
    tracker.freeze(fixed, Reason.NOT_CONSTANT, node)
    return fixed


def split(tracker: Tracker, node: ir.Node) -> None:
    """Split: each result is a piece."""
    x = node.inputs[0]
    axes = tracker.axes_of(x)
    axis = node.attributes.get_int("axis", 0) % len(axes)
    pieces = tracker.cut(axes[axis], [shape_of(output)[axis] for output in node.outputs], node)
    for output, piece in zip(node.outputs, pieces, strict=True):
        tracker.set(output, (*axes[:axis], piece, *axes[axis + 1 :]), tracker.extra_of(x))


def cut_out(tracker: Tracker, node: ir.Node) -> None:
    """Slice: a run of channels is a piece; every second one, or all of them backwards, is a selection."""
    x, y = node.inputs[0], node.outputs[0]
    assert x is not None
    result = list(tracker.axes_of(x))
    for axis, (start, stop, step) in sliced(node).items():
        size, dimension = shape_of(x)[axis], result[axis]
        taken = range(size)[slice(start, stop, step)]
        if dimension is None or len(taken) == size and step == 1:
            continue
        if step == 1:
            pieces = tracker.cut(dimension, [taken.start, len(taken), size - taken.stop], node)
            result[axis] = pieces[1]
        else:
            tracker.freeze(dimension, Reason.SHUFFLE, node)
            result[axis] = None
    tracker.set(y, result, tracker.extra_of(x))


def sliced(node: ir.Node) -> dict[int, tuple[int, int, int]]:
    """Start, end and step of a Slice by axis, as they stand in it."""
    assert node.inputs[0] is not None
    rank = len(shape_of(node.inputs[0]))
    if "starts" in node.attributes:
        given: list[Sequence[int] | None] = [
            node.attributes.get_ints(name) for name in ("starts", "ends", "axes", "steps")
        ]
    else:
        given = [_integers(optional_input(node, index)) for index in range(1, 5)]
    starts, ends = given[0] or (), given[1] or ()
    axes, steps = given[2] or range(len(starts)), given[3] or [1] * len(starts)
    rows = zip(axes, starts, ends, steps, strict=True)
    return {axis % rank: (start, end, step) for axis, start, end, step in rows}


def _integers(value: ir.Value | None) -> list[int] | None:
    array = constant_of(value)
    return None if array is None else [int(number) for number in array.reshape(-1)]


def gather(tracker: Tracker, node: ir.Node) -> None:
    """Gather of constant channels: a selection, whose channels are new ones as far as their number goes."""
    x, y = node.inputs[0], node.outputs[0]
    assert x is not None
    axes = tracker.axes_of(x)
    axis = node.attributes.get_int("axis", 0) % max(1, len(axes))
    indices = constant_of(node.inputs[1])
    if not axes or constant_of(x) is not None:
        tracker.set(y, [None] * len(shape_of(y)))
        return
    dimension, rank = axes[axis], len(shape_of(y)) - len(axes) + 1
    inner: Axes = (None,) * rank
    if dimension is not None and indices is not None and rank == 1:
        inner = (select(tracker, (node,), x, y, axis, indices % shape_of(x)[axis]),)
    else:
        tracker.freeze(dimension, Reason.SHUFFLE, node)
    tracker.set(y, (*axes[:axis], *inner, *axes[axis + 1 :]), tracker.extra_of(x))


def select(
    tracker: Tracker, nodes: tuple[ir.Node, ...], x: ir.Value, y: ir.Value, axis: int, indices: np.ndarray
) -> Dimension:
    """New channels for those a selection takes; none can go, since one may be in several groups behind it."""
    before, after = tracker.axes_of(x)[axis], fresh(len(indices))
    assert before is not None
    for dimension in (before, after):
        tracker.freeze(dimension, Reason.SHUFFLE, nodes[-1], grows=False)
    tracker.selections.append(Selection(nodes, x, y, axis, indices, before, after))
    return after


def transpose(tracker: Tracker, node: ir.Node) -> None:
    """Transpose: the axes change places."""
    axes = tracker.axes_of(node.inputs[0])
    order = node.attributes.get_ints("perm") or list(reversed(range(len(axes))))
    tracker.set(node.outputs[0], [axes[place] for place in order], tracker.extra_of(node.inputs[0]))


def expand(tracker: Tracker, node: ir.Node) -> None:
    """Expand: one channel that becomes many stays one."""
    x, y = node.inputs[0], node.outputs[0]
    assert x is not None
    sizes, shape = shape_of(x), shape_of(y)
    padded = (None,) * (len(shape) - len(sizes)) + tracker.axes_of(x)
    aligned = (1,) * (len(shape) - len(sizes)) + sizes
    result: list[Dimension | None] = []
    for axis, old, new in zip(padded, aligned, shape, strict=True):
        if old != new:
            tracker.freeze(axis, Reason.BROADCAST, node)
        result.append(axis if old == new else None)
    tracker.set(y, result, tracker.extra_of(x))


def tile(tracker: Tracker, node: ir.Node) -> None:
    """Tile: the same channels several times."""
    x, y = node.inputs[0], node.outputs[0]
    assert x is not None
    times = [new // old for old, new in zip(shape_of(x), shape_of(y), strict=True)]
    axes = tracker.axes_of(x)
    result = [None if axis is None else axis * count for axis, count in zip(axes, times, strict=True)]
    tracker.set(y, result, tracker.extra_of(x))


def pad(tracker: Tracker, node: ir.Node) -> None:
    """Pad: of channels too, as shortcuts do that grow; the zeros are channels of their own."""
    x, y = node.inputs[0], node.outputs[0]
    assert x is not None
    given = constant_of(optional_input(node, 1))
    pads = node.attributes.get_ints("pads") if given is None else [int(size) for size in given.reshape(-1)]
    constant = node.attributes.get_string("mode", "constant") == "constant"
    axes = tracker.axes_of(x)
    if pads is None or len(pads) != 2 * len(axes) or len(node.inputs) > 3:
        tracker.freeze_all(node, Reason.OPERATOR)
        return
    value = constant_of(optional_input(node, 2))
    zero = node.attributes.get_float("value", 0.0) == 0 and (value is None or not value.any())
    result: list[Dimension | None] = []
    for place, axis in enumerate(axes):
        before, after = pads[place], pads[place + len(axes)]
        if axis is None or not (before or after):
            result.append(axis)
        elif not constant or min(before, after) < 0:
            tracker.freeze(axis, Reason.NEIGHBOURS, node)
            result.append(None)
        else:
            result.append((*(fresh(before) if before else ()), *axis, *(fresh(after) if after else ())))
    tracker.set(y, result, tracker.extra_of(x) if zero or not constant else Extra.FINITE)


def depth_to_space(tracker: Tracker, node: ir.Node) -> None:
    """DepthToSpace: the channels are blocks one after another (DCR), or one channel's blocks stand together (CRD)."""
    x, y = node.inputs[0], node.outputs[0]
    assert x is not None
    batch, channels, *_ = tracker.axes_of(x)
    blocks = node.attributes["blocksize"].as_int() ** 2
    if channels is None:
        out = None
    elif node.attributes.get_string("mode", "DCR") == "DCR":
        out = tracker.tile(channels, blocks, node)
    else:
        out = fresh(shape_of(y)[1])
        tracker.agree((channels, repeated(out, blocks)), node)
    tracker.set(y, (batch, out, None, None), tracker.extra_of(x))


def space_to_depth(tracker: Tracker, node: ir.Node) -> None:
    """SpaceToDepth: all channels once for every place in a block."""
    x, y = node.inputs[0], node.outputs[0]
    batch, channels, *_ = tracker.axes_of(x)
    blocks = node.attributes["blocksize"].as_int() ** 2
    tracker.set(y, (batch, None if channels is None else channels * blocks, None, None), tracker.extra_of(x))


def reshape(tracker: Tracker, node: ir.Node) -> None:
    """Reshape, Flatten, Squeeze, Unsqueeze: axes are cut in pieces both shapes have, and the pieces put together."""
    x, y = node.inputs[0], node.outputs[0]
    assert x is not None
    old, new = shape_of(x), shape_of(y)
    if node.inputs[1:] and constant_of(node.inputs[1]) is None:
        tracker.freeze_all(node, Reason.OPERATOR)
        return
    sizes = _pieces(old, new)
    if sizes is None:
        tracker.freeze_all(node, Reason.RESHAPE)
        return
    pieces = [
        piece
        for axis, parts in zip(tracker.axes_of(x), _dealt(sizes, old), strict=True)
        for piece in _unfolded(tracker, node, axis, parts)
    ]
    given = iter(pieces)
    result = [_folded(tracker, node, [(size, next(given)) for size in parts]) for parts in _dealt(sizes, new)]
    tracker.set(y, result, tracker.extra_of(x))


def _pieces(old: tuple[int, ...], new: tuple[int, ...]) -> list[int] | None:
    """Sizes, none of them 1, that both shapes are products of in this order: (6, 4) and (2, 12) have 2, 3, 4."""
    borders = sorted({*accumulate(old, lambda a, b: a * b), *accumulate(new, lambda a, b: a * b), 1})
    pairs = list(pairwise(borders))
    if prod(old) == 0 or any(high % low for low, high in pairs):
        return None
    return [high // low for low, high in pairs]


def _dealt(sizes: list[int], shape: tuple[int, ...]) -> list[list[int]]:
    """The pieces each axis is made of."""
    rest, dealt = list(sizes), []
    for size in shape:
        taken: list[int] = []
        while prod(taken) < size:
            taken.append(rest.pop(0))
        dealt.append(taken)
    return dealt


def _unfolded(tracker: Tracker, node: ir.Node, axis: Dimension | None, sizes: list[int]) -> list[Dimension | None]:
    """An axis as pieces of these sizes, the outermost first."""
    if axis is None:
        return [None] * len(sizes)
    if len(sizes) < 2:
        if not sizes:
            tracker.freeze(axis, Reason.RESHAPE, node)
        return [axis] * len(sizes)
    inner = sizes[-1]
    if all(run.repeat % inner == 0 for run in axis):
        outer = tuple(type(run)(run.segment, run.repeat // inner) for run in axis)
        return [*_unfolded(tracker, node, outer, sizes[:-1]), None]
    # Heads or groups: the same channels several times over.
    part = tracker.tile(axis, sizes[0], node)
    return [None, *_unfolded(tracker, node, part, sizes[1:])]


def _folded(tracker: Tracker, node: ir.Node, pieces: list[tuple[int, Dimension | None]]) -> Dimension | None:
    """Pieces as one axis: a channel dimension with fixed sizes around it; two of them at once are too many."""
    channels = [piece for _, piece in pieces if piece is not None]
    if len(channels) != 1:
        for piece in channels:
            tracker.freeze(piece, Reason.RESHAPE, node)
        return None
    place = next(index for index, (_, piece) in enumerate(pieces) if piece is not None)
    outer, inner = prod(size for size, _ in pieces[:place]), prod(size for size, _ in pieces[place + 1 :])
    return repeated(channels[0], inner) * outer
