"""What the readers of islands share: the tensors at an island's borders, its clamp, and the refusal of the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import onnx_ir as ir

from codesign.graph.codes import Scaling, is_dequantize, scaling_of
from codesign.graph.graph import constant_of, shape_of
from codesign.graph.islands import Island, clamps_behind
from codesign.graph.operators import is_operator, optional_input
from codesign.numerics.execution import dequantize, quantize
from codesign.numerics.requantization import Requantization, requantization
from codesign.numerics.steps import Lookup, Step, Tensor


class StaysFloatError(Exception):
    """Why an island is no integer step."""


@dataclass(frozen=True, eq=False)
class Site:
    """An island between codes and codes. sources: scaling of each source. work: its nodes without the clamps behind."""

    graph: ir.Graph
    island: Island
    sources: dict[ir.Value, Scaling]
    target: Scaling
    work: tuple[ir.Node, ...]
    minimum: int
    maximum: int

    @property
    def node(self) -> ir.Node:
        """The one node that does the work. Raises StaysFloatError when there are several."""
        if len(self.work) != 1:
            raise StaysFloatError(f"no integer step for {', '.join(node.op_type for node in self.work)} together")
        return self.work[0]

    def scaling(self, value: ir.Value | None) -> Scaling:
        """Of a source. Raises StaysFloatError when the value is none."""
        if value is None or value not in self.sources:
            raise StaysFloatError(f"{value.name if value is not None else 'an input'} comes in floating point")
        return self.sources[value]

    def tensor(self, value: ir.Value | None) -> Tensor:
        """The codes behind a source."""
        scaling = self.scaling(value)
        assert value is not None
        return codes_tensor(value, scaling)

    @property
    def output(self) -> Tensor:
        """The codes the island makes."""
        codes = self.island.output
        return Tensor(str(codes.name), shape_of(codes), self.target.dtype, self.target.scale, self.target.zero_point)

    def requantize(self, factors: Sequence[Fraction], largest_sums: Sequence[int]) -> Requantization:
        """Of sums whose unit is `factors` times the output's scale."""
        return requantization(factors, largest_sums, self.target.zero_point, self.minimum, self.maximum)

    def recoded(self, value: ir.Value | None) -> tuple[tuple[Step, ...], Tensor]:
        """A source in the codes of the output, and the step that makes them where they mean something else."""
        scaling, tensor = self.scaling(value), self.tensor(value)
        if scaling == self.target:
            return (), tensor
        codes = np.arange(scaling.lowest, scaling.highest + 1)
        made = Tensor(
            f"{self.island.name}.{tensor.name}",
            tensor.shape,
            self.target.dtype,
            self.target.scale,
            self.target.zero_point,
        )
        table = quantize(dequantize(codes, tensor), made).reshape(1, -1)
        return (Lookup(made.name, (tensor,), made, table),), made


def codes_tensor(value: ir.Value, scaling: Scaling) -> Tensor:
    """The codes a DequantizeLinear's result is made of."""
    producer = value.producer()
    assert producer is not None and producer.inputs[0] is not None
    codes = producer.inputs[0]
    return Tensor(str(codes.name), shape_of(codes), scaling.dtype, scaling.scale, scaling.zero_point)


def number_tensor(value: ir.Value) -> Tensor:
    """A tensor that is no codes."""
    dtype = "float32" if value.dtype is None else str(value.dtype.numpy())
    return Tensor(str(value.name), shape_of(value), dtype)


def site_of(graph: ir.Graph, island: Island) -> Site:
    """The island as one between codes and codes. Raises StaysFloatError when a border is in floating point."""
    target = scaling_of(island.quantizer) if island.quantizer is not None else None
    if target is None:
        raise StaysFloatError("its result stays in floating point")
    sources: dict[ir.Value, Scaling] = {}
    for value in island.sources:
        producer = value.producer()
        scaling = scaling_of(producer) if producer is not None and is_dequantize(producer) else None
        if scaling is None:
            raise StaysFloatError(f"{value.name} comes in floating point")
        sources[value] = scaling
    work, clamps = clamps_behind(island.nodes)
    low, high = limits_of(clamps)
    return Site(graph, island, sources, target, work, target.code_of(low), target.code_of(high))


def limits_of(clamps: Sequence[ir.Node]) -> tuple[float, float]:
    """The range Relu and Clip nodes leave. Raises StaysFloatError when a limit is not constant."""
    low, high = -np.inf, np.inf
    for node in clamps:
        least, most = _limits(node)
        low, high = min(max(low, least), most), min(max(high, least), most)
    return low, high


def _limits(node: ir.Node) -> tuple[float, float]:
    if is_operator(node, "Relu"):
        return 0.0, np.inf
    limits = [node.attributes.get_float("min", None), node.attributes.get_float("max", None)]
    for at, default in ((0, -np.inf), (1, np.inf)):
        value = optional_input(node, at + 1)
        constant = constant_of(value)
        if value is not None and constant is None:
            raise StaysFloatError("its Clip has limits that are not constant")
        if constant is not None:
            limits[at] = float(constant.reshape(()))
        elif limits[at] is None:
            limits[at] = default
    low, high = limits
    assert low is not None and high is not None
    return low, high
