"""Softmax and normalisations written as what a vector unit does: reductions, and work element by element.

A reduction has one of two forms, which compute the same:

    reduce   ReduceMax, ReduceMean, ReduceSum
    pool     a view [a, b, 1, n], pooled over 1 x n: for units that pool and do not reduce; a sum is n times the mean
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import onnx_ir as ir

from codesign.graph.graph import shape_of
from codesign.hardware.profile import HardwareProfile
from codesign.rewriting.building import Builder
from codesign.vocabulary import OperationKind

Form: TypeAlias = Literal["reduce", "pool"]
FormOrAuto: TypeAlias = Literal["auto", "pool"]
Division: TypeAlias = Literal["reciprocal", "divide"]
ReductionsOption: TypeAlias = Annotated[
    FormOrAuto, "auto: as reductions, or as poolings where the machine has those alone"
]
DivisionOption: TypeAlias = Annotated[Division, "one reciprocal a row and products, or divisions"]
Statistic: TypeAlias = Literal["max", "mean", "sum"]
Work: TypeAlias = tuple[OperationKind, str]  # a kind, and the ONNX operator of it

_REDUCTIONS: dict[tuple[Form, Statistic], Work] = {
    ("reduce", "max"): (OperationKind.REDUCTION, "ReduceMax"),
    ("reduce", "mean"): (OperationKind.REDUCTION, "ReduceMean"),
    ("reduce", "sum"): (OperationKind.REDUCTION, "ReduceSum"),
    ("pool", "max"): (OperationKind.MAX_POOL, "GlobalMaxPool"),
    ("pool", "mean"): (OperationKind.AVERAGE_POOL, "GlobalAveragePool"),
    ("pool", "sum"): (OperationKind.AVERAGE_POOL, "GlobalAveragePool"),
}
_DIVISIONS: dict[Division, tuple[Work, ...]] = {
    "reciprocal": ((OperationKind.ACTIVATION, "Reciprocal"), (OperationKind.ELEMENTWISE, "Mul")),
    "divide": ((OperationKind.ELEMENTWISE, "Div"),),
}


class CannotDecomposeError(Exception):
    """Why a node stays whole; the message is the reason of a Declined."""


@dataclass(frozen=True)
class Parts:
    """What an operator falls into: statistics over its rows, and work element by element."""

    statistics: tuple[Statistic, ...]
    others: tuple[Work, ...]

    def work(self, form: Form, division: Division) -> tuple[Work, ...]:
        """All of it, divisions included."""
        return (*(_REDUCTIONS[form, name] for name in self.statistics), *self.others, *_DIVISIONS[division])


def form_for(
    profile: HardwareProfile | None, whole: Work, parts: Parts, wanted: FormOrAuto, division: Division
) -> Form:
    """The form of which the machine does every part; of two the first, and that where no machine is given.

    whole: the operator to be decomposed. Raises CannotDecomposeError where the machine does that itself, and where it
    lacks a part in every form: a part on the host is no better than the whole there.
    """
    forms: tuple[Form, ...] = ("reduce", "pool") if wanted == "auto" else ("pool",)
    if profile is None:
        return forms[0]
    if profile.runs(*whole):
        raise CannotDecomposeError(f"{profile.name} does {whole[1]} itself")
    lacking: list[str] = []
    for form in forms:
        missing = [operator for kind, operator in parts.work(form, division) if not profile.runs(kind, operator)]
        if not missing:
            return form
        lacking.append(", ".join(dict.fromkeys(missing)))
    raise CannotDecomposeError(f"{profile.name} does not do all of its parts: it lacks {'; or else '.join(lacking)}")


@dataclass(frozen=True)
class Decomposition:
    """Writes parts before the builder's node. The axis of a statistic stays, with size 1."""

    builder: Builder
    form: Form
    division: Division

    def maximum(self, x: ir.Value, axis: int) -> ir.Value:
        """The largest element along an axis."""
        return self._reduced("max", x, axis)

    def mean(self, x: ir.Value, axis: int) -> ir.Value:
        """The mean along an axis."""
        return self._reduced("mean", x, axis)

    def sum(self, x: ir.Value, axis: int) -> ir.Value:
        """The sum along an axis."""
        total = self._reduced("sum", x, axis)
        if self.form == "reduce":
            return total
        return self.builder.add("Mul", total, self.builder.number(shape_of(x)[axis], x, "count"))

    def divided(self, x: ir.Value, by: ir.Value) -> ir.Value:
        """x / by, where `by` has one element for many of x."""
        if self.division == "divide":
            return self.builder.add("Div", x, by)
        return self.builder.add("Mul", x, self.builder.add("Reciprocal", by))

    def _reduced(self, what: Statistic, x: ir.Value, axis: int) -> ir.Value:
        _, operator = _REDUCTIONS[self.form, what]
        return self.builder.reduce(operator, x, axis) if self.form == "reduce" else self._pooled(operator, x, axis)

    def _pooled(self, operator: str, x: ir.Value, axis: int) -> ir.Value:
        shape = shape_of(x)
        if axis != len(shape) - 1:
            raise ValueError(f"axis {axis} of {shape} is not the last: it is no window")
        rows = shape[0] if len(shape) > 1 else 1
        window = self.builder.reshape(x, (rows, -1, 1, shape[-1]))
        pooled = self.builder.add(operator, window, shape=(*shape_of(window)[:2], 1, 1))
        return self.builder.reshape(pooled, (*shape[:-1], 1))
