"""What a mapping is chosen for."""

from __future__ import annotations

from enum import StrEnum

from codesign.mapping.grid import Floats


class Objective(StrEnum):
    """What is minimised; ties go to the other (latency before energy for edp)."""

    LATENCY = "latency"
    ENERGY = "energy"
    EDP = "edp"

    def values(self, latency: Floats, energy: Floats) -> tuple[Floats, Floats]:
        """Objective and tie-breaker."""
        match self:
            case Objective.LATENCY:
                return latency, energy
            case Objective.ENERGY:
                return energy, latency
            case Objective.EDP:
                return latency * energy, latency

    @property
    def has_ties(self) -> bool:
        """Whether many mappings share its best value."""
        return self is not Objective.EDP
