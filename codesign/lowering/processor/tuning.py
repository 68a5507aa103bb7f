"""Register blocks chosen by measuring them on this machine, remembered by kernel and processor.

A trial is a register block and an order of the loops around it. Trials are built and timed in groups, in turns, each
group with the kernel's first block among them: what is remembered is a trial's time over that one's, so that results
of different hours compare. Every group is stored when it is done; a run that was ended goes on behind it.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
import tvm
from pydantic import BaseModel, ConfigDict, ValidationError

from codesign.hardware.sections import Processor
from codesign.lowering.processor.candidates import candidates
from codesign.lowering.processor.loops import Tile
from codesign.lowering.processor.network import MacKernel
from codesign.lowering.processor.registers import register_pipeline
from codesign.lowering.targets import host_target
from codesign.vocabulary import Dimension

_LOG = logging.getLogger(__name__)
_GROUP = 8
_ROUNDS = 12
_SECONDS_A_GROUP = 0.6
OnLayer = Callable[[str, int, int], None]


class Trial(BaseModel):
    """One register block and its time over that of the first trial. loops: dimensions and extents."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    vectors: int
    rows: int
    columns: int
    loops: tuple[tuple[Dimension, int], ...]
    relative_time: float

    @property
    def tile(self) -> Tile:
        """As kernels take it."""
        return Tile(self.vectors, self.rows, self.columns, self.loops)


class _Trials(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    kernel: str
    trials: tuple[Trial, ...]


@dataclass
class Tuning:
    """Trials of this machine. folder: where they are kept; None: nowhere, they are forgotten with the process."""

    folder: Path | None
    _known: dict[str, tuple[Trial, ...]] = field(default_factory=dict)

    def best(self, kernel: MacKernel) -> Tile:
        """The fastest block measured for such a kernel; its own where none was."""
        trials = self._trials(kernel)
        return min(trials, key=lambda trial: trial.relative_time).tile if trials else kernel.tile

    def tune(self, kernels: Mapping[str, MacKernel], processor: Processor, count: int, on_layer: OnLayer) -> None:
        """Measure until `count` blocks of every distinct kernel are known, or all there are.

        on_layer: told a layer's name, its number from 1, and how many distinct ones there are.
        """
        distinct: dict[str, tuple[str, MacKernel]] = {}
        for name, kernel in kernels.items():
            distinct.setdefault(_key(kernel), (name, kernel))
        for number, (name, kernel) in enumerate(distinct.values(), 1):
            on_layer(name, number, len(distinct))
            self._tune(kernel, processor, count)

    def _tune(self, kernel: MacKernel, processor: Processor, count: int) -> None:
        known = self._trials(kernel)
        first = known[0].tile if known else kernel.tile
        measured = {trial.tile for trial in known}
        left = [tile for tile in candidates(replace(kernel, tile=first), processor)[:count] if tile not in measured]
        for start in range(0, len(left), _GROUP):
            group = [tile for tile in left[start : start + _GROUP] if tile != first]
            times = measure([replace(kernel, tile=tile) for tile in (first, *group)])
            found = [_trial(tile, seconds / times[0]) for tile, seconds in zip((first, *group), times, strict=True)]
            known = (*known, *(found[1:] if known else found))
            self._store(kernel, known)

    def _trials(self, kernel: MacKernel) -> tuple[Trial, ...]:
        key = _key(kernel)
        if key not in self._known:
            self._known[key] = _read(self._path(key))
        return self._known[key]

    def _store(self, kernel: MacKernel, trials: tuple[Trial, ...]) -> None:
        key = _key(kernel)
        self._known[key] = trials
        path = self._path(key)
        if path is not None:
            with suppress(OSError):  # a full or read-only disk costs time, not the result
                _write(path, _Trials(kernel=_described(kernel), trials=trials))

    def _path(self, key: str) -> Path | None:
        return None if self.folder is None else self.folder / key[:2] / f"{key}.tuned.json"


def measure(kernels: Sequence[MacKernel]) -> list[float]:
    """Seconds a run of each takes on this machine, on one thread: the least of some runs, taken in turns."""
    functions = {f"trial_{number}": kernel.function() for number, kernel in enumerate(kernels)}
    module = tvm.IRModule({name: function.with_attr("global_symbol", name) for name, function in functions.items()})
    with tvm.transform.PassContext(config={"tirx.disable_assert": True}):
        built = tvm.compile(module, target=host_target(), tir_pipeline=register_pipeline())
    arguments = _arguments(next(iter(functions.values())))
    runs = [built[name] for name in functions]
    best = [float("inf")] * len(runs)
    end = time.perf_counter() + _SECONDS_A_GROUP
    for number in range(_ROUNDS):
        for at, run in enumerate(runs):
            start = time.perf_counter()
            run(*arguments)
            best[at] = min(best[at], time.perf_counter() - start)
        if number > 2 and time.perf_counter() > end:
            break
    return best


def _arguments(function: Any) -> list[Any]:
    generator = np.random.default_rng(0)
    sizes = [tuple(int(size) for size in buffer.shape) for buffer in function.params]
    return [tvm.runtime.tensor(generator.standard_normal(size).astype(np.float32)) for size in sizes]


def _trial(tile: Tile, relative_time: float) -> Trial:
    return Trial(
        vectors=tile.vectors, rows=tile.rows, columns=tile.columns, loops=tile.loops, relative_time=relative_time
    )


def _described(kernel: MacKernel) -> str:
    """What decides how fast a block is: the kernel without its block, what it adds on the way out, and its threads."""
    return repr(replace(kernel, tile=Tile(1, 1, 1), steps=(), threads=1))


def _key(kernel: MacKernel) -> str:
    return sha256(f"{_described(kernel)} {host_target()}".encode()).hexdigest()


def _read(path: Path | None) -> tuple[Trial, ...]:
    if path is None:
        return ()
    try:
        return _Trials.model_validate_json(path.read_bytes()).trials
    except FileNotFoundError:
        return ()
    except (OSError, ValidationError, json.JSONDecodeError):
        _LOG.warning("%s is damaged; its layer is as if it had not been tuned", path)
        return ()


def _write(path: Path, trials: _Trials) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, prefix=".new", delete=False) as file:
        file.write(trials.model_dump_json(indent=1).encode())
    os.replace(file.name, path)
