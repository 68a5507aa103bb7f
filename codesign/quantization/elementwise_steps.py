"""Work element by element as integer steps: sums, products, tables, softmax."""

from __future__ import annotations

from fractions import Fraction
from math import lcm

import numpy as np
import onnx_ir as ir

from codesign.graph.codes import ConstantCodes, Scaling, constant_codes, constant_numbers
from codesign.graph.graph import is_along_channels, shape_of
from codesign.graph.islands import Island
from codesign.graph.operators import is_operator
from codesign.numerics.steps import Constant, Lookup, Product, Softmax, Step, Sum, Tensor
from codesign.quantization.fragments import Fragment
from codesign.quantization.site import Site, StaysFloatError

ELEMENT_WISE = frozenset(
    (
        "Abs",
        "Add",
        "Celu",
        "Ceil",
        "Clip",
        "Div",
        "Elu",
        "Erf",
        "Exp",
        "Floor",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "LeakyRelu",
        "Log",
        "Max",
        "Min",
        "Mish",
        "Mul",
        "Neg",
        "PRelu",
        "Pow",
        "Reciprocal",
        "Relu",
        "Round",
        "Selu",
        "Sigmoid",
        "Sign",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Sub",
        "Swish",
        "Tanh",
        "ThresholdedRelu",
    )
)
_MOST_BITS = 62
_EXPONENTIAL_BITS = 30
_FEWEST_EXPONENTIAL_BITS = 20


def is_table(island: Island) -> bool:
    """Whether an island takes one tensor to one of the same shape element by element (or does nothing at all)."""
    if len(island.sources) != 1 or not all(is_operator(node, *ELEMENT_WISE) for node in island.nodes):
        return False
    shape = shape_of(island.sources[0])
    if any(shape_of(output) != shape for node in island.nodes for output in node.outputs):
        return False
    return all(is_along_channels(array, len(shape)) for array in _constants(island))


def lookup_step(site: Site) -> Step:
    """A table of what the island's own operators make of every code, one a channel where its constants differ."""
    source = site.island.sources[0]
    scaling = site.scaling(source)
    codes = np.arange(scaling.lowest, scaling.highest + 1).astype(scaling.dtype)
    rank = len(shape_of(source))
    channels = max((array.size for array in _constants(site.island)), default=1)
    shape = (len(codes), channels, *([1] * (rank - 2))) if rank > 1 else (len(codes),)
    fed = np.broadcast_to(codes.reshape(-1, *([1] * (len(shape) - 1))), shape)
    made = _run(site, source, np.ascontiguousarray(fed))
    table = made.reshape(len(codes), -1).T
    if (table == table[:1]).all():
        table = table[:1]
    return Lookup(
        site.island.name,
        (site.tensor(source),),
        site.output,
        np.ascontiguousarray(table),
        nodes=site.island.node_names,
    )


def _run(site: Site, source: ir.Value, codes: np.ndarray) -> np.ndarray:
    """The island with its quantisers, on codes of another shape."""
    dequantizer, quantizer = source.producer(), site.island.quantizer
    assert dequantizer is not None and dequantizer.inputs[0] is not None and quantizer is not None
    read = dequantizer.inputs[0]
    nodes = (dequantizer, *site.island.nodes, quantizer)
    return Fragment(site.graph, nodes, (read,), quantizer.outputs[0]).run({str(read.name): codes})


def _constants(island: Island) -> list[np.ndarray]:
    inside = {output for node in island.nodes for output in node.outputs} | set(island.sources)
    read = (value for node in island.nodes for value in node.inputs if value is not None and value not in inside)
    return [array for array in map(constant_numbers, read) if array is not None]


