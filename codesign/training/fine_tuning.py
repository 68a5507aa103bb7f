"""Fine-tuning: repairs what a lossy rewrite did to a network's accuracy.

Repeatable: with the same data, settings and number of threads a run on the CPU ends in the same bits, and so does one
that was killed and resumed. Every epoch draws from a generator of its own, seeded from the run's seed and its number.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from codesign.errors import CodesignError
from codesign.importers.pytorch import digest_of
from codesign.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from codesign.training.distillation import Distillation, distilled
from codesign.training.progress import OnStep

Loss = Callable[[Any, Any], Any]
_EPOCHS_PER_SEED = 1 << 20


class Batches(Protocol):
    """A torch.utils.data.DataLoader, or anything like it: (inputs, targets) in every step, anew for every epoch.

    Whatever it draws at random must come from PyTorch's own generator.
    """

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[tuple[Any, Any]]: ...


@dataclass(frozen=True)
class FineTuning:
    """AdamW with a rate that falls to zero along a cosine. weight_decay: of matrices and kernels, not of vectors."""

    epochs: int = 10
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs must be at least 1, not {self.epochs}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be positive, not {self.learning_rate:g}")


def fine_tune(
    module: Any,
    batches: Batches,
    settings: FineTuning,
    *,
    loss: Loss | None = None,
    distillation: Distillation | None = None,
    checkpoint: Path | None = None,
    on_step: OnStep | None = None,
) -> tuple[float, ...]:
    """Train `module` in place and leave it in evaluation mode; the mean loss of every epoch.

    loss: of outputs and targets, cross-entropy if not given. distillation: adds a teacher's answers. checkpoint: a file
    written after every epoch; when it is there already, the run goes on from it. on_step: gets the number of steps
    done, of all steps, and the loss. Raises CodesignError when the loss is no longer a number, and for a checkpoint
    that is damaged or of another run.
    """
    import torch

    loss = loss or torch.nn.functional.cross_entropy
    optimizer = torch.optim.AdamW(weight_groups(module, settings.weight_decay), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.epochs * len(batches))
    run = _run_of(module, settings, distillation, len(batches))
    before = read_checkpoint(checkpoint, run) if checkpoint is not None else None
    losses: tuple[float, ...] = ()
    if before is not None:
        losses = before.losses
        module.load_state_dict(before.module)
        optimizer.load_state_dict(before.optimizer)
        schedule.load_state_dict(before.schedule)
    with repeatable(module):
        for epoch in range(len(losses), settings.epochs):
            torch.manual_seed(settings.seed * _EPOCHS_PER_SEED + epoch)
            steps = _steps(module, batches, loss, distillation, optimizer, schedule)
            losses += (_watched(steps, epoch, len(batches), settings.epochs, on_step),)
            if checkpoint is not None:
                states = (module.state_dict(), optimizer.state_dict(), schedule.state_dict())
                write_checkpoint(Checkpoint(run, losses, *states), checkpoint)
    module.eval()
    return losses


def _steps(
    module: Any, batches: Batches, loss: Loss, distillation: Distillation | None, optimizer: Any, schedule: Any
) -> Iterator[float]:
    """One epoch; the loss of every step."""
    module.train()
    if distillation is not None:
        distillation.teacher.eval()
    device = next(module.parameters()).device
    for inputs, targets in batches:
        inputs, targets = inputs.to(device), targets.to(device)
        outputs = module(inputs)
        value = loss(outputs, targets)
        if distillation is not None:
            value = distilled(value, outputs, distillation, inputs)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        schedule.step()
        yield value.item()


def _watched(steps: Iterable[float], epoch: int, per_epoch: int, epochs: int, on_step: OnStep | None) -> float:
    """The mean loss of an epoch. Raises CodesignError as soon as a loss is no number."""
    total = count = 0.0
    for number, value in enumerate(steps, 1):
        if not math.isfinite(value):
            raise CodesignError(f"training, epoch {epoch + 1}", f"the loss is {value}", "lower the learning rate")
        total, count = total + value, count + 1
        if on_step is not None:
            on_step(epoch * per_epoch + number, epochs * per_epoch, value)
    return total / count


def weight_groups(module: Any, weight_decay: float) -> list[dict[str, Any]]:
    """Weights that decay, and vectors (biases, scales, shifts), which do not."""
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    return [
        {"params": [weight for weight in weights if weight.ndim > 1], "weight_decay": weight_decay},
        {"params": [weight for weight in weights if weight.ndim <= 1], "weight_decay": 0.0},
    ]


def _run_of(module: Any, settings: FineTuning, distillation: Distillation | None, per_epoch: int) -> str:
    """A hash of what decides the course of a run, the data apart."""
    parts = [digest_of(module.state_dict()), repr(asdict(settings)), str(per_epoch)]
    if distillation is not None:
        parts += [digest_of(distillation.teacher.state_dict()), f"{distillation.temperature} {distillation.soft_share}"]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@contextmanager
def repeatable(module: Any) -> Iterator[None]:
    """Deterministic algorithms on the CPU; the caller's generator and choice of algorithms come back afterwards."""
    import torch

    on_cpu = all(weight.device.type == "cpu" for weight in module.parameters())
    before = torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=[]):
        torch.use_deterministic_algorithms(before or on_cpu)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)
