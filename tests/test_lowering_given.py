"""Mappings nobody searched: any legal one, of any lanes and extents, is priced, written, read back and scheduled."""

from __future__ import annotations

from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from codesign.hardware.profile import HardwareProfile
from codesign.hardware.sections import Engine
from codesign.lowering.counts import counts_of_function
from codesign.lowering.layers import as_executed
from codesign.lowering.schedule import schedule_layer
from codesign.mapping.legality import problems_of
from codesign.mapping.mapping import Mapping, Residence, SpatialLoop, TemporalLoop
from codesign.planning.given import given_cost
from codesign.planning.mapping_file import read_mapping_file
from codesign.planning.mapping_writer import mapping_file_text
from codesign.planning.plan import PlannedLayer
from codesign.vocabulary import DIMENSIONS, Operand
from codesign.workload.layer import Layer
from codesign.workload.loop_nest import LoopNest
from tests.machines import nests, profiles
from tests.plans import plan_of

ENGINE = "array"


@st.composite
def mappings(draw: st.DrawFn, nest: LoopNest, profile: HardwareProfile) -> Mapping:
    """Loops that cover the nest, in any order; any lanes, not only those that fill the axes; residences anywhere."""
    spatial = draw(lanes(profile.engines[ENGINE]))
    loops: list[TemporalLoop] = []
    for dimension in DIMENSIONS:
        left = -(-nest.size(dimension) // prod(loop.extent for loop in spatial if loop.dimension is dimension))
        while left > 1:
            inner = draw(st.integers(2, left))
            loops.insert(0, TemporalLoop(dimension, inner))
            left = -(-left // inner)
    order = draw(st.permutations(range(len(loops))))
    waiting = {dimension: [loop for loop in loops if loop.dimension is dimension] for dimension in DIMENSIONS}
    ordered = tuple(waiting[loops[at].dimension].pop(0) for at in order)
    residences = []
    for operand in Operand:
        levels = profile.hierarchy(ENGINE, operand)[:-1]
        position = st.integers(0, len(ordered))
        places = sorted(draw(st.lists(position, min_size=len(levels), max_size=len(levels))), reverse=True)
        residences += [Residence(operand, level, place) for level, place in zip(levels, places, strict=True)]
    return Mapping(ENGINE, spatial, ordered, tuple(residences))


@st.composite
def lanes(draw: st.DrawFn, engine: Engine) -> tuple[SpatialLoop, ...]:
    """Lanes within every axis; an axis may stay idle."""
    loops = []
    for name, axis in engine.axes.items():
        left = axis.size
        for dimension in axis.unrolls:
            extent = draw(st.integers(1, left))
            left //= extent
            if extent > 1:
                loops.append(SpatialLoop(name, dimension, extent))
    return tuple(loops)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(nests(largest=5, volume=300), profiles(), st.data())
def test_any_legal_mapping_is_scheduled_as_it_was_priced(
    nest: LoopNest, profile: HardwareProfile, data: st.DataObject
) -> None:
    mapping = data.draw(mappings(nest, profile))
    assume(not problems_of(nest, mapping, profile))
    cost = given_cost(nest, mapping, profile)
    assert cost.cycles >= cost.bound_cycles > 0 and cost.gap >= 0 and not cost.proven
    planned = PlannedLayer(Layer("stem", "Conv", nest, ("x",), ("y",)), ENGINE, cost)
    text = mapping_file_text(plan_of((planned,)))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "m.yaml"
        path.write_text(text, encoding="utf-8")
        (entry,) = read_mapping_file(path, profile).mappings
    assert entry.mapping == mapping
    scheduled = schedule_layer(nest, entry.mapping, profile, "stem")
    executed = as_executed(planned, profile).cost  # no zeros that fill the lanes
    assert counts_of_function(scheduled.function, profile.homes) == executed.counts
