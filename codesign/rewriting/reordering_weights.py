"""Where an order of channels ends: in the rows and columns of weights, and in the indices of a Gather."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from codesign.graph.graph import constant_of, shape_of
from codesign.graph.operators import Convolution, Gemm, MatMul, TransposedConvolution
from codesign.rewriting.channels import Blocks, CannotReorderError, Order, named, whole_blocks
from codesign.rewriting.reordering import Reordering


def all_channels(node: ir.Node, order: Order) -> Order:
    """The order, if it keeps all channels: an operator that sees the others too, or their number, needs that."""
    if not order.is_permutation:
        raise CannotReorderError(f"{named(node)} needs all channels, and some are left out or repeated")
    return order


def axis_of(node: ir.Node, default: int) -> int:
    assert node.inputs[0] is not None
    return node.attributes.get_int("axis", default) % len(shape_of(node.inputs[0]))


def expect_axis(node: ir.Node, order: Order, axis: int) -> None:
    if order.axis != axis:
        raise CannotReorderError(f"{named(node)} works along axis {order.axis}, on which the channels lie there")


def agree_gather(plan: Reordering, node: ir.Node) -> None:
    """Its own indices take the order up, if it picks channels; otherwise it picks the same of all channels."""
    x, y, indices = node.inputs[0], node.outputs[0], constant_of(node.inputs[1])
    if x is None or indices is None:
        raise CannotReorderError(f"the indices of {named(node)} are not constant")
    axis, more = axis_of(node, 0), indices.ndim - 1
    before, after = plan.order(x), plan.order(y)
    if before is not None and before.axis != axis:
        plan.assign(y, before.on(before.axis + (more if before.axis > axis else 0)), node)
    elif after is not None and not axis <= after.axis <= axis + more:
        plan.assign(x, after.on(after.axis - (more if after.axis > axis else 0)), node)
    else:
        new = indices % shape_of(x)[axis]
        if after is not None:
            new = after.take(new, after.axis - axis)
        if before is not None:
            new = np.array(all_channels(node, before).inverted().index, indices.dtype)[new]
        plan.absorb(node, 1, new.astype(indices.dtype))


def agree_convolution(plan: Reordering, node: ir.Node) -> None:
    """Rows of the weights take up an order of the outputs, columns one of the inputs; groups stay together."""
    view = Convolution.of(node) or TransposedConvolution.of(node)
    weights = constant_of(view.w) if view is not None else None
    if view is None or weights is None:
        raise CannotReorderError(f"the weights of {named(node)} are not constant")
    before, after = plan.order(view.x), plan.order(view.y)
    for order in (before, after):
        if order is not None:
            expect_axis(node, order, 1)
    inputs, outputs = view.in_channels // view.group, view.out_channels // view.group
    reads, writes = _blocks(node, before, inputs), _blocks(node, after, outputs)
    if reads is not None and not reads.are_complete(inputs):
        raise CannotReorderError(f"{named(node)} needs all channels, and some are left out or repeated")
    if reads is not None and writes is not None and list(reads.sources) != list(writes.sources):
        raise CannotReorderError(f"{named(node)} would read its groups in one order and write them in another")
    found = reads or writes
    assert found is not None
    if reads is None:
        plan.assign(view.x, whole_blocks(1, found.sources, inputs, view.group), node)
    if writes is None:
        plan.assign(view.y, whole_blocks(1, found.sources, outputs, view.group), node)
    _reorder_weights(plan, view, weights, (found.sources, reads, writes))


def _blocks(node: ir.Node, order: Order | None, length: int) -> Blocks | None:
    if order is None:
        return None
    found = order.blocks(length)
    if found is None:
        raise CannotReorderError(f"a group of {named(node)} would get channels of several groups of {length}")
    return found


def _reorder_weights(
    plan: Reordering,
    view: Convolution | TransposedConvolution,
    weights: np.ndarray,
    found: tuple[np.ndarray, Blocks | None, Blocks | None],
) -> None:
    """Group by group: weights as [groups, outputs, inputs, ...], whichever way the operator stores them."""
    sources, reads, writes = found
    is_transposed = isinstance(view, TransposedConvolution)
    table = weights.reshape(view.group, -1, *weights.shape[1:])
    table = table.swapaxes(1, 2) if is_transposed else table
    table = table[sources]
    if writes is not None:
        table = np.stack([group[inside] for group, inside in zip(table, writes.insides, strict=True)])
    if reads is not None:
        table = np.stack([group[:, inside] for group, inside in zip(table, reads.insides, strict=True)])
    table = table.swapaxes(1, 2) if is_transposed else table
    plan.absorb(view.node, 1, table.reshape(-1, *table.shape[2:]))
    if len(sources) != view.group:
        plan.groups[view.node] = len(sources)
    order = plan.order(view.y)
    if order is not None and view.b is not None:
        plan.reindex(view.node, 2, order, 0)


def agree_dense(plan: Reordering, node: ir.Node) -> None:
    """Gemm and MatMul with constant weights."""
    view = Gemm.of(node) or MatMul.of(node)
    weights = constant_of(view.w) if view is not None else None
    if view is None or weights is None or weights.ndim != 2:
        raise CannotReorderError(f"the weights of {named(node)} are no constant matrix")
    rows, columns = (1, 0) if isinstance(view, Gemm) and view.transpose_w else (0, 1)
    before, after = plan.order(view.x), plan.order(view.y)
    last = len(shape_of(view.x)) - 1
    if isinstance(view, Gemm) and view.transpose_x:
        raise CannotReorderError(f"{named(node)} reads its input transposed")
    for known, other in ((before, view.y), (after, view.x)):
        if known is not None and known.axis != last:
            plan.assign(other, known, node)
            _broadcast_bias(node, view)
            return
    if before is not None:
        weights = all_channels(node, before).take(weights, rows)
    if after is not None:
        weights = after.take(weights, columns)
        bias = view.b if isinstance(view, Gemm) else None
        if bias is not None and shape_of(bias) and shape_of(bias)[-1] > 1:
            plan.reindex(node, 2, after, len(shape_of(bias)) - 1)
    plan.absorb(node, 1, weights)


def _broadcast_bias(node: ir.Node, view: Gemm | MatMul) -> None:
    """Rows in another order want the rows of a bias that has several in that order too."""
    bias = view.b if isinstance(view, Gemm) else None
    if bias is not None and len(shape_of(bias)) == 2 and shape_of(bias)[0] > 1:
        raise CannotReorderError(f"{named(node)} adds a bias of its own to every row")
