"""Host work: its bytes, and the operations it truly does where they can be counted; never free.

Nests of kind HOST count bytes where others count elements: the host stores tensors as the file does.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, log2, prod

import onnx_ir as ir

from codesign.graph.graph import shape_of
from codesign.graph.operators import optional_input
from codesign.vocabulary import OperationKind
from codesign.workload.loop_nest import LoopNest
from codesign.workload.operators.entry import Entries, Entry, at
from codesign.workload.tensors import activations, elements, results, sizes_of, tensor_bytes


def host_nest(node: ir.Node, operations: int = 0) -> LoopNest:
    """A node as host work: input_elements and output_elements are bytes.

    operations: counted by the caller; at least one for every element read and for every element written.
    """
    reads, writes = activations(node), results(node)
    return LoopNest(
        OperationKind.HOST,
        sizes_of(shape_of(writes[0]) if writes else ()),
        input_elements=tensor_bytes(reads),
        output_elements=tensor_bytes(writes),
        operations=max(operations, elements(*reads), elements(*writes), 1),
    )


def shape_arithmetic(node: ir.Node) -> LoopNest:
    """Shape, Size: what is left of shape arithmetic after import reads no data, only sizes."""
    return LoopNest(
        OperationKind.HOST,
        sizes_of(shape_of(node.outputs[0])),
        output_elements=tensor_bytes(node.outputs),
        operations=max(1, elements(*node.outputs)),
    )


def top_k(node: ir.Node) -> LoopNest:
    """TopK: every element passes a heap of k, log2(k) comparisons deep."""
    x, kept = _x(node), elements(node.outputs[0])
    rows = max(1, elements(x) // shape_of(x)[node.attributes.get_int("axis", -1)])
    return host_nest(node, elements(x) * max(1, ceil(log2(kept // rows + 1))))


def recurrent(gates: int) -> Callable[[ir.Node], LoopNest]:
    """LSTM, GRU, RNN: per step, direction and image `gates` products with the input and the state, and 10 per unit."""

    def nest(node: ir.Node) -> LoopNest:
        (steps, batch, features), hidden = shape_of(_x(node)), node.attributes.get_int("hidden_size", 1)
        directions = 2 if node.attributes.get_string("direction", "forward") == "bidirectional" else 1
        cells = steps * batch * directions * hidden
        return host_nest(node, cells * (2 * gates * (features + hidden) + 10))

    return nest


def attention(node: ir.Node) -> LoopNest:
    """Attention (opset 23): query x key and weights x value, two operations a product, and a softmax of five."""
    query, key, value = (shape_of(given) for given in node.inputs[:3] if given is not None)
    heads = query[1] if len(query) == 4 else node.attributes.get_int("q_num_heads", 1)
    width = query[-1] if len(query) == 4 else query[-1] // heads
    groups = key[1] if len(key) == 4 else node.attributes.get_int("kv_num_heads", heads)
    value_width = value[-1] if len(value) == 4 else value[-1] // groups
    past = optional_input(node, 4)
    keys = key[-2] + (shape_of(past)[-2] if past is not None else 0)
    return host_nest(node, query[0] * heads * query[-2] * keys * (2 * width + 2 * value_width + 5))


def deformable_convolution(node: ir.Node) -> LoopNest:
    """DeformConv: a convolution (two a product) whose every tap is sampled between four elements (seven)."""
    assert node.inputs[1] is not None
    _, channels, *kernel = shape_of(node.inputs[1])
    inputs = shape_of(_x(node))
    samples = inputs[0] * inputs[1] * prod(kernel) * prod(shape_of(node.outputs[0])[2:])
    return host_nest(node, 2 * elements(node.outputs[0]) * channels * prod(kernel) + 7 * samples)


def sampled(node: ir.Node) -> LoopNest:
    """GridSample, RoiAlign: every result weighs four elements (seven operations) a sample."""
    ratio = max(1, node.attributes.get_int("sampling_ratio", 1))
    return host_nest(node, 7 * ratio * ratio * elements(node.outputs[0]))


def affine_grid(node: ir.Node) -> LoopNest:
    """AffineGrid: a point per position, each coordinate a product with one row of the matrix."""
    coordinates = shape_of(node.outputs[0])[-1]
    return host_nest(node, 2 * (coordinates + 1) * elements(node.outputs[0]))


def determinant(node: ir.Node) -> LoopNest:
    """Det: LU decomposition, 2/3 n^3 operations a matrix."""
    size = shape_of(_x(node))[-1]
    return host_nest(node, ceil(2 * size**3 / 3) * elements(node.outputs[0]))


def lp_pool(node: ir.Node) -> LoopNest:
    """LpPool, GlobalLpPool: power and sum for every element of every window."""
    whole = shape_of(_x(node))[2:]
    window = node.attributes.get_ints("kernel_shape") or whole
    return host_nest(node, 2 * prod(window) * elements(node.outputs[0]))


def touched_once(node: ir.Node) -> LoopNest:
    """One operation for every element: scattered reads and writes, comparisons, random numbers."""
    return host_nest(node)


def _x(node: ir.Node) -> ir.Value:
    assert node.inputs[0] is not None
    return node.inputs[0]


ENTRIES: Entries = {
    "Shape": Entry(shape_arithmetic),
    "Size": Entry(shape_arithmetic),
    "TopK": Entry(top_k),
    "LSTM": Entry(recurrent(4), at(1, 2, 3, 7)),
    "GRU": Entry(recurrent(3), at(1, 2, 3)),
    "RNN": Entry(recurrent(1), at(1, 2, 3)),
    "Attention": Entry(attention),
    "DeformConv": Entry(deformable_convolution, at(1, 3)),
    "GridSample": Entry(sampled),
    "RoiAlign": Entry(sampled),
    "AffineGrid": Entry(affine_grid),
    "Det": Entry(determinant),
    "LpPool": Entry(lp_pool),
    "GlobalLpPool": Entry(lp_pool),
    "MaxRoiPool": Entry(touched_once),
    "MaxUnpool": Entry(touched_once),
    "Col2Im": Entry(touched_once),
    "RandomNormalLike": Entry(touched_once),
    "RandomUniformLike": Entry(touched_once),
}
