"""Mappings that other mappers published, replayed here: counted as their owners count, and never better than ours.

Problems A and B of the tool-independent mapping problems. A figure without its mapping cannot be replayed: which, and
why, stands in WITHOUT_MAPPING. The optimum is the proven bound, so a search cut short is held to less, never to more.
"""

from __future__ import annotations

import csv
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from codesign.hardware.loading import load_profile
from codesign.hardware.profile import HardwareProfile
from codesign.mapping.cost import Evaluation, evaluate
from codesign.mapping.counts import counts_of
from codesign.mapping.legality import problems_of
from codesign.mapping.mapper import search
from codesign.mapping.mapping import ENGINE, Mapping, Transfer
from codesign.mapping.objective import Objective
from codesign.vocabulary import Operand
from codesign.workload.loop_nest import LoopNest
from tests.test_hardware_reference import (
    CONFIGURATIONS,
    OPERAND_OF,
    mapping_of,
    nest_of,
    one_tap_of_a_strided_axis,
    problem,
    published,
)
from tests.test_mapper import objective_value

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from evidence_mapping_problems import beyond_compulsory, failures, optimum
from mapping_dram import dram_section
from mapping_rows import Layer, Optimum, Peer, best_peer, factor, read_reference

# file: entries in it, and why they have no mapping of ours
WITHOUT_MAPPING = {
    "zigzag_search_limit_study.json": (5, "energy and latency alone, no loops; one also has lanes of its own choice"),
    "accelforge_resnet18.json": (5, "energy and latency alone, no loops; its lanes are its own choice"),
}
# ZigZag keeps the touched pixels alone, we their hull: these do not fit our buffer.
TOO_LARGE = ("A_16x16_64KiB", "conv4_1a", "gb holds 65536 bytes, 107264 are needed")
# Bits of every port whose words ZigZag counts.
PORT_BITS = {
    "A_16x16_64KiB": {"rf_w": 8, "rf_o": 32, "gb": 128, "dram": 64},
    "B_32x32_512KiB": {"rf_w": 8, "rf_o": 32, "gb": 512, "dram": 128},
}
FIGURES = Path(__file__).resolve().parents[1] / "docs/evidence/mapping_problems.csv"
SHAPE = (
    "output_rows",
    "output_columns",
    "kernel_rows",
    "kernel_columns",
    "input_channels",
    "output_channels",
    "stride",
)
LATCHES = ("weight_latch", "input_latch", ENGINE)  # the lanes' side of a port
TRIPLES = tuple(published())
LAYERS = tuple(dict.fromkeys((configuration, layer) for configuration, layer, _ in TRIPLES))


@dataclass(frozen=True)
class Replay:
    """A published mapping as ours, with what it costs here and what its owner printed."""

    nest: LoopNest
    profile: HardwareProfile
    mapping: Mapping
    cost: Evaluation
    printed: dict[str, Any]


@cache
def replay(configuration: str, layer: str, objective: str) -> Replay:
    row = problem("zigzag_resnet18.json")["configs"][configuration]["resnet18"][layer]
    profile = load_profile(CONFIGURATIONS[configuration]).profile
    nest = nest_of(row["shape"])
    printed = row["zigzag"][objective]
    mapping = mapping_of(nest, printed["temporal"], profile.engines["array"].axes["d1"].size)
    cost = evaluate(nest, mapping, profile, counts_of(nest, mapping, profile))
    return Replay(nest, profile, mapping, cost, printed)


def words_of(one: Replay, port_bits: dict[str, int]) -> dict[str, float]:
    """Words through every port of every memory, named as ZigZag names them: `O@gb rd_out_to_high`."""
    words: dict[str, float] = {}
    for part in counts_of(one.nest, one.mapping, one.profile).transfers:
        wide = part.operand is Operand.OUTPUTS and (part.partial or ENGINE in (part.source, part.destination))
        bits = part.elements * (32 if wide else 8)
        for memory, way in ends(one.profile, part):
            letter = next(letter for letter, operand in OPERAND_OF.items() if operand is part.operand)
            key = f"{letter}@{memory} {way}"
            words[key] = words.get(key, 0.0) + bits / port_bits[memory]
    return words


def ends(profile: HardwareProfile, part: Transfer) -> Iterator[tuple[str, str]]:
    """(memory, way) at both ends of a transfer; what a latch does is its port's business."""
    levels = [ENGINE, *profile.hierarchy("array", part.operand)]
    outwards = levels.index(part.destination) > levels.index(part.source)
    if part.source not in LATCHES:
        yield part.source, "rd_out_to_high" if outwards else "rd_out_to_low"
    if part.destination not in LATCHES:
        yield part.destination, "wr_in_by_low" if outwards else "wr_in_by_high"


