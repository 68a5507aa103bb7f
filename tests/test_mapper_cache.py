"""Searches remembered on disk: the same answers, nothing believed that does not hold, safe among processes."""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest

from codesign.errors import DoesNotFitError
from codesign.hardware.loading import load_profile
from codesign.hardware.profile import HardwareProfile
from codesign.mapping import cache
from codesign.mapping.cache import SearchCache, cached_search
from codesign.mapping.mapper import Found, search
from codesign.mapping.objective import Objective
from codesign.vocabulary import OperationKind
from codesign.workload.loop_nest import LoopNest

NEST = LoopNest(OperationKind.CONVOLUTION, (1, 1, 8, 4, 6, 6, 3, 3), pads=(1, 1, 1, 1), input_rows=6, input_columns=6)
EDGE = load_profile("edge_npu").profile


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def counted(monkeypatch: pytest.MonkeyPatch) -> list[LoopNest]:
    """The nests that are really searched from here on."""
    searched: list[LoopNest] = []

    def note(nest: LoopNest, profile: HardwareProfile, engine: str, objective: Objective) -> Found:
        searched.append(nest)
        return search(nest, profile, engine, objective)

    monkeypatch.setattr(cache, "search", note)
    return searched


def test_a_search_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searched = counted(monkeypatch)
    first = SearchCache(tmp_path).search(NEST, EDGE, "array", Objective.EDP)
    again = SearchCache(tmp_path).search(NEST, EDGE, "array", Objective.EDP)
    assert first == again == search(NEST, EDGE, "array", Objective.EDP)
    assert len(searched) == 1 and len(files(tmp_path)) == 1


def test_all_that_matters_makes_another_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searched = counted(monkeypatch)
    remember = SearchCache(tmp_path).search
    remember(NEST, EDGE, "array", Objective.EDP)
    remember(NEST, EDGE, "array", Objective.ENERGY)
    remember(replace(NEST, stride=(1, 2)), EDGE, "array", Objective.EDP)
    sram = EDGE.memories["sram"].model_copy(update={"size_bytes": 500_000})
    smaller = EDGE.model_copy(update={"memories": {**EDGE.memories, "sram": sram}})
    remember(NEST, smaller, "array", Objective.EDP)
    assert len(searched) == 4
    remember(NEST, EDGE.model_copy(update={"name": "other", "clock_mhz": 1.0}), "array", Objective.EDP)
    assert len(searched) == 4, "neither name nor clock change a mapping"


@pytest.mark.parametrize("damage", ["", "{", '{"mapping": 1}', "cheaper", "illegal"])
def test_what_does_not_hold_is_searched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    remember = SearchCache(tmp_path).search
    honest = remember(NEST, EDGE, "array", Objective.EDP)
    (path,) = files(tmp_path)
    found = json.loads(path.read_text())
    match damage:
        case "cheaper":
            found["objective_value"] *= 0.5
        case "illegal":
            found["mapping"]["loops"] = found["mapping"]["loops"][1:]
    path.write_text(json.dumps(found) if damage in ("cheaper", "illegal") else damage)
    searched = counted(monkeypatch)
    assert remember(NEST, EDGE, "array", Objective.EDP) == honest
    assert len(searched) == 1, "nothing damaged is believed"
    assert remember(NEST, EDGE, "array", Objective.EDP) == honest
    assert len(searched) == 1, "and it was written anew"


def test_what_does_not_fit_is_not_remembered(tmp_path: Path) -> None:
    tiny = EDGE.memories["sram"].model_copy(update={"size_bytes": 3})
    machine = EDGE.model_copy(update={"memories": {**EDGE.memories, "sram": tiny}})
    with pytest.raises(DoesNotFitError):
        SearchCache(tmp_path).search(NEST, machine, "array", Objective.EDP)
    assert files(tmp_path) == []


def _work(folder: Path) -> Found:
    return SearchCache(folder).search(NEST, EDGE, "array", Objective.EDP)


def test_processes_share_a_folder(tmp_path: Path) -> None:
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        found = list(pool.map(_work, [tmp_path] * 8))
    assert all(part == found[0] for part in found)
    assert len(files(tmp_path)) == 1, "no temporary file is left"


def test_a_folder_that_cannot_be_written_costs_time_only(tmp_path: Path) -> None:
    occupied = tmp_path / "file"
    occupied.write_text("")
    assert SearchCache(occupied).search(NEST, EDGE, "array", Objective.EDP).proven


def test_the_variable_chooses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODESIGN_CACHE", "off")
    assert cached_search() is search
    monkeypatch.setenv("CODESIGN_CACHE", str(tmp_path))
    cached_search()(NEST, EDGE, "array", Objective.LATENCY)
    assert len(files(tmp_path)) == 1
    monkeypatch.setenv("CODESIGN_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    cached_search()(NEST, EDGE, "array", Objective.LATENCY)
    assert len(files(tmp_path / "home" / "codesign" / "searches")) == 1
