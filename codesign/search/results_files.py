"""results.json and results.csv: every candidate of a search with its figures, for scripts and spreadsheets."""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, fields

from pydantic import BaseModel, ConfigDict

from codesign import __version__
from codesign.search.candidate import Value
from codesign.search.comparison import Comparison
from codesign.search.resources import Resources
from codesign.search.results import Outcome, Results


class Part(BaseModel):
    """Base of all parts."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class CandidateReport(Part):
    """A candidate. Figures are null where it does not fit the machine, accuracies (0 to 1) where it was not trained."""

    name: str
    generator: str
    arguments: dict[str, Value]
    image: tuple[int, int, int]
    """Channels, rows, columns."""
    group: int | None
    """From 1, the lightest."""
    z_sum: float | None
    """Sum of Z-scores over the axes of the groups."""
    parameters: int | None
    """Running means and variances of BatchNormalization among them."""
    macs: int | None
    cycles: int | None
    latency_ms: float | None
    energy_uj: float | None
    sram_bytes: int | None
    """All activations in the memory plan's arena."""
    dram_bytes: int | None
    utilization: float | None
    first_cut_score: float | None
    epochs: int
    accuracy: float | None
    """After its last epoch."""
    average_accuracy: float | None
    """From its first epoch to its last."""
    accuracies: tuple[float, ...]
    """After every epoch."""
    left_after_round: int | None
    """0: in the first cut."""
    champion: bool
    fate: str
    """champion, left after round N, left in the first cut, trained, not trained, or does not fit the machine."""
    refusal: str
    """Why it does not fit."""


class ResultsReport(Part):
    """A run. settings: by option. finished: there are no champions before."""

    codesign: str
    settings: dict[str, str]
    finished: bool
    champions: tuple[str, ...]
    """From the lightest group to the heaviest."""
    candidates: tuple[CandidateReport, ...]
    """Group by group, from the lightest to the heaviest; those that fit no machine last."""


class ComparisonReport(Part):
    """Two searches over one space. overlap: champions of both over champions of either."""

    codesign: str
    first: str
    second: str
    first_axes: str
    second_axes: str
    overlap: float
    both: tuple[CandidateReport, ...]
    """As the first search has them."""
    only_first: tuple[CandidateReport, ...]
    only_second: tuple[CandidateReport, ...]


_FIGURES_UNKNOWN = dict.fromkeys(field.name for field in fields(Resources))


def results_json(results: Results) -> str:
    """results.json."""
    report = ResultsReport(
        codesign=__version__,
        settings=dict(results.settings),
        finished=results.finished,
        champions=tuple(one.candidate.name for one in results.champions),
        candidates=tuple(candidate_report(outcome) for outcome in results.outcomes),
    )
    return report.model_dump_json(indent=2) + "\n"


def comparison_json(comparison: Comparison) -> str:
    """What `codesign champions RUN OTHER --json` prints."""
    report = ComparisonReport(
        codesign=__version__,
        first=comparison.first.name,
        second=comparison.second.name,
        first_axes=comparison.first.axes,
        second_axes=comparison.second.axes,
        overlap=comparison.overlap,
        both=tuple(map(candidate_report, comparison.both)),
        only_first=tuple(map(candidate_report, comparison.only_first)),
        only_second=tuple(map(candidate_report, comparison.only_second)),
    )
    return report.model_dump_json(indent=2) + "\n"


def results_csv(results: Results) -> str:
    """results.csv: a header line, then one row per candidate; `arguments`, `image` and `accuracies` as words."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CandidateReport.model_fields)
    for outcome in results.outcomes:
        report = candidate_report(outcome)
        writer.writerow(_cell(getattr(report, name)) for name in CandidateReport.model_fields)
    return text.getvalue()


def candidate_report(outcome: Outcome) -> CandidateReport:
    """A candidate as data."""
    figures, place, gone = outcome.resources, outcome.grouped, outcome.elimination
    return CandidateReport(
        name=outcome.candidate.name,
        generator=outcome.candidate.generator,
        arguments=dict(outcome.candidate.arguments),
        image=outcome.candidate.image,
        group=None if place is None else place.group,
        z_sum=None if place is None else place.z_sum,
        **_FIGURES_UNKNOWN if figures is None else asdict(figures),
        first_cut_score=outcome.proxy,
        epochs=len(outcome.accuracies),
        accuracy=outcome.accuracy,
        average_accuracy=outcome.average,
        accuracies=outcome.accuracies,
        left_after_round=None if gone is None else gone.round,
        champion=outcome.champion,
        fate=outcome.fate,
        refusal=outcome.refusal,
    )


def _cell(value: object) -> object:
    match value:
        case bool():
            return str(value).lower()
        case dict():
            return " ".join(f"{name}={_cell(one)}" for name, one in value.items())
        case tuple():
            return " ".join(map(str, value))
        case _:
            return value
