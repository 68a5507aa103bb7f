"""Coded weights, by hand; tests.simulator moves them on random machines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from codesign.hardware.listing import show_profile
from codesign.hardware.loading import shipped_folder
from codesign.hardware.profile import HardwareProfile
from codesign.mapping.layer_cost import LayerCost
from codesign.mapping.mapper import map_layer
from codesign.mapping.objective import Objective
from codesign.mapping.space import spatial_choices, tile_bytes
from codesign.vocabulary import Operand, OperationKind
from codesign.workload.loop_nest import LoopNest
from tests.test_losses import axis, machine

DENSE = LoopNest(OperationKind.DENSE, sizes=(1, 1, 16, 64, 1, 1, 1, 1))


def coding(sram: float | None, dram: float | None, **changes: Any) -> HardwareProfile:
    """4 x 4 lanes over one sram, over a dram of 1 byte a cycle that takes 2 pJ for each."""
    data = machine(rows=axis(4, "C"), columns=axis(4, "K"), dram=1).model_dump(mode="json")
    data["memories"]["dram"] |= {"coded_weight_bits": dram, "read_pj_per_byte": 2, "write_pj_per_byte": 2}
    data["memories"]["sram"] |= {"coded_weight_bits": sram, **changes}
    return HardwareProfile.model_validate(data)


def weight_bytes(cost: LayerCost, memory: str) -> tuple[int, int]:
    """Read and written."""
    (part,) = (part for part in cost.traffic if (part.memory, part.operand) == (memory, Operand.WEIGHTS))
    return part.read_bytes, part.write_bytes


def test_coded_weights_are_read_at_their_width_and_decoded_on_their_way() -> None:
    plain, coded, kept = (
        map_layer(DENSE, coding(sram, dram), "array", Objective.LATENCY)
        for sram, dram in ((None, None), (None, 2.5), (2.5, 2.5))
    )
    weights = 16 * 64
    short = weights * 5 // 16
    assert [weight_bytes(cost, "dram")[0] for cost in (plain, coded, kept)] == [weights, short, short]
    assert [weight_bytes(cost, "sram")[1] for cost in (plain, coded, kept)] == [weights, weights, short]
    spent = [part.energy_pj for cost in (plain, coded) for part in cost.energy if part.component == "dram"]
    assert spent == [2 * (weights + 64 + 16), 2 * (short + 64 + 16)]
    assert plain.cycles > weights > coded.cycles


def test_coded_weights_may_be_larger_than_plain_ones() -> None:
    plain, coded = (map_layer(DENSE, coding(None, bits), "array", Objective.LATENCY) for bits in (None, 10.0))
    assert weight_bytes(coded, "dram")[0] == 1280
    assert coded.cycles > plain.cycles


def test_a_tile_of_coded_weights_takes_less_room() -> None:
    choice = spatial_choices(DENSE, coding(None, None).engines["array"])[0]
    needed = [
        tile_bytes(
            DENSE,
            coding(bits, 2.6),
            choice,
            "array",
            Operand.WEIGHTS,
            "sram",
            DENSE.sizes,
            refilled=False,
            partial=False,
        )
        for bits in (None, 2.6)
    ]
    assert needed == [1024, 333]


def test_a_listing_says_how_weights_are_coded(tmp_path: Path) -> None:
    text = (shipped_folder() / "edge_npu.yaml").read_text(encoding="utf-8")
    path = tmp_path / "coded.yaml"
    path.write_text(text.replace("  dram:\n", "  dram:\n    coded_weight_bits: 2.6\n", 1), encoding="utf-8")
    assert "weights coded in 2.6 bits each" in show_profile(str(path))
