"""What quantisation did to the numbers, as the record that plan and reports carry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from codesign.graph.graph import Graph, node_name
from codesign.quantization.noise import Fed, Noise, noise_of, output_noise
from codesign.quantization.quantizer import Calibrated, Formats
from codesign.rewriting.record import QuantizationRecord, TensorNoise


@dataclass(frozen=True)
class Stages:
    """A network before any change, after equalisation (the same function, other numbers inside), and quantised."""

    original: Fed
    float_form: Fed
    quantized: Fed


def record_of(stages: Stages, calibrated: Calibrated, formats: Formats) -> QuantizationRecord:
    """Signal to noise of outputs against the original, and of every quantised tensor against the float form."""
    samples = calibrated.samples
    layers = layer_names(stages.float_form.graph, calibrated)
    pairs = {name: dequantized(stages.quantized.graph, name) for name in formats.by_tensor}
    inner = noise_of(stages.float_form, stages.quantized, pairs)
    outputs = output_noise(stages.original, stages.quantized)
    return QuantizationRecord(
        samples.source,
        not samples.given,
        tuple(_entry(name, noise, layers, formats) for name, noise in outputs.items()),
        tuple(_entry(name, noise, layers, formats) for name, noise in inner.items()),
    )


def dequantized(quantized: Graph, name: str) -> str:
    """What a tensor's readers read in the quantised graph."""
    if any(value.name == name for value in quantized.outputs):
        return name
    made = {value.name: value for node in quantized.nodes for value in node.inputs if value is not None}
    readers = {use.node.op_type: use.node.outputs[0] for use in made[name].uses()}
    if "DequantizeLinear" in readers:  # an input of codes
        return str(readers["DequantizeLinear"].name)
    codes = readers["QuantizeLinear"]
    return str(next(iter(codes.uses())).node.outputs[0].name)


def layer_names(graph: Graph, calibrated: Calibrated) -> Mapping[str, str]:
    """By tensor, the integer layer or node that makes it."""
    made = {str(output.name): node_name(node) for node in graph.nodes for output in node.outputs}
    made |= {str(value.name): f"input {value.name}" for value in graph.inputs}
    return made | {name: island.name for name, island in calibrated.makers.items()}


def _entry(name: str, noise: Noise, layers: Mapping[str, str], formats: Formats) -> TensorNoise:
    measured = formats.by_tensor.get(name)
    if measured is None:
        return TensorNoise(layers.get(name, ""), name, 0, 0, noise.sqnr_db, 0, noise.count)
    form, saturated = measured.form, measured.saturated.get(name, 0)
    return TensorNoise(layers[name], name, form.bits, form.fraction_bits, noise.sqnr_db, saturated, noise.count)
