"""Shared by all tests: golden files, rewritten by `pytest --update-golden`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ["CODESIGN_CACHE"] = "off"  # every search of a test is searched
pytest.register_assert_rewrite("tests.refusals")  # so that a refusal in other words is shown word for word

GOLDEN = Path(__file__).parent / "golden"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite golden files from what the code does now")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path | str, str], None]:
    """Compare a text with a golden file: a name below tests/golden, or a full path."""

    def check(name: Path | str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.is_file(), f"no golden file {path.name}: run pytest --update-golden"
        assert text == path.read_text(encoding="utf-8"), (
            f"{path.name} differs: read the change, then run pytest --update-golden"
        )

    return check
