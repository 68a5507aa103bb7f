"""Pages of documentation as things that can be run: their commands, and whole sessions with edits and output."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_BLOCK = re.compile(r"^```(?P<kind>console|diff)(?P<file>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


def commands_of(page: Path, program: str) -> list[list[str]]:
    """Words of every line of a page that is a command of `program`, comments dropped, lines ending in \\ joined."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if re.match(rf"{program} [a-z]", line)]


def _environment(columns: int) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": str(columns), "TERM": "dumb", "NO_COLOR": "1"}


def run_codesign(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """`codesign ARGUMENTS` in a folder, with help texts wide enough for every option."""
    command = [sys.executable, "-m", "codesign", *arguments]
    return subprocess.run(command, cwd=folder, env=_environment(200), capture_output=True, text=True, check=False)


def walked(page: str, folder: Path) -> str:
    """The page with what its commands print now, after doing in `folder` all that it says, from top to bottom.

    A `console` block holds commands after `$ ` and what they print, errors included; the shell runs each of them. A
    `diff FILE` block is applied to FILE: its lines without `+` must stand in it exactly once. Examples of the
    repository are in reach as `examples`.
    """
    programs = folder / "programs"
    programs.mkdir()
    program = programs / "codesign"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m codesign "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    work = folder / "work"
    work.mkdir()
    (work / "examples").symlink_to(ROOT / "examples")

    def done(block: re.Match[str]) -> str:
        if block["kind"] == "diff":
            apply(block["body"], work / block["file"].strip())
            return block[0]
        commands = [line for line in block["body"].splitlines() if line.startswith("$ ")]
        return f"```console\n{''.join(_session(command, work, programs) for command in commands)}```"

    return _BLOCK.sub(done, page)


def _session(line: str, folder: Path, programs: Path) -> str:
    """A command as it stands on the page, and what it prints, without blanks at the ends of lines."""
    environment = _environment(100)
    environment["PATH"] = f"{programs}{os.pathsep}{environment['PATH']}"
    command = line.removeprefix("$ ")
    ended = subprocess.run(
        ["sh", "-c", f"exec 2>&1; {command}"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    printed = "".join(f"{text.rstrip()}\n" for text in ended.stdout.splitlines())
    return f"{line}\n{printed}"


def apply(difference: str, file: Path) -> None:
    """Replace, in a file, the lines of a difference without `+` by those without `-`. They must stand there once."""
    lines = difference.splitlines(keepends=True)
    before = "".join(line[1:] for line in lines if not line.startswith("+"))
    after = "".join(line[1:] for line in lines if not line.startswith("-"))
    text = file.read_text(encoding="utf-8")
    assert f"\n{text}".count(f"\n{before}") == 1, f"{file.name} does not hold these lines once:\n{before}"
    file.write_text(f"\n{text}".replace(f"\n{before}", f"\n{after}")[1:], encoding="utf-8")
