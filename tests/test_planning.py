"""Placement and fusion: what runs where, what a fused activation costs, and what --no-host refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codesign.errors import CodesignError
from codesign.hardware.loading import load_profile
from codesign.hardware.profile import HardwareProfile
from codesign.mapping.objective import Objective
from codesign.planning.fusion import fuse
from codesign.planning.placement import Placer, refuse_host
from codesign.planning.plan import PlannedLayer
from codesign.vocabulary import OperationKind
from codesign.workload.layer import Layer
from codesign.workload.loop_nest import LoopNest

PROFILE = load_profile("edge_npu").profile
CHANNELS, SIDE = 32, 28
ELEMENTS = CHANNELS * SIDE * SIDE


def convolution(name: str, source: str) -> Layer:
    sizes = (1, 1, CHANNELS, CHANNELS, SIDE, SIDE, 1, 1)
    nest = LoopNest(OperationKind.CONVOLUTION, sizes, input_rows=SIDE, input_columns=SIDE)
    return Layer(name, "Conv", nest, (source,), (f"{name}_out",))


def activation(name: str, source: str, operations_per_element: int = 1) -> Layer:
    nest = LoopNest(
        OperationKind.ACTIVATION,
        (1, CHANNELS, 1, 1, SIDE, SIDE, 1, 1),
        input_elements=ELEMENTS,
        output_elements=ELEMENTS,
        operations=operations_per_element * ELEMENTS,
    )
    return Layer(name, "Relu", nest, (source,), (f"{name}_out",))


def placed(
    *layers: Layer, outputs: frozenset[str] = frozenset(), profile: HardwareProfile = PROFILE
) -> list[PlannedLayer]:
    placer = Placer(profile, Objective.LATENCY, "model.onnx")
    return fuse([placer.place(layer) for layer in layers], outputs, profile)


def test_an_activation_with_its_producer_to_itself_is_fused() -> None:
    conv, relu = placed(convolution("conv", "image"), activation("relu", "conv_out"))
    assert relu.fused_into == "conv"
    assert relu.cost.cycles == 0 and relu.cost.traffic == ()
    assert relu.cost.energy_pj == pytest.approx(ELEMENTS * PROFILE.vector_unit.energy_pj_per_operation)  # type: ignore[union-attr]
    assert conv.fused_into == ""


def test_a_second_reader_or_an_output_of_the_network_prevents_fusion() -> None:
    _, first, second = placed(
        convolution("conv", "image"), activation("left", "conv_out"), activation("right", "conv_out")
    )
    assert (first.fused_into, second.fused_into) == ("", "")
    _, relu = placed(convolution("conv", "image"), activation("relu", "conv_out"), outputs=frozenset({"conv_out"}))
    assert relu.fused_into == "" and relu.cost.cycles > 0


def test_chained_activations_share_the_cycles_their_producer_leaves() -> None:
    conv, light, heavy = placed(
        convolution("conv", "image"), activation("light", "conv_out"), activation("heavy", "light_out", 100)
    )
    lanes = PROFILE.vector_unit.lanes  # type: ignore[union-attr]
    used = -(-ELEMENTS // lanes)
    free = conv.cost.cycles - used
    assert light.cost.cycles == 0 and free > 0
    assert heavy.fused_into == "conv"
    assert heavy.cost.cycles == -(-100 * ELEMENTS // lanes) - free


@settings(max_examples=30, deadline=None)
@given(cycles=st.integers(1, 200), fused=st.booleans())
def test_operations_that_take_longer_cost_as_many_as_they_take_cycles(cycles: int, fused: bool) -> None:
    """One operation of n cycles costs what n operations of one cycle do, alone and on a producer's way out."""
    unit = PROFILE.vector_unit
    assert unit is not None
    slow = unit.model_copy(update={"cycles_per_operation": {OperationKind.ACTIVATION: float(cycles)}})
    before = [convolution("conv", "image")] if fused else []
    source = "conv_out" if fused else "image"
    *_, found = placed(*before, activation("a", source), profile=PROFILE.model_copy(update={"vector_unit": slow}))
    *_, same = placed(*before, activation("a", source, cycles))
    assert found.cost == same.cost
    assert found.fused_into == same.fused_into == ("conv" if fused else "")


def test_a_nest_is_mapped_once_and_its_repeats_say_so() -> None:
    first, second = placed(convolution("one", "image"), convolution("two", "one_out"))
    assert second.repeats_of == "one" and second.layer.name == "two"
    assert second.cost is first.cost


def test_no_host_names_every_layer_there() -> None:
    unknown = replace(activation("det", "conv_out"), op="Det")
    nest = replace(unknown.nest, kind=OperationKind.HOST)
    layers = placed(convolution("conv", "image"), replace(unknown, nest=nest))
    assert layers[1].engine == "host" and layers[1].cost.cycles > 0
    with pytest.raises(CodesignError, match="node det: Det would run on the host"):
        refuse_host(layers, "model.onnx")
