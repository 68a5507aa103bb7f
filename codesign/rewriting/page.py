"""The catalogue as one Markdown page, docs/passes.md, which a test keeps equal to what is written here."""

from __future__ import annotations

import re
from collections.abc import Iterator

from codesign.rewriting.catalogue import SHIPPED, catalogue, paragraphs_of, summary_of
from codesign.rewriting.graph_pass import GraphPass
from codesign.rewriting.listing import MEANINGS, choices_of, steps_of
from codesign.rewriting.options import options_of, text_of, value_text
from codesign.rewriting.pipeline import find_pipeline, pipeline_names
from codesign.rewriting.wording import Paragraph

_WHAT = (
    "Every rewrite and every named order of rewrites; `codesign passes list` and `codesign passes explain NAME` print",
    "them. Generated from the catalogue: `pytest tests/test_passes_page.py --update-golden` writes this page again.",
    "",
    "`codesign compile --passes 'a,b{option=value}'` runs passes in the order named; a pipeline's name stands for its",
    "passes. The effect is what a pass may do to the function the network computes; tests hold every pass to it.",
)


def passes_page(package: str = SHIPPED) -> str:
    """The page: effects, a table of passes, a table of pipelines, then every pass in full. Shipped passes only."""
    kinds = [kind for kind in catalogue(package).passes.values() if kind.__module__.startswith(f"{package}.")]
    lines = ["# Passes", "", *_WHAT, "", "| effect | the rewritten network is |", "|---|---|"]
    lines += [f"| {effect} | {meaning} |" for effect, meaning in MEANINGS.items()]
    lines += ["", "| pass | effect | what it does |", "|---|---|---|"]
    for effect in MEANINGS:
        lines += [_row(kind) for kind in kinds if kind.effect is effect]
    lines += ["", "| pipeline | passes | what for |", "|---|---|---|"]
    for name in pipeline_names(package):
        description = _prose(find_pipeline(name, package=package).description)
        lines.append(f"| {name} | {steps_of(name, package)} | {_cell(description)} |")
    for kind in kinds:
        lines += ["", *_section(kind)]
    for name in pipeline_names(package):
        lines += ["", *_pipeline(name, package)]
    return "\n".join(lines) + "\n"


def _row(kind: type[GraphPass]) -> str:
    effects = "; ".join([str(kind.effect), *choices_of(kind)])
    return f"| [{kind.name}](#{kind.name}) | {effects} | {_cell(_prose(summary_of(kind)))} |"


def _section(kind: type[GraphPass]) -> Iterator[str]:
    """One pass: the docstring, its pictures as code; effect; options."""
    told = paragraphs_of(kind)
    yield from (f"## {kind.name}", "", _prose(summary_of(kind)))
    for part in told:
        if not part.is_source:
            yield from ("", *_paragraph(part))
    yield from ("", f"Effect: {'; '.join([str(kind.effect), *choices_of(kind)])}.")
    if options_of(kind):
        yield from ("", "| option | default | meaning |", "|---|---|---|")
    for option in options_of(kind):
        yield f"| `{option.name}` | `{value_text(option.default)}` | {_cell(_prose(option.sentence))} |"
    for part in told:
        if part.is_source:
            yield from ("", *_paragraph(part))


def _pipeline(name: str, package: str) -> Iterator[str]:
    pipeline = find_pipeline(name, package=package)
    yield from (f"## Pipeline {name}", "", _prose(pipeline.description), "")
    for number, step in enumerate(pipeline.passes, 1):
        yield f"{number}. `{text_of(step)}`, {step.effect_here}"
    if not pipeline.passes:
        yield "It runs no pass."


def _paragraph(part: Paragraph) -> Iterator[str]:
    yield from ("```text", part.text, "```") if part.is_picture else (_prose(part.text),)


def _prose(text: str) -> str:
    """Plain text as Markdown: what would be markup there is escaped, except between backticks and at a list's start."""
    pieces = re.split(r"(`[^`]*`|^[*-] )", text, flags=re.MULTILINE)
    return "".join(piece if index % 2 else re.sub(r"([*<\[\]])", r"\\\1", piece) for index, piece in enumerate(pieces))


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
