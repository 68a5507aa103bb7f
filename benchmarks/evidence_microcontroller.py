"""Counts instructions and memory of networks as C on an emulated Cortex-M4; docs/evidence/microcontroller.md.

    python benchmarks/evidence_microcontroller.py MODELS [--output FILE.md]

MODELS: a folder searched for the ONNX files of `integer_networks`. Every network is quantised, written as C, built with
arm-none-eabi-gcc -O2 and run on QEMU's mps2-an386; its codes at every layer are compared with numpy's, then its outputs
alone are computed and counted. The same networks in floating point follow, held against onnxruntime, and ResNet8 with
every register block. Exit code 1 when a value differs, 2 when a tool is not installed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
from emulated import emulate, missing_tools
from integer_networks import NETWORKS, SHARED_MODELS, Quantized, floating, quantized
from register_blocks import comparison, counted

from codesign.artifacts.c_folder.borders import borders_of
from codesign.artifacts.c_folder.checking import TestVector
from codesign.artifacts.c_folder.folder import write_sources
from codesign.artifacts.c_folder.measuring import measured
from codesign.graph.graph import Graph
from codesign.graph.operators import Convolution, Gemm, view_of
from codesign.lowering.c_source.network import c_program, with_layers
from codesign.lowering.c_source.program import CProgram, Place
from codesign.lowering.interface import Interface
from codesign.lowering.library import legalised
from codesign.lowering.microcontroller.blocks import Blocks
from codesign.lowering.network import MAIN, MAIN_LAYERS, build_network
from codesign.numerics.execution import run_network
from codesign.numerics.steps import Convolve, IntegerNetwork, Multiply
from codesign.quantization.reading import integer_network, run_floating
from codesign.workload.layers import nest_of

ROOT = Path(__file__).resolve().parents[1]
FITTING = ("digits", "ResNet8", "DS-CNN", "MobileNetV1 0.25")
PREFIX = "codesign"
_HEAD = """# Networks as C on a Cortex-M4

Counted {day} by `benchmarks/evidence_microcontroller.py` with arm-none-eabi-gcc -O2 on QEMU mps2-an386, `-icount
shift=0`: instructions, not cycles. Codes at every layer boundary equal those of `codesign.numerics`, on that machine.
Inputs and outputs are codes where they can be. Stack: what the run really used. Code: model.c. All sizes in bytes.

| network | MACs | instructions | per MAC | arena | stack | code | constants | codes compared |
|---|---|---|---|---|---|---|---|---|
"""
_FLOAT = """
## In floating point

The same networks, float32, on the FPU of the Cortex-M4 (`-mfpu=fpv4-sp-d16`), equal to onnxruntime to 1e-4 of the
largest output at most. Plain loops took 20.1 instructions per MAC for the digits and 20.3 for ResNet8.

| network | MACs | instructions | per MAC | arena | stack |
|---|---|---|---|---|---|
"""
_BLOCKS = """
## Register blocks

ResNet8 with the blocks the mappings choose, and with every block forced upon all its convolutions (channels x pixels;
a dense layer keeps its one pixel).

