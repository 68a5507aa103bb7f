"""Docstrings of passes as paragraphs: pictures stay as they were drawn, prose is filled to the width at hand."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import fill

WIDTH_COLUMNS = 100
_PICTURE = ("before:", "after:", " ")
_ITEM = ("* ", "- ")
_SOURCE = "Source:"


@dataclass(frozen=True)
class Paragraph:
    """Lines without a blank one between. is_picture: a before/after picture, a formula or a table, to be left alone."""

    text: str

    @property
    def is_picture(self) -> bool:
        """Whether its lines mean something where they stand."""
        return any(line.startswith(_PICTURE) for line in self.text.splitlines())

    @property
    def is_source(self) -> bool:
        """Whether it says where the rewrite comes from."""
        return self.text.startswith(_SOURCE)

    def filled(self) -> str:
        """For a terminal."""
        if self.is_picture or self.text.startswith(_ITEM):
            return self.text
        return hanging("", self.text)


def paragraphs(docstring: str) -> tuple[Paragraph, ...]:
    """What stands between blank lines, in order."""
    blocks: list[list[str]] = [[]]
    for line in docstring.splitlines():
        if line.strip():
            blocks[-1].append(line.rstrip())
        else:
            blocks.append([])
    return tuple(Paragraph("\n".join(block)) for block in blocks if block)


def hanging(start: str, text: str) -> str:
    """`start` and the text behind it, further lines below the text."""
    return fill(
        text,
        WIDTH_COLUMNS,
        initial_indent=start,
        subsequent_indent=" " * len(start),
        break_long_words=False,
        break_on_hyphens=False,
    )
