"""One trial: a candidate trained epoch by epoch, with a checkpoint after every one.

The bits of a trial on the CPU follow from the run's seed, the candidate, the data and the settings: every epoch draws
from a generator seeded with its own number, and one thread computes. So they are the same whatever trains beside it,
and in whatever pieces it is trained.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from codesign.errors import CodesignError
from codesign.importers.pytorch import digest_of, require_torch
from codesign.networks.catalogue import generator
from codesign.search.candidate import Candidate, Task
from codesign.search.data import Augmentation, DataModule, Samples, augmented
from codesign.training.checkpoint import OTHER_HINT, read_state, write_state
from codesign.training.fine_tuning import repeatable, weight_groups

CHECKPOINT = ".pt"
_JUDGED_AT_ONCE = 256
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Training:
    """How every candidate is trained, all alike; as it stands, for a few thousand images and some 8 to 40 epochs.

    batch: images a step, a few more where an epoch cannot be cut evenly. learning_rate: falls by the factor `decay`
    every epoch, after growing from zero for `warm_up_epochs`; it does not depend on how long training goes on.
    weight_decay: of kernels and matrices. threads: of PyTorch for each trial; sums differ in their last bits with it.
    """

    optimizer: Literal["rmsprop", "sgd"] = "rmsprop"
    batch: int = 32
    learning_rate: float = 1e-3
    decay: float = 0.9
    warm_up_epochs: float = 1.0
    weight_decay: float = 1e-5
    label_smoothing: float = 0.0
    threads: int = 1

    def __post_init__(self) -> None:
        if self.batch < 2:
            raise ValueError(f"batch must be at least 2, not {self.batch}")
        for name in ("learning_rate", "decay"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name):g}")
        if self.threads < 1:
            raise ValueError(f"threads must be at least 1, not {self.threads}")

    def rate(self, epochs: float) -> float:
        """The learning rate after so many epochs, a step's own share of its epoch counted."""
        warm = min(1.0, epochs / self.warm_up_epochs) if self.warm_up_epochs > 0 else 1.0
        return float(self.learning_rate * warm * self.decay**epochs)


# The paper on EfficientNet-eLite says RMSProp, batches of 100, 350 epochs, the rest as EfficientNet (Tan and Le, 2019):
# decay 0.9, momentum 0.9, weight decay 1e-5, a rate of 0.256 that falls by 0.97 every 2.4 epochs. That is for batches
# of 4096; here the rate is taken in proportion.
PAPER = Training(
    batch=100, learning_rate=0.256 * 100 / 4096, decay=0.97 ** (1 / 2.4), warm_up_epochs=5, label_smoothing=0.1
)


@dataclass(frozen=True)
class Trials:
    """What the trials of a run share. folder: of their checkpoints. seed: of weights, order and augmentation."""

    folder: Path
    data: DataModule
    training: Training = Training()
    seed: int = 0


@dataclass(frozen=True)
class Progress:
    """A checkpoint. run: a hash of all that decides the course of the trial. module, optimizer: their state_dict()."""

    run: str
    classes: int
    accuracies: tuple[float, ...]
    module: dict[str, Any]
    optimizer: dict[str, Any]


def train(trials: Trials, task: Task) -> tuple[float, ...]:
    """Train a candidate from where its checkpoint stands; validation accuracies (0 to 1) of the epochs 1 to the last.

    An epoch in which the loss is no longer a number counts as accuracy 0, and so does every one after it. Raises
    CodesignError, naming the candidate, when it cannot be built or run, and for a checkpoint of another run.
    """
    with one_trial(trials, task.candidate):
        return _trained(trials, task)[: task.last_epoch]


def trained_module(folder: Path, candidate: Candidate) -> Any:
    """The module of a candidate as its checkpoint has it, in evaluation mode on the CPU. Raises CodesignError."""
    path = checkpoint_of(folder, candidate)
    progress = _read(path)
    if progress is None:
        raise CodesignError(str(path), f"there is no checkpoint of {candidate.name}", "train it first")
    module = _built(candidate, progress.classes)
    module.load_state_dict(progress.module)
    return module.eval()


def checkpoint_of(folder: Path, candidate: Candidate) -> Path:
    """Where the checkpoint of a candidate stands."""
    return folder / f"{candidate.name}{CHECKPOINT}"


def _trained(trials: Trials, task: Task) -> tuple[float, ...]:
    import torch

    candidate = task.candidate
    path = checkpoint_of(trials.folder, candidate)
    path.parent.mkdir(parents=True, exist_ok=True)
    check_channels(trials, candidate)
    module = initial_module(candidate, trials.data.classes, trials.seed)
    run = _run_of(trials, candidate, module)
    before = _read(path)
    if before is not None and before.run != run:
        raise CodesignError(str(path), "belongs to another run: network, data, settings or seed differ", OTHER_HINT)
    accuracies = before.accuracies if before is not None else ()
    if len(accuracies) >= task.last_epoch:
        return accuracies
    lesson = _lesson(trials, candidate, module)
    if before is not None:
        module.load_state_dict(before.module)
        lesson.optimizer.load_state_dict(before.optimizer)
    with repeatable(module):
        for epoch in range(len(accuracies) + 1, task.last_epoch + 1):
            torch.manual_seed(seed_of(trials.seed, candidate, epoch))
            accuracies += (_epoch(lesson, epoch),)
            states = module.state_dict(), lesson.optimizer.state_dict()
            write_state(vars(Progress(run, trials.data.classes, accuracies, *states)), path)
    return accuracies


