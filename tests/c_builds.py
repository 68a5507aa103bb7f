"""Networks written as C into a folder, built with a compiler of this machine, and run."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from codesign.artifacts.c_folder.checking import vector_of
from codesign.artifacts.c_folder.folder import write_sources
from codesign.graph.graph import Graph
from codesign.lowering.c_source.network import c_program
from codesign.lowering.c_source.program import CProgram
from codesign.lowering.library import legalised
from codesign.lowering.network import build_network

STRICT = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wvla", "-Werror", "-fno-strict-aliasing")
SANITIZED = ("-g", "-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
NETWORK_FILES = ("model.c", "weights.c")
FILES = (*NETWORK_FILES, "test_vector.c", "main.c")


@dataclass(frozen=True)
class Ran:
    """What a program left behind."""

    code: int
    text: str


def program_of(graph: Graph) -> CProgram:
    """The network as kernels and steps."""
    network = build_network(graph, channels_last=True)
    return c_program(legalised(network.module, with_views=True), network.interface)


def write_c(
    graph: Graph, folder: Path, inputs: dict[str, np.ndarray] | None = None, prefix: str = "codesign", title: str = "t"
) -> Path:
    """The C folder of a network, its test vector computed by onnxruntime from the network's own ONNX form."""
    folder.mkdir(parents=True, exist_ok=True)
    ir.save(graph.model, folder / "model.onnx")
    interface = build_network(graph).interface
    write_sources(program_of(graph), vector_of(folder / "model.onnx", interface, inputs), folder / "c", title, prefix)
    return folder / "c"


def needs(*tools: str) -> None:
    """Skip the test, saying why, where a tool is not installed."""
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")


def build(folder: Path, *options: str, files: tuple[str, ...] = FILES, compiler: str = "gcc") -> Path:
    """Compile and link with every warning an error."""
    needs(compiler)
    command = [compiler, *STRICT, *(options or ("-O2",)), *files, "-o", "run", "-lm"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:3000]
    return folder / "run"


def run(program: Path, *before: str) -> Ran:
    """Run a program; before: another program to run it under."""
    done = subprocess.run([*before, str(program)], capture_output=True, text=True, check=False, timeout=120)
    return Ran(done.returncode, done.stdout + done.stderr)
