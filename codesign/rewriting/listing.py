"""The catalogue for people: every pass with its effect and one line, then the pipelines and what they run."""

from __future__ import annotations

from textwrap import fill

from codesign.rewriting.catalogue import SHIPPED, catalogue, summary_of
from codesign.rewriting.pipeline import find_pipeline, pipeline_names

WIDTH_COLUMNS = 100
_INDENT = 36


def list_catalogue(package: str = SHIPPED) -> str:
    """All passes, those that cannot be loaded with the reason, and all pipelines; `explain` says more about each."""
    found = catalogue(package)
    passes = [_entry(name, str(kind.effect), summary_of(kind)) for name, kind in found.passes.items()]
    broken = [_entry(name, "BROKEN", f"{part.where}: {part.reason}") for name, part in found.broken.items()]
    pipelines = [_pipeline(name, package) for name in pipeline_names(package)]
    return "\n".join(["passes", *passes, *broken, "", "pipelines", *pipelines])


def _pipeline(name: str, package: str) -> str:
    pipeline = find_pipeline(name, package=package)
    steps = " -> ".join(step.name for step in pipeline.passes) or "(no pass)"
    return f"{_entry(name, '', pipeline.description)}\n{_entry('', '', steps)}"


def _entry(name: str, effect: str, text: str) -> str:
    return fill(
        text,
        WIDTH_COLUMNS,
        initial_indent=f"  {name:20} {effect:12} ",
        subsequent_indent=" " * _INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )
