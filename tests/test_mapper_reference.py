"""The mapper against optima that others proved for a machine described tool-independently (reference problem A)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from codesign.hardware.loading import load_profile
from codesign.mapping.cost import evaluate
from codesign.mapping.counts import counts_of
from codesign.mapping.legality import problems_of
from codesign.mapping.mapper import search
from codesign.mapping.objective import Objective
from codesign.vocabulary import OperationKind
from codesign.workload.loop_nest import LoopNest

OPTIMA = Path(__file__).resolve().parents[2] / "shared/reference/mapping_problems/proven_optima_resnet18_a.json"
LAYERS = ("conv3_s", "conv4_s", "conv5_1b", "conv5_s", "fc")


def nest_of(shape: list[int]) -> LoopNest:
    """A layer from the file's `shape`: output rows, columns, kernel rows, columns, inputs, outputs, stride, groups."""
    rows, columns, tall, wide, channels, outputs, stride, _ = shape
    sizes = (1, 1, outputs, channels, rows, columns, tall, wide)
    pads = (tall // 2, wide // 2, tall // 2, wide // 2)
    return LoopNest(OperationKind.CONVOLUTION, sizes, (stride, stride), (1, 1), pads, rows * stride, columns * stride)


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("objective", list(Objective))
def test_no_worse_than_the_published_optimum(layer: str, objective: Objective) -> None:
    """The published optima are over perfect factors; ours are over imperfect ones too, so they may be better."""
    if not OPTIMA.is_file():
        pytest.skip(f"the published optima are not here: {OPTIMA.name}")
    rows = json.loads(OPTIMA.read_text(encoding="utf-8"))["rows"]
    (row,) = (row for row in rows if row["layer"] == layer and row["objective"].lower() == objective)
    profile = load_profile("reference_a").profile
    nest = nest_of(row["shape"])
    found = search(nest, profile, "array", objective)
    assert found.proven
    assert problems_of(nest, found.mapping, profile) == []
    cost = evaluate(nest, found.mapping, profile, counts_of(nest, found.mapping, profile))
    ours = {"latency": cost.latency_cycles, "energy": cost.energy_pj, "edp": cost.latency_cycles * cost.energy_pj}
    theirs = {"latency": row["latency_cycles"], "energy": row["energy_pj"]}
    published = theirs.get(objective, row["latency_cycles"] * row["energy_pj"])
    assert ours[objective] <= published * (1 + 1e-9)
    assert ours[objective] >= published * 0.95, "imperfect factors gain a few percent here, not more"
