"""What every step of a C network leaves behind, in the arena it runs in: with all tensors that share memory."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from codesign.artifacts.c_folder.borders import borders_of
from codesign.artifacts.c_folder.checking import TestVector
from codesign.artifacts.c_folder.folder import write_sources
from codesign.artifacts.c_folder.sources import Sources
from codesign.graph.graph import Graph, shape_of
from codesign.graph.samples import given
from codesign.importers.onnx_importer import load_onnx
from codesign.lowering.c_source.network import c_program
from codesign.lowering.c_source.program import Call, Copy
from codesign.lowering.library import legalised
from codesign.lowering.network import build_network
from codesign.numerics.execution import run_network
from codesign.quantization.reading import integer_network, run_floating
from codesign.rewriting.graph_pass import PassContext
from codesign.rewriting.pipeline import resolve_pipeline
from codesign.rewriting.runner import run_pipeline
from tests.c_builds import FILES, build
from tests.small_networks import write_network

SANITIZED = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
_HEAD = """#include <stdio.h>
static void trace(const void *bytes, unsigned rows, unsigned width, unsigned pitch)
{
    FILE *const file = fopen("trace.bin", "ab");
    for (unsigned row = 0; row < rows; ++row) {
        (void)fwrite((const char *)bytes + row * pitch, 1, width, file);
    }
    (void)fclose(file);
}
"""


@dataclass(frozen=True)
class Traced:
    """A network as C that tells what its steps wrote. expected: codes by the integer semantics, by tensor."""

    sources: Sources
    folder: Path
    expected: dict[str, np.ndarray]

    def run(self, *options: str) -> list[bytes]:
        """Build and run; what every step wrote, in order. Empty where the outputs are others than expected."""
        program = build(self.folder, *(options or SANITIZED), files=FILES)
        (self.folder / "trace.bin").unlink(missing_ok=True)
        done = subprocess.run([program], cwd=self.folder, capture_output=True, text=True, check=False, timeout=300)
        assert "runtime error" not in done.stderr and "Sanitizer" not in done.stderr, done.stderr[:2000]
        if done.returncode:
            return []
        data, found = (self.folder / "trace.bin").read_bytes(), []
        for name in (name for step in self.sources.program.steps for name in written(self.sources, step)):
            size = self.sources.program.tensors[name].size_bytes
            found.append(data[:size])
            data = data[size:]
        assert not data
        return found

    def wrong(self, *options: str) -> list[str]:
        """Tensors whose codes no step wrote, in the order of ONNX or with channels last."""
        found = set(self.run(*options))
        return [name for name, array in self.expected.items() if not found & {array.tobytes(), _last(array).tobytes()}]


def written(sources: Sources, step: Call | Copy) -> list[str]:
    """What a step writes, and what that is part of."""
    program = sources.program
    made = program.touched(step)[1]
    return [*made, *(program.root(name) for name in made if program.root(name) != name)]


def traced(graph: Graph, folder: Path) -> Traced:
    """Write the C of a quantised network with codes in and out."""
    borders = borders_of(graph)
    network = build_network(borders.graph, channels_last=True)
    program = c_program(legalised(network.module, with_views=True), network.interface)
    generator = np.random.default_rng(1)
    inputs = {str(x.name): generator.standard_normal(shape_of(x)).astype(np.float32) for x in graph.inputs}
    arrays = run_network(integer_network(graph), inputs, run_floating(graph))
    made = {t.name: arrays[borders.inner.get(t.name, t.name)] for t in borders.interface.outputs}
    sources = write_sources(
        program, TestVector(borders.coded(inputs), made, 0.0, "numpy"), folder, "traced", "codesign"
    )
    source = (folder / "model.c").read_text(encoding="utf-8")
    at = source.index("codesign_run_in(")
    for number, step in enumerate(sources.program.steps):
        text = sources.step(number, step)
        at = source.index(text, at) + len(text)
        for name in written(sources, step):
            call = f"\n    trace({name}, {', '.join(f'{number}U' for number in _rows(sources, name))});"
            source, at = source[:at] + call + source[at:], at + len(call)
    (folder / "model.c").write_text(_HEAD + source, encoding="utf-8")
    inner = integer_network(borders.graph).tensors.keys() - {str(x.name) for x in (*graph.inputs, *graph.outputs)}
    return Traced(sources, folder, {name: array for name, array in arrays.items() if name in inner})


def quantized(
    nodes: str, weights: dict[str, tuple[int, ...]], shape: tuple[int, ...], folder: Path, wide: str
) -> Graph:
    """A network of random weights on codes. wide: layers whose results have 16 bits."""
    folder.mkdir(parents=True, exist_ok=True)
    graph = load_onnx(write_network(folder / "n.onnx", nodes, shape, weights))
    samples = given(
        graph, {"x": np.random.default_rng(0).standard_normal((4, *shape)).astype(np.float32)[:, 0]}, "data"
    )
    pipeline = resolve_pipeline(f"default,quantize{{int16={wide}}}" if wide else "default,quantize")
    return run_pipeline(graph, pipeline, PassContext(calibration=samples))[0]


def _rows(sources: Sources, name: str) -> tuple[int, int, int]:
    """How many rows of bytes a tensor has, how long they are, and how far apart."""
    tensor = sources.program.tensors[name]
    if tensor.part is None:
        return 1, tensor.size_bytes, tensor.size_bytes
    size = tensor.size_bytes // tensor.elements
    return tensor.elements // tensor.part.width, tensor.part.width * size, tensor.part.pitch * size


def _last(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1)) if array.ndim == 4 else array
