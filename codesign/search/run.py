"""A whole search on one screen: price the candidates, group them, cut, train by a strategy, keep the champions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path

from codesign.errors import CodesignError, DoesNotFitError
from codesign.search.candidate import Candidate, Pool, Task
from codesign.search.grouping import groups_of, z_sums
from codesign.search.resources import AXES, Resources
from codesign.search.results import Results, results_of
from codesign.search.settings import SearchSettings
from codesign.search.store import Grouped, Store, open_store
from codesign.search.strategies import aging_evolution, best_of_groups, random_search, tournament
from codesign.search.tournament import Curves, Elimination, Group, kept_of

logger = logging.getLogger(__name__)

Found = Iterator[tuple[Candidate, Resources | str]]
Scored = Iterator[tuple[Candidate, float]]

# Told what is done: `pricing`, `first cut` or `training`; of what; how much of it is done; how much there is in all.
OnStep = Callable[[str, str, int, int], None]


@dataclass(frozen=True)
class Workshop:
    """What a search needs others for.

    resources: what each candidate needs, or in words why the machine cannot run it, in any order. pool: trains.
    proxies: the zero-cost score of each for the first cut, higher is better; None for no such cut. identity: by option,
    what else the results depend on: space, machine, data, how candidates are trained.
    """

    resources: Callable[[Sequence[Candidate]], Found]
    pool: Pool
    proxies: Callable[[Sequence[Candidate]], Scored] | None
    identity: Mapping[str, str]


def run_search(
    candidates: Sequence[Candidate],
    settings: SearchSettings,
    workshop: Workshop,
    folder: Path,
    on_step: OnStep | None = None,
) -> Results:
    """Search, or go on with the search in `folder`, to the end.

    Raises CodesignError: the folder holds a run with other settings, or something else; no candidate fits the machine.
    """
    step = on_step or (lambda *_: None)
    settings.groups_for(len(candidates))
    with open_store(folder) as store:
        store.begin({**workshop.identity, **settings.identity()}, candidates)
        _price(store, workshop, step)
        groups = _group(store, settings)
        if workshop.proxies is not None:
            groups = _cut(store, groups, workshop.proxies, step)
        store.put_champions(_strategy(store, settings, groups, workshop.pool, step))
        return results_of(store)


def _price(store: Store, workshop: Workshop, step: OnStep) -> None:
    """Resources of all candidates; those that do not fit the machine are set aside."""
    known = store.resources().keys() | store.refusals().keys()
    candidates = store.candidates()
    missing = [candidate for candidate in candidates if candidate.name not in known]
    known_ones = len(candidates) - len(missing)
    step("pricing", "", known_ones, len(candidates))
    for done, (candidate, found) in enumerate(workshop.resources(missing), known_ones + 1):
        if isinstance(found, str):
            logger.info("%s does not fit", candidate.name)
            store.put_refusal(candidate.name, found)
        else:
            store.put_resources(candidate.name, found)
        step("pricing", candidate.name, done, len(candidates))
    if not store.resources():
        reasons, name = store.refusals(), candidates[0].name
        raise DoesNotFitError(name, f"no candidate fits the machine; this one: {reasons[name]}")


def _group(store: Store, settings: SearchSettings) -> tuple[Group, ...]:
    """Groups by the axes of the settings."""
    resources = store.resources()
    names = [candidate.name for candidate in store.candidates() if candidate.name in resources]
    sums = z_sums([[AXES[axis](resources[name]) for name in names] for axis in settings.axes])
    by_name = dict(zip(names, sums, strict=True))
    groups = groups_of(by_name, settings.groups_for(len(names)))
    store.put_groups(
        [
            Grouped(name, number, place, by_name[name])
            for number, group in enumerate(groups, 1)
            for place, name in enumerate(group, 1)
        ]
    )
    return groups


def _cut(
    store: Store, groups: Sequence[Group], proxies: Callable[[Sequence[Candidate]], Scored], step: OnStep
) -> tuple[Group, ...]:
    """The better half of every group by the proxy, equal ones the lighter first; the others leave in round 0."""
    by_name = {candidate.name: candidate for candidate in store.candidates()}
    names = [name for group in groups for name in group]
    known = store.proxies()
    missing = [by_name[name] for name in names if name not in known]
    known_ones = len(names) - len(missing)
    step("first cut", "", known_ones, len(names))
    for done, (candidate, score) in enumerate(proxies(missing), known_ones + 1):
        if isnan(score):
            problem = f"its score in the first cut is {score}"
            raise CodesignError(candidate.name, problem, "use another --first-cut, or none")
        store.put_proxy(candidate.name, score)
        step("first cut", candidate.name, done, len(names))
    scores = store.proxies()
    kept = []
    for group in groups:
        ranked = sorted(group, key=lambda name: -scores[name])
        best = ranked[: kept_of(len(group))]
        store.put_eliminations([Elimination(name, 0, 0, scores[name]) for name in ranked[len(best) :]])
        kept.append(tuple(name for name in group if name in best))
    return tuple(kept)


def _strategy(
    store: Store, settings: SearchSettings, groups: Sequence[Group], pool: Pool, step: OnStep
) -> dict[str, int]:
    """Train by the strategy: groups (from 1) by champion."""
    names = {name for group in groups for name in group}
    candidates = [candidate for candidate in store.candidates() if candidate.name in names]
    macs = {name: resources.macs for name, resources in store.resources().items()}
    trainer = Trainer(store, {candidate.name: candidate for candidate in candidates}, macs, pool, step)
    match settings.strategy:
        case "tournament":
            trainer.expect(tournament_epochs(groups, settings))
            return tournament(groups, settings, trainer.train, store.put_eliminations)
        case "aging_evolution":
            trainer.expect(settings.trials * settings.rounds.last_epoch)
            trained = aging_evolution(candidates, settings, trainer.train)
        case _:
            trainer.expect(min(settings.trials, len(candidates)) * settings.rounds.last_epoch)
            trained = random_search(candidates, settings, trainer.train)
    return best_of_groups(groups, trained, store.curves(), settings)


@dataclass
class Trainer:
    """Trains what the store does not know yet, and writes down every result as it comes."""

    store: Store
    candidates: Mapping[str, Candidate]
    macs: Mapping[str, int]
    pool: Pool
    step: OnStep
    expected: int = 0

    def expect(self, epochs: int) -> None:
        """How many epochs of all candidates together there are to train, known ones among them."""
        self.expected = epochs

    def train(self, names: Sequence[str], last_epoch: int) -> Curves:
        """Accuracies of the epochs 1 to `last_epoch` by name."""
        curves = self.store.curves()
        missing = [name for name in names if len(curves.get(name, ())) < last_epoch]
        # The longest first, so that no worker is left alone with one at the end.
        missing.sort(key=lambda name: -self.macs[name])
        tasks = [Task(self.candidates[name], last_epoch) for name in missing]
        done = sum(map(len, curves.values()))
        self.step("training", "", done, self.expected)
        for task, accuracies in self.pool.run(tasks) if tasks else ():
            name = task.candidate.name
            if len(accuracies) != task.last_epoch:
                raise CodesignError(
                    name, f"was to train {task.last_epoch} epochs, and came back after {len(accuracies)}"
                )
            done += task.last_epoch - len(curves.get(name, ()))
            self.store.put_curve(name, accuracies)
            logger.info("%s: %.4f after epoch %d", name, accuracies[-1], last_epoch)
            self.step("training", name, done, self.expected)
        curves = self.store.curves()
        return {name: curves[name][:last_epoch] for name in names}


def tournament_epochs(groups: Sequence[Group], settings: SearchSettings) -> int:
    """Epochs a tournament trains, over all candidates."""
    epochs, sizes = 0, [len(group) for group in groups]
    for _ in range(settings.rounds.count):
        epochs += sum(sizes) * settings.rounds.epochs
        sizes = [kept_of(size) for size in sizes]
    return epochs
