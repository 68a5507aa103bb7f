"""One quantised network read in every way: numpy's integers, onnxruntime, the library, C here, C on a Cortex-M4."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from emulated import emulate, missing_tools
from integer_networks import Quantized

from codesign.artifacts.c_folder.checking import TestVector
from codesign.artifacts.c_folder.folder import write_sources
from codesign.artifacts.integers import exact_in_float32
from codesign.graph.graph import Graph
from codesign.lowering.c_source.network import c_program, with_layers
from codesign.lowering.interface import Interface
from codesign.lowering.library import legalised, write_library
from codesign.lowering.network import MAIN_LAYERS, build_network
from codesign.lowering.runtime import load_library
from codesign.numerics.execution import convolve, run_network
from codesign.numerics.steps import Convolve, IntegerNetwork, Multiply, Tensor
from codesign.quantization.reading import integer_network, run_floating

Arrays = dict[str, np.ndarray]
LARGE = 500  # elements from which a tensor must say something
_FLASH_BYTES, _MEMORY_BYTES = 3_900_000, 15_000_000
_EXACT_IN_FLOAT32 = 2**24


@dataclass(frozen=True)
class Reading:
    """codes: compared, all tensors and inputs together. differ: how many are another integer. control: how many are
    with one bit of one weight flipped."""

    codes: int
    differ: int
    control: int


@dataclass(frozen=True)
class Readings:
    """Of one network. readings: by what read it; a missing one says in `notes` why. floating: layers left in floats.

    fewest: distinct values in any large tensor. saturated: the largest share of codes at a limit no clamp set.
    largest_sum: measured, bias included.
    """

    network: str
    tensors: int
    floating: int
    fewest: int
    saturated: float
    largest_sum: int
    exact_in_float32: bool
    readings: dict[str, Reading]
    notes: tuple[str, ...]


def read_all(name: str, quantized: Quantized) -> Readings:
    """Every reading of one network on all its inputs."""
    graph = quantized.graph
    network = integer_network(graph)
    expected = [run_network(network, inputs, run_floating(graph)) for inputs in quantized.inputs]
    flipped = with_flipped_bit(graph)
    other = integer_network(flipped)
    control = [run_network(other, inputs, run_floating(flipped)) for inputs in quantized.inputs]
    tensors = observed(network, graph)
    names = [tensor.name for tensor in tensors]
    sums = max(_largest_sum(network, arrays) for arrays in expected)
    readings: dict[str, Reading] = {}
    notes: list[str] = []
    ours = _Comparison(names, expected, control)
    if exact_in_float32(network) or sums < _EXACT_IN_FLOAT32:
        readings["onnxruntime"] = ours.of([by_onnxruntime(graph, names, inputs) for inputs in quantized.inputs])
    else:
        notes.append(f"sums reach {sums}: float32 does not hold them")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        readings["model.so"] = ours.of(by_library(graph, names, quantized, folder / "so"))
        readings["C, gcc"] = ours.of(by_gcc(graph, quantized, expected[0], folder / "c"))
        if not missing_tools():
            _emulated(graph, quantized, expected, folder / "m4", ours, readings, notes)
    return Readings(
        name,
        len(names),
        len(network.floating),
        min(_distinct(expected, tensor.name) for tensor in tensors if tensor.elements >= LARGE),
        max(_saturated(network, arrays) for arrays in expected),
        sums,
        exact_in_float32(network),
        readings,
        tuple(notes),
    )


@dataclass(frozen=True)
class _Comparison:
    names: list[str]
    expected: list[Arrays]
    control: list[Arrays]

    @property
    def codes_once(self) -> int:
        """Of one input."""
        return sum(self.expected[0][name].size for name in self.names)

    def of(self, found: list[Arrays]) -> Reading:
        """How far a reading is from the integers, and from those of the flipped network."""
        return Reading(self.codes_once * len(found), _differing(found, self.expected, self.names), self._felt(found))

    def _felt(self, found: list[Arrays]) -> int:
        return _differing(found, self.control, self.names)


def _differing(found: list[Arrays], expected: list[Arrays], names: list[str]) -> int:
    return sum(
        int((here[name] != there[name]).sum()) for here, there in zip(found, expected, strict=True) for name in names
    )


def observed(network: IntegerNetwork, graph: Graph) -> list[Tensor]:
    """Tensors of codes that a node of the graph makes: every layer boundary."""
    made = {str(output.name) for node in graph.nodes for output in node.outputs}
    return [tensor for tensor in network.tensors.values() if tensor.is_codes and tensor.name in made]


def with_flipped_bit(graph: Graph) -> Graph:
    """The network with one bit of one weight flipped: of the largest weight of the first layer, the bit of 32."""
    changed = graph.copy()
    for node in changed.nodes:
        codes = (
            node.inputs[0].const_value if node.op_type == "DequantizeLinear" and node.inputs[0] is not None else None
        )
        if codes is not None and codes.dtype == ir.DataType.INT8 and len(codes.shape) > 1:
            array = codes.numpy().copy()
            array.flat[np.abs(array.astype(int)).argmax()] ^= 32
            assert node.inputs[0] is not None
            node.inputs[0].const_value = ir.tensor(array, name=node.inputs[0].name)
            return changed
    raise ValueError("no weights of 8 bits")


def by_onnxruntime(graph: Graph, names: list[str], inputs: Mapping[str, np.ndarray]) -> Arrays:
    """The same tensors by onnxruntime without graph optimisations."""
    model = ir.to_proto(graph.model)
    shown = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in shown)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def by_library(graph: Graph, names: list[str], quantized: Quantized, folder: Path) -> list[Arrays]:
    """The same tensors by the compiled library."""
    folder.mkdir()
    write_library(build_network(graph, observed=names), folder)
    library = load_library(folder)
    return [library.run_layers(inputs) for inputs in quantized.inputs]


def by_gcc(graph: Graph, quantized: Quantized, expected: Arrays, folder: Path) -> list[Arrays]:
    """The same tensors by the C, built by gcc as a library of this machine."""
    _, interface = _write_c(graph, quantized, expected, folder)
    command = ["gcc", "-std=c99", "-O2", "-fno-strict-aliasing", "-shared", "-fPIC", "model.c", "weights.c", "-lm"]
    subprocess.run([*command, "-o", "network.so"], cwd=folder, check=True, capture_output=True)
    run = ctypes.CDLL(str(folder / "network.so")).codesign_run
    found = []
    for inputs in quantized.inputs:
        given = [np.ascontiguousarray(inputs[tensor.name]) for tensor in interface.inputs]
        made = {tensor.name: np.zeros(tensor.shape, tensor.dtype) for tensor in interface.outputs}
        run(*(array.ctypes.data_as(ctypes.c_void_p) for array in (*given, *made.values())))
        found.append(made)
    return found


def _write_c(graph: Graph, quantized: Quantized, expected: Arrays, folder: Path) -> tuple[int, Interface]:
    """The C whose outputs are all layer boundaries, the integers' values as test vector; bytes of its constants."""
    lowered = build_network(graph, channels_last=True)
    interface = with_layers(lowered.interface)
    program = c_program(legalised(lowered.module, with_views=True), interface, MAIN_LAYERS)
    values = {tensor.name: expected[tensor.name] for tensor in interface.outputs}
    vector = TestVector(quantized.inputs[0], values, 0.0, "codesign.numerics")
    folder.mkdir(parents=True)
    write_sources(program, vector, folder, "layer boundaries", "codesign")
    constants = sum(array.nbytes for array in program.constants.values())
    size = constants + sum(array.nbytes for array in (*values.values(), *quantized.inputs[0].values()))
    return size, interface


