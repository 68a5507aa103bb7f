"""The tables behind the mapper's proofs: smaller ones are bounds too, and nothing completes for less than they say."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from codesign.hardware.profile import HardwareProfile
from codesign.mapping.bounds import Tables
from codesign.mapping.grid import IMAGE, KERNEL
from codesign.mapping.layer_space import EngineLayer, LayerSpace
from codesign.mapping.merging import Merged
from codesign.mapping.meter import Meter
from codesign.mapping.space import spatial_choices
from codesign.mapping.stages import Stage, stairs
from codesign.mapping.tuning import candidates
from codesign.mapping.weighing import weighing
from codesign.workload.loop_nest import LoopNest
from tests.machines import examples, nests, profiles

GROUPS = ((KERNEL,), (IMAGE,), (KERNEL, IMAGE))


def space_of(nest: LoopNest, profile: HardwareProfile, number: int) -> LayerSpace:
    choices = spatial_choices(nest, profile.engines["array"])
    return LayerSpace(EngineLayer(nest, Meter(profile, "array")), choices[number % len(choices)], False)


@examples(40)
@given(nests(largest=6, volume=400), profiles(), st.integers(0, 5), st.sampled_from(GROUPS))
def test_merged_tables_are_bounds_of_the_full_ones(
    nest: LoopNest, profile: HardwareProfile, number: int, groups: tuple[tuple[int, ...], ...]
) -> None:
    space = space_of(nest, profile, number)
    assume(space.grid.count < 3_000)
    lines = candidates(space)
    weighed = weighing(space, lines)
    full, small = Tables(weighed), Tables(weighed.merged(groups))
    assert small.rows is not None
    spread = small.ahead[:, :, small.rows]
    finite = np.isfinite(full.ahead)
    free = ~lines.prices.any(axis=1)
    floors, roots = lines.weights[free] @ space.compulsory, full.root()[free]
    assert np.all(floors <= roots * (1 + 1e-9) + 1e-9), "what is compulsory is part of every completion"
    assert np.all(spread[finite] <= full.ahead[finite] + 1e-9 * np.abs(full.ahead[finite]))


@examples(40)
@given(nests(largest=6, volume=400), profiles(), st.sampled_from(GROUPS), st.integers(0, 2**32 - 1))
def test_merging_takes_the_least_of_every_class(
    nest: LoopNest, profile: HardwareProfile, groups: tuple[tuple[int, ...], ...], seed: int
) -> None:
    grid = space_of(nest, profile, 0).grid
    assume(grid.count < 3_000)
    merged, values = Merged(grid, groups), np.random.default_rng(seed).random((2, *grid.box))
    expected = np.full((2, merged.grid.count), np.inf)
    for tile, row in enumerate(merged.rows):
        expected[:, row] = np.minimum(expected[:, row], values.reshape(2, -1)[:, tile])
    assert np.array_equal(merged.least(values).reshape(2, -1), expected)


def test_stages_of_two_weight_levels_one_input_level_and_two_output_levels() -> None:
    found = stairs((2, 1, 2))
    assert len(found.stages) == 3 * 2 * (3 + 1)  # sums may be partial where one of the two output cuts is placed
    assert found.stages[0] == Stage((0, 0, 0)) and found.stages[found.last] == Stage((2, 1, 2))
    assert found.spans[0] == (0, 1) and found.spans[-1] == (found.last, found.last + 1)
    first = found.steps[0]
    assert [step.cut for step in first] == [0, 2, 3]
    assert [step.partial is None for step in first] == [True, True, False]
    assert first[0].waiting == (1, 2, 3, 4)