@pytest.mark.parametrize(("configuration", "layer", "objective"), TRIPLES)
def test_every_word_is_one_that_zigzag_counts(configuration: str, layer: str, objective: str) -> None:
    one = replay(configuration, layer, objective)
    theirs = {
        f"{memory} {way}": float(words)
        for memory, ways in one.printed["word_access"].items()
        for way, words in ways.items()
    }
    ours = words_of(one, PORT_BITS[configuration])
    rounding = 0.01 if layer == "fc" else 0.0  # 1,000 classes in 63 steps: ZigZag reckons with 15.87 lanes, we with 16
    different = {
        key
        for key in {*theirs, *ours}
        if abs(theirs.get(key, 0.0) - ours.get(key, 0.0)) >= max(1.0, rounding * theirs.get(key, 0.0))
    }
    # One tap of a strided axis: ZigZag moves the touched pixels alone, we the hull of them.
    hull = {"I@dram rd_out_to_low", "I@gb wr_in_by_high"} if one_tap_of_a_strided_axis(one.nest, one.mapping) else set()
    assert different <= hull
    assert all(ours[key] > theirs[key] for key in different)
    same_energy = pytest.approx(one.printed["energy_pj"], rel=1e-3 if layer == "fc" else 1e-5)
    assert (one.cost.energy_pj == same_energy) == (not different)


@pytest.mark.parametrize(("configuration", "layer", "objective"), TRIPLES)
def test_a_published_mapping_is_one_of_ours(configuration: str, layer: str, objective: str) -> None:
    one = replay(configuration, layer, objective)
    reasons = [TOO_LARGE[2]] if (configuration, layer) == TOO_LARGE[:2] else []
    assert problems_of(one.nest, one.mapping, one.profile) == reasons


@pytest.mark.parametrize(("configuration", "layer"), LAYERS)
@pytest.mark.parametrize("objective", list(Objective))
def test_no_published_mapping_beats_the_search(configuration: str, layer: str, objective: Objective) -> None:
    """Every mapping of a layer, whatever it was searched for; its printed figures too."""
    replays = [replay(*triple) for triple in TRIPLES if triple[:2] == (configuration, layer)]
    found = search(replays[0].nest, replays[0].profile, "array", objective)
    for one in replays:
        here = objective_value(objective, one.cost.latency_cycles, one.cost.energy_pj)
        assert here >= found.bound_value * (1 - 1e-9)
        printed = objective_value(objective, max(one.printed["latency_cycles"], busy(one)), one.printed["energy_pj"])
        assert printed >= found.bound_value * (1 - 2e-4), "ZigZag rounds words, and the lanes of fc"


def test_a_mapping_of_another_layer_is_noticed() -> None:
    """The words of conv2_1a are not those of conv3_1b."""
    one, other = (replay("B_32x32_512KiB", layer, "EDP") for layer in ("conv2_1a", "conv3_1b"))
    ours = words_of(one, PORT_BITS["B_32x32_512KiB"])
    theirs = other.printed["word_access"]
    assert (
        sum(abs(words - ours[f"{memory} {way}"]) >= 1 for memory in theirs for way, words in theirs[memory].items()) > 5
    )


def busy(one: Replay) -> float:
    """Cycles in which the off-chip port is busy, as ZigZag counts its words: no layer is faster."""
    return float(sum(sum(ways.values()) for key, ways in one.printed["word_access"].items() if key.endswith("@dram")))


def test_the_copied_figures_are_those_of_the_files() -> None:
    """docs/evidence/mapping_problems.csv: energy, latency and busiest port of every published row."""
    configurations = problem("zigzag_resnet18.json")["configs"]
    studied, other = (problem(name) for name in WITHOUT_MAPPING)
    published_rows: Counter[tuple[str, str, float, float, int | None]] = Counter(
        (name, layer, row["energy_pj"], row["latency_cycles"], _busiest(row["word_access"]))
        for name, networks in configurations.items()
        for layer, entry in networks["resnet18"].items()
        for row in entry["zigzag"].values()
    )
    published_rows.update((row["config"], row["layer"], row["energy_pj"], row["latency"], None) for row in studied)
    published_rows.update(
        ("A_16x16_64KiB", row["layer"], row["energy_pj"], row["latency"], None) for row in other["layers"]
    )
    with FIGURES.open(encoding="utf-8", newline="") as file:
        copied = list(csv.DictReader(file))
    assert published_rows == Counter(
        (
            row["problem"],
            row["layer"],
            float(row["energy_pj"]),
            float(row["latency_cycles"]),
            int(row["port_busy_cycles"]) if row["port_busy_cycles"] else None,
        )
        for row in copied
    )
    moved = {row["layer"]: round(row["energy_per"]["DRAM"] / 64) for row in other["layers"]}  # 64 pJ a byte
    assert moved == {row["layer"]: int(row["dram_bytes"]) for row in copied if row["tool"].startswith("AccelForge")}
    for row in copied:
        entry = configurations[row["problem"]]["resnet18"][row["layer"]]
        assert [int(row[name]) for name in SHAPE] == entry["shape"][:7]
        assert int(row["compulsory_dram_bytes"]) == entry["compulsory_dram_bytes"]
        assert int(row["repeats"]) == entry["repeats"]


