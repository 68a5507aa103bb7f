"""Which candidates are trained, and how far: the tournament, aging evolution, random search.

A strategy is a function of what it trained alone. It asks for accuracies, which the run takes from its store where they
are known; so a resumed run repeats every decision of the unbroken one, without training anything twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from random import Random

from codesign.search.candidate import Candidate
from codesign.search.settings import SearchSettings
from codesign.search.tournament import Criterion, Curves, Elimination, Group, eliminations, ranking, score, survivors

# Trains candidates up to an epoch (from 1): accuracies of the epochs 1 to that one, by name.
Train = Callable[[Sequence[str], int], Curves]
# Told who left the groups.
Record = Callable[[Sequence[Elimination]], None]


def tournament(groups: Sequence[Group], settings: SearchSettings, train: Train, record: Record) -> dict[str, int]:
    """Rounds of training and elimination until one of each group is left and trained: groups (from 1) by champion.

    groups: from the lightest candidate to the heaviest. All groups train at the same time.
    """
    rounds, criterion = settings.rounds, settings.criterion
    left = list(groups)
    for number in range(1, rounds.count + 1):
        curves = train([name for group in left for name in group], rounds.end(number))
        record([gone for group in left for gone in eliminations(group, curves, rounds, number, criterion)])
        left = [survivors(group, curves, rounds, number, criterion) for group in left]
    return {name: number for number, group in enumerate(left, 1) for name in group}


def aging_evolution(candidates: Sequence[Candidate], settings: SearchSettings, train: Train) -> tuple[str, ...]:
    """Aging evolution (Real et al., Regularized Evolution for Image Classifier Architecture Search, 2019, algorithm 1).

    The best of a sample of the population, by its accuracy after the last epoch, has a child that differs from it in
    one coefficient, and the oldest member dies, until the history has `trials` models. Returns the history in its
    order; a model may stand in it twice, and is trained once. The first population trains at the same time, children
    one by one.
    """
    random = Random(f"aging evolution {settings.seed}")
    by_name = {candidate.name: candidate for candidate in candidates}
    last_epoch = settings.rounds.last_epoch
    population = deque(random.choice(candidates).name for _ in range(settings.population))
    history = list(population)
    curves = dict(train(list(dict.fromkeys(history)), last_epoch))
    while len(history) < settings.trials:
        sample = [random.choice(population) for _ in range(settings.sample)]
        parent = max(sample, key=lambda name: score(curves[name], last_epoch, Criterion.LAST))
        child = mutated(by_name[parent], candidates, random).name
        curves |= train([child], last_epoch)
        population.append(child)
        history.append(child)
        population.popleft()
    return tuple(history)


def mutated(parent: Candidate, candidates: Sequence[Candidate], random: Random) -> Candidate:
    """A candidate that differs from its parent in as few coefficients as any does: in one, where there are such."""
    others = [candidate for candidate in candidates if candidate != parent]
    if not others:
        return parent
    differences = [_differences(parent, other) for other in others]
    return random.choice([other for other, many in zip(others, differences, strict=True) if many == min(differences)])


def random_search(candidates: Sequence[Candidate], settings: SearchSettings, train: Train) -> tuple[str, ...]:
    """`trials` different candidates (all, if there are fewer), drawn at random and trained to the last epoch."""
    random = Random(f"random search {settings.seed}")
    drawn = [one.name for one in random.sample(candidates, min(settings.trials, len(candidates)))]
    train(drawn, settings.rounds.last_epoch)
    return tuple(drawn)


def best_of_groups(
    groups: Sequence[Group], trained: Sequence[str], curves: Curves, settings: SearchSettings
) -> dict[str, int]:
    """Groups (from 1) by champion: the best of each group after the last epoch, among those trained that far."""
    found = {}
    for number, group in zip(count(1), groups, strict=False):
        known = tuple(name for name in group if name in trained)
        for name in ranking(known, curves, settings.rounds.last_epoch, Criterion.LAST)[:1]:
            found[name] = number
    return found


def _differences(one: Candidate, other: Candidate) -> int:
    mine, theirs = dict(one.arguments), dict(other.arguments)
    return sum(mine.get(name) != theirs.get(name) for name in {**mine, **theirs})