| network | block | instructions | per MAC | arena |
|---|---|---|---|---|
"""
_PEER = """
emx-onnx-cgen 1.4.0 on ResNet8, -O2: 237 M instructions in float and 256 M of the quantised file, 754 kB and 1,360 kB of
stack, 346 kB and 119 kB of code.
"""


@dataclass(frozen=True)
class Row:
    """One network. compared: codes equal at layer boundaries, on the emulated machine."""

    name: str
    macs: int
    instructions: int
    arena_bytes: int
    stack_bytes: int
    code_bytes: int
    constant_bytes: int
    compared: int
    ok: bool

    def __str__(self) -> str:
        figures = (self.macs, self.instructions, self.instructions / self.macs, self.arena_bytes, self.stack_bytes)
        sizes = (self.code_bytes, self.constant_bytes, self.compared)
        shown = [f"{figure:.2f}" if isinstance(figure, float) else f"{figure:,}" for figure in (*figures, *sizes)]
        return f"| {self.name}{'' if self.ok else ' DIFFERS'} | " + " | ".join(shown) + " |"


def rows(models: Path) -> Iterator[Row]:
    """Every network there is a file of."""
    for name in FITTING:
        network = quantized(NETWORKS[name], models)
        if network is not None:
            with tempfile.TemporaryDirectory() as folder:
                yield row(name, network, Path(folder))


def row(name: str, network: Quantized, folder: Path) -> Row:
    """One network, layer by layer and then as it would be used."""
    lowered = build_network(network.graph, channels_last=True)
    module = legalised(lowered.module, with_views=True)
    integers = integer_network(network.graph)
    inputs = {key: np.asarray(array) for key, array in network.inputs[0].items()}
    arrays = run_network(integers, inputs, run_floating(network.graph))
    layers = with_layers(lowered.interface)
    _write(c_program(module, layers, MAIN_LAYERS), layers, inputs, arrays, folder / "layers")
    layered = emulate(folder / "layers")
    borders = borders_of(network.graph)
    bare = legalised(build_network(borders.graph, channels_last=True).module, with_views=True)
    program = c_program(bare, borders.interface, MAIN)
    made = {value: arrays[borders.inner.get(value, value)] for value in (t.name for t in borders.interface.outputs)}
    arena = _write(program, borders.interface, borders.coded(inputs), made, folder / "network")
    done = emulate(folder / "network")
    sizes = next(size for size in measured(folder / "network", PREFIX) if size.machine == "Cortex-M4")
    constants = sum(t.size_bytes for t in program.tensors.values() if t.place is Place.CONSTANT)
    compared = sum(arrays[tensor.name].size for tensor in layers.outputs)
    figures = (macs_of(integers), done.instructions, arena, done.stack_bytes, sizes.text_bytes, constants, compared)
    return Row(name, *figures, layered.ok and done.ok)


def macs_of(network: IntegerNetwork) -> int:
    """Multiply-accumulates of convolutions and matrix products, padding included."""
    total = 0
    for step in network.steps:
        if isinstance(step, Convolve):
            total += step.output.elements * int(step.weights[0].size)
        elif isinstance(step, Multiply):
            total += step.output.elements * int(step.weights.shape[0])
    return total


def _write(
    program: CProgram, interface: Interface, inputs: dict[str, np.ndarray], arrays: dict[str, np.ndarray], folder: Path
) -> int:
    """The C and its test vector; the arena in bytes."""
    outputs = {tensor.name: arrays[tensor.name] for tensor in interface.outputs}
    vector = TestVector(inputs, outputs, 0.0, "codesign.numerics")
    return write_sources(program, vector, folder, "evidence", PREFIX).arena.size_bytes


def float_rows(models: Path) -> Iterator[tuple[str, bool]]:
    """The networks in floating point, and whether they agree with onnxruntime."""
    for name in FITTING:
        graph = floating(NETWORKS[name], models)
        if graph is not None:
            macs = macs_of_floats(graph)
            done = counted(graph, Blocks(), name)
            figures = (f"{macs:,}", f"{done.instructions:,}", f"{done.instructions / macs:.2f}")
            sizes = (f"{done.arena_bytes:,}", f"{done.stack_bytes:,}")
            yield f"| {name}{'' if done.ok else ' DIFFERS'} | " + " | ".join((*figures, *sizes)) + " |", done.ok


def macs_of_floats(graph: Graph) -> int:
    """Multiply-accumulates of convolutions and dense layers, padding included."""
    return sum(nest_of(node).macs for node in graph.nodes if isinstance(view_of(node), Convolution | Gemm))


def blocks(models: Path) -> Iterator[tuple[str, bool]]:
    """ResNet8 with every register block."""
    path = next((p for folder in (models, SHARED_MODELS) for p in sorted(folder.rglob("resnet8_cifar10.onnx"))), None)
    graph = floating(NETWORKS["ResNet8"], models)
    if path is not None and graph is not None:
        yield from comparison(path, macs_of_floats(graph))


def main() -> int:
    """Write the page; 1 when a value differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "evidence" / "microcontroller.md")
    arguments = parser.parse_args()
    if missing_tools():
        print(f"not installed: {', '.join(missing_tools())}", file=sys.stderr)
        return 2
    found = []
    for item in rows(arguments.models):
        print(item, flush=True)
        found.append(item)
    text = _HEAD.format(day=date.today()) + "\n".join(map(str, found)) + "\n" + _PEER
    agree = all(item.ok for item in found)
    for head, lines in ((_FLOAT, float_rows), (_BLOCKS, blocks)):
        text += head
        for line, ok in lines(arguments.models):
            print(line, flush=True)
            text += line + "\n"
            agree = agree and ok
    arguments.output.write_text(text, encoding="utf-8")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
