"""Multiply-accumulates of a kernel, read back off its TIR, and what its layer's loops say they should be.

Transfers and tiles of caches are not compared: a cache decides itself what it keeps.
"""

from __future__ import annotations

from collections.abc import Iterator

import tvm
from tvm import s_tir, tirx
from tvm.ir import Call

from codesign.errors import Problem
from codesign.lowering.processor.convolution import group_split
from codesign.planning.plan import PlannedLayer
from codesign.vocabulary import OperationKind
from codesign.workload.loop_nest import LoopNest

# The second has two products; one of them is with a zero where a depthwise convolution uses it.
DOT_PRODUCTS = {"llvm.x86.avx512.vpdpbusd.512": 4, "llvm.x86.avx512.vpdpwssd.512": 1}


def macs_of_function(function: object) -> int:
    """Products added to a sum in a register, every lane counted. Raises ValueError for a loop of unknown extent."""
    return _macs(function.body)  # type: ignore[attr-defined]


def _macs(statement: object) -> int:
    match statement:
        case tirx.SeqStmt():
            return sum(_macs(part) for part in statement.seq)
        case tirx.For():
            if not isinstance(statement.extent, tirx.IntImm):
                raise ValueError(f"a loop runs {statement.extent} times")
            return int(statement.extent) * _macs(statement.body)
        case s_tir.SBlockRealize():
            return _macs(statement.block.body)
        case tirx.BufferStore() if statement.buffer.scope() == "local":
            return _products(statement.value) * int(statement.value.ty.dtype.lanes)
        case _:
            return 0


def _products(value: object) -> int:
    """Products a lane adds to its sum in one store."""
    match value:
        case tirx.Add() if isinstance(value.b, tirx.Mul):
            return 1 + _products(value.a)
        case Call() if str(value.op.name) == "tirx.call_llvm_pure_intrin":
            name = str(tvm.get_global_func("target.llvm_get_intrinsic_name")(int(value.args[0])))
            return DOT_PRODUCTS.get(name, 0)
        case _:
            return 0


def macs_expected(nest: LoopNest, lanes: int, input_lanes: int, taps_at_once: int = 1) -> int:
    """Multiply-accumulates of a layer whose channels fill whole vectors, those of idle lanes included.

    taps_at_once: of a row, by a depthwise kernel.
    """
    batch, groups, outputs, inputs, rows, columns, taps_down, taps_across = nest.sizes
    pixels = batch * rows * columns * taps_down * taps_across
    if nest.kind is OperationKind.DEPTHWISE_CONVOLUTION and outputs == 1:
        return _whole(groups, lanes) * pixels // taps_across * _whole(taps_across, taps_at_once)
    apart = group_split(groups, outputs, inputs, lanes, input_lanes)
    if apart is None:
        raise ValueError(f"{groups} groups of {outputs} channels do not fit vectors of {lanes}")
    all_outputs, all_inputs = _whole(groups * outputs, lanes), _whole(groups * inputs, input_lanes)
    return all_outputs * (all_inputs // apart) * pixels


def mac_problems(model: str, planned: PlannedLayer, counted: int, expected: int) -> Iterator[Problem]:
    """Where a kernel does other work than its layer: other MACs than its vectors need, or fewer than the layer has."""
    hint = "this is a fault of codesign: please report it with the model and the profile"
    where = f"{model}: node {planned.layer.name}"
    useful = planned.layer.nest.macs
    if counted != expected:
        yield Problem(where, f"issued MACs: its vectors need {expected}, the kernel does {counted}", hint)
    if counted < useful:
        yield Problem(where, f"useful MACs: the layer has {useful}, the kernel does {counted}", hint)


def _whole(channels: int, lanes: int) -> int:
    return -(-channels // lanes) * lanes
