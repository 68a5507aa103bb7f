"""Who works: one after another here, side by side in processes of this machine, or on a Ray cluster.

A worker that is killed loses at most the epoch it was in: its task starts again from its checkpoint, `RETRIES` times at
most.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext, SpawnProcess
from pickle import PicklingError
from typing import Any, Generic, Self, TypeAlias, cast

from codesign.errors import CodesignError, Problem
from codesign.search.candidate import Candidate, T, Task, Work
from codesign.search.trial import Trials, checkpoint_of, train

RETRIES = 3
Result = tuple[Task, tuple[float, ...]]
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Call(Generic[T]):
    """Work on one candidate that is not training."""

    work: Work[T]
    candidate: Candidate


Job: TypeAlias = Task | Call[Any]


@dataclass(frozen=True)
class Answer:
    """What a worker found, or why it found nothing, on its way back."""

    value: Any = None
    problems: tuple[Problem, ...] = ()

    def read(self) -> Any:
        """What was found. Raises the CodesignError that came instead."""
        if self.problems:
            raise CodesignError.of(self.problems)
        return self.value


def attempt(trials: Trials, job: Job) -> Answer:
    """Do a job, with its error as a value: exceptions lose their parts between processes."""
    try:
        return Answer(job.work(trials, job.candidate) if isinstance(job, Call) else train(trials, job))
    except CodesignError as error:
        return Answer(problems=error.problems)


@dataclass(frozen=True)
class SerialPool:
    """One task after another, in this process."""

    trials: Trials

    def run(self, tasks: Sequence[Task]) -> Iterator[Result]:
        """Each task as it ends, with its accuracies. Raises CodesignError."""
        for task in tasks:
            yield task, train(self.trials, task)

    def each(self, work: Work[T], candidates: Sequence[Candidate]) -> Iterator[tuple[Candidate, T]]:
        """Each candidate with what `work` makes of it. Raises CodesignError."""
        for candidate in candidates:
            yield candidate, work(self.trials, candidate)


@dataclass
class _Worker:
    """A process, this end of the pipe to it, and what it is at."""

    process: SpawnProcess
    pipe: Connection
    job: Job | None = None
    number: int = 0

    def begin(self, number: int, job: Job) -> None:
        self.number, self.job = number, job
        self.pipe.send(job)

    def end(self) -> int | None:
        """The exit code; of a process killed by a signal its number, negative."""
        self.process.kill()
        self.process.join()
        self.pipe.close()
        return self.process.exitcode


class _Workers(ABC):
    """Pools whose jobs are done elsewhere."""

    def each(self, work: Work[T], candidates: Sequence[Candidate]) -> Iterator[tuple[Candidate, T]]:
        """Each candidate as it ends, with what `work` makes of it. Raises CodesignError as `run` does."""
        return ((call.candidate, value) for call, value in self._done([Call(work, one) for one in candidates]))

    @abstractmethod
    def _done(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Any]]:
        """Each job as it ends, with what came of it."""


class ProcessPool(_Workers):
    """Processes of this machine, each at one job. Use it with `with`: they live until its end, over many rounds.

    The program's main file must guard what it runs with `if __name__ == "__main__":`, as multiprocessing demands.
    """

    def __init__(self, trials: Trials, workers: int, retries: int = RETRIES) -> None:
        if workers < 1:
            raise ValueError(f"workers must be at least 1, not {workers}")
        self._trials, self._count, self._retries = trials, workers, retries
        self._context: SpawnContext = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers at once; what they are at goes on from its checkpoint another time."""
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    def run(self, tasks: Sequence[Task]) -> Iterator[Result]:
        """Each task as it ends, with its accuracies. Raises CodesignError, also when a task's workers keep dying."""
        return cast("Iterator[Result]", self._done(tasks))

    def _done(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Any]]:
        """Each job as it ends, with what came of it."""
        waiting, kills = deque(enumerate(jobs)), [0] * len(jobs)
        try:
            while waiting or self._busy():
                self._hand_out(waiting)
                for worker in self._ready():
                    assert worker.job is not None
                    number, answer = worker.number, _answer(worker)
                    if answer is not None:
                        worker.job = None
                        yield jobs[number], answer.read()
                        continue
                    code = self._bury(worker)
                    kills[number] += 1
                    if kills[number] > self._retries:
                        raise died(jobs[number].candidate, kills[number], code)
                    waiting.appendleft((number, jobs[number]))
        finally:
            for worker in self._busy():  # whoever asked has stopped asking
                self._bury(worker)

    def _busy(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.job is not None]

    def _ready(self) -> list[_Worker]:
        """Those that have an answer, or are dead; waits for the first."""
        busy = {worker.pipe: worker for worker in self._busy()}
        return [busy[pipe] for pipe in wait(list(busy)) if isinstance(pipe, Connection)]

    def _hand_out(self, waiting: deque[tuple[int, Job]]) -> None:
        while waiting and len(self._busy()) < self._count:
            idle = [worker for worker in self._workers if worker.job is None]
            worker = idle[0] if idle else self._start()
            try:
                worker.begin(*waiting[0])
            except OSError:  # it died while idle
                self._bury(worker)
                continue
            waiting.popleft()

    def _start(self) -> _Worker:
        here, there = self._context.Pipe()
        process = self._context.Process(target=_work, args=(there, self._trials), daemon=True)
        try:
            process.start()
        except (PicklingError, TypeError, AttributeError) as error:
            hint = "use objects of classes and functions that a module defines, or no workers"
            raise CodesignError("data", f"cannot be given to another process: {error}", hint) from error
        there.close()  # so that the end of the worker is the end of the pipe
        worker = _Worker(process, here)
        self._workers.append(worker)
        return worker

    def _bury(self, worker: _Worker) -> int | None:
        self._workers.remove(worker)
        return worker.end()


