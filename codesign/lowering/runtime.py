"""Runs a built library: arrays in and out by tensor name.

A library is executable code: load one only from a build folder you trust, as you would run a program.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from codesign.errors import CodesignError, Problem
from codesign.lowering.interface import HOST_TAIL_FILE, INTERFACE_FILE, LIBRARY_FILE, Interface

_LOG = logging.getLogger(__name__)
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Library:
    """A loaded library. machine: TVM's virtual machine. tail: onnxruntime session of what runs on the host after it."""

    path: Path
    interface: Interface
    machine: Any
    tail: Any = None

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """The network's outputs by name; when the host runs its end, what it is handed as well.

        Raises CodesignError naming every input that is missing or does not fit.
        """
        results = dict(zip(self._output_names(), self._call("main", inputs), strict=True))
        if self.tail is None:
            return results
        names = [value.name for value in self.tail.get_outputs()]
        known = {**inputs, **results}
        feed = {value.name: known[value.name] for value in self.tail.get_inputs()}
        return {**results, **dict(zip(names, self.tail.run(names, feed), strict=True))}

    def run_layers(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """What every observed layer writes, by tensor name (and the outputs, before what runs on the host)."""
        names = [*self._output_names(), *(tensor.name for tensor in self.interface.layers)]
        return dict(zip(names, self._call("main_layers", inputs), strict=True))

    def _output_names(self) -> list[str]:
        return [tensor.name for tensor in self.interface.outputs]

    def _call(self, function: str, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        import tvm

        check_inputs(self.interface, inputs, str(self.path))
        tensors = [tvm.runtime.tensor(np.ascontiguousarray(inputs[tensor.name])) for tensor in self.interface.inputs]
        return [result.numpy() for result in self.machine[function](*tensors)]


def load_library(path: Path) -> Library:
    """Load the library of a build folder (the folder itself, or model.so in it). Raises CodesignError."""
    folder = path.parent if path.name == LIBRARY_FILE else path
    library = folder / LIBRARY_FILE
    if not library.is_file():
        raise CodesignError(str(library), "no such file", "give a folder that `codesign compile` wrote")
    interface = Interface.read(folder)
    if interface.target:
        problem = f"was built for {interface.target}"
        raise CodesignError(str(library), problem, "run it there, or compile the model for this machine")
    if interface.threads is not None:
        set_threads(interface.threads)
    machine = _machine(library)
    _warn_about_processor(interface, library)
    tail = _session(folder / HOST_TAIL_FILE) if interface.host_tail else None
    return Library(library, interface, machine, tail)


def set_threads(threads: int) -> None:
    """So many threads for all libraries of this process."""
    import tvm

    tvm.get_global_func("runtime.config_threadpool")(1, threads)


def check_inputs(interface: Interface, inputs: Mapping[str, np.ndarray], where: str) -> None:
    """Raise CodesignError with every input that is missing, unknown, or of another shape or type."""
    expected = {tensor.name: tensor for tensor in interface.inputs}
    hint = f"it takes {', '.join(map(str, interface.inputs))}"
    problems = [Problem(where, f"has no input {name!r}", hint) for name in inputs if name not in expected]
    for name, tensor in expected.items():
        if name not in inputs:
            problems.append(Problem(where, f"input {name!r} is missing", hint))
            continue
        found = (tuple(inputs[name].shape), str(inputs[name].dtype))
        if found != (tensor.shape, tensor.dtype):
            got = f"{found[1]} {'x'.join(map(str, found[0])) or 'scalar'}"
            problems.append(Problem(where, f"input {name!r} is {got}", hint))
    if problems:
        raise CodesignError.of(problems)


def _machine(library: Path) -> Any:
    """The library's virtual machine. The loader hands out the old code for a path it has seen, so it gets a new one."""
    import tvm
    from tvm import relax

    with tempfile.TemporaryDirectory(prefix="codesign-") as folder:
        copy = Path(folder) / f"{Path(folder).name}.so"
        shutil.copyfile(library, copy)
        try:
            module = tvm.runtime.load_module(str(copy))
            return relax.VirtualMachine(module, tvm.cpu())
        except Exception as error:
            reason = str(error).strip().splitlines()[-1]
            raise CodesignError(str(library), f"cannot be loaded: {reason}", "compile the model again") from error


def _warn_about_processor(interface: Interface, library: Path) -> None:
    import tvm

    here = str(tvm.get_global_func("tvm.codegen.llvm.GetHostCPUName")())
    if interface.cpu and interface.cpu != here:
        _LOG.warning("%s was built for %s; this processor is %s (see %s)", library, interface.cpu, here, INTERFACE_FILE)


def _session(model: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # weights listed as inputs get a warning each
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
