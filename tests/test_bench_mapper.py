"""What `benchmarks/bench_mapper.py` counts and prices, against brute force, and against the loops of each mapping.

The brute force is by the same author, over tiles and cuts instead of polynomials of chains.
"""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from codesign.vocabulary import OperationKind
from codesign.workload.loop_nest import LoopNest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from bench_mapper import agrees, distinct_layers, machine
from mapper_space import Prices, mappings_in, priced, random_sample, spaces_of

from codesign.mapping.space import larger_sizes


@pytest.mark.parametrize("sizes", [(1, 1, 48, 16, 2, 1, 1, 1), (1, 1, 16, 80, 1, 1, 1, 1), (1, 1, 16, 16, 1, 1, 1, 1)])
@pytest.mark.parametrize("either", [(), ("scratchpad",)])
def test_mappings_are_counted_as_brute_force_counts_them(sizes: tuple[int, ...], either: tuple[str, ...]) -> None:
    nest = LoopNest(OperationKind.CONVOLUTION, sizes)  # type: ignore[arg-type]
    profile = machine("gemmini16", either)
    (space,) = spaces_of(nest, profile, "array")
    tiles = list(product(*(larger_sizes(steps, 1) for steps in space.choice.steps)))
    assert len(tiles) == space.grid.count
    cuts = [at for at, part in enumerate(space.cuts) for _ in part]
    found = sum(_is_mapping(chosen, cuts, space.choice.steps) for chosen in product(tiles, repeat=len(cuts)))
    assert mappings_in(space) == found


def _is_mapping(chosen: tuple[tuple[int, ...], ...], operands: list[int], steps: tuple[int, ...]) -> bool:
    """Any two tiles follow one another, and those of an operand do so in the order of its memories."""
    for at, one in enumerate(chosen):
        for other_at in range(at + 1, len(chosen)):
            other = chosen[other_at]
            forwards = _follows(one, other, steps)
            if not forwards and (operands[at] == operands[other_at] or not _follows(other, one, steps)):
                return False
    return True


def _follows(inner: tuple[int, ...], outer: tuple[int, ...], steps: tuple[int, ...]) -> bool:
    return all(size in larger_sizes(full, small) for small, size, full in zip(inner, outer, steps, strict=True))


@pytest.mark.parametrize("either", [(), ("gb",)])
def test_prices_of_many_are_those_of_each(either: tuple[str, ...]) -> None:
    profile = machine("reference_a", either)
    for name, nest in distinct_layers("ResNet-18", profile)[:5]:
        (space,) = spaces_of(nest, profile, "array")
        sample = random_sample(space, 4096, np.random.default_rng(1))
        prices = priced(sample)
        chosen = [*range(20), *np.flatnonzero(prices.fits)[:20].tolist()]
        assert all(agrees(sample, prices, number) for number in chosen), name
        wrong = Prices(prices.latency, prices.energy * (1 + 1e-9), prices.fits)
        assert not any(agrees(sample, wrong, number) for number in chosen)
        turned = Prices(prices.latency, prices.energy, ~prices.fits)
        assert not any(agrees(sample, turned, number) for number in chosen)


def test_distinct_layers_are_those_an_engine_runs() -> None:
    profile = machine("reference_a", ())
    assert len(distinct_layers("ResNet-18", profile)) == 12
    layers = distinct_layers("MobileNetV2", profile)
    assert len({nest for _, nest in layers}) == len(layers)
    assert {nest.kind for _, nest in layers} == {
        OperationKind.CONVOLUTION,
        OperationKind.DEPTHWISE_CONVOLUTION,
        OperationKind.DENSE,
    }
