"""Whole searches on hand-made learning curves: strategies, resuming after death at any point, refusals."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given as examples
from hypothesis import settings as effort
from hypothesis import strategies as st

from codesign.errors import CodesignError, DoesNotFitError
from codesign.search.candidate import Candidate, Pool
from codesign.search.resources import Resources
from codesign.search.results import Results, pareto_front, read_results
from codesign.search.run import Workshop, run_search, tournament_epochs
from codesign.search.settings import SearchSettings
from codesign.search.store import DATABASE, Store, open_store, read_store
from codesign.search.strategies import aging_evolution, mutated
from codesign.search.tournament import Criterion, Rounds
from tests.search_cases import (
    CANDIDATES,
    CurvePool,
    Fate,
    Killed,
    MortalPool,
    candidate,
    curve,
    given,
    resources,
    resources_of,
    workshop,
)

QUICK = SearchSettings(rounds=Rounds(2, 4))


def facts(results: Results) -> object:
    """Everything of a run but where it lies."""
    return results.settings, results.outcomes, results.finished


def champions(results: Results) -> list[str]:
    return [one.candidate.name for one in results.champions]


# Tournament ------------------------------------------------------------------------------------------------------


def test_a_tournament_halves_its_groups_and_trains_its_champions_to_the_end(tmp_path: Path) -> None:
    pool, steps = CurvePool(), []
    results = run_search(CANDIDATES, QUICK, workshop(pool), tmp_path / "run", lambda *step: steps.append(step))
    assert Counter(one.grouped.group for one in results.outcomes if one.grouped) == {1: 4, 2: 4, 3: 4, 4: 4}
    assert Counter(one.elimination.round for one in results.outcomes if one.elimination) == {1: 8, 2: 4}
    assert Counter(len(one.accuracies) for one in results.outcomes) == {2: 8, 4: 4, 8: 4}
    assert all(len(one.accuracies) == 8 and one.elimination is None for one in results.champions)
    assert [one.grouped.group for one in results.champions if one.grouped] == [1, 2, 3, 4]
    trained = sum(epochs for _, epochs in pool.done)
    assert trained == 8 * 2 + 4 * 4 + 4 * 8
    assert steps[-1][0] == "training" and steps[-1][2:] == (trained, trained)


def test_champions_by_hand(tmp_path: Path) -> None:
    """Groups by MACs: a b | c d. In each the first is ahead in round 1 on average, the second in the last epoch."""
    names = [candidate(width, 1.0) for width in (0.1, 0.2, 0.3, 0.4)]
    curves = {
        names[0].name: (0.5, 0.4),
        names[1].name: (0.3, 0.5),
        names[2].name: (0.6, 0.5),
        names[3].name: (0.4, 0.6),
    }
    made = workshop(given(curves), resources=lambda one: resources(int(1e6 * float(dict(one.arguments)["width"])), 1))
    settings = SearchSettings(axes=("macs",), groups=2, rounds=Rounds(2, 1))
    average = run_search(names, settings, made, tmp_path / "average")
    last = SearchSettings(axes=("macs",), groups=2, rounds=Rounds(2, 1), criterion=Criterion.LAST)
    assert champions(average) == [names[0].name, names[2].name]
    assert champions(run_search(names, last, made, tmp_path / "last")) == [names[1].name, names[3].name]


def test_groups_by_macs_and_by_cycles_have_other_champions(tmp_path: Path) -> None:
    """In groups by cycles, the two best stand in different groups; in groups by MACs they meet in one."""
    few, many = [candidate(width, 0.5) for width in (0.1, 0.2)], [candidate(width, 1.0) for width in (0.3, 0.4)]
    figures = dict(zip((one.name for one in (*few, *many)), ((1, 40), (2, 10), (30, 20), (40, 30)), strict=True))
    curves = {one.name: (value,) for one, value in zip((*few, *many), (0.9, 0.8, 0.7, 0.6), strict=True)}
    made = workshop(given(curves), resources=lambda one: resources(*figures[one.name]))
    found = {}
    for axis in ("macs", "cycles"):
        settings = SearchSettings(axes=(axis,), groups=2, rounds=Rounds(1, 1))
        found[axis] = champions(run_search((*few, *many), settings, made, tmp_path / axis))
    assert found["macs"] == [few[0].name, many[0].name]
    assert found["cycles"] == [few[1].name, few[0].name]


def test_the_first_cut_leaves_half_of_every_group_untrained(tmp_path: Path) -> None:
    asked: list[str] = []

    def proxy(one: Candidate) -> float:
        asked.append(one.name)
        return -float(dict(one.arguments)["width"])

    made = workshop(CurvePool(), proxy=proxy)
    settings = SearchSettings(rounds=Rounds(1, 3), first_cut="by_hand")
    results = run_search(CANDIDATES, settings, made, tmp_path / "run")
    cut = [one for one in results.outcomes if one.elimination and one.elimination.round == 0]
    assert len(cut) == 8 and not any(one.accuracies for one in cut)
    for group in range(1, 5):
        mine = [one for one in results.outcomes if one.grouped and one.grouped.group == group]
        left = max(one.proxy for one in mine if one in cut if one.proxy is not None)
        assert all(one.proxy >= left for one in mine if one not in cut if one.proxy is not None)
    assert run_search(CANDIDATES, settings, made, tmp_path / "run") == results
    assert len(asked) == 16


def test_a_score_that_is_no_number_is_refused(tmp_path: Path) -> None:
    made = workshop(CurvePool(), proxy=lambda one: float("nan"))
    with pytest.raises(CodesignError) as refused:
        run_search(CANDIDATES, SearchSettings(first_cut="by_hand"), made, tmp_path / "run")
    assert str(refused.value).startswith("width0.4_depth0.5: its score in the first cut is nan\n  hint: use another")


# Other strategies ------------------------------------------------------------------------------------------------


def test_random_search_trains_different_candidates_to_the_end(tmp_path: Path) -> None:
    settings = SearchSettings(rounds=Rounds(2, 2), strategy="random", trials=6)
    pool = CurvePool()
    results = run_search(CANDIDATES, settings, workshop(pool), tmp_path / "run")
    assert sorted(pool.done) == sorted((one.candidate.name, 4) for one in results.trained)
    assert len(results.trained) == 6
    assert 1 <= len(results.champions) <= 4
    for champion in results.champions:
        rivals = [one for one in results.trained if one.grouped.group == champion.grouped.group]  # type: ignore[union-attr]
        assert champion.accuracy == max(one.accuracy for one in rivals if one.accuracy is not None)
    others = run_search(
        CANDIDATES,
        SearchSettings(rounds=Rounds(2, 2), strategy="random", trials=6, seed=1),
        workshop(pool),
        tmp_path / "b",
    )
    assert {one.candidate for one in others.trained} != {one.candidate for one in results.trained}


def test_aging_evolution_step_by_step() -> None:
    """The history, replayed by algorithm 1 written out again."""
    settings = SearchSettings(
        strategy="aging_evolution", rounds=Rounds(1, 2), trials=30, population=5, sample=3, seed=4
    )
    asked: list[list[str]] = []
    by_name = {one.name: one for one in CANDIDATES}

    def train(names: object, last_epoch: int) -> dict[str, tuple[float, ...]]:
        asked.append(list(names))  # type: ignore[call-overload]
        return {name: curve(by_name[name], last_epoch) for name in asked[-1]}

    history = aging_evolution(CANDIDATES, settings, train)
    accuracy = {one.name: curve(one, 2)[-1] for one in CANDIDATES}
    random = Random("aging evolution 4")
    population = [random.choice(CANDIDATES).name for _ in range(5)]
    expected = list(population)
    while len(expected) < 30:
        sample = [random.choice(population) for _ in range(3)]
        parent = max(sample, key=accuracy.__getitem__)
        child = mutated(by_name[parent], CANDIDATES, random).name
        assert len(set(by_name[child].arguments) - set(by_name[parent].arguments)) == 1
        population = [*population[1:], child]
        expected.append(child)
    assert list(history) == expected
    assert asked[0] == list(dict.fromkeys(history[:5])) and asked[1:] == [[name] for name in history[5:]]


def test_aging_evolution_finds_better_than_it_began_with(tmp_path: Path) -> None:
    """Accuracy grows with every coefficient, so mutation has a way up; over 20 seeds the end beats the beginning."""

    def slope(one: Candidate, epochs: int) -> tuple[float, ...]:
        values = dict(one.arguments)
        return (0.4 * float(values["width"]) + 0.4 * float(values["depth"]),) * epochs

    by_name = {one.name: one for one in CANDIDATES}
    gained = []
    for seed in range(20):
        settings = SearchSettings(strategy="aging_evolution", rounds=Rounds(1, 1), trials=24, population=4, seed=seed)
        history = aging_evolution(
            CANDIDATES, settings, lambda names, epochs: {name: slope(by_name[name], epochs) for name in names}
        )
        accuracies = [slope(by_name[name], 1)[0] for name in history]
        gained.append(max(accuracies) - max(accuracies[:4]))
    assert min(gained) >= 0 and sum(gained) / 20 > 0.05


def test_a_mutation_changes_as_little_as_the_space_allows() -> None:
    far = (candidate(1.0, 1.0), candidate(0.5, 0.5))
    assert mutated(far[0], far, Random(0)) == far[1]
    assert mutated(far[0], far[:1], Random(0)) == far[0]


# Death and resumption --------------------------------------------------------------------------------------------

STRATEGIES = {
    "tournament": QUICK,
    "first cut": SearchSettings(rounds=Rounds(1, 3), first_cut="by_hand"),
    "aging evolution": SearchSettings(
        strategy="aging_evolution", rounds=Rounds(1, 2), trials=9, population=3, sample=2
    ),
    "random": SearchSettings(strategy="random", rounds=Rounds(1, 2), trials=5),
}


def shop(settings: SearchSettings, pool: Pool, fate: Fate | None = None) -> Workshop:
    def figures(one: Candidate) -> Resources:
        if fate is not None:
            fate.step()
        return resources_of(one)

    cut = (lambda one: Random(one.name).random()) if settings.first_cut else None
    return workshop(pool, resources=figures, proxy=cut)


@pytest.mark.parametrize("name", STRATEGIES)
@effort(max_examples=12, deadline=None)
@examples(deaths=st.lists(st.integers(0, 30), max_size=4))
def test_a_run_that_dies_ends_as_an_unbroken_one(
    name: str, deaths: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Death between any two prices, tasks and results; checkpoints of the pool outlive it."""
    settings, folder = STRATEGIES[name], tmp_path_factory.mktemp("run")
    unbroken = run_search(CANDIDATES[:8], settings, shop(settings, CurvePool()), folder / "unbroken")
    pool = CurvePool()
    for left in deaths:
        fate = Fate(left)
        try:
            run_search(CANDIDATES[:8], settings, shop(settings, MortalPool(pool, fate), fate), folder / "run")
        except Killed:
            continue
    resumed = run_search(CANDIDATES[:8], settings, shop(settings, pool), folder / "run")
    assert facts(resumed) == facts(unbroken)
    assert sum(epochs for _, epochs in pool.done) == sum(len(one.accuracies) for one in unbroken.outcomes)


