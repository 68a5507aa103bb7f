"""What goes into and comes out of the C of a quantised network: codes, and how numbers become codes and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from codesign.graph.codes import is_quantized
from codesign.graph.graph import Graph
from codesign.lowering.interface import Interface, Tensor
from codesign.numerics.execution import dequantize, quantize
from codesign.numerics.steps import Tensor as Codes
from codesign.quantization.borders import with_codes_at_borders
from codesign.quantization.reading import integer_network

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Borders:
    """graph: the network the C computes. codes: inputs and outputs that are codes there, by name. inner: by the same
    names, the tensors of the network as it was that they are."""

    graph: Graph
    codes: Mapping[str, Codes] = field(default_factory=dict)
    inner: Mapping[str, str] = field(default_factory=dict)

    @property
    def interface(self) -> Interface:
        """What the run function takes and makes, in order."""
        inputs, outputs = (tuple(map(Tensor.of, values)) for values in (self.graph.inputs, self.graph.outputs))
        return Interface(inputs=inputs, outputs=outputs, layers=())

    @property
    def notes(self) -> dict[str, str]:
        """What a code stands for, by name."""
        return {name: f"value = {c.scale:.9g} * (code - {c.zero_point})" for name, c in self.codes.items()}

    def coded(self, numbers: Mapping[str, np.ndarray]) -> Arrays:
        """Numbers as the C takes them."""
        return {name: self._coded(name, array) for name, array in numbers.items()}

    def numbers(self, arrays: Mapping[str, np.ndarray]) -> Arrays:
        """What the C made, as numbers."""
        return {name: self._number(name, array) for name, array in arrays.items()}

    def _coded(self, name: str, array: np.ndarray) -> np.ndarray:
        codes = self.codes.get(name)
        return array if codes is None else quantize(array, codes).astype(codes.dtype)

    def _number(self, name: str, array: np.ndarray) -> np.ndarray:
        codes = self.codes.get(name)
        return array if codes is None else dequantize(array, codes).astype(np.float32)


def borders_of(graph: Graph) -> Borders:
    """Of a quantised network codes where they can be; any other as it is."""
    if not is_quantized(graph):
        return Borders(graph)
    made = with_codes_at_borders(graph)
    tensors = integer_network(made.graph).tensors
    return Borders(made.graph, {name: tensors[name] for name in made.codes}, made.codes)
