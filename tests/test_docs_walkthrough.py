"""The walk-through of one's own machine, done as it is written: every command, every edit, every line printed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pages import ROOT, walked

PAGE = ROOT / "docs" / "your_own_machine.md"


def test_the_page_shows_what_its_commands_print(tmp_path: Path, golden: Callable[[Path | str, str], None]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page.count("$ codesign") == 8 and page.count("```diff mychip.yaml") == 6
    golden(PAGE, walked(page, tmp_path))


def test_a_wrong_line_and_a_missing_one_are_seen(tmp_path: Path) -> None:
    right = "A page\n\n```console\n$ printf 'one\\ntwo\\n'; echo three >&2\none\ntwo\nthree\n```\n\nand its end.\n"
    for number, page in enumerate((right, right.replace("two\nth", "deux\nth"), right.replace("three\n```", "```"))):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert walked(page, folder) == right


@pytest.mark.parametrize(
    ("before", "missing"),
    [("clock_mhz: 400", "clock_mhz: 400\n"), ("  ports:", "  ports:\n"), ("mhz: 500", "mhz: 500\n")],
)
def test_an_edit_that_has_no_one_place_is_refused(tmp_path: Path, before: str, missing: str) -> None:
    """Not there, there three times, and there as a part of a line only."""
    page = f"```console\n$ codesign hw copy edge_npu m.yaml\n```\n\n```diff m.yaml\n-{before}\n+x: 1\n```\n"
    with pytest.raises(AssertionError) as refused:
        walked(page, tmp_path)
    assert str(refused.value).startswith(f"m.yaml does not hold these lines once:\n{missing}")
