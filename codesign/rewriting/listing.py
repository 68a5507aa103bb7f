"""The catalogue for people: passes by what they may do to the network, one line each, then pipelines; as a page too."""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType

from codesign.rewriting.catalogue import SHIPPED, catalogue, summary_of
from codesign.rewriting.graph_pass import Effect, GraphPass
from codesign.rewriting.pipeline import find_pipeline, pipeline_names
from codesign.rewriting.wording import hanging

MEANINGS = MappingProxyType(
    {
        Effect.EXACT: "the same function, up to the rounding of floating point",
        Effect.APPROXIMATE: "the same network, other numbers",
        Effect.RESHAPES: "another network: other channels, another resolution",
    }
)
_NAME = 23  # columns for a name
_NO_PASS = "(no pass)"


def list_catalogue(package: str = SHIPPED) -> str:
    """All passes, those that cannot be loaded with the reason, and all pipelines; `explain` says more about each."""
    found = catalogue(package)
    blocks = []
    for effect, meaning in MEANINGS.items():
        entries = [_pass(name, kind) for name, kind in found.passes.items() if kind.effect is effect]
        blocks += [[f"{effect} passes: {meaning}", *entries]] if entries else []
    broken = [_entry(name, f"{part.where}: {part.reason}") for name, part in found.broken.items()]
    blocks += [["BROKEN passes, which cannot be loaded", *broken]] if broken else []
    blocks += [["pipelines", *(_pipeline(name, package) for name in pipeline_names(package))]]
    return "\n\n".join("\n".join(block) for block in blocks)


def steps_of(name: str, package: str = SHIPPED) -> str:
    """The names of a pipeline's passes in order."""
    return " -> ".join(step.name for step in find_pipeline(name, package=package).passes) or _NO_PASS


def choices_of(kind: type[GraphPass]) -> Iterator[str]:
    """`RESHAPES with mode=down, mode=auto`: the effects that differ from that of the default options."""
    for effect in dict.fromkeys(kind.effects.values()):
        yield f"{effect} with {', '.join(choice for choice, other in kind.effects.items() if other is effect)}"


def _pass(name: str, kind: type[GraphPass]) -> str:
    return "\n".join([_entry(name, summary_of(kind)), *(_entry("", choice) for choice in choices_of(kind))])


def _pipeline(name: str, package: str) -> str:
    description = find_pipeline(name, package=package).description
    return f"{_entry(name, description)}\n{_entry('', steps_of(name, package))}"


def _entry(name: str, text: str) -> str:
    return hanging(f"  {name:{_NAME}} ", text)
