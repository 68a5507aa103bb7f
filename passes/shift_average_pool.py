"""shift-average-pool: averages over a power-of-two number of elements divide by shifting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import Annotated, ClassVar

import numpy as np

from codesign.graph.division import DIVISION, Division, written_behind
from codesign.graph.graph import Graph, node_name, shape_of
from codesign.graph.operators import Pool
from codesign.rewriting.edit import insert_after, remove_node, set_constant
from codesign.rewriting.graph_pass import Applied, Declined, Effect, GraphPass, Outcome, PassContext
from codesign.rewriting.resolution import (
    CannotResizeError,
    ResolutionPlan,
    image_input,
    is_power_of_two,
    nearest_power_of_two,
    plan_resolution,
    powers_of_two_around,
    times,
)
from codesign.vocabulary import OperationKind

_MOST_BITS = 16  # of which float32 still shows the error


@dataclass(frozen=True)
class ShiftAveragePool(GraphPass):
    """Divides the sums of average pooling by shifting; with `approximate`, where it must, by multiplying first.

    before:  x [1, 1280, 8, 8] -> GlobalAveragePool -> y          sum of 64, one divider
    after:   x [1, 1280, 8, 8] -> GlobalAveragePool -> y          codesign.division = shift:6

    before:  x [1, 1280, 7, 7] -> GlobalAveragePool -> y                              sum of 49, one divider
    after:   x [1, 1280, 7, 7] -> GlobalAveragePool -> Mul(167 x 49 / 2^13) -> y      codesign.division =
             with approximate=true, bits=8                                 multiply:167,shift:13,count:49

    A window of 2^n elements is only marked: the operator stays what it was, standard ONNX, and the node's metadata says
    `codesign.division: shift:n`, which integer back ends read. Exact: x / 2^n and x shifted right n bits with the same
    rounding are the same number, and in floating point only the exponent changes.

    With `approximate` a window of any other number n of elements is divided as sum x m >> k with m = round(2^k / n) of
    `bits` bits. The quotient is off by a factor of at most 2^-bits: m is at least 2^(bits-1) and rounded by 1/2 at
    most. The factor m n / 2^k stands behind the pooling as a multiplication, so that the rewritten network computes
    with it in floating point as well. Marked `codesign.division: multiply:m,shift:k,count:n`, the two are one
    operation: the cost model prices the pooling, and the multiplication as the division that is part of it.

    AveragePool, GlobalAveragePool and ReduceMean over both spatial axes are looked at. Without `approximate` other
    windows are declined, with the input resolution that would make them a power of two where there is one. Always
    declined is one whose divisor differs at the border (padding that is not counted, or a window that reaches beyond).
    A mark that no longer holds is corrected or removed, with its multiplication.

    Source: Warren, Hacker's Delight, 2nd edition, chapter 10 (division by constants); AveragePool of the ONNX operator
    set.
    """

    name: ClassVar[str] = "shift-average-pool"
    effect: ClassVar[Effect] = Effect.EXACT
    effects: ClassVar[Mapping[str, Effect]] = MappingProxyType({"approximate=true": Effect.APPROXIMATE})

    approximate: Annotated[bool, "also windows that are no power of two, by a multiplication and a shift"] = False
    bits: Annotated[int, "of that multiplication's factor, 1 to 16"] = 8

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= _MOST_BITS:
            raise ValueError(f"bits must be from 1 to {_MOST_BITS}, not {self.bits}")

    def run(self, graph: Graph, context: PassContext) -> list[Outcome]:
        """Mark what can be marked; a mark that no longer holds (the window changed since) is corrected or removed."""
        resolutions = _Resolutions(graph, {})
        outcomes: list[Outcome] = []
        for node in graph.nodes:
            pool = Pool.of(node)
            if pool is not None and pool.kind is OperationKind.AVERAGE_POOL:
                outcomes += self._mark(graph, pool, resolutions)
        return outcomes

    def _mark(self, graph: Graph, pool: Pool, resolutions: _Resolutions) -> list[Outcome]:
        name, count = node_name(pool.node), prod(pool.kernel)
        old, reason = _division_of(pool), _border(pool)
        new = None if reason else self._division(count, old)
        if new is None and not reason:
            reason = f"a {times(pool.kernel)} window divides by {count}, no power of two; {resolutions.advice(pool)}"
        if old == new:
            return [Declined(name, reason)] if reason else []
        _write(graph, pool, new)
        if new is None:
            return [Applied(name, f"no longer marked: {reason}")]
        if new.multiplier is None:
            return [Applied(name, f"divides by {count} with a shift of {new.shift}")]
        error = abs(new.factor - 1)
        return [Applied(name, f"divides by {count} as x {new.multiplier} >> {new.shift}, off by {error:.2%}")]

    def _division(self, count: int, old: Division | None) -> Division | None:
        """How to divide by `count`; what an approximating run wrote before stays as long as it holds."""
        if is_power_of_two(count):
            return Division.exact(count)
        if self.approximate:
            return Division.approximate(count, self.bits)
        return old if old is not None and old.multiplier is not None and old.count == count else None


def _division_of(pool: Pool) -> Division | None:
    """How it is marked: on the pooling itself, or on the multiplication behind it."""
    return Division.marked(written_behind(pool) or pool.node)


def _write(graph: Graph, pool: Pool, division: Division | None) -> None:
    """The mark, and the multiplication where there must be one, in place of those that were there."""
    pool.node.metadata_props.pop(DIVISION, None)
    old = written_behind(pool)
    if division is not None and division.multiplier is not None:
        assert pool.x.dtype is not None
        factor = np.array(division.factor, pool.x.dtype.numpy())
        if old is None:
            old = insert_after(graph, pool.node, "Mul", factor, "division")
        else:
            set_constant(graph, old, 1, factor, "division")
        old.metadata_props[DIVISION] = division.mark
        return
    if old is not None:
        name = old.outputs[0].name
        remove_node(graph, old, pool.y)
        pool.y.name = name
    if division is not None:
        pool.node.metadata_props[DIVISION] = division.mark


def _border(pool: Pool) -> str:
    """Why the divisor is not the same everywhere, or nothing."""
    if any(pool.pads) and not pool.count_include_pad:
        return "its padding is not counted, so the divisor differs at the border"
    for axis in range(2) if pool.ceil_mode else ():
        reach = (pool.output_size[axis] - 1) * pool.strides[axis] + pool.dilations[axis] * (pool.kernel[axis] - 1) + 1
        if reach > pool.input_size[axis] + pool.pads[axis] + pool.pads[axis + 2]:
            return "its last window reaches beyond the padding (ceil_mode), so the divisor differs at the border"
    return ""


@dataclass(frozen=True)
class _Resolutions:
    """Which input resolution makes a global window a power of two; every resolution is worked out once."""

    graph: Graph
    plans: dict[tuple[int, ...], ResolutionPlan | None]

    def advice(self, pool: Pool) -> str:
        """The closing half of a reason."""
        if not pool.is_global:
            return "no input resolution changes that"
        try:
            rows, columns = shape_of(image_input(self.graph))[2:]
        except CannotResizeError:
            return "its input is no picture whose resolution could be changed"
        window = pool.input_size
        below, above = zip(*map(powers_of_two_around, window), strict=True)
        for target in dict.fromkeys((tuple(map(nearest_power_of_two, window)), above, below)):
            scaled = (rows * target[0], columns * target[1])
            if scaled[0] % window[0] or scaled[1] % window[1]:
                continue
            size = (scaled[0] // window[0], scaled[1] // window[1])
            found = self._window(pool, size)
            if found is not None and is_power_of_two(prod(found)):
                return f"an input of {times(size)} instead of {rows}x{columns} would make it {times(found)}"
        return "no nearby input resolution makes it one"

    def _window(self, pool: Pool, size: tuple[int, ...]) -> tuple[int, ...] | None:
        """The pooled feature map at another input resolution, or None where the network cannot take that."""
        if size not in self.plans:
            try:
                self.plans[size] = plan_resolution(self.graph, size)
            except CannotResizeError:
                self.plans[size] = None
        plan = self.plans[size]
        return plan.shape(pool.x)[2:] if plan is not None else None
