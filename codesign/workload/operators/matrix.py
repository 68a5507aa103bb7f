"""Matrix products as loops: inputs [G, OX, C] times weights [G, C, K].

DENSE: the second operand is known before the network runs and is one matrix; all leading dimensions of the activation
are rows (OX). MATMUL: everything else: both operands are activations, or the constant stands first, or it is a stack of
matrices. The second operand then plays the weights, and G counts batches after broadcasting.
"""

from __future__ import annotations

from math import prod

import numpy as np
import onnx_ir as ir

from codesign.graph.graph import shape_of
from codesign.graph.operators import Gemm
from codesign.vocabulary import OperationKind
from codesign.workload.loop_nest import LoopNest
from codesign.workload.operators.entry import Entries, Entry, at
from codesign.workload.operators.host import host_nest
from codesign.workload.tensors import is_constant


def gemm(node: ir.Node) -> LoopNest | None:
    """Gemm: rows are those of x after its transposition."""
    view = Gemm.of(node)
    if view is None:
        return None
    rows = shape_of(view.x)[1 if view.transpose_x else 0]
    constant = is_constant(view.w) and not is_constant(view.x)
    return _product(constant, 1, rows, view.in_features, view.out_features)


def matrix_product(node: ir.Node) -> LoopNest:
    """MatMul, MatMulInteger."""
    return _matmul(node, 1)


def quantized_matrix_product(node: ir.Node) -> LoopNest:
    """QLinearMatMul: its second matrix is the fourth input."""
    return _matmul(node, 3)


def einsum(node: ir.Node) -> LoopNest:
    """Einsum of two operands that is a (batched) matrix product; any other is host work of 2 operations a point."""
    values = [value for value in node.inputs if value is not None]
    terms, result = _einsum_terms(node.attributes["equation"].as_string())
    if "." in "".join(terms):
        return host_nest(node)
    size = {
        label: extent
        for term, value in zip(terms, values, strict=True)
        for label, extent in zip(term, shape_of(value), strict=True)
    }
    if len(terms) != 2 or not _is_matrix_product(terms[0], terms[1], result):
        return host_nest(node, 2 * prod(size.values()))
    first, second = (set(term) for term in terms)
    batch, rows, columns, summed = (
        prod(size[label] for label in labels)
        for labels in (
            first & second & set(result),
            (first - second) & set(result),
            (second - first) & set(result),
            (first & second) - set(result),
        )
    )
    constant = is_constant(values[1]) and not is_constant(values[0]) and batch == 1
    return _product(constant, batch, rows, summed, columns)


def _einsum_terms(equation: str) -> tuple[list[str], str]:
    """Labels of every operand and of the result, which lists labels seen once in alphabetical order when not given."""
    left, arrow, result = equation.replace(" ", "").partition("->")
    labels = left.replace(",", "")
    if not arrow:
        result = "".join(sorted(label for label in set(labels) if labels.count(label) == 1))
    return left.split(","), result


def _is_matrix_product(first: str, second: str, result: str) -> bool:
    """No label twice in one term, and none that is summed over in one operand alone."""
    terms = (first, second, result)
    alone = (set(first) ^ set(second)) - set(result)
    return not alone and all(len(set(term)) == len(term) for term in terms) and set(result) <= set(first + second)


def _matmul(node: ir.Node, second_at: int) -> LoopNest:
    x, w = node.inputs[0], node.inputs[second_at]
    assert x is not None and w is not None
    first, second = shape_of(x), shape_of(w)
    rows = first[-2] if len(first) > 1 else 1
    columns = second[-1] if len(second) > 1 else 1
    if is_constant(w) and not is_constant(x) and prod(second[:-2]) == 1:
        return _product(True, 1, prod(first[:-1]), first[-1], columns)
    batches = prod(np.broadcast_shapes(first[:-2], second[:-2]))
    return _product(False, batches, rows, first[-1], columns)


def _product(constant: bool, batches: int, rows: int, summed: int, columns: int) -> LoopNest:
    return LoopNest(
        OperationKind.DENSE if constant else OperationKind.MATMUL,
        (1, batches, columns, summed, 1, rows, 1, 1),
        input_columns=rows,
    )


ENTRIES: Entries = {
    "Gemm": Entry(gemm, at(0, 1, 2)),
    "MatMul": Entry(matrix_product, at(0, 1)),
    "MatMulInteger": Entry(matrix_product, at(0, 1)),
    "QLinearMatMul": Entry(quantized_matrix_product, at(0, 3)),
    "Einsum": Entry(einsum, at(0, 1)),
}
