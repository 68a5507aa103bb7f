"""Post-training quantisation of a graph: formats from calibration data, integers of weights, and the QDQ form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from codesign.graph.graph import Graph, constant_of
from codesign.graph.samples import Samples
from codesign.quantization.bias import RoundedLayer, mean_shifts
from codesign.quantization.formats import FixedPoint, format_of
from codesign.quantization.islands import Division, Island, IslandKind, divide
from codesign.quantization.ranges import (
    BITS,
    WIDE_BITS,
    Measured,
    ScaleGroup,
    Spread,
    check_spreads,
    formats_of,
    scale_groups,
    spreads_of,
)
from codesign.quantization.weighted import Weighted
from codesign.quantization.weights import WeightCodes, weight_codes
from codesign.quantization.writing import QdqWriter

WIDE_OPSET, _WIDE_IR_VERSION = 21, 10


@dataclass(frozen=True)
class Choices:
    """How to quantise. least_squares: formats of least squared error, else the widest. float_ends: nodes behind the
    last layers with weights stay float. fixed: formats of inputs that hold codes."""

    least_squares: bool = True
    per_channel: bool = True
    correct_bias: bool = True
    float_ends: bool = False
    fixed: Mapping[str, FixedPoint] = field(default_factory=dict)

    def runs(self, samples: Samples) -> list[dict[str, np.ndarray]]:
        """Samples of the float network as the quantised one takes them: codes where the format is fixed."""
        return [run | {name: form.codes(run[name]) for name, form in self.fixed.items()} for run in samples.runs]


@dataclass(frozen=True)
class Calibrated:
    """A float graph, its integer layers, the tensors that share a scale, and what they hold over the data.

    tensors: those at the border of integer layers. makers: by tensor, the integer layer it comes from. Both are read
    off while the graph is float.
    """

    graph: Graph
    samples: Samples
    division: Division
    groups: tuple[ScaleGroup, ...]
    spreads: Mapping[str, Spread]
    tensors: tuple[ir.Value, ...]
    makers: Mapping[str, Island]


@dataclass(frozen=True)
class Formats:
    """What every tensor and every layer with weights becomes. by_tensor: names of tensors."""

    by_tensor: Mapping[str, Measured]
    layers: tuple[RoundedLayer, ...]

    def form(self, name: str) -> FixedPoint:
        """Of a tensor."""
        return self.by_tensor[name].form


def calibrate(graph: Graph, samples: Samples, choices: Choices) -> Calibrated:
    """Raises CodesignError for a tensor that holds one number throughout."""
    division = divide(graph, float_ends=choices.float_ends)
    groups = tuple(scale_groups(division))
    names = [name for group in groups for name in group.sources]
    spreads = spreads_of(graph, samples, names)
    check_spreads(graph, spreads, names, samples.source)
    return _calibrated(graph, samples, division, groups, spreads)


def copied(calibrated: Calibrated, choices: Choices) -> Calibrated:
    """The same for a copy of the float graph, which may be written without changing this one."""
    graph = calibrated.graph.copy()
    division = divide(graph, float_ends=choices.float_ends)
    return _calibrated(graph, calibrated.samples, division, calibrated.groups, calibrated.spreads)


def _calibrated(
    graph: Graph,
    samples: Samples,
    division: Division,
    groups: tuple[ScaleGroup, ...],
    spreads: Mapping[str, Spread],
) -> Calibrated:
    makers = {str(value.name): island for island in division.islands for value in island.outputs}
    return Calibrated(graph, samples, division, groups, spreads, division.tensors, makers)


def measured(calibrated: Calibrated, choices: Choices, bits: int = BITS) -> dict[ScaleGroup, Measured]:
    """The format of every group of tensors in so many bits, and what it does to the data."""
    parts = calibrated.graph, calibrated.samples, calibrated.groups, calibrated.spreads
    return formats_of(*parts, bits, least_squares=choices.least_squares)


def choose(calibrated: Calibrated, choices: Choices, found: Mapping[ScaleGroup, Measured]) -> Formats:
    """The formats found for every tensor, and the integers of all weights that go with them."""
    by_tensor = {name: measured for group, measured in found.items() for name in group.tensors}
    by_tensor |= {name: replace(by_tensor[name], form=form, saturated={}) for name, form in choices.fixed.items()}
    layers = tuple(_rounded(island, by_tensor, choices) for island in calibrated.division.islands if island.weighted)
    if choices.correct_bias and layers:
        shifts = mean_shifts(calibrated.graph, calibrated.samples, list(layers))
        layers = tuple(_corrected(rounded, shifts, choices) for rounded in layers)
    return Formats(by_tensor, layers)


def _rounded(island: Island, by_tensor: Mapping[str, Measured], choices: Choices) -> RoundedLayer:
    assert island.weighted is not None
    x = by_tensor[str(island.weighted.node.inputs[0].name)].form  # type: ignore[union-attr]
    return RoundedLayer(island.weighted, _codes(island.weighted, x, island.weighted.bias, choices), x)


def _corrected(rounded: RoundedLayer, shifts: Mapping[str, np.ndarray], choices: Choices) -> RoundedLayer:
    layer = rounded.layer
    if not layer.takes_bias:
        return rounded
    shift = shifts[str(layer.node.outputs[0].name)]
    bias = (np.zeros(layer.channels) if layer.bias is None else layer.bias.astype(np.float64)) - shift
    return RoundedLayer(layer, _codes(layer, rounded.x, bias, choices), rounded.x)


def _codes(layer: Weighted, x: FixedPoint, bias: np.ndarray | None, choices: Choices) -> WeightCodes:
    return weight_codes(layer, x, bias, per_channel=choices.per_channel, least_squares=choices.least_squares)


def write(calibrated: Calibrated, formats: Formats, choices: Choices) -> None:
    """Turn the calibrated graph itself into its QDQ form."""
    graph = calibrated.graph
    writer = QdqWriter(graph)
    if any(measured.form.bits == WIDE_BITS for measured in formats.by_tensor.values()):
        graph.model.graph.opset_imports[""] = max(WIDE_OPSET, graph.model.graph.opset_imports[""])
        graph.model.ir_version = max(_WIDE_IR_VERSION, graph.model.ir_version or 0)
    for rounded in formats.layers:
        writer.layer(rounded.layer, rounded.codes)
    for island in calibrated.division.islands:
        if island.kind is IslandKind.ARITHMETIC:
            _constants(writer, island, choices)
    for value in calibrated.tensors:
        form = formats.form(str(value.name))
        if form.zero_point is None:
            writer.activation(value, form)
        else:
            writer.pixels(value, form)


def _constants(writer: QdqWriter, island: Island, choices: Choices) -> None:
    node = island.nodes[0]
    for index, value in enumerate(node.inputs):
        array = constant_of(value)
        if array is None:
            continue
        writer.constant(node, index, format_of(array, least_squares=choices.least_squares))
