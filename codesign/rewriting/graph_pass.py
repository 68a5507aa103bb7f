"""What a pass is: a frozen dataclass whose fields are its options, a declared effect, and `run`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Protocol, TypeAlias

import numpy as np

from codesign.graph.graph import Graph
from codesign.graph.samples import Samples
from codesign.hardware.profile import HardwareProfile
from codesign.rewriting.record import DeclinedRecord as Declined
from codesign.rewriting.record import QuantizationRecord


class Effect(StrEnum):
    """What a pass may do to the function the network computes; tests are generated from it.

    EXACT: the same function, up to the rounding of floating point. APPROXIMATE: the same network, other numbers.
    RESHAPES: another network (other channels, another resolution).
    """

    EXACT = "EXACT"
    APPROXIMATE = "APPROXIMATE"
    RESHAPES = "RESHAPES"


@dataclass(frozen=True)
class Applied:
    """One place a pass changed, and what it did there."""

    where: str
    detail: str


Outcome: TypeAlias = Applied | Declined | QuantizationRecord


@dataclass(frozen=True)
class Price:
    """What a network costs on the machine of the context, per inference, and how large it is.

    score: what the user wants least of, the lower the better: cycles, pJ, their product or a weighted sum of them.
    dram_bytes: read from and written into the outermost memory. parameters: learned values, shared ones counted once.
    """

    score: float
    cycles: int
    energy_pj: float
    dram_bytes: int
    macs: int
    parameters: int


class CostOracle(Protocol):
    """Prices a graph for the passes that decide by cost; only the compiler supplies one.

    Layers that were priced before, in any graph, are not searched again: a graph a little different costs little time.
    """

    def price(self, graph: Graph) -> Price:
        """Cost of one inference. Raises DoesNotFitError when a layer fits no engine; all shapes must be static."""
        ...


@dataclass(frozen=True)
class ConstantAxis:
    """An axis of a constant, by the name of its tensor."""

    tensor: str
    axis: int


class SensitivityOracle(Protocol):
    """Says what a loss makes of weights, for the passes that decide by data; only the compiler supplies one."""

    def sensitivities(
        self, graph: Graph, data: Path, wanted: Collection[ConstantAxis]
    ) -> Mapping[ConstantAxis, np.ndarray]:
        """weight x gradient of the loss, summed over all axes but the wanted one: [steps, entries], float64.

        data: an .npz file with the network's inputs by name, samples along the first axis, and `labels` if there are
        any. A step is one sample, or as many as the network takes at once. A constant that is no weight has no entry.
        Raises CodesignError when the file does not fit or the gradients cannot be had.
        """
        ...


@dataclass(frozen=True)
class PassContext:
    """What a pass may ask about beyond its graph; each may be absent.

    calibration: inputs of the imported network that activations are measured on.
    """

    profile: HardwareProfile | None = None
    cost_oracle: CostOracle | None = None
    sensitivity_oracle: SensitivityOracle | None = None
    calibration: Samples | None = None


class GraphPass(ABC):
    """Base of all passes. A subclass is a frozen dataclass; its fields are its options.

    Every option is `Annotated[type, "what it means"]` with a default; type is int, float, bool, str or Literal.
    An option's value is checked in `__post_init__`, which raises ValueError. The docstring has a before/after picture
    and ends with a paragraph `Source: ...`.

    effect: with the default options. effects: with other ones, by `option=value`, where they have another.
    reads_calibration: whether it measures activations on the calibration data of its context.
    """

    name: ClassVar[str]
    effect: ClassVar[Effect]
    effects: ClassVar[Mapping[str, Effect]] = MappingProxyType({})
    reads_calibration: ClassVar[bool] = False

    @property
    def effect_here(self) -> Effect:
        """The effect with the options as they are: the gravest `effects` names for one of them, or else `effect`."""
        found = [effect for choice, effect in self.effects.items() if self._has(*choice.split("="))]
        return max(found, key=list(Effect).index, default=self.effect)

    def _has(self, option: str, value: str) -> bool:
        return str(getattr(self, option)).lower() == value

    @abstractmethod
    def run(self, graph: Graph, context: PassContext) -> list[Outcome]:
        """Change `graph` in place (the caller made the copy); say where it was done, and where not and why."""


__all__ = [
    "Applied",
    "ConstantAxis",
    "CostOracle",
    "Declined",
    "Effect",
    "GraphPass",
    "Outcome",
    "PassContext",
    "Price",
    "SensitivityOracle",
]
