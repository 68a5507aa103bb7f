"""Operators of ONNX that move numbers and compute none, in PyTorch: shapes, pieces, padding, enlarging."""

from __future__ import annotations

from operator import getitem
from typing import Any

import onnx_ir as ir

from codesign.graph.graph import shape_of
from codesign.training.builder import Builder, UnsupportedError, integers, x_of


def _target(b: Builder, node: ir.Node) -> list[int]:
    """The shape of the node's result; -1 along the batch, which takes what there is."""
    target = list(shape_of(node.outputs[0]))
    axis = b.axis(node.outputs[0])
    if axis is not None:
        target[axis] = -1
    return target


def reshape(b: Builder, node: ir.Node) -> Any:
    """Reshape, Flatten, Squeeze and Unsqueeze: the shape is known."""
    return b.method("reshape", b.x(node), _target(b, node))


def expand(b: Builder, node: ir.Node) -> Any:
    return b.method("expand", b.operand(node, 0, trained=True), _target(b, node))


def transpose(b: Builder, node: ir.Node) -> Any:
    order = node.attributes.get_ints("perm") or list(reversed(range(len(shape_of(x_of(node))))))
    return b.method("permute", b.x(node), tuple(order))


def concat(b: Builder, node: ir.Node) -> Any:
    """Constants among the parts (a class token) are repeated for every sample."""
    axis = b.axis(node.outputs[0])
    parts = [b.operand(node, index, trained=True) for index in range(len(node.inputs))]
    if axis is not None:
        sample = next(part for part, value in zip(parts, node.inputs, strict=True) if value in b.batch.axes)
        count = b.method("size", sample, axis)
        for index, value in enumerate(node.inputs):
            if value is not None and value not in b.batch.axes:
                sizes = [count if at == axis else -1 for at in range(len(shape_of(value)))]
                parts[index] = b.method("expand", parts[index], sizes)
    return b.call(b.torch.cat, parts, node.attributes["axis"].as_int())


def split(b: Builder, node: ir.Node) -> list[Any]:
    axis = node.attributes.get_int("axis", 0)
    sizes = [shape_of(value)[axis] for value in node.outputs]
    parts = b.call(b.torch.split, b.x(node), sizes, axis)
    return [b.call(getitem, parts, index) for index in range(len(sizes))]


def slice_of(b: Builder, node: ir.Node) -> Any:
    """Python's slices; torch has none that step back, so those turn the axis round."""
    shape = shape_of(x_of(node))
    starts, ends, axes, steps = (integers(node, index) for index in (1, 2, 3, 4))
    assert starts is not None and ends is not None
    cuts: list[slice] = [slice(None)] * len(shape)
    turned = []
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis = (axes[number] if axes is not None else number) % len(shape)
        picked = range(shape[axis])[start : end : steps[number] if steps is not None else 1]
        if not picked:
            raise UnsupportedError("that is empty")
        low, high = min(picked), max(picked)
        if len(picked) < shape[axis]:
            cuts[axis] = slice(low, high + 1, abs(picked.step))
        turned += [axis] if picked.step < 0 else []
    x = b.x(node) if cuts == [slice(None)] * len(shape) else b.call(getitem, b.x(node), tuple(cuts))
    return b.call(b.torch.flip, x, turned) if turned else x


def gather(b: Builder, node: ir.Node) -> Any:
    """One index picks and drops the axis; several are picked in a row and get their shape back."""
    indices = node.inputs[1]
    assert indices is not None
    axis = node.attributes.get_int("axis", 0) % len(shape_of(x_of(node)))
    x, numbers = b.operand(node, 0, trained=True), integers(node, 1)
    assert numbers is not None
    length = shape_of(x_of(node))[axis]
    if not shape_of(indices):
        return b.call(b.torch.select, x, axis, numbers[0] % length)
    picks = b.buffer(node, "indices", b.torch.tensor([number % length for number in numbers]))
    picked = b.call(b.torch.index_select, x, axis, picks)
    return picked if len(shape_of(indices)) == 1 else b.method("reshape", picked, _target(b, node))


def tile(b: Builder, node: ir.Node) -> Any:
    return b.method("repeat", b.operand(node, 0, trained=True), integers(node, 1))


_PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def pad(b: Builder, node: ir.Node) -> Any:
    rank = len(shape_of(x_of(node)))
    pads, axes = integers(node, 1), integers(node, 3)
    assert pads is not None
    axes = list(range(rank)) if axes is None else [axis % rank for axis in axes]
    both = {axis: (pads[at], pads[at + len(axes)]) for at, axis in enumerate(axes)}
    first = min((axis for axis, pair in both.items() if pair != (0, 0)), default=rank)
    mode = _PAD_MODES[node.attributes.get_string("mode", "constant")]
    if first == rank:
        return b.x(node)
    if mode != "constant" and (first < 2 or rank - 2 > 2):
        raise UnsupportedError(f"in mode {mode} of axis {first}")
    if mode != "constant":
        first = 2  # torch wants all spatial axes in these modes
    flat = [pad for axis in reversed(range(first, rank)) for pad in both.get(axis, (0, 0))]
    value = b.operand(node, 2) if mode == "constant" else None
    if isinstance(value, b.torch.fx.Node):
        raise UnsupportedError("with a computed value")
    return b.call(b.functional.pad, b.x(node), flat, mode, value)


def pixel_shuffle(b: Builder, node: ir.Node) -> Any:
    """CRD is torch's order; DCR, ONNX's default, is written as reshape, transpose, reshape."""
    block, (_, channels, rows, columns) = node.attributes["blocksize"].as_int(), shape_of(x_of(node))
    if node.attributes.get_string("mode", "DCR") == "CRD":
        return b.call(b.functional.pixel_shuffle, b.x(node), block)
    batch = -1 if b.axis(node.outputs[0]) == 0 else shape_of(x_of(node))[0]
    depth = channels // block**2
    x = b.method("reshape", b.x(node), [batch, block, block, depth, rows, columns])
    return b.method("reshape", b.method("permute", x, (0, 3, 4, 1, 5, 2)), _target(b, node))


def space_to_depth(b: Builder, node: ir.Node) -> Any:
    """The block's place is the slow index of the new channels; torch's pixel_unshuffle has it the fast one."""
    block, (samples, channels, rows, columns) = node.attributes["blocksize"].as_int(), shape_of(x_of(node))
    batch = -1 if b.axis(node.outputs[0]) == 0 else samples
    shape = [batch, channels, rows // block, block, columns // block, block]
    x = b.method("permute", b.method("reshape", b.x(node), shape), (0, 3, 5, 1, 2, 4))
    return b.method("reshape", x, _target(b, node))


def resize(b: Builder, node: ir.Node) -> Any:
    """torch.nn.functional.interpolate, where it samples the same points."""
    before, after = shape_of(x_of(node)), shape_of(node.outputs[0])
    read = node.attributes
    mode, place = read.get_string("mode", "nearest"), read.get_string("coordinate_transformation_mode", "half_pixel")
    if len(before) != 4 or before[:2] != after[:2] or read.get_int("antialias", 0) != 0 or not _is_exact_scale(node):
        raise UnsupportedError("other than over rows and columns")
    whole = all(new % old == 0 for old, new in zip(before[2:], after[2:], strict=True))
    floor = place == "asymmetric" and read.get_string("nearest_mode", "round_prefer_floor") == "floor"
    match mode, place:
        case "nearest", ("asymmetric" | "half_pixel") if floor or (whole and place == "half_pixel"):
            options: dict[str, Any] = {"mode": "nearest"}
        case "linear", ("half_pixel" | "pytorch_half_pixel") if min(after[2:]) > 1:
            options = {"mode": "bilinear", "align_corners": False}
        case "linear", "align_corners" if min(after[2:]) > 1:
            options = {"mode": "bilinear", "align_corners": True}
        case "cubic", ("half_pixel" | "align_corners") if _is_torch_cubic(node) and min(after[2:]) > 1:
            options = {"mode": "bicubic", "align_corners": place == "align_corners"}
        case _:
            raise UnsupportedError(f"in mode {mode} with {place} coordinates")
    return b.call(b.functional.interpolate, b.x(node), list(after[2:]), **options)


def _is_exact_scale(node: ir.Node) -> bool:
    """Whether the scale is the quotient of the sizes, as torch takes it: not so when a product was rounded."""
    scales = node.inputs[2] if len(node.inputs) > 2 else None
    if scales is None or scales.const_value is None or scales.const_value.size == 0:
        return True
    before, after = shape_of(x_of(node)), shape_of(node.outputs[0])
    given = [float(scale) for scale in scales.const_value.numpy()]
    axes = node.attributes.get_ints("axes") or range(len(before))
    return all(abs(before[axis] * scale - after[axis]) < 1e-4 for axis, scale in zip(axes, given, strict=True))


def _is_torch_cubic(node: ir.Node) -> bool:
    read = node.attributes
    return abs(read.get_float("cubic_coeff_a", -0.75) + 0.75) < 1e-6 and not read.get_int("exclude_outside", 0)
