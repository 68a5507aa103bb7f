"""How kernels for processors are written down: TIR over flat buffers, sums in buffers that become vector registers."""

from __future__ import annotations

from typing import Any

import tvm
import tvm_ffi
from tvm import tirx
from tvm.s_tir import pipeline as s_tir_pipeline
from tvm.tirx import compilation_pipeline
from tvm.tirx.script.builder import ir as T

PIPELINE = "codesign_processor"
# Builtin lowering would fetch every allocation from the workspace pool, at a call each, and what lies there never gets
# into a register; allocations with this annotation stay on the stack, where LLVM promotes them.
_ON_STACK = {"disable_lower_builtin": True}

Expression = Any  # an expression of TIR; tvm carries no types
Buffer = Any


def register(lanes: int, dtype: str = "float32") -> Buffer:
    """A buffer of one vector, addressed with constants alone: LLVM keeps it in a register."""
    return T.alloc_buffer((lanes,), dtype, scope="local")


def vector(index: Expression, lanes: int) -> Expression:
    """Indices of `lanes` elements side by side."""
    return T.ramp(index, 1, lanes) if lanes > 1 else index


def splat(value: Expression, lanes: int) -> Expression:
    """One value in every lane."""
    return T.broadcast(value, lanes) if lanes > 1 else value


def load(buffer: Buffer, index: Expression, lanes: int) -> Expression:
    """A vector from memory."""
    return buffer[vector(index, lanes)]


def store(buffer: Buffer, index: Expression, lanes: int, value: Expression) -> None:
    """A vector to memory."""
    T.buffer_store(buffer, value, [vector(index, lanes)])


def register_pipeline() -> str:
    """Make the lowering of these kernels known to TVM; its name, for relax.build and tvm.compile."""
    compilation_pipeline.register_tir_pipeline(PIPELINE, _pipeline)
    return PIPELINE


def _pipeline() -> tuple[Any, Any, Any]:
    """TVM's own order, then registers marked: its passes drop annotations on the way."""
    passes, finish_host, finish_device = s_tir_pipeline.default_s_tir_pipeline()
    return tvm.transform.Sequential([passes, _stay_on_stack]), finish_host, finish_device


@tvm.transform.module_pass(opt_level=0, name="codesign.StayOnStack")  # type: ignore[untyped-decorator]
def _stay_on_stack(module: Any, _: Any) -> Any:
    functions = {name: _marked(function) for name, function in module.functions.items()}
    return tvm.IRModule(functions, attrs=module.attrs)


def _marked(function: Any) -> Any:
    if not isinstance(function, tirx.PrimFunc) or "codesign_processor" not in (function.attrs or {}):
        return function
    return tvm_ffi.structural_map(function, [(tirx.AllocBuffer, _mark)])


def _mark(allocation: Any) -> Any:
    if allocation.buffer.scope() != "local":
        return allocation
    return tirx.AllocBuffer(allocation.buffer, {name: tirx.const(1, "bool") for name in _ON_STACK})
