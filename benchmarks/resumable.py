"""What resumable evidence runs share: rows kept as JSON lines, and work in a process of its own that ends in time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from codesign.errors import CodesignError

ROOT = Path(__file__).resolve().parents[1]
NOTHING: Mapping[str, str] = {}
RowT = TypeVar("RowT", bound=BaseModel)


class ChildError(Exception):
    """A process that gave no answer. said: its lines on stderr, or that its time was up, or its exit code."""

    def __init__(self, *said: str) -> None:
        super().__init__(*said)
        self.said = said


def rows_of(cache: Path, kind: type[RowT]) -> Iterator[RowT]:
    """Rows of earlier runs; a last line cut short by a killed run is dropped."""
    for line in cache.read_text(encoding="utf-8").splitlines() if cache.exists() else ():
        try:
            yield kind.model_validate_json(line)
        except ValidationError:
            print(f"{cache}: a row is unreadable and is done again", file=sys.stderr)


def answer_of(command: Sequence[str], limit_seconds: int, environment: Mapping[str, str] = NOTHING) -> str:
    """What a command of this checkout prints. Raises ChildError."""
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )
    try:
        answer, log = child.communicate(timeout=limit_seconds)
    except subprocess.TimeoutExpired:
        raise ChildError(f"not done within {limit_seconds} s") from None
    finally:  # nothing is left running, whether the time is up or the user has had enough
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
    if child.returncode:
        said = [line for line in log.splitlines() if line.strip()]
        raise ChildError(*(said or [f"ended with {child.returncode}"]))
    return answer


def measure_here(measure: Callable[[], BaseModel]) -> int:
    """The child process: the measurement as JSON on stdout, or one line that says what failed on stderr."""
    try:
        print(measure().model_dump_json())
    except CodesignError as error:
        more = f" (and {len(error.problems) - 1} more)" if len(error.problems) > 1 else ""
        print(f"{error.problems[0].where}: {error.problems[0].problem}{more}", file=sys.stderr)
        return 1
    return 0
