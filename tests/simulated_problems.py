"""Random problems for the simulation: layers of every kind, machines of every convention, any mapping of the space."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from codesign.hardware.loading import load_profile, shipped_folder
from codesign.hardware.profile import HardwareProfile
from codesign.hardware.sections import Buffering
from codesign.mapping.mapping import Mapping, Residence, TemporalLoop
from codesign.mapping.space import larger_sizes, loop_extent, spatial_choices
from codesign.vocabulary import DIMENSIONS, Operand, OperationKind
from codesign.workload.loop_nest import LoopNest
from tests.machines import NO_PORTS, latencies, nests, profiles

SHIPPED = tuple(sorted(path.stem for path in shipped_folder().glob("*.yaml")))

Placed = tuple[LoopNest, HardwareProfile, Mapping]


@st.composite
def layers(draw: st.DrawFn, largest: int = 5, volume: int = 160) -> LoopNest:
    """Small convolutions of every kind, some of them over an input dilated with zeros (transposed convolutions)."""
    nest: LoopNest = draw(nests(largest=largest, volume=volume))
    if draw(st.integers(0, 4)):
        return nest
    apart = draw(st.integers(2, 3))
    return replace(
        nest,
        kind=OperationKind.TRANSPOSED_CONVOLUTION,
        stride=(1, 1),
        input_dilation=(apart, apart),
        input_rows=-(-nest.input_rows // apart),
        input_columns=-(-nest.input_columns // apart),
    )


@st.composite
def machines(draw: st.DrawFn, waits: tuple[int, ...] = (0, 0, 1, 3)) -> HardwareProfile:
    """Random machines with every convention, with waits at refills and for far memories, pipelines, and widths that
    share bytes."""
    described = draw(profiles()).model_dump(mode="json")
    flag = st.booleans()
    others = {name: draw(flag) for name in described["conventions"] if name != "whole_weight_tiles"}
    described["conventions"] |= others
    described["precision"] = {
        "weights_bits": draw(st.sampled_from([4, 8])),
        "activations_bits": draw(st.sampled_from([4, 8, 16])),
        "accumulators_bits": draw(st.sampled_from([24, 32])),
    }
    described["engines"]["array"]["pipeline_depth_cycles"] = draw(st.integers(0, 5))
    for memory in list(described["memories"].values())[:-1]:
        memory["refill_overhead_cycles"] = draw(st.sampled_from(waits))
    for memory in described["memories"].values():
        memory |= draw(latencies()) if memory["ports"] != NO_PORTS else {}
    return HardwareProfile.model_validate(described)


@st.composite
def mappings(draw: st.DrawFn, nest: LoopNest, profile: HardwareProfile, engine: str) -> Mapping:
    """Any mapping of the declared space, whether it fits or not."""
    choice = draw(st.sampled_from(spatial_choices(nest, profile.engines[engine])))
    tile = [1] * len(DIMENSIONS)
    loops: list[TemporalLoop] = []
    while tile != list(choice.steps):
        index = draw(st.sampled_from([at for at, steps in enumerate(choice.steps) if tile[at] < steps]))
        size = draw(st.sampled_from(larger_sizes(choice.steps[index], tile[index])[1:]))
        loops.insert(0, TemporalLoop(DIMENSIONS[index], loop_extent(choice.steps[index], tile[index], size)))
        tile[index] = size
    residences: list[Residence] = []
    for operand in Operand:
        levels = profile.hierarchy(engine, operand)[:-1]
        positions = sorted((draw(st.integers(0, len(loops))) for _ in levels), reverse=True)
        for level, at in zip(levels, positions, strict=True):
            copies = (1, 2) if profile.memories[level].buffering is Buffering.EITHER else (1,)
            residences.append(Residence(operand, level, at, draw(st.sampled_from(copies))))
    return Mapping(engine, choice.loops, tuple(loops), tuple(residences))


@st.composite
def placed(draw: st.DrawFn) -> Placed:
    """A random layer on a random machine, mapped in any way."""
    nest, profile = draw(layers()), draw(machines())
    return nest, profile, draw(mappings(nest, profile, "array"))


@st.composite
def placed_on_shipped(draw: st.DrawFn) -> Placed:
    """A random layer on any engine of any shipped machine, mapped in any way."""
    nest, profile = draw(layers()), _walkable(load_profile(draw(st.sampled_from(SHIPPED))).profile)
    return nest, profile, draw(mappings(nest, profile, draw(st.sampled_from(sorted(profile.engines)))))


def _walkable(profile: HardwareProfile) -> HardwareProfile:
    """Arrays of 8 x 8 lanes at most where every lane brings a weight: each of them is moved on its own."""
    if not profile.conventions.whole_weight_tiles:
        return profile
    described = profile.model_dump(mode="json")
    for engine in described["engines"].values():
        for axis in engine["axes"].values():
            axis["size"] = min(axis["size"], 8)
    return HardwareProfile.model_validate(described)


def roomy(profile: HardwareProfile) -> HardwareProfile:
    """The same machine with room for everything."""
    described = profile.model_dump(mode="json")
    for memory in list(described["memories"].values())[:-1]:
        memory["size_bytes"] = 2**30
    return HardwareProfile.model_validate(described)
