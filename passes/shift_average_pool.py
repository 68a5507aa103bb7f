"""shift-average-pool: averages over a power-of-two number of elements divide by shifting."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

from codesign.graph.graph import Graph, node_name, shape_of
from codesign.graph.operators import Pool
from codesign.rewriting.graph_pass import Applied, Declined, Effect, GraphPass, Outcome, PassContext
from codesign.rewriting.resolution import (
    CannotResizeError,
    ResolutionPlan,
    image_input,
    is_power_of_two,
    nearest_power_of_two,
    plan_resolution,
    times,
)
from codesign.vocabulary import OperationKind

DIVISION = "codesign.division"


@dataclass(frozen=True)
class ShiftAveragePool(GraphPass):
    """Marks every average pooling over 2^n elements: its sum is divided by shifting right n bits.

    before:  x [1, 1280, 8, 8] -> GlobalAveragePool -> y          sum of 64, one divider
    after:   x [1, 1280, 8, 8] -> GlobalAveragePool -> y          codesign.division = shift:6

    The operator stays what it was, standard ONNX; only the node's metadata says `codesign.division: shift:n`, which
    the integer back ends read. Exact: x / 2^n and x shifted right n bits with the same rounding are the same number,
    and in floating point only the exponent changes.

    AveragePool, GlobalAveragePool and ReduceMean over both spatial axes are looked at. A window of any other number
    of elements is declined, with the input resolution that would make it a power of two where there is one. So is
    one whose divisor differs at the border (padding that is not counted, or a window that reaches beyond it).
    """

    name: ClassVar[str] = "shift-average-pool"
    effect: ClassVar[Effect] = Effect.EXACT

    def run(self, graph: Graph, context: PassContext) -> list[Outcome]:
        """Mark what can be marked; a mark that no longer holds (the window changed since) is corrected or removed."""
        resolutions = _Resolutions(graph, {})
        outcomes: list[Outcome] = []
        for node in graph.nodes:
            pool = Pool.of(node)
            if pool is not None and pool.kind is OperationKind.AVERAGE_POOL:
                outcomes += _mark(pool, resolutions)
        return outcomes


def _mark(pool: Pool, resolutions: _Resolutions) -> list[Outcome]:
    node, name, count = pool.node, node_name(pool.node), prod(pool.kernel)
    reason = _border(pool)
    if not reason and not is_power_of_two(count):
        reason = f"a {times(pool.kernel)} window divides by {count}, no power of two; {resolutions.advice(pool)}"
    mark = None if reason else f"shift:{count.bit_length() - 1}"
    if node.metadata_props.get(DIVISION) == mark:
        return [Declined(name, reason)] if reason else []
    if mark is None:
        del node.metadata_props[DIVISION]
        return [Applied(name, f"no longer marked: {reason}")]
    node.metadata_props[DIVISION] = mark
    return [Applied(name, f"divides by {count} with a shift of {count.bit_length() - 1}")]


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
        above = tuple(1 << (side - 1).bit_length() for side in window)
        below = tuple(1 << (side.bit_length() - 1) for side in window)
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