@pytest.mark.parametrize("name", ["tournament", "aging evolution"])
def test_death_at_every_write(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Death before or after each transaction of the store in turn."""
    few, settings = CANDIDATES[:5], STRATEGIES[name]
    unbroken = run_search(few, settings, shop(settings, CurvePool()), tmp_path / "unbroken")
    put, fate = Store._put, Fate(10**6)

    def mortal(store: Store, *arguments: Any) -> None:
        fate.step()
        put(store, *arguments)
        fate.step()

    monkeypatch.setattr(Store, "_put", mortal)
    for left in range(1000):
        pool, fate.left = CurvePool(), left
        try:
            run_search(few, settings, shop(settings, pool), tmp_path / str(left))
            break
        except Killed:
            fate.left = 10**6
        assert facts(run_search(few, settings, shop(settings, pool), tmp_path / str(left))) == facts(unbroken)
    assert left > 20


SLOW = """
import sys, time
from pathlib import Path
from codesign.search.run import run_search
from tests.search_cases import CANDIDATES, CurvePool, workshop
from tests.test_search_run import QUICK

class Slow(CurvePool):
    def run(self, tasks):
        for result in super().run(tasks):
            print("task", flush=True)
            time.sleep(0.02)
            yield result

run_search(CANDIDATES, QUICK, workshop(Slow()), Path(sys.argv[1]))
"""


def test_sigkill_in_the_middle(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[1]
    for tasks in (3, 9):
        process = subprocess.Popen(
            [sys.executable, "-c", SLOW, str(tmp_path / "run")],
            cwd=root,
            env=os.environ | {"PYTHONPATH": str(root)},
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        for _ in range(tasks):
            assert process.stdout.readline() == b"task\n"
        time.sleep(0.01 * tasks % 0.02)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
        assert not read_results(tmp_path / "run").finished
    pool = CurvePool()
    resumed = run_search(CANDIDATES, QUICK, workshop(pool), tmp_path / "run")
    assert facts(resumed) == facts(run_search(CANDIDATES, QUICK, workshop(CurvePool()), tmp_path / "unbroken"))
    assert 0 < len(pool.done) < 28


def test_a_finished_run_trains_nothing_again(tmp_path: Path) -> None:
    first = run_search(CANDIDATES, QUICK, workshop(CurvePool()), tmp_path)
    pool = CurvePool()
    assert run_search(CANDIDATES, QUICK, workshop(pool, resources=None), tmp_path) == first
    assert pool.done == []
    assert read_results(tmp_path) == first


# What is refused -------------------------------------------------------------------------------------------------


def refusal(folder: Path, settings: SearchSettings = QUICK, **parts: Any) -> str:
    with pytest.raises(CodesignError) as refused:
        run_search(CANDIDATES, settings, workshop(parts.pop("pool", CurvePool()), **parts), folder)
    return str(refused.value).replace(str(folder), "RUN")


def test_other_settings_on_the_same_folder_are_refused(tmp_path: Path) -> None:
    run_search(CANDIDATES, QUICK, workshop(CurvePool()), tmp_path)
    other = SearchSettings(rounds=Rounds(2, 5), first_cut="synflow", strategy="random")
    assert refusal(tmp_path, other, identity={"--hw": "ecnn"}) == (
        "RUN: was started with --hw edge_npu, not --hw ecnn\n"
        "RUN: was started with --rounds 4, not --rounds 5\n"
        "RUN: was started with --strategy tournament, not --strategy random\n"
        "RUN: was started with no --first-cut, not --first-cut synflow\n"
        "RUN: was started with no --trials, not --trials 16\n"
        "  hint: give the same, or another folder with --output"
    )


def test_other_candidates_on_the_same_folder_are_refused(tmp_path: Path) -> None:
    run_search(CANDIDATES[:8], QUICK, workshop(CurvePool()), tmp_path)
    assert refusal(tmp_path).startswith("RUN: was started with other candidates\n")


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    assert refusal(tmp_path) == "RUN: holds other files: not used\n  hint: choose another folder with --output"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_two_searches_do_not_share_a_folder(tmp_path: Path) -> None:
    with open_store(tmp_path / "run"):
        assert refusal(tmp_path / "run") == ("RUN: another search writes to it\n  hint: wait for its end, or end it")


def test_a_damaged_store_is_refused(tmp_path: Path) -> None:
    run_search(CANDIDATES, QUICK, workshop(CurvePool()), tmp_path)
    (tmp_path / DATABASE).write_bytes(b"nothing of SQLite, and long enough to be looked at" * 100)
    assert "search.sqlite: cannot be read as the store of a search: file is not a database" in refusal(tmp_path)


def test_a_store_of_another_version_is_refused(tmp_path: Path) -> None:
    run_search(CANDIDATES, QUICK, workshop(CurvePool()), tmp_path)
    with sqlite3.connect(tmp_path / DATABASE) as connection:
        connection.execute("PRAGMA user_version = 9")
    connection.close()
    assert refusal(tmp_path) == "RUN/search.sqlite: is of version 9; this codesign reads 1"


def test_a_folder_without_a_run_has_no_results(tmp_path: Path) -> None:
    with pytest.raises(CodesignError) as refused, read_store(tmp_path):
        pass
    assert "holds no search.sqlite\n  hint: give the folder of a run of codesign search" in str(refused.value)


def test_a_pool_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    """A candidate whose first epochs come out otherwise when it goes on: data or program changed in between."""
    pool = CurvePool(lambda one, epochs: curve(one, epochs, seed=epochs))
    assert "got other accuracies than before: the data, the program or the machine changed" in refusal(
        tmp_path, pool=pool
    )


def test_a_pool_that_trains_too_little_is_refused(tmp_path: Path) -> None:
    pool = CurvePool(lambda one, epochs: curve(one, epochs - 1))
    assert "was to train 2 epochs, and came back after 1" in refusal(tmp_path, pool=pool)


def test_candidates_that_do_not_fit_are_set_aside(tmp_path: Path) -> None:
    def figures(one: Candidate) -> Resources:
        if dict(one.arguments)["width"] == 1.0:
            raise DoesNotFitError(one.name, "too wide")
        return resources_of(one)

    results = run_search(CANDIDATES, QUICK, workshop(CurvePool(), resources=figures), tmp_path / "run")
    aside = [one for one in results.outcomes if one.refusal]
    assert [one.refusal for one in aside][:1] == ["width1.0_depth0.5: too wide"]
    assert len(aside) == 4 and not any(one.accuracies or one.grouped for one in aside)
    assert len(results.champions) == 3

    def none(one: Candidate) -> Resources:
        raise DoesNotFitError(one.name, "too wide")

    assert refusal(tmp_path / "none", resources=none) == (
        "width1.0_depth1.0: no candidate fits the machine; this one: width1.0_depth1.0: too wide"
    )


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"axes": ("mac",)}, "--axes: there is no axis mac\n  hint: did you mean macs?"),
        ({"axes": ("macs", "macs")}, "--axes: names every axis once"),
        ({"strategy": "tournement"}, "--strategy: there is no strategy tournement\n  hint: did you mean tournament?"),
        (
            {"strategy": "aging_evolution", "population": 20},
            "--population: must lie between --sample and --trials",
        ),
    ],
)
def test_settings_that_mean_nothing(choice: dict[str, object], expected: str) -> None:
    with pytest.raises(CodesignError) as refused:
        SearchSettings(**choice)
    assert str(refused.value) == expected


def test_more_groups_than_candidates_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, SearchSettings(groups=17)) == "--groups: 17 groups of 16 candidates\n  hint: ask for fewer"


def test_epochs_of_a_tournament() -> None:
    """The paper's: 4 + 2 + 1 + ... of 10 epochs; groups of three: 3 + 2 + 1 + 1."""
    assert tournament_epochs([tuple("abcd")], SearchSettings(rounds=Rounds(10, 35))) == 10 * (4 + 2 + 33)
    assert tournament_epochs([tuple("abc")], SearchSettings(rounds=Rounds(1, 4))) == 3 + 2 + 1 + 1


# Pareto front ----------------------------------------------------------------------------------------------------


def test_the_pareto_front_has_what_nothing_beats(tmp_path: Path) -> None:
    results = run_search(CANDIDATES, QUICK, workshop(CurvePool()), tmp_path)
    front = pareto_front(results.trained)
    for one in results.trained:
        beaten = [
            other
            for other in results.trained
            if other.accuracy >= one.accuracy  # type: ignore[operator]
            and other.resources.cycles <= one.resources.cycles  # type: ignore[union-attr]
            and (other.accuracy, other.resources.cycles) != (one.accuracy, one.resources.cycles)  # type: ignore[union-attr]
        ]
        assert (one in front) == (not beaten)
