"""A page that is printed while it grows."""

from __future__ import annotations


class Page:
    """Lines, printed as they come."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, line: str = "") -> None:
        """One line more."""
        self.lines.append(line)
        print(line, flush=True)

    def section(self, title: str, *lines: str) -> None:
        """A title, and lines below it."""
        for line in ("", f"## {title}", "", *lines):
            self.add(line)
