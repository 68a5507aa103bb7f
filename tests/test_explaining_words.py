"""The words an explanation uses: what is changed, what that gives, and what is not proven."""

from __future__ import annotations

from dataclasses import replace

import pytest

from codesign.hardware.loading import load_profile
from codesign.mapping.objective import Objective
from codesign.planning.changes import Change, ChangeKind
from codesign.planning.explaining import Figures, Outcome
from codesign.report.explanation import change_text, effect_text, outcome_text
from codesign.vocabulary import OperationKind
from codesign.workload.loop_nest import LoopNest

NEST = LoopNest(OperationKind.CONVOLUTION, (1, 1, 8, 8, 8, 8, 1, 1), input_rows=8, input_columns=8)
DENSE = replace(NEST, kind=OperationKind.DENSE)
DEPTHWISE = replace(NEST, kind=OperationKind.DEPTHWISE_CONVOLUTION)


@pytest.mark.parametrize(
    ("kind", "where", "before", "after", "nest", "text"),
    [
        (ChangeKind.LAYER, "C", 24, 32, NEST, "32 input channels instead of 24"),
        (ChangeKind.LAYER, "K", 24, 16, NEST, "16 output channels instead of 24"),
        (ChangeKind.LAYER, "C", 24, 32, DENSE, "32 inputs instead of 24"),
        (ChangeKind.LAYER, "K", 24, 32, DENSE, "32 outputs instead of 24"),
        (ChangeKind.LAYER, "G", 24, 32, DEPTHWISE, "32 channels instead of 24"),
        (ChangeKind.LAYER, "G", 3, 4, NEST, "4 groups instead of 3"),
        (ChangeKind.LAYER, "OY", 28, 32, NEST, "32 output rows instead of 28"),
        (ChangeKind.LAYER, "OX", 28, 32, NEST, "32 output columns instead of 28"),
        (ChangeKind.LAYER, "OY OX", 28, 32, NEST, "32x32 outputs instead of 28x28"),
        (ChangeKind.MEMORY, "memories.sram.size_bytes", 65_536, 98_304, NEST, "sram 96.0 KiB instead of 64.0 KiB"),
        (ChangeKind.BUFFERING, "memories.sram.buffering", 1, 2, NEST, "sram double-buffered instead of single"),
        (
            ChangeKind.PORT,
            "memories.dram.ports.read_write.bytes_per_cycle",
            12.8,
            25.6,
            NEST,
            "dram.read_write 25.6 bytes per cycle instead of 12.8",
        ),
        (ChangeKind.AXIS, "engines.array.axes.rows.size", 32, 64, NEST, "rows of array 64 lanes instead of 32"),
        (ChangeKind.UNROLLS, "engines.array.axes.rows.unrolls", 3, 4, NEST, "rows of array may unroll FX too"),
        (ChangeKind.UNIT, "vector_unit.lanes", 32, 64, NEST, "vector_unit 64 lanes instead of 32"),
        (ChangeKind.UNIT, "host.operations_per_cycle", 1, 2, NEST, "host 2 operations per cycle instead of 1"),
    ],
)
def test_a_change_in_words(
    kind: ChangeKind, where: str, before: float, after: float, nest: LoopNest, text: str
) -> None:
    assert change_text(Change(kind, where, before, after, nest, load_profile("edge_npu").profile)) == text


def outcome_of(before: Figures, after: Figures) -> Outcome:
    change = Change(
        ChangeKind.MEMORY, "memories.sram.size_bytes", 65_536, 98_304, NEST, load_profile("edge_npu").profile
    )
    return Outcome(change, before, after)


@pytest.mark.parametrize(
    ("after", "objective", "text"),
    [
        ((100, 880, 10.0, 590), Objective.LATENCY, "-12.0 % cycles, -41.0 % dram traffic"),
        ((100, 880, 10.0, 1000), Objective.LATENCY, "-12.0 % cycles"),
        ((100, 1000, 9.0, 590), Objective.LATENCY, "-41.0 % dram traffic"),
        ((100, 1000, 9.0, 590), Objective.ENERGY, "-10.0 % energy, -41.0 % dram traffic"),
        ((100, 900, 9.0, 1000), Objective.EDP, "-19.0 % energy x cycles"),
        ((50, 400, 5.0, 500), Objective.LATENCY, "-20.0 % cycles per MAC (cycles -60.0 %, MACs -50.0 %)"),
    ],
)
def test_an_effect_in_words(after: tuple[int, int, float, int], objective: Objective, text: str) -> None:
    outcome = outcome_of(Figures(100, 1000, 10.0, 1000, True), Figures(*after, True))
    assert effect_text(outcome, objective, "dram") == text


def test_a_search_cut_short_is_told() -> None:
    found = outcome_of(Figures(100, 1000, 10.0, 1000, True), Figures(100, 880, 10.0, 590, False))
    assert outcome_text(found, Objective.LATENCY, "dram") == (
        "sram 96.0 KiB instead of 64.0 KiB: -12.0 % cycles, -41.0 % dram traffic (not proven)"
    )
