"""The catalogue of networks: the files of `codesign.networks.families`, then entry points `codesign.networks`.

A family file holds `ARCHITECTURES`, a tuple of Architecture, and `GENERATORS`, a dictionary from names to functions of
keyword arguments that make a module, and `NO_SOURCE`, pairs of a network that nothing at hand describes and the reason.
Each may be missing. A broken file breaks only itself.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from importlib.metadata import entry_points
from types import ModuleType

from codesign.errors import CodesignError, did_you_mean
from codesign.importers.pytorch import require_torch
from codesign.networks.architecture import Architecture, Generator

ENTRY_POINTS = "codesign.networks"


@dataclass(frozen=True)
class Catalogue:
    """Architectures and generators by name; networks that could not be built and files that cannot be loaded, why."""

    architectures: dict[str, Architecture] = field(default_factory=dict)
    generators: dict[str, Generator] = field(default_factory=dict)
    no_source: dict[str, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)


@lru_cache(maxsize=1)
def catalogue() -> Catalogue:
    """Everything found, in alphabetical order of the files. Raises CodesignError when torch is missing."""
    require_torch("codesign.networks")
    found = Catalogue()
    for where, load in _sources():
        try:
            _add(found, load(), where)
        except Exception as error:  # code of others
            found.broken[where] = f"{type(error).__name__}: {error}"
    return found


def architecture(name: str) -> Architecture:
    """The architecture of a name. Raises CodesignError, with names like it."""
    found = catalogue().architectures
    if name not in found:
        raise CodesignError(name, "no such network", did_you_mean(name, found) or "see codesign networks list")
    return found[name]


def generator(name: str) -> Generator:
    """The generator of a name. Raises CodesignError, with names like it."""
    found = catalogue().generators
    if name not in found:
        known = ", ".join(sorted(found))
        raise CodesignError(name, "no such generator", did_you_mean(name, found) or f"one of {known}")
    return found[name]


def _sources() -> Iterator[tuple[str, Callable[[], ModuleType]]]:
    from codesign.networks import families

    for module in sorted(part.name for part in pkgutil.iter_modules(families.__path__)):
        where = f"{families.__name__}.{module}"
        yield where, partial(importlib.import_module, where)
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: point.name):
        yield f"{ENTRY_POINTS}: {point.name}", point.load


def _add(found: Catalogue, family: ModuleType, where: str) -> None:
    for entry in getattr(family, "ARCHITECTURES", ()):
        if entry.name in found.architectures:
            raise CodesignError(where, f"the network {entry.name} is there already")
        found.architectures[entry.name] = entry
    for name, make in getattr(family, "GENERATORS", {}).items():
        if name in found.generators:
            raise CodesignError(where, f"the generator {name} is there already")
        found.generators[name] = make
    found.no_source.update(getattr(family, "NO_SOURCE", ()))
