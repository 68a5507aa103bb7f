"""Multiply-accumulates of a kernel for small processors, read back off its TIR."""

from __future__ import annotations

import re

from tvm import tirx
from tvm.ir import Call

GROUP = 4  # products of one sum a step of an integer microkernel adds
_BLOCK = re.compile(r"multiply_(\d+)x(\d+)")


def macs_of_function(function: object) -> int:
    """Of a convolution or a matrix product. Raises ValueError where how many there are is known only at run time."""
    return _macs(function.body)  # type: ignore[attr-defined]


def _macs(statement: object) -> int:
    match statement:
        case tirx.SeqStmt():
            return sum(_macs(part) for part in statement.seq)
        case tirx.For():
            inside = _macs(statement.body)
            if inside and not isinstance(statement.extent, tirx.IntImm):
                raise ValueError(f"a loop runs {statement.extent} times")
            return int(statement.extent) * inside if inside else 0
        case tirx.IfThenElse():
            parts = [statement.then_case, *([statement.else_case] if statement.else_case is not None else [])]
            if any(_macs(part) for part in parts):
                raise ValueError(f"there are products only if {statement.condition}")
            return 0
        case tirx.BufferStore():
            return _products(statement.value)
        case tirx.Evaluate():
            return _products(statement.value)
        case _ if hasattr(statement, "block"):
            return _macs(statement.block.body)
        case _ if hasattr(statement, "body"):
            return _macs(statement.body)
        case _:
            return 0


def _products(value: object) -> int:
    if not isinstance(value, Call) or str(getattr(value.op, "name", "")) != "tirx.call_extern":
        return 0
    name = str(value.args[0].value)
    if name == "multiply_add":
        return 1
    found = _BLOCK.fullmatch(name)
    return int(found[1]) * int(found[2]) * GROUP * int(value.args[-1]) if found else 0
