"""Lost cycles: they add up, cycle by cycle, and are what a count by hand says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import codesign
from codesign.errors import DoesNotFitError
from codesign.hardware.profile import HardwareProfile
from codesign.mapping.layer_cost import LayerCost
from codesign.mapping.losses import Loss, LossKind, losses_of
from codesign.mapping.mapper import map_layer
from codesign.mapping.objective import Objective
from codesign.mapping.streaming import host_cost
from codesign.vocabulary import OperationKind
from codesign.workload.layer import Layer
from codesign.workload.loop_nest import LoopNest
from tests.machines import nests, profiles


def changed(profile: HardwareProfile, **engine: Any) -> HardwareProfile:
    described = profile.model_dump(mode="json")
    described["engines"]["array"] |= engine
    return HardwareProfile.model_validate(described)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(nests(largest=40, volume=10**6), profiles(), st.integers(0, 9), st.integers(0, 3), st.booleans(), st.booleans())
def test_losses_add_up_to_the_cycles(
    nest: LoopNest, plain: HardwareProfile, depth: int, overhead: int, fixed: bool, from_0: bool
) -> None:
    described = changed(plain, pipeline_depth_cycles=depth).model_dump(mode="json")
    described["memories"]["accumulators"]["refill_overhead_cycles"] = overhead
    described["conventions"]["last_cycle_index"] = from_0
    if fixed:
        described["engines"]["array"]["axes"]["rows"] |= {"unrolls": ["C"], "fixed": True, "whole": []}
    profile = HardwareProfile.model_validate(described)
    try:
        cost = map_layer(nest, profile, "array", Objective.LATENCY, limit=100)
    except DoesNotFitError:
        assume(False)
    found = losses_of(nest, cost, profile)
    ideal = -(-nest.macs * profile.passes("array") // profile.engines["array"].peak_macs_per_cycle)
    assert ideal + sum(loss.cycles for loss in found) == cost.cycles
    assert sum(loss.cycles for loss in found if loss.kind.of_lanes) == cost.compute_cycles - ideal
    assert sum(loss.cycles for loss in found if loss.kind is LossKind.STALL) == cost.stall_cycles
    assert all(loss.cycles > 0 for loss in found)
    for loss in found:
        assert 0 <= loss.used <= loss.available
        if loss.kind is LossKind.STALL:
            assert loss.where == cost.limited_by


# ---- counted by hand


def machine(
    *,
    rows: dict[str, Any],
    columns: dict[str, Any],
    depth: int = 0,
    dram: float | None = None,
    buffering: str = "double",
    overhead: int = 0,
) -> HardwareProfile:
    """Two axes below one sram; nothing waits for a port unless the dram has one."""
    free = {"read_pj_per_byte": 0, "write_pj_per_byte": 0}
    return HardwareProfile.model_validate(
        {
            "name": "by_hand",
            "description": "for counts by hand",
            "clock_mhz": 100,
            "precision": {"weights_bits": 8, "activations_bits": 8, "accumulators_bits": 32},
            "engines": {
                "array": {
                    "operations": ["convolution", "depthwise_convolution", "dense", "transposed_convolution"],
                    "axes": {"rows": rows, "columns": columns},
                    "energy_pj_per_mac": 0,
                    "pipeline_depth_cycles": depth,
                }
            },
            "memories": {
                "accumulators": {"holds": ["outputs"], "size_bytes": 2**20, **free},
                "sram": {
                    "holds": ["weights", "inputs", "outputs"],
                    "size_bytes": 2**20,
                    "buffering": buffering,
                    "refill_overhead_cycles": overhead,
                    **free,
                },
                "dram": {
                    "holds": ["weights", "inputs", "outputs"],
                    "size_bytes": None,
                    "ports": {"read_write": {"bytes_per_cycle": dram}} if dram else {},
                    **free,
                },
            },
            "conventions": {"fill_and_drain": False},
            "host": {
                "operations_per_cycle": 1,
                "bytes_per_cycle": 1,
                "energy_pj_per_operation": 0,
                "energy_pj_per_byte": 0,
            },
        }
    )


def axis(size: int, *unrolls: str, fixed: bool = False) -> dict[str, Any]:
    return {"size": size, "unrolls": list(unrolls), "fixed": fixed}


def pointwise(k: int, c: int, size: int = 32) -> LoopNest:
    return LoopNest(OperationKind.CONVOLUTION, (1, 1, k, c, size, size, 1, 1), input_rows=size, input_columns=size)


def mapped(nest: LoopNest, profile: HardwareProfile) -> tuple[LayerCost, list[tuple[str, str, int]]]:
    """The cost, and (kind, detail, cycles) of every loss."""
    cost = map_layer(nest, profile, "array", Objective.LATENCY)
    return cost, [(loss.kind.value, loss.detail, loss.cycles) for loss in losses_of(nest, cost, profile)]


def test_24_channels_on_32_lanes_leave_a_quarter_idle() -> None:
    cost, losses = mapped(pointwise(32, 24), machine(rows=axis(32, "C"), columns=axis(32, "K")))
    assert cost.cycles == 32 * 32
    assert losses == [("idle lanes", "C 24 of 32 lanes on rows", 256)]
    assert 256 / cost.cycles == 0.25


def test_24_channels_on_16_lanes_lose_the_same_quarter_to_an_edge() -> None:
    cost, losses = mapped(pointwise(32, 24), machine(rows=axis(16, "C"), columns=axis(32, "K")))
    assert cost.cycles == 2 * 32 * 32
    assert losses == [("edge", "C 24 in 2 steps of 16 lanes on rows", 512)]


def test_50_columns_on_16_lanes_take_4_steps() -> None:
    """The mapper spreads them as 13, 13, 13 and 11; what is lost is 14 of 64 all the same."""
    cost, losses = mapped(pointwise(8, 8, 50), machine(rows=axis(16, "OX"), columns=axis(8, "C")))
    assert cost.cycles == 4 * 50 * 8
    assert losses == [("edge", "OX 50 in 4 steps of 16 lanes on rows", 1600 - 50 * 50 * 64 // 128)]


def test_a_depthwise_layer_finds_nothing_for_either_axis() -> None:
    """1 of 32 x 32 lanes: both axes lose the same, and all but one cycle in 1,024."""
    sizes = (1, 64, 1, 1, 32, 32, 1, 1)
    nest = LoopNest(OperationKind.DEPTHWISE_CONVOLUTION, sizes, input_rows=32, input_columns=32)  # type: ignore[arg-type]
    cost, losses = mapped(nest, machine(rows=axis(32, "C"), columns=axis(32, "K")))
    assert cost.cycles == 65_536
    assert losses == [
        ("idle lanes", "nothing to unroll (C 1): 1 of 32 lanes on rows", 32_736),
        ("idle lanes", "nothing to unroll (K 1): 1 of 32 lanes on columns", 32_736),
    ]


def test_a_fixed_axis_says_what_it_is_fixed_to() -> None:
    cost, losses = mapped(pointwise(32, 3), machine(rows=axis(32, "C", fixed=True), columns=axis(32, "K")))
    assert cost.cycles == 1024
    assert losses == [("idle lanes", "C 3 of 32 lanes on rows (fixed to C)", 1024 - 96)]


def test_a_dimension_on_two_axes_is_ragged_over_both() -> None:
    """5 rows on 3 x 2 lanes take one step of 6: a sixth is lost; nothing else is, K and C being 1."""
    sizes = (1, 1, 1, 1, 5, 1, 1, 1)
    nest = LoopNest(OperationKind.CONVOLUTION, sizes, input_rows=5)  # type: ignore[arg-type]
    cost, losses = mapped(nest, machine(rows=axis(3, "OY"), columns=axis(2, "OY")))
    assert cost.cycles == 1
    assert losses == []  # one cycle is the least there is
    wide = LoopNest(OperationKind.CONVOLUTION, (1, 1, 1, 60, 5, 1, 1, 1), input_rows=5)
    cost, losses = mapped(wide, machine(rows=axis(3, "OY"), columns=axis(2, "OY")))
    assert cost.cycles == 60
    assert losses == [("idle lanes", "OY 5 in one step of 6 lanes on rows columns", 10)]


def test_several_dimensions_share_an_axis() -> None:
    """3 x 3 x 3 taps and channels on 32 rows: 27 of them."""
    sizes = (1, 1, 32, 3, 30, 30, 3, 3)
    nest = LoopNest(OperationKind.CONVOLUTION, sizes, input_rows=32, input_columns=32)  # type: ignore[arg-type]
    cost, losses = mapped(nest, machine(rows=axis(32, "C", "FY", "FX"), columns=axis(32, "K")))
    assert cost.cycles == 900
    assert losses == [("idle lanes", "C 3 x FY 3 x FX 3: 27 of 32 lanes on rows", 900 - -(-900 * 27 // 32))]


def test_zeros_between_the_inputs_of_a_transposed_convolution() -> None:
    """4 x 4 inputs, stride 2, 2 x 2 taps: 8 x 8 outputs of 4 products each, of which 1 in 4 meets an input."""
    nest = LoopNest(
        OperationKind.TRANSPOSED_CONVOLUTION,
        (1, 1, 8, 8, 8, 8, 2, 2),
        pads=(1, 1, 1, 1),
        input_rows=4,
        input_columns=4,
        input_dilation=(2, 2),
    )
    cost, losses = mapped(nest, machine(rows=axis(8, "C"), columns=axis(8, "K")))
    assert cost.cycles == 256
    assert losses == [("inserted zeros", "zeros between the inputs: 4096 of 16384 MACs are useful", 192)]


def test_stalls_go_to_the_operands_by_their_bytes() -> None:
    """32 x 32 weights and 2 x 32 x 1,024 activations over 8 bytes a cycle: 8,320 cycles, 1,024 of them at work."""
    nest, profile = pointwise(32, 32), machine(rows=axis(32, "C"), columns=axis(32, "K"), dram=8)
    cost, losses = mapped(nest, profile)
    assert cost.cycles == 8_320
    assert losses == [
        ("stall", "weights through dram.read_write", 112),  # 7,296 x 1 / 65
        ("stall", "inputs through dram.read_write", 3_592),  # 7,296 x 32 / 65
        ("stall", "outputs through dram.read_write", 3_592),
    ]
    assert [(loss.used, loss.available) for loss in losses_of(nest, cost, profile)] == [
        (1_024, 66_560),
        (32_768, 66_560),
        (32_768, 66_560),
    ]


def test_a_single_buffer_stops_the_lanes_while_it_is_filled() -> None:
    """Bytes as above at 8 a cycle, one operand after the other, and nothing overlaps with the 1,024 steps."""
    profile = machine(rows=axis(32, "C"), columns=axis(32, "K"), dram=8, buffering="single")
    cost, losses = mapped(pointwise(32, 32), profile)
    assert cost.cycles == 1_024 + 8_320
    assert losses == [
        ("refill", "weights from dram to sram, which stops the lanes", 128),
        ("refill", "inputs from dram to sram, which stops the lanes", 4_096),
        ("refill", "outputs from sram to dram, which stops the lanes", 4_096),
    ]


def test_pipeline_and_overheads_are_named() -> None:
    """Every operand is brought into sram once: three refills of 5 cycles."""
    profile = machine(rows=axis(32, "C"), columns=axis(32, "K"), depth=64, overhead=5)
    cost, losses = mapped(pointwise(32, 32), profile)
    assert cost.cycles == 1_024 + 64 + 15
    assert losses == [
        ("pipeline", "64 cycles through the pipeline of array", 64),
        ("refill overhead", "overhead of every refill of sram with weights", 5),
        ("refill overhead", "overhead of every refill of sram with inputs", 5),
        ("refill overhead", "overhead of every refill of sram with outputs", 5),
    ]


def test_first_and_last_tiles_are_named_by_memory_and_operand() -> None:
    """One step of 32 x 32 lanes: its 1,024 weights and 32 inputs come before it, its 32 outputs leave after it."""
    described = machine(rows=axis(32, "C"), columns=axis(32, "K"), dram=32).model_dump(mode="json")
    described["conventions"]["fill_and_drain"] = True
    nest = pointwise(32, 32, 1)
    cost, losses = mapped(nest, HardwareProfile.model_validate(described))
    assert (cost.cycles, cost.compute_cycles) == (1 + 32 + 1 + 1, 1)
    assert losses == [
        ("fill", "first weights from dram to sram", 32),
        ("fill", "first inputs from dram to sram", 1),
        ("drain", "last outputs from sram to dram", 1),
    ]


# ---- what is not mapped


@pytest.mark.parametrize("hw", ["edge_npu", "ecnn", "gemmini16"])
def test_every_layer_of_a_network_adds_up(hw: str) -> None:
    """Vector unit and host too: they lose cycles to what they move."""
    for layer in codesign.estimate("examples/digits/digits.onnx", hw=hw).layers:
        assert layer.ideal_cycles + sum(loss.cycles for loss in layer.losses) == layer.cost.cycles
        assert sum(loss.cycles for loss in layer.losses if loss.kind is LossKind.STALL) == layer.cost.stall_cycles
        if layer.layer.nest.macs and layer.cost.mapping is not None:
            assert layer.ideal_cycles <= layer.cost.compute_cycles


def test_a_sum_that_moves_bytes_only_stalls() -> None:
    """Two tensors of 2,048 bytes in, one out at 8 bytes a cycle: 768 cycles, 64 of them adding 2,048 pairs on 32."""
    plan = codesign.estimate("examples/digits/digits.onnx", hw="edge_npu")
    (layer,) = (layer for layer in plan.layers if layer.layer.op == "Add")
    assert (layer.cost.cycles, layer.ideal_cycles) == (768, 64)
    assert [(loss.what, loss.cycles) for loss in layer.losses] == [("inputs", 469), ("outputs", 235)]


def test_host_work_stalls_on_what_it_moves() -> None:
    """100 operations at 1 a cycle; 300 bytes in and 100 out at 1 byte a cycle take 400."""
    profile = machine(rows=axis(1, "C"), columns=axis(1, "K"))
    nest = LoopNest(OperationKind.HOST, (1,) * 8, input_elements=300, output_elements=100, operations=100)  # type: ignore[arg-type]
    cost = host_cost(Layer("a", "Op", nest, ("x",), ("y",)), profile)
    assert cost.cycles == 400
    assert [(loss.detail, loss.cycles) for loss in losses_of(nest, cost, profile)] == [
        ("inputs between the host and dram", 225),
        ("outputs between the host and dram", 75),
    ]


def test_work_that_moves_nothing_still_adds_up() -> None:
    cost = LayerCost(1, 0, 1, 0, 0.0, 0.0, (), (), "host", 1, 0.0, True)
    (loss,) = losses_of(LoopNest(OperationKind.HOST, (1,) * 8), cost, machine(rows=axis(1, "C"), columns=axis(1, "K")))  # type: ignore[arg-type]
    assert loss == Loss(LossKind.STALL, "host", "", "start of host", 1)
