"""What is wrong with a space beyond its form: its size, its generator, and the arguments it gives it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from codesign.errors import Problem, did_you_mean
from codesign.hardware.problems import dotted
from codesign.networks.architecture import Generator
from codesign.networks.catalogue import catalogue
from codesign.search.candidate import Value
from codesign.search.space_file import RESOLUTION, SpaceFile, name_of
from codesign.yaml_reader import YamlDocument, YamlPath

MAX_CANDIDATES = 4096
_FROM_DATA = ("classes", "channels")
_Found: TypeAlias = tuple[YamlPath, str, str]


def problems_in(file: SpaceFile, document: YamlDocument) -> tuple[Problem, ...]:
    """Every problem at its place in the document."""
    found = _problems(file)
    return tuple(
        Problem(document.where(path), ": ".join(filter(None, (dotted(path), what))), hint) for path, what, hint in found
    )


def parameters_of(make: Generator) -> Mapping[str, inspect.Parameter]:
    """The arguments a generator takes, by name."""
    return inspect.signature(make).parameters


def _problems(file: SpaceFile) -> Iterator[_Found]:
    way = file.ways
    if len(way) != 1:
        yield (), "needs one of coefficients, candidates and scaled_down", ""
        return
    for name, values in (file.coefficients or {}).items():
        if len(set(values)) < max(1, len(values)):
            yield (*way, name), "a value is listed twice" if values else "must not be empty", ""
            return
    if not 2 <= file.size <= MAX_CANDIDATES:
        yield way, f"makes {file.size} candidates; a space has 2 to {MAX_CANDIDATES}", ""
        return
    yield from _twice(file)
    known = catalogue().generators
    if file.generator not in known:
        hint = did_you_mean(file.generator, known) or f"one of {', '.join(sorted(known))}"
        yield ("generator",), f"no generator is called {file.generator}", hint
        return
    yield from _arguments(file, way, known[file.generator])


def _twice(file: SpaceFile) -> Iterator[_Found]:
    seen: dict[str, YamlPath] = {}
    for path, differing in file.combinations():
        name = name_of(differing)
        if name in seen and file.candidates is not None:
            yield path, f"is the same as {dotted(seen[name])}", "remove one of the two"
        seen.setdefault(name, path)


def _arguments(file: SpaceFile, way: YamlPath, make: Generator) -> Iterator[_Found]:
    """Arguments the generator does not take, or that are given by more than one."""
    known = [name for name in parameters_of(make) if name not in _FROM_DATA]
    paths: dict[str, YamlPath] = {name: ("arguments", name) for name in file.arguments}
    for path, differing in [(way, dict.fromkeys(file.lists()))] if file.candidates is None else file.combinations():
        for name in differing:
            where = (*path, name)
            if name in file.arguments:
                yield where, "stands under arguments too", "remove one of the two"
            paths.setdefault(name, where)
    for name, where in paths.items():
        if name in _FROM_DATA:
            yield where, "comes from the data", "remove it"
        elif name not in known:
            hint = did_you_mean(name, known) or f"it takes {', '.join(known)}"
            yield where, f"{file.generator} has no such argument", hint
    for name in known:
        if name not in paths and parameters_of(make)[name].default is inspect.Parameter.empty:
            yield (), f"needs {name}, an argument of {file.generator}", ""
    if RESOLUTION in known:
        yield from _resolution(file, paths)
    elif file.image is None:
        yield (), f"needs image, the side of the input in pixels: {file.generator} takes no resolution", ""


def _resolution(file: SpaceFile, paths: Mapping[str, YamlPath]) -> Iterator[_Found]:
    """Sizes of images that are none, or given twice."""
    if file.image is not None:
        yield ("image",), f"{file.generator} takes its image from resolution", "give resolution instead"
    sides = [*([file.arguments[RESOLUTION]] if RESOLUTION in file.arguments else []), *_sides(file)]
    if any(isinstance(side, bool | str) or side != int(side) or not 8 <= side <= 1024 for side in sides):
        yield paths[RESOLUTION], "must be whole numbers from 8 to 1024", ""


def _sides(file: SpaceFile) -> Iterator[Value]:
    for _, differing in file.combinations():
        if RESOLUTION in differing:
            yield differing[RESOLUTION]
