"""The catalogue of networks as text and as JSON."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator

from codesign.networks.architecture import Generator
from codesign.networks.catalogue import Catalogue, catalogue


def networks_text() -> str:
    """One line per network, then the generators with their arguments, what has no source, what cannot be loaded."""
    return "\n".join(_lines(catalogue()))


def networks_json() -> str:
    """The same as data: `networks`, `generators` with the defaults of their arguments, `no_source` and `broken` with
    the reason."""
    found = catalogue()
    networks = [
        {
            "name": entry.name,
            "family": entry.family,
            "image": list(entry.image),
            "source": entry.source,
            "note": entry.note,
        }
        for entry in found.architectures.values()
    ]
    generators = [{"name": name, "arguments": _defaults(make)} for name, make in found.generators.items()]
    told = {"networks": networks, "generators": generators, "no_source": found.no_source, "broken": found.broken}
    return json.dumps(told, indent=2) + "\n"


def _lines(found: Catalogue) -> Iterator[str]:
    width = max((len(name) for name in found.architectures), default=0)
    family = max((len(entry.family) for entry in found.architectures.values()), default=0)
    for entry in found.architectures.values():
        image = "x".join(map(str, entry.image))
        yield f"{entry.name:{width}}  {entry.family:{family}}  {image:9}  {entry.source}"
    if found.generators:
        yield ""
        yield "generators:"
    for name, make in found.generators.items():
        arguments = ", ".join(f"{key}={value}" for key, value in _defaults(make).items())
        yield f"  {name}({arguments})"
    if found.no_source:
        yield ""
        yield "no source:"
    for name, why in found.no_source.items():
        yield f"  {name}: {why}"
    for where, problem in found.broken.items():
        yield f"{where}: {problem}"


def _defaults(make: Generator) -> dict[str, object]:
    """What a generator takes, with the value it has when it is left out; None when it must be given."""
    empty = inspect.Parameter.empty
    parameters = inspect.signature(make).parameters.items()
    return {key: None if parameter.default is empty else parameter.default for key, parameter in parameters}
