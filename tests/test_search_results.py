"""What a search leaves behind: tables, files, pages, and two searches side by side."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from codesign.errors import CodesignError, DoesNotFitError
from codesign.search.candidate import Candidate
from codesign.search.comparison import compare
from codesign.search.figures import overlap_figure, pareto_figure
from codesign.search.outputs import write_results, write_text
from codesign.search.resources import Resources
from codesign.search.results import Results
from codesign.search.results_files import comparison_json, results_csv, results_json
from codesign.search.results_html import comparison_html, results_html
from codesign.search.results_terminal import print_comparison, print_results
from codesign.search.run import run_search
from codesign.search.settings import SearchSettings
from codesign.search.tournament import Rounds
from tests.search_cases import CANDIDATES, CurvePool, candidate, given, resources, workshop

FEW, MANY = [candidate(width, 0.5) for width in (0.1, 0.2)], [candidate(width, 1.0) for width in (0.3, 0.4)]
DISAGREEING = (*FEW, *MANY)
FIGURES = dict(
    zip((one.name for one in DISAGREEING), ((1000, 40000), (2000, 10000), (30000, 20000), (40000, 30000)), strict=True)
)
CURVES = {one.name: (value - 0.1, value) for one, value in zip(DISAGREEING, (0.9, 0.8, 0.7, 0.6), strict=True)}


def by(axis: str, folder: Path) -> Results:
    """Groups by one axis, on a pool whose MACs and cycles disagree."""
    made = workshop(given(CURVES), resources=lambda one: resources(*FIGURES[one.name]))
    return run_search(DISAGREEING, SearchSettings(axes=(axis,), groups=2, rounds=Rounds(1, 2)), made, folder / axis)


def printed(write: object, what: object) -> str:
    console = Console(file=io.StringIO(), width=120)
    write(what, console)  # type: ignore[operator]
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def embedded(page: str) -> dict[str, dict[str, list[dict[str, object]]]]:
    """The figures in a page, as its script reads them."""
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])  # type: ignore[no-any-return]


# One search ------------------------------------------------------------------------------------------------------


def test_the_table_on_the_terminal(tmp_path: Path) -> None:
    text = printed(print_results, by("cycles", tmp_path))
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    assert lines[0] == "4 candidates on edge_npu, groups by cycles"
    assert lines[1] == "group candidate parameters MACs cycles energy SRAM epochs accuracy average"
    assert lines[2] == "1 width0.2_depth0.5 1.00 k 2.00 k 10.0 k 2.00 nJ 1.39 KiB 2 80.0 % 75.0 % champion"
    left = "1 width0.3_depth1.0 1.00 k 30.0 k 20.0 k 30.0 nJ 2.79 KiB 1 60.0 % 60.0 % left after round 1"
    assert lines[3] == left
    assert lines[6:] == ["champions, from the lightest group to the heaviest", lines[1], lines[2], lines[5]]


def test_results_json_and_csv_say_the_same(tmp_path: Path) -> None:
    results = by("cycles", tmp_path)
    report = json.loads(results_json(results))
    rows = list(csv.DictReader(io.StringIO(results_csv(results))))
    assert report["champions"] == [FEW[1].name, FEW[0].name] and report["finished"]
    assert report["settings"]["--axes"] == "cycles"
    assert [one["name"] for one in report["candidates"]] == [row["name"] for row in rows]
    assert rows[0]["arguments"] == "depth=0.5 width=0.2" and rows[0]["accuracies"] == "0.7000000000000001 0.8"
    for one, row in zip(report["candidates"], rows, strict=True):
        assert (float(row["cycles"]), float(row["accuracy"])) == (one["cycles"], one["accuracy"])
        assert row["champion"] == str(one["champion"]).lower()
        assert one["average_accuracy"] == pytest.approx(sum(one["accuracies"]) / one["epochs"])


def test_unknown_figures_are_null_not_zero(tmp_path: Path) -> None:
    def figures(one: Candidate) -> Resources:
        if one == FEW[0]:
            raise DoesNotFitError(one.name, "no memory <big> enough")
        return resources(*FIGURES[one.name])

    settings = SearchSettings(axes=("macs",), groups=1, rounds=Rounds(1, 2))
    results = run_search(DISAGREEING, settings, workshop(given(CURVES), resources=figures), tmp_path)
    last = json.loads(results_json(results))["candidates"][-1]
    assert (last["name"], last["cycles"], last["accuracy"], last["group"]) == (FEW[0].name, None, None, None)
    assert last["fate"] == "does not fit the machine"
    assert "no memory &lt;big&gt; enough" in results_html(results)


def test_the_pareto_plot_shows_every_trained_candidate(tmp_path: Path) -> None:
    results = run_search(CANDIDATES, SearchSettings(rounds=Rounds(2, 4)), workshop(CurvePool()), tmp_path)
    drawn = embedded(results_html(results))
    assert drawn.keys() == {"pareto", "curves"}
    front, *groups = drawn["pareto"]["data"]
    shown = {pair for group in groups for pair in zip(group["x"], group["y"], strict=True)}  # type: ignore[call-overload]
    assert shown == {(one.resources.cycles, 100 * one.accuracy) for one in results.trained if one.resources}  # type: ignore[operator]
    stars = sum(symbol == "star" for group in groups for symbol in group["marker"]["symbol"])  # type: ignore[index, call-overload]
    assert stars == len(results.champions) == 4
    assert len(front["x"]) >= 1 and set(front["x"]) <= {
        one.resources.cycles for one in results.champions if one.resources
    }  # type: ignore[arg-type, call-overload]
    assert len(drawn["curves"]["data"]) == 16


def test_pages_load_nothing_from_elsewhere(tmp_path: Path) -> None:
    page = results_html(by("cycles", tmp_path))
    assert "default-src 'none'" in page and not re.search(r"<(?:script|link|img)[^>]*(?:src|href)=", page[:5000])


def test_files_are_written_whole(tmp_path: Path) -> None:
    results = by("cycles", tmp_path)
    write_results(results)
    assert json.loads((results.folder / "results.json").read_text()) == json.loads(results_json(results))
    assert {"results.json", "results.csv", "results.html"} <= {path.name for path in results.folder.iterdir()}
    assert not [path for path in results.folder.iterdir() if path.name.endswith(".unfinished")]


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "page").mkdir()
    with pytest.raises(CodesignError) as refused:
        write_text(tmp_path / "page", "text")
    assert str(refused.value).endswith("page: cannot be written: Is a directory")


# Two searches ----------------------------------------------------------------------------------------------------


def test_champions_of_groups_by_macs_and_by_cycles_overlap_in_part(tmp_path: Path) -> None:
    found = compare(by("macs", tmp_path), by("cycles", tmp_path))
    assert [one.candidate for one in found.both] == [FEW[0]]
    assert [one.candidate for one in found.only_first] == [MANY[0]]
    assert [one.candidate for one in found.only_second] == [FEW[1]]
    assert found.overlap == 1 / 3
    assert found.sentence == (
        "macs (groups by macs, 2 champions) and cycles (groups by cycles, 2 champions) share 1: overlap 33%"
    )


def test_a_search_agrees_with_itself(tmp_path: Path) -> None:
    results = by("macs", tmp_path)
    found = compare(results, results)
    assert (found.overlap, found.only_first, found.only_second) == (1, (), ())


def test_the_overlap_is_printed_and_plotted(tmp_path: Path) -> None:
    found = compare(by("macs", tmp_path), by("cycles", tmp_path))
    text = printed(print_comparison, found)
    assert "overlap 33%" in text
    titles = ("champions of both", "of macs alone", "of cycles alone")
    places = [text.index(title) for title in titles]
    assert places == sorted(places) and text.index(FEW[0].name) > places[0]
    figure = overlap_figure(found)
    assert embedded(comparison_html(found))["overlap"]["data"] == json.loads(json.dumps(figure["data"]))
    drawn = {trace["name"]: (list(trace["x"]), list(trace["y"])) for trace in figure["data"]}  # type: ignore[union-attr, index, call-overload, arg-type]
    assert drawn["champion of both"] == ([1000], [40000])
    assert drawn["macs alone"] == ([30000], [20000])
    assert drawn["cycles alone"] == ([2000], [10000])
    assert len(drawn["no champion"][0]) == 4
    assert json.loads(comparison_json(found))["overlap"] == pytest.approx(1 / 3)


def test_searches_of_other_spaces_are_not_compared(tmp_path: Path) -> None:
    other = run_search(CANDIDATES[:8], SearchSettings(rounds=Rounds(1, 1)), workshop(CurvePool()), tmp_path / "other")
    with pytest.raises(CodesignError) as refused:
        compare(by("macs", tmp_path), other)
    assert str(refused.value).replace(str(tmp_path), "") == (
        "/other: has no candidate in common with /macs\n  hint: search one space"
    )


def test_a_search_that_has_not_ended_is_not_compared(tmp_path: Path) -> None:
    ended = by("macs", tmp_path)
    open_ = Results(tmp_path / "open", ended.settings, ended.outcomes, finished=False)
    with pytest.raises(CodesignError) as refused:
        compare(ended, open_)
    assert str(refused.value).replace(str(tmp_path), "") == (
        "/open: its search has not ended\n  hint: start it again: it goes on where it was"
    )
    assert "the search has not ended; started again, it goes on where it was" in printed(print_results, open_)


def test_figures_are_plain_data(tmp_path: Path) -> None:
    assert json.dumps(pareto_figure(by("macs", tmp_path)))
