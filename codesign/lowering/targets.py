"""What a library is built for: this machine's processor, or another one that LLVM knows, and who links it."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tvm
from tvm.support import cc

from codesign.errors import CodesignError, did_you_mean

_LOG = logging.getLogger(__name__)
# Level 3 takes twice as long as 2 and the code is no faster.
_OPTIMIZATION_LEVEL = 2
_WIDTHS = (("avx512f", 512), ("avx", 256), ("sse2", 128))


@dataclass(frozen=True)
class Machine:
    """tvm_target: TVM's. cpu: LLVM's name of the processor. triple: empty for this machine. link: what export_library
    takes; None for the C compiler of this machine. vector_bits: of its widest vectors, None where that is not known."""

    tvm_target: Any
    cpu: str
    triple: str = ""
    link: Callable[..., Any] | None = None
    vector_bits: int | None = None


def host_cpu() -> str:
    """LLVM's name of this machine's processor."""
    return str(tvm.get_global_func("tvm.codegen.llvm.GetHostCPUName")())


def host_target() -> Any:
    """TVM's target for exactly this machine.

    Features are named one by one: on a virtual machine the processor's name promises more than there is.
    """
    attributes = [f"{'+' if present else '-'}{name}" for name, present in sorted(host_features().items())]
    options = {"kind": "llvm", "mcpu": host_cpu(), "mattr": attributes, "opt-level": _OPTIMIZATION_LEVEL}
    return tvm.target.Target(options)


def host_vector_bits() -> int | None:
    """Width of this machine's widest vectors, from the features LLVM reports; None where they name none we know."""
    features = host_features()
    return next((bits for name, bits in _WIDTHS if features.get(name)), 128 if features.get("neon") else None)


def machine_for(target: str | None) -> Machine:
    """The machine `--target` names: a triple, or triple:cpu with LLVM's name of a processor; None is this one.

    Raises CodesignError for a machine LLVM does not know, and when there is no compiler to link with.
    """
    if target is None:
        if cc.get_cc() is None:
            raise CodesignError("model.so", "needs a C compiler to be linked; none was found", "install gcc or clang")
        return Machine(host_target(), host_cpu(), vector_bits=host_vector_bits())
    triple, _, cpu = target.partition(":")
    architecture = triple.partition("-")[0]
    known = [str(name) for name in tvm.get_global_func("target.llvm_get_targets")()]
    if architecture not in known or "-" not in triple:
        guess = did_you_mean(architecture, known)
        hint = f"{guess} a triple is processor, system and more: aarch64-linux-gnu".strip()
        raise CodesignError(f"--target {target}", f"LLVM knows no processor {architecture!r}", hint)
    options = {"kind": "llvm", "mtriple": triple, "opt-level": _OPTIMIZATION_LEVEL}
    if cpu:
        _check_cpu(target, triple, cpu)
        options["mcpu"] = cpu
    link = cc.cross_compiler(_linker(target, triple))
    return Machine(tvm.target.Target(options), cpu, triple, link, 128 if architecture == "aarch64" else None)


def warn_about_vectors(machine: Machine, vector_bits: int, profile: str) -> None:
    """Log when kernels are laid out for wider vectors than the machine has: they run, but sums leave the registers."""
    if machine.vector_bits is not None and machine.vector_bits < vector_bits:
        where = machine.triple or "this machine"
        text = "%s has vectors of %d bits, %s of %d: its kernels will be slow; `codesign hw detect FILE` on the machine"
        _LOG.warning(text + " writes a profile that fits", profile, vector_bits, where, machine.vector_bits)


def _check_cpu(target: str, triple: str, cpu: str) -> None:
    arch = tvm.target.Target({"kind": "llvm", "mtriple": triple})
    listing = tvm.get_global_func("target.llvm_get_cpu_archlist", allow_missing=True)
    if listing is None:
        return
    known = [str(name) for name in listing(arch)]
    if known and cpu not in known:
        guess = did_you_mean(cpu, known)
        raise CodesignError(f"--target {target}", f"LLVM knows no {triple.partition('-')[0]} called {cpu!r}", guess)


def _linker(target: str, triple: str) -> str:
    """A compiler for the triple: GCC's cross compiler by its usual name."""
    for name in (f"{triple}-gcc", f"{triple}-g++"):
        if shutil.which(name):
            return name
    problem = f"model.so needs {triple}-gcc to be linked; it was not found"
    raise CodesignError(f"--target {target}", problem, "install the cross compiler; its folder must be on PATH")


def host_features() -> dict[str, bool]:
    """What LLVM reports of this processor: features by name, and whether it has them."""
    found = tvm.get_global_func("tvm.codegen.llvm.GetHostCPUFeatures")()
    return {str(name): bool(present) for name, present in found.items()}
