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

from codesign.lowering.interface import HOST_TAIL_FILE, LIBRARY_FILE
from codesign.lowering.network import LoweredNetwork
from codesign.lowering.processor.registers import register_pipeline
from codesign.lowering.targets import Machine, machine_for

# Every kernel would check the shapes of all its arguments: that is 40 % of all code, shapes are static, and those of
# the inputs are checked when a library is run.
_WITHOUT_ASSERTS = {"tirx.disable_assert": True}


def write_library(
    network: LoweredNetwork, folder: Path, machine: Machine | None = None, threads: int | None = None
) -> Path:
    """Build the network and write it into an existing folder; the path of model.so.

    machine: what it is built for; this one if left out. threads: it runs with, unless told otherwise; None: one a core.
    Raises CodesignError when there is no C compiler to link with.
    """
    machine = machine or machine_for(None)
    path = folder / LIBRARY_FILE
    built(network.module, machine.tvm_target).export_library(os.fspath(path), fcompile=machine.link)
    facts = {"cpu": machine.cpu, "threads": threads, "target": machine.triple}
    write_interface(replace(network, interface=network.interface.model_copy(update=facts)), folder)
    return path


def write_interface(network: LoweredNetwork, folder: Path) -> None:
    """Write what goes into and comes out of a network, and what runs on the host behind it."""
    network.interface.write(folder)
    if network.host_tail is not None:
        ir.save(network.host_tail, folder / HOST_TAIL_FILE)


def built(module: Any, target: Any) -> Any:
    """A module of Relax and TIR functions as an executable of TVM's virtual machine."""
    with target, tvm.transform.PassContext(config=_WITHOUT_ASSERTS):
        return relax.build(legalised(module), target, tir_pipeline=register_pipeline())


def legalised(module: Any, *, with_views: bool = False) -> Any:
    """A network's module with every operator a call of TIR, neighbours fused, what nobody reads left out.

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
