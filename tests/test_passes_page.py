"""docs/passes.md is what the catalogue says, and what `codesign passes explain` prints reads well in a terminal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal

import pytest

from codesign.graph.graph import Graph
from codesign.rewriting.catalogue import catalogue, explain_pass
from codesign.rewriting.graph_pass import Effect, GraphPass, Outcome, PassContext
from codesign.rewriting.listing import choices_of
from codesign.rewriting.page import passes_page
from codesign.rewriting.pipeline import explain, pipeline_names
from codesign.rewriting.wording import WIDTH_COLUMNS, paragraphs

ROOT = Path(__file__).resolve().parents[1]


def test_the_page_is_that_of_the_catalogue(golden: Callable[[Path, str], None]) -> None:
    """Renewed by `pytest tests/test_passes_page.py --update-golden`."""
    golden(ROOT / "docs" / "passes.md", passes_page())


def test_the_page_has_every_pass_and_pipeline() -> None:
    page = passes_page()
    for name, kind in catalogue().passes.items():
        assert f"\n## {name}\n" in page and f"| [{name}](#{name}) | {kind.effect}" in page
    for name in pipeline_names():
        assert f"\n## Pipeline {name}\n" in page


@pytest.mark.parametrize("name", catalogue().passes)
def test_prose_is_filled_and_pictures_are_left_alone(name: str) -> None:
    text = explain(name)
    for part in paragraphs(catalogue().passes[name].__doc__ or ""):
        if part.is_picture:
            assert part.filled() == part.text
    narrow = [part for part in paragraphs(text) if not part.is_picture]
    assert all(len(line) <= WIDTH_COLUMNS for part in narrow for line in part.text.splitlines())


@dataclass(frozen=True)
class Widen(GraphPass):
    """Makes everything wider.

    before:  x -> Conv 3 -> y                                                                     a very wide picture
    after:   x -> Conv 4 -> y

    Exact: what is added
    is zero, and *nothing* else |changes|.

        w' = [w, 0]

    * first
    * second

    Source: nobody.
    """

    name: ClassVar[str] = "widen"
    effect: ClassVar[Effect] = Effect.EXACT
    effects: ClassVar = MappingProxyType({"mode=down": Effect.RESHAPES, "mode=auto": Effect.RESHAPES})

    mode: Annotated[
        Literal["up", "down", "auto"],
        "up: zeros are added; down: the least important are taken; auto: the size that costs least on the machine",
    ] = "up"
    multiple: Annotated[int, "a multiple of"] = 8

    def run(self, graph: Graph, context: PassContext) -> list[Outcome]:
        return []


EXPLAINED = """\
widen

Makes everything wider.

before:  x -> Conv 3 -> y                                                                     a very wide picture
after:   x -> Conv 4 -> y

Exact: what is added is zero, and *nothing* else |changes|.

    w' = [w, 0]

* first
* second

Effect: EXACT
        RESHAPES with mode=down
        RESHAPES with mode=auto
Options:
  mode = up     up: zeros are added; down: the least important are taken; auto: the size that costs
                least on the machine (one of up, down, auto)
  multiple = 8  a multiple of (an integer)

Source: nobody."""


def test_an_explanation_has_picture_effect_options_and_source_in_this_order() -> None:
    assert explain_pass(Widen) == EXPLAINED
    assert list(choices_of(Widen)) == ["RESHAPES with mode=down, mode=auto"]


def test_markup_in_prose_is_escaped_on_the_page_and_pictures_are_code() -> None:
    from codesign.rewriting.page import _section

    section = "\n".join(_section(Widen))
    assert r"and \*nothing\* else |changes|." in section and "\n* first\n* second\n" in section
    assert "```text\n    w' = [w, 0]\n```" in section
    assert "| `mode` | `up` | up: zeros are added" in section
    assert section.endswith("\n\nSource: nobody.")
