"""Runs the C of a build on this machine: compiled once into a library, called through its own header's function."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from codesign.errors import CodesignError
from codesign.lowering.interface import Interface

SOURCES = ("model.c", "weights.c")
HEADER = "model.h"
_OPTIONS = ("-std=c99", "-O2", "-fno-strict-aliasing", "-fPIC", "-shared")
_WORDS = 8  # bytes of an element of the arena


def run_c(folder: Path, interface: Interface, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs by name. folder: c/ of a build.

    Raises CodesignError when there is no C compiler, or it refuses the files.
    """
    with tempfile.TemporaryDirectory(prefix="codesign-") as name:
        library = compiled([folder], Path(name) / "model.so")
        return call_c(library, folder, interface, inputs)


def compiled(folders: Sequence[Path], library: Path) -> ctypes.CDLL:
    """The networks of several folders, each with its own prefix, in one library."""
    if shutil.which("gcc") is None:
        raise CodesignError(str(folders[0]), "needs a C compiler to be run; none was found", "install gcc")
    sources = [str(folder / name) for folder in folders for name in SOURCES]
    command = ["gcc", *_OPTIONS, *sources, "-o", str(library), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["it gave no reason"])[0]
        raise CodesignError(str(folders[0]), f"cannot be compiled: {reason}", "compile the model again")
    return ctypes.CDLL(str(library))


def call_c(
    library: ctypes.CDLL, folder: Path, interface: Interface, inputs: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """One run of the network of a folder. Its memory holds no zeros before."""
    header = (folder / HEADER).read_text(encoding="utf-8")
    prefix = re.search(r"^void (\w+)_run_in\(", header, re.MULTILINE)
    size = re.search(r"_ARENA_BYTES (\d+)$", header, re.MULTILINE)
    if prefix is None or size is None:
        raise CodesignError(str(folder / HEADER), "is damaged", "compile the model again")
    arena = np.full(-(-int(size[1]) // _WORDS), -1, np.int64)
    given = [np.ascontiguousarray(inputs[tensor.name]) for tensor in interface.inputs]
    made = {tensor.name: np.empty(tensor.shape, tensor.dtype) for tensor in interface.outputs}
    arrays = (arena, *given, *made.values())
    library[f"{prefix[1]}_run_in"](*(ctypes.c_void_p(array.ctypes.data) for array in arrays))
    return made
