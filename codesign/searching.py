"""`codesign search` from end to end: space, machine and data become a run's folder with champions as ONNX."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from codesign.compiler import plan_model
from codesign.errors import CodesignError, DoesNotFitError, did_you_mean
from codesign.hardware.loading import load_profile
from codesign.search.candidate import Candidate, Pool
from codesign.search.folders import open_data
from codesign.search.outputs import write_champions, write_results
from codesign.search.pools import ProcessPool, RayPool, SerialPool
from codesign.search.proxies import PROXIES, score
from codesign.search.resources import Resources, resources_of
from codesign.search.results import Results
from codesign.search.run import OnStep, Workshop, run_search
from codesign.search.settings import SearchSettings
from codesign.search.space import read_space
from codesign.search.trial import PAPER, Training, Trials, trained_module
from codesign.settings import Settings

CHECKPOINTS = "checkpoints"
RECIPES = {"small": Training(), "paper": PAPER}
_DIGITS_SHOWN = 12


@dataclass(frozen=True)
class Means:
    """Who works; the results do not depend on it. workers: at a time. ray: on $RAY_ADDRESS, or a cluster made here."""

    workers: int = 1
    ray: bool = False


def search_networks(
    space: Path,
    hw: str,
    data: str,
    folder: Path,
    settings: SearchSettings,
    means: Means,
    recipe: str = "small",
    on_step: OnStep | None = None,
) -> Results:
    """Search a space for networks of a machine, or go on with the search in `folder`.

    space: a YAML file. hw: name or path of a profile. data: as `--data` takes it. Raises CodesignError (bad input), or
    DoesNotFitError when the machine runs no candidate.
    """
    check_cut(settings)
    described, hardware, samples = read_space(space), load_profile(hw), open_data(data, settings.seed)
    trials = Trials(folder / CHECKPOINTS, samples, RECIPES[recipe], settings.seed)
    identity = {
        "SPACE": described.sha256[:_DIGITS_SHOWN],
        "--hw": f"{hardware.profile.name} {hardware.sha256[:_DIGITS_SHOWN]}",
        "--data": samples.identity,
        "--recipe": f"{recipe} {trials.training}",
    }
    with pool_of(trials, means) as pool:
        workshop = Workshop(
            resources=partial(pool.each, partial(priced, hw)),
            pool=pool,
            proxies=partial(pool.each, partial(score, name=settings.first_cut)) if settings.first_cut else None,
            identity=identity,
        )
        results = run_search(described.candidates(samples.channels), settings, workshop, folder, on_step)
    write_champions(results, partial(trained_module, trials.folder))
    write_results(results)
    return results


@contextmanager
def pool_of(trials: Trials, means: Means) -> Iterator[Pool]:
    """Who works, for as long as the block lasts."""
    if means.ray:
        with RayPool(trials, os.environ.get("RAY_ADDRESS")) as ray:
            yield ray
    elif means.workers > 1:
        with ProcessPool(trials, means.workers) as processes:
            yield processes
    else:
        yield SerialPool(trials)


def check_cut(settings: SearchSettings) -> None:
    """Raise CodesignError for a first cut by a proxy there is not."""
    name = settings.first_cut
    if name is not None and name not in PROXIES:
        hint = did_you_mean(name, PROXIES) or f"one of {', '.join(PROXIES)}"
        raise CodesignError("--first-cut", f"there is no zero-cost proxy {name}", hint)


def priced(hw: str, trials: Trials, candidate: Candidate) -> Resources | str:
    """What a candidate needs on a machine, or why it does not fit there."""
    try:
        return resources_of(candidate, trials.data.classes, lambda graph: plan_model(graph, Settings(hw)).plan)
    except DoesNotFitError as error:
        return str(error)
