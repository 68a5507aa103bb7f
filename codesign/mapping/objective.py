"""What a mapping is chosen for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from math import isfinite
from typing import TypeVar

from codesign.errors import CodesignError
from codesign.mapping.grid import Floats

Amount = TypeVar("Amount", float, Floats)


class Objective(StrEnum):
    """What is minimised; ties go to the other (latency before energy for edp)."""

    LATENCY = "latency"
    ENERGY = "energy"
    EDP = "edp"

    def values(self, latency: Amount, energy: Amount) -> tuple[Amount, Amount]:
        """Objective and tie-breaker, from cycles and pJ."""
        if self is _EDP:
            return latency * energy, latency
        return (latency, energy) if self is _LATENCY else (energy, latency)

    def of(self, latency_cycles: float, energy_pj: float) -> float:
        """The objective of one mapping."""
        return self.values(latency_cycles, energy_pj)[0]

    @property
    def has_ties(self) -> bool:
        """Whether many mappings share its best value."""
        return self is not _EDP


_LATENCY, _EDP = Objective.LATENCY, Objective.EDP  # looking a member up takes longer than using it


@dataclass(frozen=True)
class WeightedSum:
    """per_cycle x latency in cycles + per_pj x energy in pJ, weights above 0; ties go to the lower latency."""

    per_cycle: float
    per_pj: float

    def values(self, latency: Amount, energy: Amount) -> tuple[Amount, Amount]:
        """Objective and tie-breaker, from cycles and pJ."""
        return self.per_cycle * latency + self.per_pj * energy, latency

    def of(self, latency_cycles: float, energy_pj: float) -> float:
        """The objective of one mapping."""
        return self.per_cycle * latency_cycles + self.per_pj * energy_pj

    @property
    def has_ties(self) -> bool:
        """Two mappings of the same sum are a coincidence."""
        return False

    def __str__(self) -> str:
        return f"{self.per_cycle:g}*latency+{self.per_pj:g}*energy"


AnyObjective = Objective | WeightedSum


def objective_named(text: str) -> AnyObjective:
    """`latency`, `energy`, `edp`, or a weighted sum such as `1*latency+0.002*energy`. Raises CodesignError."""
    if text in list(Objective):
        return Objective(text)
    weights: dict[str, float] = {}
    for term in text.split("+"):
        number, _, name = term.strip().rpartition("*")
        weight = _positive(number)
        if name.strip() not in ("latency", "energy") or name.strip() in weights or weight is None:
            break
        weights[name.strip()] = weight
    else:
        if len(weights) == 2:
            return WeightedSum(weights["latency"], weights["energy"])
    hint = f"one of {', '.join(Objective)}, or a sum of cycles and pJ such as 1*latency+0.002*energy"
    raise CodesignError("--objective", f"no objective is called {text}", hint)


def _positive(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if isfinite(number) and number > 0 else None