@dataclass(frozen=True)
class _Lesson:
    """A module on its device, and all it is trained with."""

    name: str
    module: Any
    optimizer: Any
    layout: Any
    training: Samples
    validation: Samples
    augmentation: Augmentation
    settings: Training


def _lesson(trials: Trials, candidate: Candidate, module: Any) -> _Lesson:
    """Moves the module to a GPU, if there is one."""
    import torch

    layout, data, size = _layout(module, candidate), trials.data, candidate.image[1:]
    module.to("cuda" if torch.cuda.is_available() else "cpu")
    return _Lesson(
        candidate.name,
        module,
        _optimizer(module, trials.training),
        layout,
        data.training(*size),
        data.validation(*size),
        data.augmentation,
        trials.training,
    )


def _layout(module: Any, candidate: Candidate) -> Any:
    """Channels last where the network's code takes them so, a third faster on processors; else columns last."""
    import torch

    module.eval().to(memory_format=torch.channels_last)
    try:
        with torch.no_grad():
            module(torch.zeros(2, *candidate.image).to(memory_format=torch.channels_last))
    except RuntimeError:  # it calls `view`; what is wrong beside that shows in training
        module.to(memory_format=torch.contiguous_format)
        return torch.contiguous_format
    return torch.channels_last


def _epoch(lesson: _Lesson, epoch: int) -> float:
    """The accuracy after one more epoch."""
    if not _learn(lesson, epoch):
        _log.warning("%s: the loss is no number in epoch %d; its accuracy counts as 0", lesson.name, epoch)
        return 0.0
    return accuracy(lesson.module, lesson.validation)


def _learn(lesson: _Lesson, epoch: int) -> bool:
    """One pass over the samples in a random order; False as soon as the loss is no number."""
    import torch

    samples, settings, device = lesson.training, lesson.settings, next(lesson.module.parameters()).device
    # Never smaller than a batch: BatchNorm cannot learn from a single image.
    batches = torch.tensor_split(torch.randperm(len(samples)), max(1, len(samples) // settings.batch))
    lesson.module.train()
    for step, numbers in enumerate(batches, 1):
        images, labels = samples.batch(numbers.tolist())
        outputs = lesson.module(augmented(images, lesson.augmentation).to(device, memory_format=lesson.layout))
        smoothing = settings.label_smoothing
        loss = torch.nn.functional.cross_entropy(outputs, labels.to(device), label_smoothing=smoothing)
        if not math.isfinite(loss.item()):
            return False
        for group in lesson.optimizer.param_groups:
            group["lr"] = settings.rate(epoch - 1 + step / len(batches))
        lesson.optimizer.zero_grad()
        loss.backward()
        lesson.optimizer.step()
    return True


def accuracy(module: Any, samples: Samples) -> float:
    """The share of samples whose largest output is their label, in evaluation mode."""
    import torch

    device, right = next(module.parameters()).device, 0
    module.eval()
    with torch.no_grad():
        for start in range(0, len(samples), _JUDGED_AT_ONCE):
            images, labels = samples.batch(range(start, min(start + _JUDGED_AT_ONCE, len(samples))))
            right += int((module(images.to(device)).argmax(1).cpu() == labels).sum())
    return right / len(samples)


def initial_module(candidate: Candidate, classes: int, seed: int) -> Any:
    """The module with the weights training begins with, drawn from PyTorch's generator, seeded by both."""
    import torch

    torch.manual_seed(seed_of(seed, candidate, 0))
    return _built(candidate, classes)


def _built(candidate: Candidate, classes: int) -> Any:
    return generator(candidate.generator)(**dict(candidate.arguments), classes=classes, channels=candidate.image[0])


def _optimizer(module: Any, training: Training) -> Any:
    import torch

    groups = weight_groups(module, training.weight_decay)
    match training.optimizer:
        case "rmsprop":
            return torch.optim.RMSprop(groups, lr=training.learning_rate, alpha=0.9, momentum=0.9, eps=1e-3)
        case "sgd":
            return torch.optim.SGD(groups, lr=training.learning_rate, momentum=0.9, nesterov=True)


def check_channels(trials: Trials, candidate: Candidate) -> None:
    """Raises CodesignError when candidate and data do not fit each other."""
    data = trials.data
    if candidate.image[0] != data.channels:
        raise CodesignError(
            candidate.name, f"takes images of {candidate.image[0]} channels; the data have {data.channels}"
        )


def _read(path: Path) -> Progress | None:
    state = read_state(path, tuple(field.name for field in fields(Progress)))
    return None if state is None else Progress(**state)


def _run_of(trials: Trials, candidate: Candidate, module: Any) -> str:
    """A hash of all that decides the course of a trial."""
    parts = (
        repr(candidate),
        digest_of(module.state_dict()),
        trials.data.identity,
        asdict(trials.training),
        trials.seed,
    )
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()


def seed_of(seed: int, candidate: Candidate, epoch: int) -> int:
    """Of everything drawn in an epoch, 63 bits; epoch 0 draws the weights."""
    digest = hashlib.sha256(f"{seed} {candidate!r} {epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@contextmanager
def one_trial(trials: Trials, candidate: Candidate) -> Iterator[None]:
    """The threads that trials have; PyTorch's generator comes back afterwards.

    Raises CodesignError, naming the candidate, for whatever fails inside.
    """
    torch = require_torch(candidate.name)
    threads = torch.get_num_threads()
    torch.set_num_threads(trials.training.threads)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    except CodesignError:
        raise
    except Exception as error:  # code of others: generators and data
        text = next(iter(str(error).splitlines()), "")
        raise CodesignError(candidate.name, f"cannot be trained: {type(error).__name__}: {text}") from error
    finally:
        torch.set_num_threads(threads)
