"""Pooling: windows over single channels, and reductions over the whole feature map that are the same."""

from __future__ import annotations

from math import prod

import onnx_ir as ir

from codesign.graph.graph import shape_of
from codesign.graph.operators import Pool
from codesign.workload.loop_nest import LoopNest
from codesign.workload.operators.entry import Entries, Entry
from codesign.workload.operators.host import host_nest
from codesign.workload.tensors import elements, results


def pool(node: ir.Node) -> LoopNest | None:
    """MaxPool, AveragePool and their global forms: one operation for every window element of every result.

    Windows count whole, padding included. A 3-D pool is host work with the same operations.
    """
    view = Pool.of(node)
    if view is not None:
        return pool_nest(view)
    if node.inputs[0] is None:
        return None
    window = node.attributes.get_ints("kernel_shape") or shape_of(node.inputs[0])[2:]
    return host_nest(node, prod(window) * elements(node.outputs[0]))


def pool_nest(view: Pool) -> LoopNest:
    """A typed pool as loops; a global one has the input's size as window and one position."""
    rows, columns = view.output_size if view.keeps_dimensions else (1, 1)
    window = view.kernel
    return LoopNest(
        view.kind,
        (view.batch, view.in_channels, 1, 1, rows, columns, *window),
        stride=view.strides,
        dilation=view.dilations,
        pads=view.pads,
        input_rows=view.input_size[0],
        input_columns=view.input_size[1],
        input_elements=elements(view.x),
        output_elements=elements(*results(view.node)),
        operations=elements(view.y) * prod(window),
    )


ENTRIES: Entries = {name: Entry(pool) for name in ("MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool")}