def sum_steps(site: Site) -> tuple[Step, ...]:
    """Add or Sub of two tensors of codes; a constant one comes as a step of its own."""
    before, tensors = _operands(site)
    signs = (1, -1 if site.node.op_type == "Sub" else 1)
    factors = [
        Fraction(float(tensor.scale)) / site.target.exact_scale for tensor in tensors if tensor.scale is not None
    ]
    common = lcm(*(factor.denominator for factor in factors))
    numerators = [int(factor * common) for factor in factors]
    largest = sum(number * _magnitude(tensor) for number, tensor in zip(numerators, tensors, strict=True))
    if largest >= 2**_MOST_BITS:
        raise StaysFloatError("the scales of its operands differ by too much for 64 bits")
    first, second = (number * sign for number, sign in zip(numerators, signs, strict=True))
    requantization = site.requantize((Fraction(1, common),), (largest,))
    step = Sum(site.island.name, tensors, site.output, (first, second), requantization, nodes=site.island.node_names)
    return (*before, step)


def product_steps(site: Site) -> tuple[Step, ...]:
    """Mul of two tensors of codes; a constant one comes as a step of its own."""
    before, tensors = _operands(site)
    factor = Fraction(1) / site.target.exact_scale
    largest = 1
    for tensor in tensors:
        assert tensor.scale is not None
        factor *= Fraction(float(tensor.scale))
        largest *= _magnitude(tensor)
    requantization = site.requantize((factor,), (largest,))
    step = Product(site.island.name, tensors, site.output, requantization, nodes=site.island.node_names)
    return (*before, step)


def _operands(site: Site) -> tuple[tuple[Step, ...], tuple[Tensor, Tensor]]:
    before: list[Step] = []
    tensors: list[Tensor] = []
    for value in site.node.inputs:
        codes = constant_codes(value)
        if codes is None:
            tensors.append(site.tensor(value))
            continue
        constant = _constant(site, codes, str(value.name) if value is not None else "")
        before.append(constant)
        tensors.append(constant.output)
    left, right = tensors
    return tuple(before), (left, right)


def _constant(site: Site, codes: ConstantCodes, name: str) -> Constant:
    if codes.scales.size != 1:
        raise StaysFloatError("a constant operand has several scales")
    dtype = str(codes.codes.dtype)
    full_name = f"{site.island.name}.{name}"  # the name alone is that of numbers
    tensor = Tensor(full_name, codes.codes.shape, dtype, float(codes.scales[0]), int(codes.zero_points[0]))
    return Constant(full_name, (), tensor, codes.codes)


def _magnitude(tensor: Tensor) -> int:
    assert tensor.scale is not None
    return Scaling(tensor.scale, tensor.zero_point, tensor.dtype).largest_magnitude


def softmax_step(site: Site) -> Step:
    """Softmax along one axis, within one code of the float operator: exponentials of differences from a table."""
    node = site.node
    source = node.inputs[0]
    scaling = site.scaling(source)
    rank = len(shape_of(source)) if source is not None else 0
    opset = site.graph.opset_imports.get("", 1)
    axis = node.attributes.get_int("axis", -1 if opset >= 13 else 1) % rank
    if opset < 13 and axis != rank - 1:
        raise StaysFloatError("a Softmax of opset 12 or lower over several axes")
    if scaling.highest - scaling.lowest > 255:
        raise StaysFloatError("a Softmax of more than 8 bits")
    length = shape_of(site.island.result)[axis]
    inverse = 1 / site.target.exact_scale
    bits = min(_EXPONENTIAL_BITS, _MOST_BITS - length.bit_length(), _MOST_BITS - int(inverse).bit_length())
    if inverse.denominator != 1 or bits < _FEWEST_EXPONENTIAL_BITS:
        raise StaysFloatError("a Softmax whose scale is no fraction 1/n")
    distances = np.arange(256) * scaling.scale
    exponentials = np.rint(np.exp(-distances) * 2.0**bits).astype(np.int64)
    return Softmax(
        site.island.name,
        (site.tensor(source),),
        site.output,
        axis,
        exponentials,
        int(inverse),
        site.minimum,
        site.maximum,
        nodes=site.island.node_names,
    )
