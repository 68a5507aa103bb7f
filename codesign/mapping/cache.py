"""Searches remembered on disk, each under a hash of all it depends on; several processes may share the folder.

A file is written beside its place and renamed, so readers see a whole one or none. What is read is not trusted: a
mapping that is illegal, or does not cost what the file says, is searched again.

Within one process SearchMemory remembers too, without reading anything again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from hashlib import sha256
from importlib import resources
from pathlib import Path
from tempfile import NamedTemporaryFile

from pydantic import TypeAdapter, ValidationError

from codesign.errors import DoesNotFitError, Problem
from codesign.hardware.profile import HardwareProfile
from codesign.mapping.cost import evaluate
from codesign.mapping.counts import counts_of
from codesign.mapping.legality import problems_of
from codesign.mapping.mapper import LABEL_LIMIT, Found, search
from codesign.mapping.objective import AnyObjective
from codesign.workload.loop_nest import LoopNest

FOLDER_VARIABLE = "CODESIGN_CACHE"
OFF = "off"
LARGEST_FILE_BYTES = 100_000
_TOLERANCE = 1e-9

Search = Callable[[LoopNest, HardwareProfile, str, AnyObjective], Found]
_Asked = tuple[int, LoopNest, str, AnyObjective]  # the machine by its id
_Outcome = Found | tuple[Problem, ...]


def cached_search() -> Search:
    """A search that remembers in $CODESIGN_CACHE, or in the user's cache folder; plain where that says `off`."""
    folder = cache_folder("searches")
    return search if folder is None else SearchCache(folder).search


def cache_folder(what: str) -> Path | None:
    """Where results of one kind are remembered: $CODESIGN_CACHE, or a folder in the user's cache; None if off."""
    chosen = os.environ.get(FOLDER_VARIABLE, "")
    if chosen == OFF:
        return None
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "codesign"
    return Path(chosen) if chosen else home / what


@dataclass(frozen=True)
class SearchMemory:
    """Searches of this process, layers that do not fit among them; how each is done the first time is `searched`.

    Machines are told apart as objects: an equal one read again is another.
    """

    searched: Search
    _known: dict[_Asked, tuple[HardwareProfile, _Outcome]] = field(default_factory=dict, init=False, repr=False)

    def search(self, nest: LoopNest, profile: HardwareProfile, engine: str, objective: AnyObjective) -> Found:
        """What `searched` finds, remembered or found now. Raises DoesNotFitError."""
        key = id(profile), nest, engine, objective
        if key not in self._known:
            # The machine is kept beside the outcome: no other one can get its id.
            self._known[key] = profile, self._outcome(nest, profile, engine, objective)
        _, outcome = self._known[key]
        if isinstance(outcome, tuple):
            raise DoesNotFitError.of(outcome)
        return outcome

    def _outcome(self, nest: LoopNest, profile: HardwareProfile, engine: str, objective: AnyObjective) -> _Outcome:
        try:
            return self.searched(nest, profile, engine, objective)
        except DoesNotFitError as error:
            return error.problems


@dataclass(frozen=True)
class SearchCache:
    """A folder of searches."""

    folder: Path

    def search(self, nest: LoopNest, profile: HardwareProfile, engine: str, objective: AnyObjective) -> Found:
        """What codesign.mapping.mapper.search finds, remembered or searched now. Raises DoesNotFitError."""
        name = _name(nest, profile, engine, objective)
        path = self.folder / name[:2] / f"{name}.json"
        remembered = _read(path)
        if remembered is not None and _holds(remembered, nest, profile, objective):
            return remembered
        found = search(nest, profile, engine, objective)
        with suppress(OSError):  # a full or read-only disk costs time, not the result
            _write(path, found)
        return found


def _name(nest: LoopNest, profile: HardwareProfile, engine: str, objective: AnyObjective) -> str:
    described = {
        "program": _program(),
        "limit": LABEL_LIMIT,
        "nest": asdict(nest),
        "engine": engine,
        "objective": str(objective),
        "machine": profile.model_dump(mode="json", include={"precision", "engines", "memories", "conventions"}),
    }
    return sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


@lru_cache(maxsize=1)
def _program() -> str:
    """A hash of the code that searches and prices: what another version found is not taken over."""
    folder = resources.files("codesign.mapping")
    files = sorted((part.name, part) for part in folder.iterdir() if part.name.endswith(".py"))
    return sha256(b"".join(part.read_bytes() for _, part in files)).hexdigest()


@lru_cache(maxsize=1)
def _adapter() -> TypeAdapter[Found]:
    return TypeAdapter(Found)


def _read(path: Path) -> Found | None:
    try:
        if path.stat().st_size > LARGEST_FILE_BYTES:
            return None
        return _adapter().validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _holds(found: Found, nest: LoopNest, profile: HardwareProfile, objective: AnyObjective) -> bool:
    """Whether a mapping is legal and costs what is said of it."""
    try:
        if problems_of(nest, found.mapping, profile):
            return False
        priced = evaluate(nest, found.mapping, profile, counts_of(nest, found.mapping, profile))
    except (ArithmeticError, KeyError, ValueError):
        return False
    value = objective.of(priced.latency_cycles, priced.energy_pj)
    return abs(value - found.objective_value) <= _TOLERANCE * abs(value)


def _write(path: Path, found: Found) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, prefix=".new", delete=False) as file:
        file.write(_adapter().dump_json(found))
    os.replace(file.name, path)
