"""One process of `bench_mapper.py`: searches and prices layers, and prints what it found as JSON.

    python benchmarks/mapper_process.py TASK.json

Reads nothing it does not need, and keeps nothing: no network is imported, and no search is read from disk.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from codesign.hardware.loading import load_profile
from codesign.hardware.profile import HardwareProfile
from codesign.mapping.mapper import found_cost, search
from codesign.mapping.objective import Objective
from codesign.vocabulary import OperationKind
from codesign.workload.loop_nest import LoopNest


@dataclass(frozen=True)
class Task:
    """Layers to search on a machine. either: memories that may hold tiles once or twice. layers: fields of nests."""

    machine: str
    objectives: tuple[str, ...]
    perfect: bool
    either: tuple[str, ...]
    layers: tuple[tuple[str, dict[str, Any]], ...]


@dataclass(frozen=True)
class Outcome:
    """One search. seconds: of processor time, searched and priced. evaluations: cuts priced."""

    layer: str
    objective: str
    energy_pj: float
    cycles: int
    proven: bool
    evaluations: int
    seconds: float

    @property
    def edp(self) -> float:
        """pJ x cycles."""
        return self.energy_pj * self.cycles


def machine(name: str, either: tuple[str, ...]) -> HardwareProfile:
    """A shipped machine, or a copy of it whose memories `either` leave the buffering of every tile to the mapper."""
    profile = load_profile(name).profile
    if not either:
        return profile
    described = profile.model_dump(mode="json")
    for memory in either:
        described["memories"][memory]["buffering"] = "either"
    return HardwareProfile.model_validate(described)


def nest_of(fields: dict[str, Any]) -> LoopNest:
    """A nest from JSON."""
    numbers: dict[str, Any] = {name: tuple(part) if isinstance(part, list) else part for name, part in fields.items()}
    numbers["kind"] = OperationKind(fields["kind"])
    return LoopNest(**numbers)


def engine_of(nest: LoopNest, profile: HardwareProfile) -> str:
    """The first engine that runs such layers. Raises StopIteration when there is none."""
    return next(name for name, engine in profile.engines.items() if nest.kind in engine.operations)


def outcomes(task: Task) -> Iterator[Outcome]:
    """All searches of a task."""
    profile = machine(task.machine, task.either)
    for name, fields in task.layers:
        nest = nest_of(fields)
        engine = engine_of(nest, profile)
        for objective in task.objectives:
            began = time.process_time()
            found = search(nest, profile, engine, Objective(objective), perfect=task.perfect)
            cost = found_cost(nest, profile, found)
            seconds = time.process_time() - began
            yield Outcome(name, objective, cost.energy_pj, cost.cycles, cost.proven, found.evaluations, seconds)


def main() -> None:
    task = Task(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    print(json.dumps([asdict(outcome) for outcome in outcomes(task)]))


if __name__ == "__main__":
    main()
