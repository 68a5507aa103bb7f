"""Bias correction: what rounding adds to the mean of a channel is taken off its bias.

Rounded weights and a rounded, saturated input make every output channel of a layer larger or smaller on average. The
mean over the calibration data, batch and places, of (rounded layer on the rounded input) - (float layer on the float
input), with zero padding as the layer has it, is that shift; the layer before counts as float.
Source: Nagel et al., Data-Free Quantization Through Weight Equalization and Bias Correction, ICCV 2019,
arXiv:1906.04721, section 4.2 (there the input's mean is guessed from BatchNorm; here it is measured).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from codesign.graph.graph import Graph
from codesign.graph.samples import Samples
from codesign.quantization.formats import FixedPoint
from codesign.quantization.running import open_proto, proto_of
from codesign.quantization.weighted import BIAS, Weighted
from codesign.quantization.weights import WeightCodes


@dataclass(frozen=True)
class RoundedLayer:
    """A layer, its integers, and the format of its input."""

    layer: Weighted
    codes: WeightCodes
    x: FixedPoint

    @property
    def mean_name(self) -> str:
        """The tensor with the shift of every channel."""
        return f"{self.layer.node.outputs[0].name}.mean_shift"

    @property
    def channel_axis(self) -> int:
        """Of the layer's output."""
        return len(self.layer.node.outputs[0].shape or ()) - 1 if self.layer.node.op_type in ("MatMul", "Gemm") else 1


def mean_shifts(graph: Graph, samples: Samples, layers: list[RoundedLayer]) -> Mapping[str, np.ndarray]:
    """By the name of a layer's output, the shift of every channel, float64 [channels]."""
    proto = proto_of(graph)
    by_output = {node.output[0]: node for node in proto.graph.node}
    for rounded in layers:
        _add_comparison(proto, by_output[str(rounded.layer.node.outputs[0].name)], rounded)
    runner = open_proto(proto, [rounded.mean_name for rounded in layers], str(graph.source or graph.name))
    sums: dict[str, np.ndarray] = {}
    for run in samples.runs:
        for name, mean in runner.run(run).items():
            sums[name] = sums.get(name, 0.0) + mean.astype(np.float64)
    count = len(samples.runs)
    return {str(rounded.layer.node.outputs[0].name): sums[rounded.mean_name] / count for rounded in layers}


def _add_comparison(proto: onnx.ModelProto, node: onnx.NodeProto, rounded: RoundedLayer) -> None:
    """The rounded layer beside the float one, and the mean of their difference."""
    prefix, y = f"{node.output[0]}.mean_shift", node.output[0]
    shape = rounded.layer.node.outputs[0].shape
    axes = [axis for axis in range(len(shape or ())) if axis != rounded.channel_axis]
    constants = {
        "steps": np.array(1 / rounded.x.scale, np.float32),
        "scale": np.array(rounded.x.scale, np.float32),
        "low": np.array(rounded.x.low, np.float32),
        "high": np.array(rounded.x.high, np.float32),
        "weights": rounded.codes.rounded(rounded.layer.axis),
        "axes": np.array(axes, np.int64),
    }
    if rounded.codes.rounded_bias is not None:
        constants["bias"] = rounded.codes.rounded_bias
    name = {part: f"{prefix}.{part}" for part in (*constants, "steps_of_x", "whole", "codes", "x", "y", "difference")}
    proto.graph.initializer.extend(numpy_helper.from_array(array, name[part]) for part, array in constants.items())
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.name = name["y"]
    inputs = [name["x"], name["weights"], *([name["bias"]] if "bias" in constants else [])]
    copy.input[:] = inputs if rounded.layer.takes_bias else inputs[:BIAS]
    copy.output[:] = [name["y"]]
    proto.graph.node.extend(
        [
            # Round is half to even; QuantizeLinear to int16 would need a newer operator set than the graph may have.
            helper.make_node("Mul", [node.input[0], name["steps"]], [name["steps_of_x"]]),
            helper.make_node("Round", [name["steps_of_x"]], [name["whole"]]),
            helper.make_node("Clip", [name["whole"], name["low"], name["high"]], [name["codes"]]),
            helper.make_node("Mul", [name["codes"], name["scale"]], [name["x"]]),
            copy,
            helper.make_node("Sub", [name["y"], y], [name["difference"]]),
            helper.make_node("ReduceMean", [name["difference"], name["axes"]], [prefix], keepdims=0),
        ]
    )