def _busiest(word_access: dict[str, dict[str, int]]) -> int:
    """Words through the busiest port: one for all of DRAM, one each to read and write the buffer."""
    ports: Counter[str] = Counter()
    for key, ways in word_access.items():
        memory = key.split("@")[1]
        for way, words in ways.items():
            ports[memory if memory == "dram" else f"{memory}.{way[:2]}"] += words
    return max(words for port, words in ports.items() if not port.startswith("rf"))


@pytest.mark.parametrize("name", WITHOUT_MAPPING)
def test_what_cannot_be_replayed_says_nothing_of_its_loops(name: str) -> None:
    stored = problem(name)
    rows = stored["layers"] if isinstance(stored, dict) else stored
    assert len(rows) == WITHOUT_MAPPING[name][0]
    assert not any({"temporal", "mapping", "loops", "word_access"} & row.keys() for row in rows)


@cache
def least_edp(layer: Layer, *, free_lanes: bool) -> Optimum:
    """Our search of a layer, as the page of the evidence has it."""
    return optimum(layer, Optimum(layer.problem, layer.name, free_lanes, "edp", 0, ""))


def asked() -> list[tuple[Layer, bool]]:
    """Layers with figures beyond ZigZag's default search, which the replays above hold; whether lanes were free."""
    peers = [peer for peer in read_reference(FIGURES) if peer.setting != "LOMA limit 6"]
    return list(dict.fromkeys((peer.layer, peer.own_lanes) for peer in peers))


@pytest.mark.parametrize(("layer", "free_lanes"), asked(), ids=lambda part: getattr(part, "name", str(part)))
def test_no_figure_beats_the_least_edp(layer: Layer, free_lanes: bool) -> None:
    """Every row of the layer: default, larger limit, annealing, latency, energy; lanes of their own against free ones.

    Bytes beyond the compulsory ones come with the proof that they cannot be fewer, or cost EDP.
    """
    row = least_edp(layer, free_lanes=free_lanes)
    peers = read_reference(FIGURES)
    assert list(failures([row], peers)) == []
    best = best_peer(row, peers)
    assert best is not None
    better = replace(best, energy_pj=best.energy_pj / factor(row, best, best.cycles) * 0.999)
    assert list(failures([row], [*peers, better])) == [f"{name_of(row)}: {better.tool} is better"]
    assert list(failures([replace(row, proven=False)], peers)) == [f"{name_of(row)}: not proven"]


def name_of(row: Optimum) -> str:
    return f"{row.problem} {row.layer} for edp{' with free lanes' if row.free_lanes else ''}"


ACCELFORGE = [peer for peer in read_reference(FIGURES) if peer.tool.startswith("AccelForge")]


@pytest.mark.parametrize("peer", ACCELFORGE, ids=lambda peer: peer.layer.name)
def test_compulsory_dram_bytes_or_the_proof_against_them(peer: Peer) -> None:
    row = least_edp(peer.layer, free_lanes=True)
    assert peer.dram_bytes is not None
    if peer.layer.name in ("fc", "conv4_s"):
        assert row.dram_bytes == peer.layer.compulsory_dram_bytes <= peer.dram_bytes
        assert not beyond_compulsory(row, peer.layer) and row.least_dram_bytes == 0
        return
    assert peer.dram_bytes == peer.layer.compulsory_dram_bytes, "AccelForge reads and writes every byte once"
    assert row.least_dram_proven and row.dram_bytes >= row.least_dram_bytes > peer.layer.compulsory_dram_bytes
    assert row.least_dram_edp >= row.edp * (1 - 1e-9)
    unproven = replace(row, least_dram_proven=False)
    assert list(failures([unproven], [])) == [f"{name_of(row)}: the least DRAM bytes are not proven"]
    free = replace(row, dram_bytes=row.least_dram_bytes + 1, least_dram_edp=row.edp)
    assert list(failures([free], [])) == [f"{name_of(row)}: fewer DRAM bytes cost no EDP"]


def test_the_larger_buffer_needs_no_more_than_the_compulsory_bytes() -> None:
    """Every layer of problem B; so the search for the least of DRAM bytes is not blind."""
    layers = list(dict.fromkeys(peer.layer for peer in read_reference(FIGURES) if peer.layer.problem.startswith("B")))
    assert len(layers) == 12
    assert all(least_edp(layer, free_lanes=False).dram_bytes == layer.compulsory_dram_bytes for layer in layers)


def test_the_page_gives_the_reason_for_every_byte_beyond() -> None:
    row = least_edp(read_reference(FIGURES)[0].layer, free_lanes=True)
    text = dram_section([row], read_reference(FIGURES))
    assert text.splitlines()[-1] == (
        "| A_16x16_64KiB | conv1 | free | 969,547 | 969,547 | 976,417 | 976,417 | 1.000 | cannot be |"
    )
    assert "| A_16x16_64KiB |" not in dram_section([replace(row, least_dram_bytes=0)], read_reference(FIGURES))