class RayPool(_Workers):
    """A Ray cluster: the one this process is connected to, or that at `address`, or a new one of this machine alone.

    One core for each trial, and one GPU where the cluster has any. Ray starts a task again whose worker was killed. On
    several machines the folder of checkpoints, and the data, must be at the same place on each. Raises CodesignError
    when Ray is missing or there is no cluster at the address.
    """

    def __init__(self, trials: Trials, address: str | None = None, retries: int = RETRIES) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # reports to its makers otherwise
        try:
            import ray
        except ImportError as error:
            raise CodesignError("ray", "Ray is not installed", "pip install codesign[ray]") from error
        self._ray, self._folder = ray, trials.folder
        self._ours = not ray.is_initialized()
        if self._ours:
            _connect(ray, address)
        gpus = 1 if ray.cluster_resources().get("GPU", 0) else 0
        self._attempt = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=retries)(attempt)
        self._trials, self._retries = ray.put(trials), retries

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the cluster, and end it where it is our own."""
        if self._ours:
            self._ray.shutdown()

    def run(self, tasks: Sequence[Task]) -> Iterator[Result]:
        """Each task as it ends, with its accuracies. Raises CodesignError, also when a task's workers keep dying."""
        for task, accuracies in cast("Iterator[Result]", self._done(tasks)):
            path = checkpoint_of(self._folder, task.candidate)
            if not path.exists():
                name, hint = task.candidate.name, "give a folder that all machines of the cluster share"
                raise CodesignError(str(path), f"{name} is trained, but its checkpoint is not here", hint)
            yield task, accuracies

    def _done(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Any]]:
        """Each job as it ends, with what came of it."""
        running = {self._attempt.remote(self._trials, job): job for job in jobs}
        try:
            while running:
                (ended,), _ = self._ray.wait(list(running), num_returns=1)
                job = running.pop(ended)
                yield job, self._read(job, ended)
        finally:
            for other in running:
                self._ray.cancel(other, force=True)

    def _read(self, job: Job, ended: Any) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(ended).read()
        except (errors.WorkerCrashedError, errors.OutOfMemoryError) as error:
            raise died(job.candidate, self._retries + 1) from error
        except errors.RayError as error:
            text = str(error).strip().splitlines()[-1]  # above it stands the traceback of a worker
            raise CodesignError(job.candidate.name, f"Ray does not finish it: {text}") from error


def died(candidate: Candidate, times: int, exit_code: int | None = None) -> CodesignError:
    """The error for a candidate whose workers die every time."""
    match exit_code:
        case None:
            last = ""
        case code if code < 0:
            last = f", at last of {signal.Signals(-code).name}"
        case code:
            last = f", at last with exit code {code}"
    problem = f"its process died {times} times{last}"
    return CodesignError(candidate.name, problem, "is there memory enough? try fewer workers, or smaller batches")


def _connect(ray: Any, address: str | None) -> None:
    try:
        ray.init(address=address or "local", include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        text = next(iter(str(error).splitlines()), "")
        raise CodesignError(f"ray {address or ''}".rstrip(), f"no cluster: {text}") from error


def _answer(worker: _Worker) -> Answer | None:
    """What a worker says; None when it is dead."""
    try:
        answer: Answer = worker.pipe.recv()
    except (EOFError, OSError):
        return None
    return answer


def _work(pipe: Connection, trials: Trials) -> None:
    """The life of a worker: job in, answer out, until the other end is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who hands out the jobs
    threading.Thread(target=_die_with_parent, daemon=True).start()
    while True:
        try:
            job: Job = pipe.recv()
        except EOFError:
            return
        pipe.send(attempt(trials, job))


def _die_with_parent() -> None:
    """Nobody trains on for a run that was killed, beside the one that takes it up again."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
