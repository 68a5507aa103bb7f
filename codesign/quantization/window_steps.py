"""Pooling and linear resizing as integer steps."""

from __future__ import annotations

from fractions import Fraction
from math import lcm

import numpy as np
import onnx_ir as ir

from codesign.graph.codes import constant_numbers
from codesign.graph.division import Division
from codesign.graph.graph import constant_of, shape_of
from codesign.graph.operators import Pool, is_operator, optional_input
from codesign.numerics.steps import AveragePool, Interpolate, MaximumPool, Step
from codesign.quantization.site import Site, StaysFloatError
from codesign.vocabulary import OperationKind


def maximum_steps(site: Site, view: Pool) -> tuple[Step, ...]:
    """MaxPool: the codes' order is the numbers' order."""
    before, tensor = site.recoded(view.x)
    if any(pad >= size for pad, size in zip(view.pads, view.kernel * 2, strict=True)):
        raise StaysFloatError("a MaxPool with windows on padding alone")
    window = (view.kernel, view.strides, view.dilations, view.pads)
    return (*before, MaximumPool(site.island.name, (tensor,), site.output, *window, nodes=site.island.node_names))


def average_step(site: Site, view: Pool, factor: Fraction) -> Step:
    """AveragePool: a sum and one division, exact. factor: of a multiplication behind it."""
    counts = _counts(view)
    distinct, index = np.unique(counts, return_inverse=True)
    scaling = site.scaling(view.x)
    ratio = scaling.exact_scale * factor / site.target.exact_scale
    largest = int(distinct.max()) * scaling.largest_magnitude
    requantizations = tuple(site.requantize((ratio / int(count),), (largest,)) for count in distinct)
    return AveragePool(
        site.island.name,
        (site.tensor(view.x),),
        site.output,
        view.kernel,
        view.strides,
        view.dilations,
        view.pads,
        index.reshape(counts.shape),
        requantizations,
        nodes=site.island.node_names,
    )


def pool_factor(work: tuple[ir.Node, ...]) -> Fraction | None:
    """1 for a pooling alone, the factor where one number is multiplied behind it, None for anything else."""
    if len(work) == 1:
        return Fraction(1)
    if len(work) != 2 or not is_operator(work[1], "Mul"):
        return None
    division = Division.marked(work[1])
    if division is not None and division.multiplier is not None:
        return Fraction(division.multiplier * division.count, 1 << division.shift)
    constants = [array for array in map(constant_numbers, work[1].inputs) if array is not None]
    if len(constants) != 1 or constants[0].size != 1 or not float(constants[0].reshape(())) > 0:
        return None
    return Fraction(float(constants[0].reshape(())))


def _counts(view: Pool) -> np.ndarray:
    """Elements each window's sum is divided by, [OY, OX]: with padding where count_include_pad says so."""
    axes = []
    for at in range(2):
        size, kernel = view.input_size[at], view.kernel[at]
        before, after = view.pads[at], view.pads[at + 2]
        begin = np.arange(view.output_size[at]) * view.strides[at] - before
        taps = begin[:, np.newaxis] + np.arange(kernel) * view.dilations[at]
        first, end = (-before, size + after) if view.count_include_pad else (0, size)
        axes.append(((taps >= first) & (taps < end)).sum(axis=1))
    counts = np.multiply.outer(*axes)
    if (counts < 1).any():
        raise StaysFloatError("an AveragePool with windows on padding alone")
    return np.asarray(counts)


def linear_resize_step(site: Site) -> Step:
    """Resize, linear along rows and columns: neighbours' weights are exact fractions, and so is their sum."""
    node = site.node
    source = node.inputs[0]
    before, after = shape_of(source) if source is not None else (), shape_of(site.island.result)
    if len(before) != 4 or before[:2] != after[:2]:
        raise StaysFloatError("a linear Resize of other axes than rows and columns")
    mode = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    if node.op_type == "Upsample" or site.graph.opset_imports.get("", 1) < 11:
        mode = "asymmetric"
    scales = _scales(node, before, after)
    rows, row_unit = _neighbours(before[2], after[2], scales[2], mode)
    columns, column_unit = _neighbours(before[3], after[3], scales[3], mode)
    scaling = site.scaling(source)
    unit = row_unit * column_unit
    factor = scaling.exact_scale / (site.target.exact_scale * unit)
    return Interpolate(
        site.island.name,
        (site.tensor(source),),
        site.output,
        rows,
        columns,
        site.requantize((factor,), (unit * scaling.largest_magnitude,)),
        nodes=site.island.node_names,
    )


def _scales(node: ir.Node, before: tuple[int, ...], after: tuple[int, ...]) -> list[Fraction]:
    given = constant_of(optional_input(node, 2 if len(node.inputs) > 2 else 1))
    if given is not None and given.size == 4 and given.dtype == np.float32:
        return [Fraction(float(scale)) for scale in given]
    return [Fraction(new, old) for old, new in zip(before, after, strict=True)]


def _neighbours(size: int, wanted: int, scale: Fraction, mode: str) -> tuple[np.ndarray, int]:
    """Neighbours and integer weights for each new position, and what the two weights sum to."""
    places = [_place(at, size, wanted, scale, mode) for at in range(wanted)]
    places = [min(max(place, Fraction(0)), Fraction(size - 1)) for place in places]
    unit = lcm(*(place.denominator for place in places))
    rows = []
    for place in places:
        first = int(place)
        far = int((place - first) * unit)
        rows.append((first, min(first + 1, size - 1), unit - far, far))
    return np.array(rows, np.int64), unit


def _place(at: int, size: int, wanted: int, scale: Fraction, mode: str) -> Fraction:
    """The position in the old image of a position in the new one (ONNX, Resize, coordinate_transformation_mode)."""
    match mode:
        case "half_pixel":
            return (at + Fraction(1, 2)) / scale - Fraction(1, 2)
        case "pytorch_half_pixel":
            return (at + Fraction(1, 2)) / scale - Fraction(1, 2) if wanted > 1 else Fraction(0)
        case "align_corners":
            return Fraction(at * (size - 1), wanted - 1) if wanted > 1 else Fraction(0)
        case "asymmetric":
            return at / scale
    raise StaysFloatError(f"a Resize with coordinate_transformation_mode {mode}")


def is_average(view: Pool) -> bool:
    """Whether a pooling averages."""
    return view.kind is OperationKind.AVERAGE_POOL
