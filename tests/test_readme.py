"""What README and CONTRIBUTING say works: links, make targets, and the five-minute tour, command by command."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.pages import ROOT, commands_of, run_codesign

PAGES = tuple(
    ROOT / name
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "docs/README.md",
        "examples/digits/README.md",
        "docs/search.md",
        "docs/training.md",
        "docs/your_own_machine.md",
    )
)


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = {words[1] for page in PAGES for words in commands_of(page, "make")}
    assert {"demo", "test", "lint"} <= targets
    assert [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)] == []


def test_links_lead_somewhere() -> None:
    links = [
        (page, link) for page in PAGES for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text("utf-8"))
    ]
    assert len(links) > 8
    assert [f"{page.name}: {link}" for page, link in links if not (page.parent / link).exists()] == []


def test_options_outside_the_tour_exist() -> None:
    for words in (words[1:] for page in PAGES[1:] for words in commands_of(page, "codesign")):
        name = words[: 2 if words[0] in ("hw", "passes", "networks") else 1]
        shown = run_codesign([*name, "--help"], ROOT)
        assert shown.returncode == 0, shown.stderr
        missing = [word for word in words if re.match("--?[a-z]", word) and not re.search(rf"{word}\b", shown.stdout)]
        assert missing == [], words


def test_the_tour_runs_as_written(tmp_path: Path) -> None:
    pytest.importorskip("torch")  # networks are modules of PyTorch
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    tour = [words[1:] for words in commands_of(ROOT / "README.md", "codesign")]
    commands = {"compile", "estimate", "explain", "advise", "stream", "run", "verify", "hw", "passes", "networks"}
    assert {words[0] for words in tour} == commands
    for words in tour:
        done = run_codesign(words, tmp_path)
        assert (done.returncode, words) == (0, words), done.stdout + done.stderr
        assert done.stdout.strip()
    for name in ("report.html", "report.json", "report.csv", "model.onnx", "plan.json", "model.so", "manifest.json"):
        assert (tmp_path / "build" / "digits" / name).stat().st_size > 0
    assert any((tmp_path / "build" / "graphs").iterdir())


@pytest.mark.parametrize("word", ["--no-host", "--input-shape"])
def test_options_named_in_the_text_exist(word: str) -> None:
    assert word in (ROOT / "README.md").read_text("utf-8")
    assert re.search(rf"{word}\b", run_codesign(["compile", "--help"], ROOT).stdout)