def _counted(text: str) -> int:
    """`name: 3 of 100 values differ` and `name: largest difference 0 of 1`, summed."""
    lines = [match for line in text.splitlines() if (match := re.search(r": (\d+) of (\d+) values differ", line))]
    if not lines:
        raise RuntimeError(f"no comparison in {text[:500]!r}")
    return sum(int(match[1]) for match in lines)


def _emulated(
    graph: Graph,
    quantized: Quantized,
    expected: list[Arrays],
    folder: Path,
    ours: _Comparison,
    readings: dict[str, Reading],
    notes: list[str],
) -> None:
    counts = []
    for number, variant in enumerate((graph, with_flipped_bit(graph))):
        place = folder / str(number)
        size, _ = _write_c(variant, quantized, expected[0], place)
        if size > _FLASH_BYTES or 2 * size > _MEMORY_BYTES:
            notes.append(f"{size / 2**20:.1f} MiB of weights and layers do not fit the emulated board")
            return
        counts.append(_counted(emulate(place).output))
        shutil.rmtree(place)
    readings["C, Cortex-M4"] = Reading(ours.codes_once, counts[0], counts[1])


def _distinct(expected: list[Arrays], name: str) -> int:
    """Values over all inputs."""
    return len(np.unique(np.concatenate([arrays[name].reshape(-1) for arrays in expected])))


def _largest_sum(network: IntegerNetwork, arrays: Arrays) -> int:
    """Of all convolutions and matrix products with constants, as measured."""
    found = [0]
    for step in network.steps:
        if isinstance(step, Convolve):
            found.append(int(np.abs(convolve(step, arrays[step.inputs[0].name])).max()))
        if isinstance(step, Multiply):
            x = arrays[step.inputs[0].name].astype(np.float64) - step.inputs[0].zero_point
            found.append(int(np.abs(x @ step.weights.astype(np.float64) + step.bias).max()))
    return max(found)


def _saturated(network: IntegerNetwork, arrays: Arrays) -> float:
    """The largest share of codes at a limit of their type in a large tensor; what a Relu or Clip cut off is none."""
    worst = 0.0
    for step in network.steps:
        tensor = step.output
        if not tensor.is_codes or tensor.elements < LARGE:
            continue
        limits, codes = np.iinfo(tensor.dtype), arrays[tensor.name]
        rule = getattr(step, "requantization", None)
        low = rule is None or rule.minimum == limits.min
        high = rule is None or rule.maximum == limits.max
        share = (low * (codes == limits.min) + high * (codes == limits.max)).mean()
        worst = max(worst, float(share))
    return worst
