"""What happens to a kernel's TIR before it is printed: a plain schedule where it has none, then TVM's lowering.

pad; conv; add; relu, each over a buffer of its own   -->   one loop nest with the sum in a variable
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from math import prod
from typing import Any

import tvm
import tvm_ffi
from tvm import s_tir, tirx

from codesign.lowering.c_source.program import SCHEDULED

_LOG = logging.getLogger(__name__)
_LARGEST_INLINED = 300  # nodes of an expression, times how often it would be evaluated


def lowered(function: Any, name: str) -> Any:
    """A scheduled PrimFunc as flat loops over flat buffers with 32-bit indices where they suffice."""
    module = tvm.IRModule({name: function.with_attr("global_symbol", name)})
    return tvm.transform.Sequential(_passes(by_hand=is_scheduled(function)))(module)[name]


def is_scheduled(function: Any) -> bool:
    """Whether a function was built loop by loop and must stay as it is."""
    return function.attrs is not None and SCHEDULED in function.attrs


def _passes(*, by_hand: bool) -> list[Any]:
    """TVM's own lowering as far as it has nothing to do with its runtime.

    by_hand: buffers keep their sizes. Microkernels are given the place of one element and touch those behind it, which
    compaction does not see.
    """
    compaction = [] if by_hand else [s_tir.transform.CompactBufferAllocation()]
    return [
        s_tir.transform.CanonicalizeLoop(),
        s_tir.transform.LowerInitBlock(),
        s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
        s_tir.transform.ConvertBlocksToOpaque(),
        *compaction,
        s_tir.transform.LowerMatchBuffer(),
        s_tir.transform.StmtSimplify(),
        s_tir.transform.LowerOpaqueBlock(),
        tirx.transform.FlattenBuffer(),
        tirx.transform.NarrowDataType(32),
        tirx.transform.UnrollLoop(),
        s_tir.transform.RenormalizeSplitPattern(),
        tirx.transform.StmtSimplify(),
        tirx.transform.RemoveNoOp(),
    ]


def with_plain_schedule(function: Any) -> Any:
    """An unscheduled PrimFunc with everything element-wise inlined and sums finished where they are used.

    Values are computed as before, in the same order; only buffers between the blocks go.
    """
    schedule = s_tir.Schedule(function.with_attr("global_symbol", "main"), error_render_level="fast")
    names = [str(schedule.get(block).name_hint) for block in _blocks(schedule)]
    for name in reversed(names):
        _inline(schedule, name)
    for name in (str(schedule.get(block).name_hint) for block in _blocks(schedule)):
        _finish_at_consumer(schedule, name)
    for block in _blocks(schedule):
        _start_sum_before_its_loops(schedule, block)
    return _loops_named_after_axes(schedule.mod["main"])


def _loops_named_after_axes(function: Any) -> Any:
    """Loops that moved were renumbered; their axes kept the names of the dimensions."""
    names: dict[Any, str] = {}

    def note(realize: Any) -> None:
        for axis, value in zip(realize.block.iter_vars, realize.iter_values, strict=True):
            if isinstance(value, tvm.ir.Var):
                names[value] = str(axis.var.name).removeprefix("v_")

    renamed: dict[Any, Any] = {}

    def rename(variable: Any) -> Any:
        if variable not in renamed:
            renamed[variable] = tvm.ir.Var(names[variable], variable.ty) if variable in names else variable
        return renamed[variable]

    tvm_ffi.structural_walk(function, [(s_tir.SBlockRealize, note)])
    return tvm_ffi.structural_map(function, [(tvm.ir.Var, rename)])


def _blocks(schedule: Any) -> list[Any]:
    return list(schedule.get_child_blocks(schedule.get_sblock("root")))


def _inline(schedule: Any, name: str) -> None:
    """An element-wise block goes into those that read it, unless much would be evaluated often for it."""
    block = schedule.get_sblock(name)
    consumers = schedule.get_consumers(block)
    if not consumers or not _is_spatial(schedule, block):
        return
    buffer = schedule.get(block).writes[0].source
    uses = sum(_loads(schedule.get(consumer), buffer) for consumer in consumers)
    if uses * _nodes(schedule.get(block)) <= _LARGEST_INLINED:
        _attempt(lambda: schedule.compute_inline(block))


def _finish_at_consumer(schedule: Any, name: str) -> None:
    """Move a block to where its only reader reads it, element by element, so that its buffer shrinks to one number."""
    block = schedule.get_sblock(name)
    consumers = schedule.get_consumers(block)
    if len(consumers) != 1 or not _is_spatial(schedule, consumers[0]):
        return
    loops = schedule.get_loops(consumers[0])
    made = prod(int(size) for size in schedule.get(block).writes[0].source.shape)
    read = prod(int(schedule.get(loop).extent) for loop in loops)
    if loops and made == read:
        _attempt(lambda: schedule.compute_at(block, loops[-1]))


def _start_sum_before_its_loops(schedule: Any, block: Any) -> None:
    """Zero a sum before the loops over it rather than in their first iteration."""
    if schedule.get(block).init is None:
        return
    summed = _summed_over(schedule, str(schedule.get(block).name_hint))
    first = next((loop for loop in schedule.get_loops(block) if schedule.get(loop).loop_var in summed), None)
    if first is not None:
        _attempt(lambda: schedule.decompose_reduction(block, first))


def _summed_over(schedule: Any, name: str) -> set[Any]:
    """Variables of the loops over a block's reduction axes."""
    found: set[Any] = set()

    def note(realize: Any) -> None:
        if str(realize.block.name_hint) == name:
            for axis, value in zip(realize.block.iter_vars, realize.iter_values, strict=True):
                if int(axis.iter_type) == tirx.IterVar.CommReduce:
                    tvm_ffi.structural_walk(value, [(tvm.ir.Var, found.add)])

    tvm_ffi.structural_walk(schedule.mod["main"], [(s_tir.SBlockRealize, note)])
    return found


def _is_spatial(schedule: Any, block: Any) -> bool:
    return all(int(axis.iter_type) == tirx.IterVar.DataPar for axis in schedule.get(block).iter_vars)


def _loads(block: Any, buffer: Any) -> int:
    """How often a block's body names a buffer."""
    found = []

    def note(load: Any) -> None:
        if load.source.same_as(buffer):
            found.append(load)

    tvm_ffi.structural_walk(block.body, [(tvm.ir.TensorLoad, note)])
    return len(found)


def _nodes(block: Any) -> int:
    """How large a block's expression is."""
    found: list[Any] = []
    tvm_ffi.structural_walk(block.body, [(tvm.ir.Expr, found.append)])
    return len(found)


def _attempt(change: Callable[[], object]) -> None:
    """Make a change where the schedule allows it; where it does not, the kernel stays as it was, only slower."""
    try:
        change()
    except s_tir.ScheduleError as error:
        _LOG.debug("not scheduled: %s", error)
