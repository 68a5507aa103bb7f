"""`kernels` of an engine: it runs layers with kernels of these sizes alone, and every refusal says so."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from codesign.errors import DoesNotFitError
from codesign.hardware.listing import show_profile
from codesign.hardware.loading import load_profile
from codesign.hardware.profile import HardwareProfile
from codesign.mapping.layer_form import runs
from codesign.mapping.mapper import map_layer
from codesign.mapping.objective import Objective
from codesign.planning.placement import Placer
from codesign.planning.plan import PlannedLayer
from codesign.vocabulary import OperationKind
from codesign.workload.loop_nest import LoopNest
from tests import test_constraints, test_mapping_refusals
from tests.machines import nests, profiles
from tests.test_mapping_file import EDGE, FILE, layer_of

CONVOLUTION = LoopNest(
    OperationKind.CONVOLUTION, (1, 1, 8, 8, 8, 8, 3, 3), (1, 1), (1, 1), (1, 1, 1, 1), input_rows=8, input_columns=8
)
POINTWISE = replace(CONVOLUTION, sizes=(1, 1, 8, 8, 8, 8, 1, 1), pads=(0, 0, 0, 0))
DEPTHWISE = LoopNest(OperationKind.DEPTHWISE_CONVOLUTION, (1, 16, 1, 1, 8, 8, 3, 3), (1, 1), (1, 1), (1, 1, 1, 1), 8, 8)


def with_kernels(profile: HardwareProfile, *kernels: str) -> HardwareProfile:
    """The machine with a second engine `small` like `array`, for some kernels alone, at half the energy a MAC."""
    array = profile.engines["array"]
    small = array.model_copy(update={"kernels": kernels, "energy_pj_per_mac": array.energy_pj_per_mac / 2})
    return profile.model_copy(update={"engines": {"array": array, "small": small}})


def placed(nest: LoopNest, profile: HardwareProfile) -> PlannedLayer:
    placer = Placer(profile, Objective.ENERGY, "m.onnx")
    planned = placer.place(layer_of("layer", nest))
    if placer.problems:
        raise DoesNotFitError.of(placer.problems)
    return planned


def test_a_layer_goes_to_the_best_engine_that_runs_its_kernel() -> None:
    machine = with_kernels(EDGE, "3x3", "1x7")
    assert placed(CONVOLUTION, machine).engine == "small"
    assert placed(POINTWISE, machine).engine == "array"
    assert placed(POINTWISE, with_kernels(EDGE, "1x1")).engine == "small"


def test_the_host_says_which_kernel_no_engine_runs() -> None:
    planned = placed(CONVOLUTION, test_constraints.changed(EDGE, kernels=["5x5"]))
    assert (planned.engine, planned.note) == ("host", "no engine runs 3x3 convolution")


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(nests(largest=3, volume=200), profiles(), st.sampled_from(["1x1", "3x3", "2x1"]))
def test_a_kernel_list_only_takes_engines_away(nest: LoopNest, profile: HardwareProfile, kernel: str) -> None:
    machine = with_kernels(profile, kernel)
    allowed = [name for name, engine in machine.engines.items() if runs(engine, nest)]
    assert allowed == ["array", "small"] if kernel == f"{nest.sizes[6]}x{nest.sizes[7]}" else ["array"]
    try:
        planned = placed(nest, machine)
    except DoesNotFitError:
        assume(False)
    costs = [map_layer(nest, machine, name, Objective.ENERGY) for name in allowed]
    assert planned.engine in allowed
    assert planned.cost.energy_pj == min(cost.energy_pj for cost in costs)


def test_mapping_files_are_refused_where_the_kernel_is_not_run() -> None:
    other = test_constraints.changed(EDGE, kernels=["5x5"])
    assert test_constraints.refusal(test_constraints.CONSTRAINTS, other) == [
        "m.yaml:2:5: layer first: engine array does not run 3x3 convolution"
    ]
    assert test_constraints.refusal("constraints: [{layers: [first], stationary: inputs}]", other) == [
        "m.yaml:1:15: layer first: no engine runs 3x3 convolution with stationary inputs"
    ]
    said = "m.yaml:4:5: layers first, second: engine array does not run 3x3 convolution"
    assert test_mapping_refusals.refusal(FILE, other) == said


def test_show_says_which_kernels_and_what_takes_longer() -> None:
    assert "kernels of" not in show_profile("edge_npu")
    lines = show_profile("stm32f746").splitlines()
    assert "    runs: depthwise_convolution; kernels of 3x3 alone" in lines
    assert "  elementwise: 25 cycles of a lane for an operation" in lines


# ---- what CMSIS-NN's kernels take on a Cortex-M7, counted by hand in the sources the profiles name

OUTPUT = 29 / 2  # instructions, two a cycle


@pytest.mark.parametrize("name", ["stm32f746", "stm32h743"])
@pytest.mark.parametrize(
    ("nest", "engine", "cycles_per_mac", "copied"),
    [
        (POINTWISE, "pointwise", 16 / 16, 0),  # 8 SXTB16 and 8 SMLAD for 2 x 2 x 4
        (CONVOLUTION, "windows", 16 / 16, 64 * 72),  # 4 SXTB16, 4 PKH, 8 SMLAD; 64 windows of 72 inputs
        (DEPTHWISE, "depthwise_3x3", 8 / 4, 0),  # 4 widenings and 4 multiplies for a tap of four channels
        (
            replace(DEPTHWISE, sizes=(1, 16, 1, 1, 8, 8, 6, 6), pads=(3, 3, 2, 2)),
            "depthwise_windows",
            16 / 8,  # 12 widenings and packings and 4 SMLAD for two taps of four channels
            16 * 64 * 36,
        ),
    ],
)
def test_a_layer_takes_the_instructions_of_its_kernel(
    name: str, nest: LoopNest, engine: str, cycles_per_mac: float, copied: int
) -> None:
    profile = load_profile(name).profile
    outputs = math.prod(nest.sizes[:3]) * 64
    cycles = nest.macs * cycles_per_mac + copied * 5 / 4 + outputs * OUTPUT
    planned = Placer(profile, Objective.LATENCY, "m.onnx").place(layer_of("layer", nest))
    assert planned.engine == engine
    assert planned.cost.cycles == pytest.approx(cycles, rel=0.06)
