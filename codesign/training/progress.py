"""A progress bar for training."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

OnStep = Callable[[int, int, float], None]


@contextmanager
def training_progress(description: str) -> Iterator[OnStep | None]:
    """What `fine_tune` calls after every step, drawn as a bar on stderr; None when that is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    text, loss = TextColumn("{task.description}"), TextColumn("loss {task.fields[loss]:.4f}")
    columns = (text, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), loss)
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(description, total=None, loss=float("nan"))

        def on_step(done: int, total: int, loss: float) -> None:
            progress.update(task, completed=done, total=total, loss=loss)

        yield on_step
