"""Checkpoints a killed run resumes from: written beside themselves, then renamed, so that one is whole or absent."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codesign.errors import CodesignError

_OTHER_HINT = "delete it, or name another file, to start afresh"


@dataclass(frozen=True)
class Checkpoint:
    """A run after some epochs. run: a hash of all that decides its course. losses: the mean of every epoch so far.

    module, optimizer, schedule: their state_dict().
    """

    run: str
    losses: tuple[float, ...]
    module: dict[str, Any]
    optimizer: dict[str, Any]
    schedule: dict[str, Any]


def write_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Replace the file at `path` at once. Raises CodesignError when it cannot be written."""
    import torch

    temporary = path.with_name(f".{path.name}.unfinished")
    try:
        with temporary.open("wb") as file:
            torch.save(vars(checkpoint), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise CodesignError(str(path), f"cannot be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def read_checkpoint(path: Path, run: str) -> Checkpoint | None:
    """The checkpoint at `path`, or None when there is none yet.

    Only tensors and plain data are unpickled. Raises CodesignError for a damaged file and for one of another run.
    """
    import torch

    if not path.exists():
        return None
    try:
        checkpoint = Checkpoint(**torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # torch raises many types for what is no archive of its own
        raise CodesignError(str(path), "is no checkpoint, or a damaged one", _OTHER_HINT) from error
    if checkpoint.run != run:
        problem = "belongs to another run: network, settings or teacher differ"
        raise CodesignError(str(path), problem, _OTHER_HINT)
    return checkpoint
