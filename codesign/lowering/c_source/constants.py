"""Calls whose operands are all constants, computed now: the weights of a C program are stored as kernels read them."""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax


def folded_constants(module: Any, function: Any) -> dict[Any, np.ndarray]:
    """What variables of a function hold whatever the inputs are. Calls of several results are left as they are.

    All kernels needed are compiled in one go for this machine: TVM's FoldConstant compiles one by one.
    """
    steps = _constant_steps(function)
    names = dict.fromkeys(str(value.args[0].name_hint) for _, value in steps if _is_call_tir(value))
    kernels: Any = _compiled(module, list(names)) if names else {}
    found: dict[Any, np.ndarray] = {}
    for variable, value in steps:
        operands = value.args[1].fields if _is_call_tir(value) else [value.args[0]]
        arrays = [found[part] if part in found else part.value.numpy() for part in operands]
        shape = tuple(int(size) for size in value.ty.shape)
        if _is_call_tir(value):
            result = tvm.runtime.tensor(np.zeros(shape, str(value.ty.dtype)))
            kernels[str(value.args[0].name_hint)](*map(tvm.runtime.tensor, arrays), result)
            found[variable] = result.numpy()
        else:
            found[variable] = arrays[0].reshape(shape)
    return found


def _constant_steps(function: Any) -> list[tuple[Any, Any]]:
    """Bindings of calls and reshapes on constants alone, in order."""
    known: set[Any] = set()
    steps = []
    for block in function.body.blocks:
        for binding in block.bindings:
            value = binding.value
            if not isinstance(value, relax.Call) or isinstance(value.ty, relax.TupleType):
                continue
            if _is_call_tir(value):
                operands = list(value.args[1].fields)
            elif str(getattr(value.op, "name", "")) == "relax.reshape":
                operands = [value.args[0]]
            else:
                continue
            if operands and all(isinstance(part, tvm.ir.GenericConst) or part in known for part in operands):
                known.add(binding.var)
                steps.append((binding.var, value))
    return steps


def _is_call_tir(value: Any) -> bool:
    return str(getattr(value.op, "name", "")) == "relax.call_tir"


def _compiled(module: Any, names: list[str]) -> Any:
    functions = {name: module[name].with_attr("global_symbol", name) for name in names}
    target = tvm.target.Target({"kind": "llvm", "opt-level": 1})
    return tvm.compile(tvm.IRModule(functions), target=target)
