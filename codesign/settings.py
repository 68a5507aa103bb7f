"""What a user chose, and what comes of it: between the command line, the flow and the building of artifacts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np

from codesign.graph.graph import Graph
from codesign.hardware.loading import LoadedProfile
from codesign.planning.plan import Plan
from codesign.rewriting.pipeline import Pipeline

Model = str | PathLike[str] | object
OnStep = Callable[[str, str, int, int], None]
Calibration = str | PathLike[str] | Iterable[Mapping[str, np.ndarray] | np.ndarray]


@dataclass(frozen=True)
class Settings:
    """What the user chose beside the model. hw: name or path. passes: a pipeline's name or a list of passes; None: the
    pipeline the machine names.

    mapping: a file with mappings of layers, which are taken as they are, and constraints on the search for others.
    sram_limit_bytes: of the memory all activations must fit in together.
    passes_after: passes that run behind those, as a list.
    emit: what `compile` makes to run the network with: so, c. c_prefix: what names in the C begin with.
    calibration: inputs that activations are measured on: an .npz file (.npy for a network with one input), `synthetic`
    for random numbers, or an iterable of arrays by input name (of arrays for a network with one input).
    threads: of the library, where the machine is a processor; None: what its profile says, else one a core.
    tune: so many trials of register blocks for every distinct layer of a processor, measured on this machine.
    target: the machine of the library, an LLVM triple or triple:cpu; None: this one.
    """

    hw: str
    passes: str | None = None
    objective: str = "latency"
    input_shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    example_inputs: tuple[object, ...] | None = None
    stop_after: str | None = None
    dump_graphs: Path | None = None
    allow_host: bool = True
    on_step: OnStep | None = None
    mapping: str | PathLike[str] | None = None
    sram_limit_bytes: int | None = None
    emit: tuple[str, ...] = ("so",)
    c_prefix: str = "codesign"
    calibration: Calibration | None = None
    passes_after: str = ""
    threads: int | None = None
    tune: int = 0
    target: str | None = None

    def step(self, stage: str) -> Callable[[str, int, int], None]:
        """Reports progress within one stage: name of the item, its number from 1, how many there are."""

        def report(name: str, number: int, total: int) -> None:
            if self.on_step is not None:
                self.on_step(stage, name, number, total)

        return report


@dataclass(frozen=True)
class Planned:
    """A plan and what it was made from: the rewritten graph, the machine, the pipeline."""

    plan: Plan
    graph: Graph
    hardware: LoadedProfile
    pipeline: Pipeline


@dataclass(frozen=True)
class Build:
    """What `compile` wrote: the plan, and the folder with the artifacts."""

    plan: Plan
    folder: Path
