"""Scheduled TIR as plain data: every store with its loops, its conditions and what it loads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import add, and_, eq, floordiv, ge, gt, le, lt, mod, mul, ne, or_, sub
from typing import Any

import numpy as np
from numpy.typing import NDArray

Grid = NDArray[Any]
Environment = dict["Loop", Grid]

AXIS_ANNOTATION = "codesign.axis"
LANES_ANNOTATION = "codesign.lanes"
SCOPE_PREFIX = "global."
RESERVED_NAME = "vtcm"  # TVM gives every scope that begins with global.vtcm a meaning of its own

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "Add": add,
    "Sub": sub,
    "Mul": mul,
    "FloorDiv": floordiv,
    "FloorMod": mod,
    "Min": np.minimum,
    "Max": np.maximum,
    "EQ": eq,
    "NE": ne,
    "LT": lt,
    "LE": le,
    "GT": gt,
    "GE": ge,
    "And": and_,
    "Or": or_,
}


def scope_of(memory: str) -> str:
    """Storage scope of the tiles in an on-chip memory: `global.<memory>` (`global._<memory>` where TVM reserves it)."""
    return SCOPE_PREFIX + (f"_{memory}" if memory.startswith(RESERVED_NAME) else memory)


def memory_of(scope: str) -> str:
    """The on-chip memory of a storage scope; "" for a parameter of the function, which lies off chip."""
    return scope.removeprefix(SCOPE_PREFIX).removeprefix("_") if scope.startswith(SCOPE_PREFIX) else ""


@dataclass(frozen=True, eq=False)
class Loop:
    """One loop from 0. lanes: the lanes it is annotated with when it is spatial, otherwise 0."""

    name: str
    extent: int
    lanes: int


@dataclass(frozen=True, eq=False)
class Term:
    """An integer or boolean expression over loops, evaluated on numpy grids."""

    loops: frozenset[Loop]
    value: Callable[[Environment], Any]


@dataclass(frozen=True)
class Access:
    """A load from or a store into a buffer (a tvm buffer variable)."""

    buffer: Any
    indices: tuple[Term, ...]

    @property
    def memory(self) -> str:
        """The on-chip memory the buffer lies in, "" off chip."""
        return memory_of(str(self.buffer.ty.storage_scope))


@dataclass(frozen=True, eq=False)
class Statement:
    """One store of the function.

    loops: around it, outermost first; the last `own` of them hold nothing else. conditions: all must hold for it to
    run; guards: all must hold for its loads to happen (an if_then_else around them).
    """

    block: str
    loops: tuple[Loop, ...]
    own: int
    conditions: tuple[Term, ...]
    guards: tuple[Term, ...]
    store: Access
    loads: tuple[Access, ...]


def statements_of(function: Any) -> list[Statement]:
    """All stores of a scheduled PrimFunc in program order. Raises ValueError for TIR no schedule of ours contains."""
    return list(_statements(function.body.block.body, (), 0))


def _statements(node: Any, loops: tuple[tuple[Any, Loop], ...], shared: int) -> Iterator[Statement]:
    match type(node).__name__:
        case "SeqStmt":
            for part in node.seq:
                yield from _statements(part, loops, len(loops))
        case "For":
            lanes = int(node.annotations.get(LANES_ANNOTATION, 0))
            loop = Loop(str(node.loop_var.name), int(node.extent), lanes)
            yield from _statements(node.body, (*loops, (node.loop_var, loop)), shared)
        case "SBlockRealize":
            yield _statement(node, loops, shared)
        case other:
            raise ValueError(f"unexpected {other} in scheduled TIR")


def _statement(realize: Any, loops: tuple[tuple[Any, Loop], ...], shared: int) -> Statement:
    block = realize.block
    variables = {variable: _loop_term(loop) for variable, loop in loops}
    conditions = tuple(_conjuncts(realize.predicate, variables))
    for axis, value in zip(block.iter_vars, realize.iter_values, strict=True):
        variables[axis.var] = _term(value, variables)
    store = block.body
    if type(store).__name__ != "BufferStore":
        raise ValueError(f"block {block.name_hint}: a single store was expected")
    if block.init is not None:
        raise ValueError(f"block {block.name_hint}: its initialisation must be a block of its own")
    value, guards = _guarded(store.value, variables)
    return Statement(
        block=str(block.name_hint),
        loops=tuple(loop for _, loop in loops),
        own=len(loops) - shared,
        conditions=conditions,
        guards=tuple(guards),
        store=Access(store.buffer, tuple(_term(index, variables) for index in store.indices)),
        loads=tuple(_loads(value, variables)),
    )


def _guarded(value: Any, variables: dict[Any, Term]) -> tuple[Any, list[Term]]:
    if type(value).__name__ == "Call" and value.op.name == "prim.if_then_else":
        condition, inside, _ = value.args
        return inside, list(_conjuncts(condition, variables))
    return value, []


def _loads(value: Any, variables: dict[Any, Term]) -> Iterator[Access]:
    match type(value).__name__:
        case "TensorLoad":
            yield Access(value.source, tuple(_term(index, variables) for index in value.indices))
        case "Add" | "Mul":
            yield from _loads(value.a, variables)
            yield from _loads(value.b, variables)
        case "Cast":
            yield from _loads(value.value, variables)
        case "FloatImm" | "IntImm":
            return
        case other:
            raise ValueError(f"unexpected {other} in the value of a store")


def _conjuncts(condition: Any, variables: dict[Any, Term]) -> Iterator[Term]:
    if type(condition).__name__ == "And":
        yield from _conjuncts(condition.a, variables)
        yield from _conjuncts(condition.b, variables)
        return
    term = _term(condition, variables)
    if term.loops or not term.value({}):
        yield term


def _loop_term(loop: Loop) -> Term:
    return Term(frozenset((loop,)), lambda grid: grid[loop])


def _term(expression: Any, variables: dict[Any, Term]) -> Term:
    kind = type(expression).__name__
    match kind:
        case "IntImm":
            constant = int(expression.value)
            return Term(frozenset(), lambda grid: constant)
        case "Var":
            return variables[expression]
        case "Cast":
            return _term(expression.value, variables)
        case "Not":
            inner = _term(expression.a, variables)
            return Term(inner.loops, lambda grid: np.logical_not(inner.value(grid)))
        case _ if kind in _OPERATORS:
            operator = _OPERATORS[kind]
            left, right = _term(expression.a, variables), _term(expression.b, variables)
            return Term(left.loops | right.loops, lambda grid: operator(left.value(grid), right.value(grid)))
        case _:
            raise ValueError(f"unexpected {kind} in an index or a condition")
