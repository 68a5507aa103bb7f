"""Storage: how many bytes the activations of a graph take, and which of them can be the same bytes.

A result that is a run of bytes of its operand (Reshape, Split, Slice) can be read where the operand lies; operands of a
Concat that are runs of bytes of its result can be written there straight away. Whether they are depends on the layout:
with the channels first, a concatenation of channels at batch 1 is one tensor behind the other; with the channels last,
they alternate in every pixel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from math import prod

import onnx_ir as ir

from codesign.graph.codes import Scaling, is_dequantize, is_quantize, is_quantized, scaling_of
from codesign.graph.graph import Graph, constant_of, shape_of
from codesign.graph.operators import optional_input
from codesign.vocabulary import OperationKind
from codesign.workload.layers import nest_of
from codesign.workload.tensors import activations, element_bytes, elements, is_constant, results

_IMAGE_RANK = 4


class TensorLayout(StrEnum):
    """Order of the dimensions in memory, of tensors of four or more: as the file says, or the channels innermost."""

    CHANNELS_FIRST = "channels_first"
    CHANNELS_LAST = "channels_last"


@dataclass(frozen=True)
class Run:
    """`tensor` is `size_bytes` bytes of `whole`, offset_bytes from its start. tensor: empty for a constant."""

    tensor: str
    whole: str
    offset_bytes: int
    size_bytes: int


@dataclass(frozen=True)
class Joined:
    """A concatenation whose operands are runs of bytes of its result, in order."""

    result: str
    operands: tuple[Run, ...]


@dataclass(frozen=True)
class Storage:
    """Activations of a graph. sizes: bytes by name, one at least. views: by name, results that are bytes of an operand.

    joined: concatenations by the names of their results. inputs: those some node reads. outputs: those that are no
    constants.
    """

    sizes: dict[str, int]
    views: dict[str, Run]
    joined: dict[str, Joined]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def storage_of(graph: Graph, activations_bits: int, layout: TensorLayout = TensorLayout.CHANNELS_FIRST) -> Storage:
    """What the activations of a graph take. activations_bits: of every floating-point element; others as in the file.

    In a quantised graph only its inputs and outputs have these bits, as codes; what else is floating-point stays so.
    The host's share at the end of a detector is left out. Raises ValueError when a shape is not static.
    """
    border = {*graph.inputs, *graph.outputs} if is_quantized(graph) else None
    values: dict[ir.Value, None] = dict.fromkeys(graph.inputs)
    for node in graph.nodes:
        values |= dict.fromkeys((*activations(node), *results(node)))
    sizes = {
        value: _size_bytes(value, activations_bits if border is None or value in border else None) for value in values
    }
    views: dict[str, Run] = {}
    joined: dict[str, Joined] = {}
    for node in graph.nodes:
        for run in _views(node, sizes, layout):
            views[run.tensor] = run
        for join in _joined(node, sizes, layout):
            joined[join.result] = join
    read = {value for node in graph.nodes for value in activations(node)}
    outputs = [value for value in graph.outputs if value in sizes and not is_constant(value)]
    return Storage(
        {str(value.name): size for value, size in sizes.items()},
        views,
        joined,
        tuple(str(value.name) for value in graph.inputs if value in read and value in sizes),
        tuple(dict.fromkeys(str(value.name) for value in outputs)),
    )


def _size_bytes(value: ir.Value, activations_bits: int | None) -> int:
    if activations_bits is not None and (value.dtype is None or value.dtype.is_floating_point()):
        return max(1, -(-elements(value) * activations_bits // 8))
    return max(1, elements(value) * element_bytes(value))


def _stored(values: Iterable[ir.Value], *, read: bool) -> dict[ir.Value, tuple[ir.Value, Scaling | None]]:
    """What lies in memory for values a node reads or makes: their codes where they are quantised, with the scaling."""
    found: dict[ir.Value, tuple[ir.Value, Scaling | None]] = {}
    for value in values:
        found[value] = value, None
        node = value.producer() if read else None
        if not read and len(users := value.consumers()) == 1:
            node = users[0]
        if node is not None and (is_dequantize(node) if read else is_quantize(node)) and node.inputs[0] is not None:
            found[value] = node.inputs[0] if read else node.outputs[0], scaling_of(node)
    return found


def _alike(node: ir.Node) -> dict[ir.Value, ir.Value] | None:
    """What lies in memory for all a node reads and makes; None if codes of different meaning are among them."""
    both = _stored(activations(node), read=True) | _stored(results(node), read=False)
    scalings = {scaling for _, scaling in both.values()}
    return {value: stored for value, (stored, _) in both.items()} if len(scalings) == 1 else None


def _views(node: ir.Node, sizes: dict[ir.Value, int], layout: TensorLayout) -> Iterator[Run]:
    """Results of a node that are bytes of its one operand."""
    reads, writes, stored = activations(node), results(node), _alike(node)
    if stored is None or len(reads) != 1 or any(value not in sizes for value in stored.values()):
        return
    (read,) = reads
    x, shape = stored[read], shape_of(read)
    if node.op_type == "Split" and len(writes) > 1:
        axis = node.attributes.get_int("axis", 0) % len(shape)
        offset = 0
        for value in writes if _is_run(shape, axis, layout) else ():
            yield Run(str(stored[value].name), str(x.name), offset, sizes[stored[value]])
            offset += sizes[stored[value]]
    elif node.op_type == "Slice" and len(writes) == 1:
        first, y = _first_element(node, shape, shape_of(writes[0]), layout), stored[writes[0]]
        if first is not None:
            yield Run(str(y.name), str(x.name), first * sizes[x] // elements(x), sizes[y])
    elif len(writes) == 1 and _keeps_bytes(node, read, writes[0], layout):
        y = stored[writes[0]]
        if sizes[x] == sizes[y]:
            yield Run(str(y.name), str(x.name), 0, sizes[x])


def _keeps_bytes(node: ir.Node, x: ir.Value, y: ir.Value, layout: TensorLayout) -> bool:
    """Whether a node gives another shape or name to the bytes it reads."""
    shapes = shape_of(x), shape_of(y)
    same = shapes[0] == shapes[1] or all(_is_plain(shape, layout) for shape in shapes)
    return nest_of(node).kind is OperationKind.VIEW and same


def _joined(node: ir.Node, sizes: dict[ir.Value, int], layout: TensorLayout) -> Iterator[Joined]:
    """A Concat whose operands lie one behind the other."""
    stored = _alike(node) if node.op_type == "Concat" and len(node.inputs) > 1 else None
    if stored is None or any(value not in sizes for value in stored.values()):
        return
    result, shape = stored[node.outputs[0]], shape_of(node.outputs[0])
    if not _is_run(shape, node.attributes.get_int("axis", 0) % len(shape), layout):
        return
    runs, offset = [], 0
    for value in node.inputs:
        if value is None:
            return
        size = sizes[result] * elements(value) // elements(result)
        operand = stored.get(value)
        if operand is not None and size != sizes[operand]:
            return  # elements of less than a byte
        if size:
            runs.append(Run("" if operand is None else str(operand.name), str(result.name), offset, size))
        offset += size
    yield Joined(str(result.name), tuple(runs))


def _first_element(node: ir.Node, before: tuple[int, ...], after: tuple[int, ...], layout: TensorLayout) -> int | None:
    """The first element of a Slice that is a run of elements, or None."""
    starts, steps = constant_of(optional_input(node, 1)), constant_of(optional_input(node, 4))
    axes = constant_of(optional_input(node, 3))
    cut = [axis for axis, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
    if starts is None or len(cut) != 1 or (steps is not None and (steps != 1).any()):
        return None
    if not _is_run(before, cut[0], layout):
        return None
    named = list(range(starts.size)) if axes is None else [int(axis) % len(before) for axis in axes.reshape(-1)]
    start = int(starts.reshape(-1)[named.index(cut[0])])
    start = min(max(start + before[cut[0]] if start < 0 else start, 0), before[cut[0]])
    return start * (prod(before) // before[cut[0]])


def _is_run(shape: tuple[int, ...], axis: int, layout: TensorLayout) -> bool:
    """Whether neighbours along an axis lie one behind the other: no dimension outside it has more than one entry."""
    order = list(range(len(shape)))
    if layout is TensorLayout.CHANNELS_LAST and len(shape) >= _IMAGE_RANK:
        order = [0, *order[2:], 1]
    return prod(shape[outer] for outer in order[: order.index(axis)]) == 1


def _is_plain(shape: tuple[int, ...], layout: TensorLayout) -> bool:
    """Whether the order in memory is that of the file."""
    first = layout is TensorLayout.CHANNELS_FIRST or len(shape) < _IMAGE_RANK
    return first or shape[1] == 1 or prod(shape[2:]) == 1
