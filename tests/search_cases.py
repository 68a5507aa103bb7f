"""Searches without training: candidates with figures, and pools that know every learning curve beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import exp
from random import Random

from codesign.errors import DoesNotFitError
from codesign.search.candidate import Candidate, Pool, T, Task, Work
from codesign.search.resources import Resources
from codesign.search.run import Workshop
from codesign.search.tournament import Curves

WIDTHS, DEPTHS = (1.0, 0.8, 0.6, 0.4), (1.0, 0.9, 0.7, 0.5)


def candidate(width: float, depth: float) -> Candidate:
    """One of a space of two coefficients."""
    arguments = (("depth", depth), ("width", width))
    return Candidate(f"width{width}_depth{depth}", "net", arguments, (1, 32, 32))


CANDIDATES = tuple(candidate(width, depth) for width in WIDTHS for depth in DEPTHS)


def resources(macs: int, cycles: int, parameters: int = 1000) -> Resources:
    """Figures a test cares for; the others follow from them."""
    return Resources(parameters, macs, cycles, macs / 1e6, cycles // 7, cycles // 3, cycles / 1e6, 0.5)


def resources_of(one: Candidate) -> Resources:
    """More with every coefficient, MACs and cycles in different ways."""
    arguments = dict(one.arguments)
    width, depth = float(arguments["width"]), float(arguments["depth"])
    return resources(int(1e6 * width**2 * depth), int(1e5 * width * depth**3), int(1e4 * width**2))


def curve(one: Candidate, epochs: int, seed: int = 0) -> tuple[float, ...]:
    """Accuracies that rise, each candidate in its own way, with noise that changes rankings from epoch to epoch."""
    random = Random(f"{one.name} {seed}")
    end, speed = random.uniform(0.6, 0.95), random.uniform(0.3, 1.0)
    return tuple(
        round(end * (1 - exp(-speed * epoch)) + random.uniform(-0.04, 0.04), 4) for epoch in range(1, epochs + 1)
    )


class Killed(BaseException):
    """The process is gone: nothing catches it."""


@dataclass
class CurvePool:
    """Knows every curve. done: (name, epochs trained for the task) as tasks ended."""

    curves: Callable[[Candidate, int], tuple[float, ...]] = curve
    done: list[tuple[str, int]] = field(default_factory=list)
    reached: dict[str, int] = field(default_factory=dict)

    def each(self, work: Work[T], candidates: Sequence[Candidate]) -> Iterator[tuple[Candidate, T]]:
        raise AssertionError("these pools train and do nothing else")

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, tuple[float, ...]]]:
        for task in sorted(tasks, key=lambda task: Random(task.candidate.name).random()):  # in no order of theirs
            reached = self.reached.get(task.candidate.name, 0)
            self.reached[task.candidate.name] = max(reached, task.last_epoch)
            self.done.append((task.candidate.name, max(0, task.last_epoch - reached)))
            yield task, self.curves(task.candidate, task.last_epoch)


@dataclass
class Fate:
    """Lets so many things happen, then kills."""

    left: int

    def step(self) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1


@dataclass
class MortalPool:
    """A pool whose process dies: before a task, or after its checkpoint is written and before its result is read."""

    pool: CurvePool
    fate: Fate

    def each(self, work: Work[T], candidates: Sequence[Candidate]) -> Iterator[tuple[Candidate, T]]:
        return self.pool.each(work, candidates)

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, tuple[float, ...]]]:
        results = self.pool.run(tasks)
        for _ in tasks:
            self.fate.step()
            result = next(results)
            self.fate.step()
            yield result


def given(curves: Curves) -> CurvePool:
    """A pool of hand-made curves by name."""
    return CurvePool(lambda one, epochs: tuple(curves[one.name][:epochs]))


def workshop(
    pool: Pool,
    identity: Mapping[str, str] | None = None,
    resources: Callable[[Candidate], Resources] = resources_of,
    proxy: Callable[[Candidate], float] | None = None,
) -> Workshop:
    """All a search needs, with the figures of this file unless others are given; prices come in no order of theirs."""

    def priced(candidates: Sequence[Candidate]) -> Iterator[tuple[Candidate, Resources | str]]:
        for one in sorted(candidates, key=lambda one: Random(one.name).random()):
            try:
                yield one, resources(one)
            except DoesNotFitError as error:
                yield one, str(error)

    def scored(candidates: Sequence[Candidate]) -> Iterator[tuple[Candidate, float]]:
        assert proxy is not None
        return ((one, proxy(one)) for one in candidates)

    return Workshop(priced, pool, scored if proxy else None, identity or {"--hw": "edge_npu"})
