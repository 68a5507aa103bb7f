"""The counts a mapping implies, in closed form; the scheduled TIR must show the same (codesign.lowering.counts)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import prod

from codesign.hardware.profile import HardwareProfile
from codesign.mapping.mapping import ENGINE, Allocation, LayerCounts, Mapping, Transfer
from codesign.mapping.window import windows_of
from codesign.vocabulary import (
    DIMENSIONS,
    INPUTS,
    IRRELEVANT_AXES,
    OPERANDS,
    OUTPUTS,
    POSITION,
    REDUCTION,
    RELEVANT,
    RELEVANT_AXES,
    WEIGHTS,
    Dimension,
    Operand,
)
from codesign.workload.loop_nest import LoopNest

Tile = tuple[int, ...]

# Places of dimensions in the tuples of sizes.
OY, OX, FY, FX = (POSITION[dimension] for dimension in (Dimension.OY, Dimension.OX, Dimension.FY, Dimension.FX))
CHANNELS = tuple(POSITION[dimension] for dimension in (Dimension.B, Dimension.G, Dimension.C))
REDUCED = tuple(POSITION[dimension] for dimension in REDUCTION)


def counts_of(nest: LoopNest, mapping: Mapping, profile: HardwareProfile) -> LayerCounts:
    """MACs, elements moved per operand and memory pair, and tile extents of one layer under one mapping.

    A copy is issued once for every tile of the loops outside it that is not empty: inside a ragged loop, iterations
    past the layer's size do nothing, and elements past it are never moved.
    """
    transfers: list[Transfer] = []
    allocations: list[Allocation] = []
    lanes = mapping.covered[-1]
    for operand in OPERANDS:
        levels = profile.hierarchy(mapping.engine, operand)
        stored = stored_nest(nest, operand, lanes, profile)
        tiles = [mapping.tile(stored, _position(mapping, operand, level)) for level in levels[:-1]]
        for level, tile in zip(levels, tiles, strict=False):
            allocations.append(Allocation(operand, level, tile_elements(stored, operand, tile)))
        visits = engine_reads(stored, operand, lanes)
        if operand is OUTPUTS:
            unread = 0 if profile.conventions.first_partial_sums_are_read else nest.elements(operand)
            transfers.extend(_output_transfers(nest, levels, tiles, visits, unread))
        else:
            zeros = profile.conventions.padding_is_data
            transfers.extend(_input_transfers(stored, operand, levels, tiles, zeros_everywhere=zeros))
            transfers.append(Transfer(operand, levels[0], ENGINE, visits))
    return LayerCounts(
        macs_useful=nest.loop_macs,
        macs_issued=_tiles(nest.sizes, lanes, range(len(DIMENSIONS))) * prod(lanes),
        transfers=tuple(sorted(transfers)),
        allocations=tuple(sorted(allocations)),
    )


def stored_nest(nest: LoopNest, operand: Operand, lanes: Tile, profile: HardwareProfile) -> LoopNest:
    """A nest of the sizes of an operand as memories hold it."""
    sizes = stored_sizes(operand, nest.sizes, lanes, profile)
    return nest if sizes == nest.sizes else replace(nest, sizes=sizes)  # type: ignore[arg-type]


def stored_sizes(operand: Operand, sizes: Tile, lanes: Tile, profile: HardwareProfile) -> Tile:
    """Sizes of a tile, or of the layer, as memories hold them: of weights in whole tiles of the lanes, multiples."""
    if operand is not WEIGHTS or not profile.conventions.whole_weight_tiles:
        return sizes
    return tuple(
        -(-size // lane) * lane if dimension in RELEVANT[operand] else size
        for dimension, size, lane in zip(DIMENSIONS, sizes, lanes, strict=True)
    )


def tile_elements(nest: LoopNest, operand: Operand, tile: Tile) -> int:
    """Elements a tile takes on chip; inputs as the hull of their windows, zeros of the padding included."""
    if operand is not INPUTS:
        return _product(tile, RELEVANT_AXES[operand])
    rows, columns = windows_of(nest)
    return _product(tile, CHANNELS) * rows.hull(tile[OY], tile[FY]) * columns.hull(tile[OX], tile[FX])


def _product(sizes: Tile, axes: Sequence[int]) -> int:
    return prod([sizes[axis] for axis in axes])


def _tiles(sizes: Tile, tile: Tile, axes: Sequence[int]) -> int:
    """Tiles of these sizes along some axes."""
    return prod([-(-sizes[axis] // tile[axis]) for axis in axes])


def _position(mapping: Mapping, operand: Operand, memory: str) -> int:
    residence = mapping.residence(operand, memory)
    if residence is None:
        raise ValueError(f"the mapping has no residence of {operand} in {memory}")
    return residence.position


def _input_transfers(
    nest: LoopNest, operand: Operand, levels: tuple[str, ...], tiles: list[Tile], *, zeros_everywhere: bool
) -> Iterator[Transfer]:
    """Weights or inputs on their way in. tiles: in each memory but the last."""
    for index, tile in enumerate(tiles):
        zeros = zeros_everywhere or index < len(tiles) - 1
        yield Transfer(operand, levels[index + 1], levels[index], _refilled(nest, operand, tile, zeros=zeros))


def _refilled(nest: LoopNest, operand: Operand, tile: Tile, *, zeros: bool) -> int:
    """Elements copied into such a tile over the whole layer."""
    repeats = _tiles(nest.sizes, tile, IRRELEVANT_AXES[operand])
    if operand is WEIGHTS:
        return repeats * nest.elements(operand)
    rows, columns = windows_of(nest)
    moved = rows.moved(tile[OY], tile[FY], zeros=zeros) * columns.moved(tile[OX], tile[FX], zeros=zeros)
    return repeats * _product(nest.sizes, CHANNELS) * moved


def engine_reads(nest: LoopNest, operand: Operand, lanes: Tile) -> int:
    """Elements of one operand the lanes use, each counted once a step, summed over all steps."""
    steps = _tiles(nest.sizes, lanes, IRRELEVANT_AXES[operand])
    if operand is not INPUTS:
        return steps * _product(nest.sizes, RELEVANT_AXES[operand])
    rows, columns = windows_of(nest)
    windows = rows.read_by_lanes(lanes[OY], lanes[FY]) * columns.read_by_lanes(lanes[OX], lanes[FX])
    return steps * _product(nest.sizes, CHANNELS) * windows


def _output_transfers(
    nest: LoopNest, levels: tuple[str, ...], tiles: list[Tile], visits: int, unread: int
) -> Iterator[Transfer]:
    """Outputs on their way out, and partial sums on their way back in. tiles: in each memory but the last.

    With a reduction loop outside a tile, it leaves and returns once for every iteration of those loops; it does not
    return before its first visit, as it starts at zero (`unread` elements).
    """
    finished = nest.elements(OUTPUTS)
    yield Transfer(OUTPUTS, ENGINE, levels[0], visits)
    yield Transfer(OUTPUTS, levels[0], ENGINE, visits - unread)
    for inner, outer, tile in zip(levels, levels[1:], tiles, strict=False):
        rounds = _tiles(nest.sizes, tile, REDUCED)
        yield Transfer(OUTPUTS, inner, outer, rounds * finished, partial=rounds > 1)
        if rounds > 1:
            yield Transfer(OUTPUTS, outer, inner, rounds * finished - unread, partial=True)
