"""Data a comparison can fail on: random inputs, one weight negated, weights that let a network feel its input.

PyTorch's default weights shrink what they pass on: after fifty layers an untrained network says the same of every
image, biases alone. Weights of the usual size (He et al. 2015, equation 10) keep it alive.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod, sqrt

import numpy as np
import onnx
from onnx import helper, numpy_helper

SEED = 2
BIAS_DEVIATION = 0.1
SMALL = 1e-2
_LAYERS = ("Conv", "Gemm", "MatMul")
_ACTIVATIONS = ("Relu", "PRelu", "LeakyRelu", "Clip", "Sigmoid", "HardSigmoid", "HardSwish", "Erf", "Tanh")


def random_inputs(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Standard normal numbers (small integers for an integer input), the same ones every time."""
    generator = np.random.default_rng(SEED)
    stored = {tensor.name for tensor in model.graph.initializer}
    return {value.name: _random(value, generator) for value in model.graph.input if value.name not in stored}


def _random(value: onnx.ValueInfoProto, generator: np.random.Generator) -> np.ndarray:
    kind = value.type.tensor_type
    shape = [size.dim_value for size in kind.shape.dim]
    dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
    numbers = generator.standard_normal(shape) if dtype.kind == "f" else generator.integers(0, 8, shape)
    return numbers.astype(dtype)


def negate_a_weight(model: onnx.ModelProto, place: int) -> None:
    """Change the sign of the largest weight in one filter of the first layer; place: which filter.

    Not any filter will do: some are dead (Relu), and an untrained CondenseNet reads the first channel alone.
    """
    weights, _ = next(_layers(model))
    values = numpy_helper.to_array(weights).copy()
    values[place].flat[np.abs(values[place]).argmax()] *= -1
    weights.CopyFrom(numpy_helper.from_array(values, weights.name))


def enliven(model: onnx.ModelProto, gain: float) -> None:
    """Scale the weights of every convolution and dense layer to a deviation of sqrt(gain / fan in), or sqrt(2 / fan in)
    where an activation follows, its biases to 0.1, and the scales of BatchNormalization and of layers to 1.

    What is zero throughout, as untrained last normalisations of a block are, becomes Gaussian; indices of an untrained
    CondenseNet, which all say channel 0, become a permutation.
    """
    done: set[str] = set()
    activated, stored = _activated(model), _stored(model)
    for weights, node in _layers(model):
        power = 2 if node.output[0] in activated else gain
        _scale(weights, sqrt(power / _fan_in(node, tuple(weights.dims))), done)
        if len(node.input) > 2 and node.input[2] in stored:
            _scale(stored[node.input[2]], BIAS_DEVIATION, done)
    for node in model.graph.node:
        if node.op_type == "BatchNormalization" and node.input[1] in stored:
            _scale(stored[node.input[1]], 1.0, done)
        for name in node.input if node.op_type == "Mul" else ():
            if name in stored and _is_small(numpy_helper.to_array(stored[name])):
                _scale(stored[name], 1.0, done)
        if node.op_type == "Gather" and node.input[1] in stored:
            _permute(stored[node.input[1]])


def _is_small(values: np.ndarray) -> bool:
    """A scale of its own for many channels, close to zero: a branch that hardly counts."""
    return values.size > 1 and values.dtype.kind == "f" and float(np.abs(values).max()) < SMALL


def _permute(tensor: onnx.TensorProto) -> None:
    indices = numpy_helper.to_array(tensor)
    if indices.size > 1 and not indices.any():
        order = np.random.default_rng(SEED).permutation(indices.size).astype(indices.dtype)
        tensor.CopyFrom(numpy_helper.from_array(order.reshape(indices.shape), tensor.name))


def _activated(model: onnx.ModelProto) -> set[str]:
    """Tensors that an activation reads, those it reads through a normalisation included."""
    activated: set[str] = set()
    for node in reversed(model.graph.node):
        if node.op_type in _ACTIVATIONS or (node.op_type == "BatchNormalization" and node.output[0] in activated):
            activated.add(node.input[0])
    return activated


def _layers(model: onnx.ModelProto) -> Iterator[tuple[onnx.TensorProto, onnx.NodeProto]]:
    """Stored weights of every layer, and its node."""
    stored = _stored(model)
    for node in model.graph.node:
        if node.op_type in _LAYERS and node.input[1] in stored:
            yield stored[node.input[1]], node


def _stored(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in model.graph.initializer}


def _fan_in(node: onnx.NodeProto, shape: tuple[int, ...]) -> int:
    match node.op_type:
        case "Conv":
            return prod(shape[1:])
        case "Gemm" if any(attribute.name == "transB" and attribute.i for attribute in node.attribute):
            return shape[1]
        case _:
            return shape[-2] if len(shape) > 1 else shape[0]


def _scale(tensor: onnx.TensorProto, deviation: float, done: set[str]) -> None:
    values = numpy_helper.to_array(tensor)
    size = float(np.sqrt(np.square(values.astype(np.float64)).mean()))
    if tensor.name in done or values.dtype.kind != "f":
        return
    if size == 0:
        values = np.random.default_rng(SEED).standard_normal(values.shape).astype(values.dtype)
        size = 1.0
    done.add(tensor.name)
    tensor.CopyFrom(numpy_helper.from_array((values * (deviation / size)).astype(values.dtype), tensor.name))
