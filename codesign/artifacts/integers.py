"""What the integer semantics makes of a quantised ONNX file: the reference for everything else that runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from codesign.graph.codes import is_quantized
from codesign.importers.model import load_model
from codesign.numerics.execution import run_network
from codesign.numerics.steps import Convolve, IntegerNetwork, Multiply, MultiplyTensors, Softmax, Step, Sum
from codesign.quantization.reading import integer_network, run_floating

Arrays = dict[str, np.ndarray]
_EXACT_IN_FLOAT32 = 2**24


@dataclass(frozen=True)
class IntegerArrays:
    """Every tensor by name. exact_in_float32: no float32 arithmetic on it ever rounds before the quantiser does.

    has_floats: some steps stay in floating point, between codes.
    """

    arrays: Arrays
    exact_in_float32: bool
    has_floats: bool

    def of(self, found: tuple[Arrays, Arrays]) -> tuple[Arrays, Arrays]:
        """The tensors an artifact shows, outputs and layers, as far as they are of this network."""
        outputs, layers = ({name: self.arrays[name] for name in part if name in self.arrays} for part in found)
        return outputs, layers


def integer_arrays(model: Path, inputs: Mapping[str, np.ndarray]) -> IntegerArrays | None:
    """Run a model file in integers; None when it is not quantised. Raises CodesignError when it cannot be read."""
    graph = load_model(model, {}, None)
    if not is_quantized(graph):
        return None
    network = integer_network(graph)
    arrays = run_network(network, inputs, run_floating(graph))
    return IntegerArrays(arrays, exact_in_float32(network), bool(network.floating))


def exact_in_float32(network: IntegerNetwork) -> bool:
    """Whether float32 computes every sum of a network exactly: scales are powers of two, sums stay below 2^24."""
    scales = (tensor.scale for tensor in network.tensors.values() if tensor.scale is not None)
    return all(np.frexp(scale)[0] == 0.5 for scale in scales) and all(map(_is_exact, network.steps))


def _is_exact(step: Step) -> bool:
    if isinstance(step, Convolve | Multiply | MultiplyTensors | Sum):
        ratios = step.requantization.ratios
        powers = all(ratio.multiplier & (ratio.multiplier - 1) == 0 and ratio.divisor == 1 for ratio in ratios)
        return powers and step.requantization.largest_sum < _EXACT_IN_FLOAT32
    return not isinstance(step, Softmax)  # its integers are within one code of the float operator
