"""Searches the layers of the tool-independent mapping problems and holds the optima against what other mappers found.

    python benchmarks/evidence_mapping_problems.py [--only conv3_s,fc] [--limit N] [--reference FILE.csv]
                                                   [--output FILE.md] [--cache FILE.jsonl]

The reference holds layers, and energy and latency that ZigZag and AccelForge printed for them. Where our
least EDP moves more DRAM bytes than the compulsory ones, the least of DRAM bytes alone is searched as well. Searches
done before by the same code are taken from the cache. Exit code 1 when a search ends without proof, or a mapper found
something better under the same rules.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path

from mapping_dram import dram_section
from mapping_rows import Layer, Optimum, Peer, best_peer, factor, page, read_cache, read_reference

from codesign.hardware.loading import load_profile
from codesign.hardware.profile import HardwareProfile
from codesign.mapping.layer_cost import LayerCost
from codesign.mapping.mapper import found_cost, map_layer, search
from codesign.mapping.objective import Objective

ROOT = Path(__file__).resolve().parents[1]
COUNTED = ("mapping", "hardware", "workload")
MACHINES = {"A_16x16_64KiB": "reference_a", "B_32x32_512KiB": "reference_b"}
SUMMED = ["C", "FY", "FX"]  # what the adder tree along D2 sums, where lanes are free
ROUNDING = 2e-4  # ZigZag rounds words, and reckons the 1,000 classes of fc with 15.87 lanes


def code_version() -> str:
    """A digest of all code a search depends on, and of the machines: a row of other code is searched again."""
    digest = hashlib.sha256()
    files = [path for folder in COUNTED for path in (ROOT / "codesign" / folder).rglob("*.py")]
    for path in sorted([*files, *(ROOT / "hw_profiles").glob("reference_*.yaml")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def machine(problem: str, *, free_lanes: bool) -> HardwareProfile:
    """The machine of a problem; with free lanes the adder tree sums over kernel positions too."""
    profile = load_profile(MACHINES[problem]).profile
    if not free_lanes:
        return profile
    described = profile.model_dump(mode="json")
    described["engines"]["array"]["axes"]["d2"]["unrolls"] = SUMMED
    return HardwareProfile.model_validate(described)


def weighted(profile: HardwareProfile, dram: float, others: float) -> HardwareProfile:
    """A copy whose energies off chip and everywhere else are so many times as large."""
    described = profile.model_dump(mode="json")
    for name, memory in described["memories"].items():
        for way in ("read_pj_per_byte", "write_pj_per_byte"):
            memory[way] *= dram if name == profile.off_chip else others
    for engine in described["engines"].values():
        engine["energy_pj_per_mac"] *= others
    return HardwareProfile.model_validate(described)


def search_all(peers: list[Peer], limit: int, cache: Path) -> list[Optimum]:
    """All searches, in order of the layers; what the cache holds is not searched again, new rows go there."""
    known = {row.key: row for row in read_cache(cache)}
    code = code_version()
    cache.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for layer, free_lanes, objective in dict.fromkeys(wanted(peers)):
        asked = Optimum(layer.problem, layer.name, free_lanes, objective, limit, code)
        if asked.key not in known:
            known[asked.key] = optimum(layer, asked)
            with cache.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(known[asked.key])) + "\n")
            print(f"searched {layer.problem} {layer.name} for {objective}", file=sys.stderr, flush=True)
        rows.append(known[asked.key])
    return rows


def wanted(peers: list[Peer]) -> Iterator[tuple[Layer, bool, str]]:
    """Every layer for every objective, and with free lanes where a mapper had them."""
    for peer in peers:
        yield from ((peer.layer, False, str(objective)) for objective in Objective)
        if peer.own_lanes:
            yield peer.layer, True, peer.objective


def optimum(layer: Layer, asked: Optimum) -> Optimum:
    """One search."""
    profile = machine(layer.problem, free_lanes=asked.free_lanes)
    limits = (asked.limit,) if asked.limit else ()
    began = time.process_time()
    cost = map_layer(layer.nest, profile, "array", Objective(asked.objective), *limits)
    row = replace(
        asked,
        day=date.today().isoformat(),
        energy_pj=cost.energy_pj,
        cycles=cost.cycles,
        dram_bytes=dram_bytes(cost, profile),
        proven=cost.proven,
        gap=cost.gap,
        seconds=time.process_time() - began,
    )
    return with_least_dram(row, layer, profile) if beyond_compulsory(row, layer) else row


def dram_bytes(cost: LayerCost, profile: HardwareProfile) -> int:
    """Bytes into and out of DRAM."""
    return sum(part.read_bytes + part.write_bytes for part in cost.traffic if part.memory == profile.off_chip)


def beyond_compulsory(row: Optimum, layer: Layer) -> bool:
    """Whether the least EDP moves more than every byte once."""
    return row.objective == "edp" and row.dram_bytes > layer.compulsory_dram_bytes


def with_least_dram(row: Optimum, layer: Layer, profile: HardwareProfile) -> Optimum:
    """The row with the least DRAM bytes of any mapping, and with the EDP of one that moves so few.

    The least: of energy, where nothing but DRAM takes any. The EDP: of the least energy among those, found where DRAM
    takes a million times as much.
    """
    alone, heavy = weighted(profile, 1, 0), weighted(profile, 1e6, 1)
    fewest = map_layer(layer.nest, alone, "array", Objective.ENERGY)
    cheapest = found_cost(layer.nest, profile, search(layer.nest, heavy, "array", Objective.ENERGY))
    if dram_bytes(cheapest, profile) != dram_bytes(fewest, alone):
        raise AssertionError(f"{row.layer}: {dram_bytes(cheapest, profile)} DRAM bytes are not the fewest")
    return replace(
        row,
        least_dram_bytes=dram_bytes(fewest, alone),
        least_dram_proven=fewest.proven,
        least_dram_edp=cheapest.energy_pj * cheapest.cycles,
    )


def failures(rows: list[Optimum], peers: list[Peer]) -> Iterator[str]:
    """Searches without proof, and those another mapper did better than under the same rules."""
    for row in rows:
        name = f"{row.problem} {row.layer} for {row.objective}{' with free lanes' if row.free_lanes else ''}"
        if not row.proven:
            yield f"{name}: not proven"
        if row.least_dram_bytes and not row.least_dram_proven:
            yield f"{name}: the least DRAM bytes are not proven"
        peer = best_peer(row, peers)
        if peer is not None and factor(row, peer, peer.cycles) < 1 - ROUNDING:
            yield f"{name}: {peer.tool} is better"
        if row.dram_bytes > row.least_dram_bytes > 0 and row.least_dram_edp <= row.edp:
            yield f"{name}: fewer DRAM bytes cost no EDP"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="?", help="not read: `make evidence` gives every script its folder of models")
    parser.add_argument("--only", default="", help="layers, between commas")
    parser.add_argument("--limit", type=int, default=0, help="of every search; 0 for the mapper's own")
    parser.add_argument("--reference", type=Path, default=ROOT / "docs/evidence/mapping_problems.csv")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/evidence/mapping_problems.md")
    parser.add_argument("--cache", type=Path, default=ROOT / "build/evidence/mapping_problems.jsonl")
    options = parser.parse_args()
    only = set(filter(None, options.only.split(",")))
    peers = read_reference(options.reference)
    asked = [peer for peer in peers if not only or peer.layer.name in only]
    if not asked:
        print(f"{options.reference}: no layer called {options.only}", file=sys.stderr)
        return 2
    rows = search_all(asked, options.limit, options.cache)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    text = page(rows, peers, options.reference.name) + dram_section(rows, peers)
    options.output.write_text(text, encoding="utf-8")
    failed = list(failures(rows, peers))
    print(f"{len(rows)} searches; failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
