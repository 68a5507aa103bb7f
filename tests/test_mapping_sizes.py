"""Sizes of tiles, what may follow them, lanes and windows: fast ways against their definitions."""

from __future__ import annotations

from itertools import product
from math import prod

from hypothesis import given
from hypothesis import strategies as st

from codesign.hardware.sections import Axis
from codesign.mapping.grid import Followers, Integers, followers, lengths
from codesign.mapping.space import axis_factors, larger_sizes, tile_sizes
from codesign.mapping.window import Window, moved_table
from codesign.vocabulary import DIMENSIONS, Dimension
from tests.machines import examples

SIZES = st.integers(1, 400)
WINDOWS = st.builds(
    Window,
    outputs=st.integers(1, 30),
    taps=st.integers(1, 7),
    stride=st.integers(1, 4),
    dilation=st.integers(1, 3),
    pad=st.integers(0, 6),
    size=st.integers(1, 40),
    input_dilation=st.integers(1, 3),
)


@examples(60)
@given(SIZES, st.booleans())
def test_tile_sizes_are_those_of_every_number_of_tiles(size: int, perfect: bool) -> None:
    counts = [count for count in range(1, size + 1) if not perfect or size % count == 0]
    assert tile_sizes(size, perfect=perfect) == tuple(sorted({-(-size // count) for count in counts}))


@examples(60)
@given(SIZES, st.booleans())
def test_followers_are_the_larger_sizes(steps: int, perfect: bool) -> None:
    found = followers(steps, perfect)
    sizes = tile_sizes(steps, perfect=perfect)
    lists = [larger_sizes(steps, inner, perfect=perfect) for inner in sizes]
    assert [tuple(found.sizes[part].tolist()) for part in _lists(found, found.flat)] == lists
    assert [part.tolist() for part in _lists(found, found.farther)] == [
        [sizes.index(size) - at for size in part] for at, part in enumerate(lists)
    ]
    assert found.tiles.tolist() == [-(-steps // size) for size in sizes]
    between = [
        (sizes.index(part[0]), sizes.index(outer))
        for part in lists
        for outer in part[1:]
        if not any(outer in lists[sizes.index(mid)][1:] for mid in part[1:])
    ]
    assert sorted(found.covers) == sorted(between)
    inner = [pair[0] for pair in found.covers]
    assert inner == sorted(inner, reverse=True)


def _lists(found: Followers, positions: Integers) -> list[Integers]:
    starts = zip(found.start.tolist(), found.count.tolist(), strict=True)
    return [positions[start : start + count] for start, count in starts]


@examples(40)
@given(SIZES, st.integers(1, 40), st.booleans())
def test_lengths_are_tiles_of_the_lanes_cut_at_the_layer(size: int, lanes: int, perfect: bool) -> None:
    tiles = tile_sizes(-(-size // lanes), perfect=perfect)
    assert lengths(size, lanes, perfect).tolist() == [min(size, lanes * tile) for tile in tiles]


@examples(100)
@given(WINDOWS, st.data())
def test_positions_of_a_window_are_counted_one_by_one(window: Window, data: st.DataObject) -> None:
    real = set(range(0, window.size * window.input_dilation, window.input_dilation))
    assert window.touched == len(real & _used(window, range(window.outputs), range(window.taps)))
    if window.compact:
        return
    outputs = tuple(data.draw(st.sets(st.integers(1, window.outputs), min_size=1, max_size=3)))
    taps = tuple(data.draw(st.sets(st.integers(1, window.taps), min_size=1, max_size=3)))
    for zeros in (False, True):
        table = moved_table(window, outputs, taps, zeros)
        assert table.tolist() == [[_copied(window, real, out, tap, zeros) for tap in taps] for out in outputs]


def _used(window: Window, outputs: range, taps: range) -> set[int]:
    return {out * window.stride + tap * window.dilation - window.pad for out in outputs for tap in taps}


def _copied(window: Window, real: set[int], output_tile: int, tap_tile: int, zeros: bool) -> int:
    """A tile copies all from its first position to its last."""
    copied = 0
    for output, tap in product(range(0, window.outputs, output_tile), range(0, window.taps, tap_tile)):
        outputs = range(output, min(output + output_tile, window.outputs))
        used = _used(window, outputs, range(tap, min(tap + tap_tile, window.taps)))
        hull = range(min(used), max(used) + 1)
        copied += len(hull) if zeros else len(real.intersection(hull))
    return copied


@examples(100)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=3), st.integers(1, 40), st.booleans())
def test_factors_of_an_axis_are_those_none_of_which_could_be_larger(
    sizes: list[int], lanes: int, one_is_whole: bool
) -> None:
    dimensions = (Dimension.C, Dimension.OY, Dimension.FX)[: len(sizes)]
    axis = Axis(size=lanes, unrolls=dimensions, whole=dimensions[-1:] if one_is_whole else ())
    left = tuple(sizes[dimensions.index(name)] if name in dimensions else 1 for name in DIMENSIONS)
    options = [[size for size in tile_sizes(own) if size <= lanes] for own in sizes]
    if one_is_whole:
        options[-1] = options[-1][-1:]
    fitting = {factors for factors in product(*options) if prod(factors) <= lanes}
    best = {
        factors
        for factors in fitting
        if not any(
            (*factors[:at], larger, *factors[at + 1 :]) in fitting
            for at, factor in enumerate(factors)
            for larger in options[at]
            if larger > factor
        )
    }
    assert axis_factors(axis, left) == tuple(sorted(best, reverse=True))
