"""Checkpoints a killed run resumes from: written beside themselves, then renamed, so that one is whole or absent."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass, fields
from glob import escape
from pathlib import Path
from typing import Any

from codesign.errors import CodesignError

OTHER_HINT = "delete it, or name another file, to start afresh"


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
    write_state(vars(checkpoint), path)


def read_checkpoint(path: Path, run: str) -> Checkpoint | None:
    """The checkpoint at `path`, or None when there is none yet.

    Raises CodesignError for a damaged file and for one of another run.
    """
    state = read_state(path, tuple(field.name for field in fields(Checkpoint)))
    if state is None:
        return None
    checkpoint = Checkpoint(**state)
    if checkpoint.run != run:
        problem = "belongs to another run: network, settings or teacher differ"
        raise CodesignError(str(path), problem, OTHER_HINT)
    return checkpoint


def write_state(state: dict[str, Any], path: Path) -> None:
    """Replace the file at `path` at once, by tensors and plain data. Raises CodesignError when it cannot be written."""
    import torch

    # A name of its own for every writer: two that write the same state at once leave one of the two, whole.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.unfinished")
    try:
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise CodesignError(str(path), f"cannot be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def read_state(path: Path, keys: tuple[str, ...]) -> dict[str, Any] | None:
    """What was written to `path`, on the CPU, or None when nothing was; it must hold exactly `keys`.

    Only tensors and plain data are unpickled. Removes what killed writers left beside it. Raises CodesignError for a
    damaged file.
    """
    import torch

    for left_over in path.parent.glob(f".{escape(path.name)}.*.unfinished"):
        left_over.unlink(missing_ok=True)
    if not path.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        if set(state) != set(keys):
            raise ValueError(f"it holds {', '.join(state)}")
    except Exception as error:  # torch raises many types for what is no archive of its own
        raise CodesignError(str(path), "is no checkpoint, or a damaged one", OTHER_HINT) from error
    return state
