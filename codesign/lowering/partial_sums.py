"""Partial sums that leave their tile and return, where a tile of outputs lies inside loops over the reduction.

The schedule has already placed the copies out. Their mirror images go in front of what the tile is for:

    for <loops[:position]>:                           among them loops over the reduction
        <where all of those are at 0: zero the tile>
        <everywhere else: copy its partial sums in from the next memory>
        for <loops[position:]>: ...
        <copy the tile out to the next memory>

Only the innermost tile is zeroed: at the first visit, those behind it are overwritten before they are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from codesign.lowering.computation import COMPUTE_STAGE


@dataclass(frozen=True)
class Eviction:
    """A tile of outputs that is copied out, its sums incomplete, at the end of every iteration of `loop`.

    loop: the variable of the loop right outside. reductions: the variables of all reduction loops outside. innermost:
    whether the engine adds into this tile.
    """

    loop: Any
    reductions: tuple[Any, ...]
    innermost: bool


def return_partial_sums(function: Any, evictions: Sequence[Eviction]) -> Any:
    """The function with zeros and partial sums going into the evicted tiles. evictions: innermost tile first.

    The update loses its own initialisation, which knows nothing of the copies.
    """
    import tvm_ffi
    from tvm import s_tir, tirx

    if not evictions:
        return function

    def begin_visits(loop: Any) -> Any:
        leaving = [eviction for eviction in evictions if eviction.loop.same_as(loop.loop_var)]
        if not leaving:
            return loop
        statements = list(loop.body.seq)
        copies_out = statements[-len(leaving) :]
        pairs = reversed(list(zip(leaving, copies_out, strict=True)))
        begin = [statement for eviction, copy_out in pairs for statement in _beginning(eviction, copy_out)]
        body = tirx.SeqStmt([*begin, *statements])
        kept = loop.thread_binding, loop.annotations, loop.step
        return tirx.For(loop.loop_var, loop.min, loop.extent, loop.kind, body, *kept)

    def update(realize: Any) -> Any:
        return realize if realize.block.init is None else _update(realize, evictions[0].reductions)

    return tvm_ffi.structural_map(function, [(s_tir.SBlockRealize, update), (tirx.For, begin_visits)])


def _update(realize: Any, reductions: tuple[Any, ...]) -> Any:
    """The update alone, reading its tile.

    TVM keeps one buffer for all iterations of a reduction axis. An axis that goes on outside the tile is made a plain
    one, so the buffer is as large as the tile.
    """
    from tvm import s_tir, tirx

    block = realize.block
    axes = [
        tirx.IterVar(axis.dom, axis.var, tirx.IterVar.DataPar) if _mentions(value, reductions) else axis
        for axis, value in zip(block.iter_vars, realize.iter_values, strict=True)
    ]
    reads = [*block.writes, *block.reads]
    update = s_tir.SBlock(axes, reads, block.writes, f"{COMPUTE_STAGE}_update", block.body)
    return s_tir.SBlockRealize(realize.iter_values, realize.predicate, update)


def _mentions(expression: Any, variables: tuple[Any, ...]) -> bool:
    import tvm
    import tvm_ffi

    found: set[Any] = set()
    tvm_ffi.structural_walk(expression, [(tvm.ir.Var, found.add)])
    return not found.isdisjoint(variables)


def _beginning(eviction: Eviction, copy_out: Any) -> Iterator[Any]:
    from tvm import tirx

    if eviction.innermost:
        yield _loops_like(copy_out, _zero, *(variable == 0 for variable in eviction.reductions))
    yield _loops_like(copy_out, _copy_in, tirx.any(*(variable > 0 for variable in eviction.reductions)))


def _zero(copy_out: Any) -> Any:
    """The block that puts a zero where the copy reads."""
    from tvm import s_tir, tirx

    tile = copy_out.body.value
    store = tirx.BufferStore(tile.source, tirx.const(0, str(tile.ty)), tile.indices)
    return s_tir.SBlock(copy_out.iter_vars, [], copy_out.reads, f"{COMPUTE_STAGE}_init", store)


def _copy_in(copy_out: Any) -> Any:
    """The block that copies the other way round, called as the buffer it writes."""
    from tvm import s_tir, tirx

    store, tile = copy_out.body, copy_out.body.value
    back = tirx.BufferStore(tile.source, tirx.BufferLoad(store.buffer, store.indices), tile.indices)
    return s_tir.SBlock(copy_out.iter_vars, copy_out.writes, copy_out.reads, str(tile.source.name), back)


def _loops_like(copy: Any, block_like: Callable[[Any], Any], *conditions: Any) -> Any:
    """The loops of a copy, with variables of their own, around another block that runs under further conditions."""
    import tvm
    import tvm_ffi
    from tvm import s_tir, tirx

    own: list[Any] = []
    note_loop = (tirx.For, lambda loop: own.append(loop.loop_var))
    note_axes = (s_tir.SBlock, lambda block: own.extend(axis.var for axis in block.iter_vars))
    tvm_ffi.structural_walk(copy, [note_loop, note_axes])
    fresh = {variable: tvm.ir.Var(variable.name, variable.ty) for variable in own}

    def replaced(realize: Any) -> Any:
        predicate = tirx.all(realize.predicate, *conditions)
        return s_tir.SBlockRealize(realize.iter_values, predicate, block_like(realize.block))

    renew = (tvm.ir.Var, lambda variable: fresh.get(variable, variable))
    return tvm_ffi.structural_map(copy, [renew, (s_tir.SBlockRealize, replaced)])
