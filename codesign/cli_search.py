"""The commands `codesign search` and `codesign champions`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from codesign.cli_options import (
    AxesOption,
    CriterionOption,
    CutOption,
    EpochsOption,
    GroupsOption,
    HwOption,
    JsonOption,
    OtherRunArgument,
    PageOption,
    PopulationOption,
    RayOption,
    RecipeOption,
    RoundsOption,
    RunArgument,
    RunOption,
    SampleOption,
    SearchSeedOption,
    SpaceArgument,
    StrategyOption,
    TrainingDataOption,
    TrialsOption,
    WorkersOption,
)

if TYPE_CHECKING:
    from rich.console import Console

    from codesign.search.run import OnStep

_FOREVER_SECONDS = 1e6  # rich forgets speeds after 30 seconds; a task may take longer


def search(
    space: SpaceArgument,
    hw: HwOption,
    data: TrainingDataOption,
    output: RunOption = Path("search"),
    axes: AxesOption = "parameters,macs",
    groups: GroupsOption = None,
    epochs_per_round: EpochsOption = 10,
    rounds: RoundsOption = 4,
    criterion: CriterionOption = "average",
    strategy: StrategyOption = "tournament",
    seed: SearchSeedOption = 0,
    first_cut: CutOption = None,
    trials: TrialsOption = 16,
    population: PopulationOption = 8,
    sample: SampleOption = 3,
    recipe: RecipeOption = "small",
    workers: WorkersOption = 1,
    ray: RayOption = False,
) -> None:
    """Train the candidates of a space against each other, group by group of like cost, and keep the champions."""
    from codesign.search.results_terminal import print_results
    from codesign.search.settings import SearchSettings
    from codesign.search.tournament import Criterion, Rounds
    from codesign.searching import Means, search_networks

    settings = SearchSettings(
        tuple(axes.split(",")),
        groups,
        Rounds(epochs_per_round, rounds),
        Criterion(criterion),
        strategy,
        seed,
        first_cut,
        trials,
        population,
        sample,
    )
    with _progress() as on_step:
        results = search_networks(space, hw, data, output, settings, Means(workers, ray), recipe, on_step)
    print_results(results, _console())
    typer.echo(f"\nwrote {output}: open {output / 'results.html'}")


def champions(
    run: RunArgument, other: OtherRunArgument = None, json: JsonOption = False, html: PageOption = None
) -> None:
    """What a search found so far; of two searches, which champions they share."""
    from codesign.search.comparison import compare
    from codesign.search.outputs import write_text
    from codesign.search.results import read_results
    from codesign.search.results_files import comparison_json, results_json
    from codesign.search.results_html import comparison_html, results_html
    from codesign.search.results_terminal import print_comparison, print_results

    results = read_results(run)
    comparison = None if other is None else compare(results, read_results(other))
    if html is not None:
        write_text(html, results_html(results) if comparison is None else comparison_html(comparison))
    if json:
        typer.echo(results_json(results) if comparison is None else comparison_json(comparison), nl=False)
        return
    if comparison is None:
        print_results(results, _console())
    else:
        print_comparison(comparison, _console())
    if html is not None:
        typer.echo(f"\nwrote {html}")


def _console() -> Console:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 160, highlight=False)


@contextmanager
def _progress() -> Iterator[OnStep | None]:
    """A bar on stderr for each stage, with the time that remains; none when it is not a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[item]}", markup=False),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, speed_estimate_period=_FOREVER_SECONDS) as progress:
        tasks: dict[str, Any] = {}

        def on_step(stage: str, item: str, done: int, total: int) -> None:
            if stage not in tasks:  # what an earlier run did does not count as speed
                tasks[stage] = progress.add_task(stage, completed=done, total=total, item=item)
            progress.update(tasks[stage], completed=done, total=total, item=item[-40:])

        yield on_step
