"""From a lowered network to a folder that can be run: model.so, its interface, and the host's part of the network."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
import tvm
from tvm import relax
from tvm.relax import transform
from tvm.support import cc

from codesign.errors import CodesignError
from codesign.lowering.interface import HOST_TAIL_FILE, LIBRARY_FILE
from codesign.lowering.network import LoweredNetwork

# Level 3 takes twice as long as 2 and the code is no faster. Every kernel would check the shapes of all its arguments:
# that is 40 % of all code, shapes are static, and those of the inputs are checked when a library is run.
_OPTIMIZATION_LEVEL = 2
_WITHOUT_ASSERTS = {"tirx.disable_assert": True}


def host_cpu() -> str:
    """LLVM's name of this machine's processor."""
    return str(tvm.get_global_func("tvm.codegen.llvm.GetHostCPUName")())


def host_target() -> Any:
    """TVM's target for exactly this machine.

    Features are named one by one: on a virtual machine the processor's name promises more than there is.
    """
    features = tvm.get_global_func("tvm.codegen.llvm.GetHostCPUFeatures")()
    attributes = [f"{'+' if present else '-'}{name}" for name, present in sorted(features.items())]
    options = {"kind": "llvm", "mcpu": host_cpu(), "mattr": attributes, "opt-level": _OPTIMIZATION_LEVEL}
    return tvm.target.Target(options)


def write_library(network: LoweredNetwork, folder: Path) -> Path:
    """Build the network for this machine's processor and write it into an existing folder; the path of model.so.

    Raises CodesignError when there is no C compiler to link with.
    """
    if cc.get_cc() is None:
        raise CodesignError(LIBRARY_FILE, "needs a C compiler to be linked; none was found", "install gcc or clang")
    target = host_target()
    with target, tvm.transform.PassContext(config=_WITHOUT_ASSERTS):
        module = legalised(network.module)
        executable = relax.build(module, target)
    path = folder / LIBRARY_FILE
    executable.export_library(os.fspath(path))
    write_interface(replace(network, interface=network.interface.model_copy(update={"cpu": host_cpu()})), folder)
    return path


def write_interface(network: LoweredNetwork, folder: Path) -> None:
    """Write what goes into and comes out of a network, and what runs on the host behind it."""
    network.interface.write(folder)
    if network.host_tail is not None:
        ir.save(network.host_tail, folder / HOST_TAIL_FILE)


def legalised(module: Any, *, with_views: bool = False) -> Any:
    """A network's module with every operator a call of TIR, neighbours fused.

    TVM's own order without FoldConstant, which runs every folded kernel through the compiler and takes minutes.
    with_views: reshapes stay what they are, for who needs no code for them; else they are copies.
    """
    views = [transform.RewriteDataflowReshape()] if with_views else []
    passes = [
        transform.DeadCodeElimination(),
        transform.DecomposeOpsForInference(),
        transform.CanonicalizeBindings(),
        transform.LegalizeOps(skip_ops=["relax.reshape"] if with_views else None),
        *views,
        transform.AnnotateTIROpPattern(),
        transform.FuseOps(),
        transform.FuseTIR(),
    ]
    return tvm.transform.Sequential(passes)(module)
