"""The counts a mapping implies, in closed form; the scheduled TIR must show the same (codesign.lowering.counts)."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from codesign.hardware.profile import HardwareProfile
from codesign.mapping.mapping import ENGINE, Allocation, LayerCounts, Mapping, Transfer
from codesign.mapping.window import windows_of
from codesign.vocabulary import DIMENSIONS, REDUCTION, RELEVANT, Dimension, Operand
from codesign.workload.loop_nest import LoopNest

Tile = tuple[int, ...]


def counts_of(nest: LoopNest, mapping: Mapping, profile: HardwareProfile) -> LayerCounts:
    """MACs, elements moved per operand and memory pair, and tile extents of one layer under one mapping.

    A copy is issued once for every tile of the loops outside it that is not empty: inside a ragged loop, iterations
    past the layer's size do nothing, and elements past it are never moved.
    """
    transfers: list[Transfer] = []
    allocations: list[Allocation] = []
    lanes = tuple(mapping.lanes(dimension) for dimension in DIMENSIONS)
    for operand in Operand:
        levels = profile.hierarchy(mapping.engine, operand)
        positions = [_position(mapping, operand, level) for level in levels[:-1]]
        sizes = stored_sizes(operand, nest.sizes, lanes, profile)
        stored = nest if sizes == nest.sizes else replace(nest, sizes=sizes)  # type: ignore[arg-type]
        for level, position in zip(levels, positions, strict=False):
            elements = tile_elements(stored, operand, mapping.tile(stored, position))
            allocations.append(Allocation(operand, level, elements))
        if operand is Operand.OUTPUTS:
            unread = 0 if profile.conventions.first_partial_sums_are_read else nest.elements(operand)
            transfers.extend(_output_transfers(nest, mapping, levels, positions, unread))
        else:
            zeros = profile.conventions.padding_is_data
            transfers.extend(_input_transfers(stored, mapping, operand, levels, positions, zeros_everywhere=zeros))
    steps = prod(-(-size // lane) for size, lane in zip(nest.sizes, lanes, strict=True))
    return LayerCounts(
        macs_useful=nest.loop_macs,
        macs_issued=steps * prod(lanes),
        transfers=tuple(sorted(transfers)),
        allocations=tuple(sorted(allocations)),
    )


def stored_sizes(operand: Operand, sizes: Tile, lanes: Tile, profile: HardwareProfile) -> Tile:
    """Sizes of a tile, or of the layer, as memories hold them: of weights in whole tiles of the lanes, multiples."""
    if operand is not Operand.WEIGHTS or not profile.conventions.whole_weight_tiles:
        return sizes
    return tuple(
        -(-size // lane) * lane if dimension in RELEVANT[operand] else size
        for dimension, size, lane in zip(DIMENSIONS, sizes, lanes, strict=True)
    )


def tile_elements(nest: LoopNest, operand: Operand, tile: Tile) -> int:
    """Elements a tile takes on chip; inputs as the hull of their windows, zeros of the padding included."""
    size = dict(zip(DIMENSIONS, tile, strict=True))
    if operand is not Operand.INPUTS:
        return prod(size[dimension] for dimension in RELEVANT[operand])
    rows, columns = windows_of(nest)
    return (
        size[Dimension.B]
        * size[Dimension.G]
        * size[Dimension.C]
        * rows.hull(size[Dimension.OY], size[Dimension.FY])
        * columns.hull(size[Dimension.OX], size[Dimension.FX])
    )


def _position(mapping: Mapping, operand: Operand, memory: str) -> int:
    residence = mapping.residence(operand, memory)
    if residence is None:
        raise ValueError(f"the mapping has no residence of {operand} in {memory}")
    return residence.position


def _input_transfers(
    nest: LoopNest,
    mapping: Mapping,
    operand: Operand,
    levels: tuple[str, ...],
    positions: list[int],
    *,
    zeros_everywhere: bool,
) -> list[Transfer]:
    transfers = []
    for index, position in enumerate(positions):
        zeros = zeros_everywhere or index < len(positions) - 1
        elements = _refilled(nest, mapping, operand, position, zeros=zeros)
        transfers.append(Transfer(operand, levels[index + 1], levels[index], elements))
    transfers.append(Transfer(operand, levels[0], ENGINE, engine_reads(nest, mapping, operand)))
    return transfers


def _refilled(nest: LoopNest, mapping: Mapping, operand: Operand, position: int, *, zeros: bool) -> int:
    """Elements copied into the tile at `position` over the whole layer."""
    tile = dict(zip(DIMENSIONS, mapping.tile(nest, position), strict=True))
    repeats = prod(-(-nest.size(other) // tile[other]) for other in DIMENSIONS if other not in RELEVANT[operand])
    if operand is Operand.WEIGHTS:
        return repeats * nest.elements(operand)
    rows, columns = windows_of(nest)
    return (
        repeats
        * nest.size(Dimension.B)
        * nest.size(Dimension.G)
        * nest.size(Dimension.C)
        * rows.moved(tile[Dimension.OY], tile[Dimension.FY], zeros=zeros)
        * columns.moved(tile[Dimension.OX], tile[Dimension.FX], zeros=zeros)
    )


def engine_reads(nest: LoopNest, mapping: Mapping, operand: Operand) -> int:
    """Elements of one operand the lanes use, each counted once a step, summed over all steps."""
    total = 1
    for dimension in DIMENSIONS:
        size = nest.size(dimension)
        if dimension not in RELEVANT[operand]:
            total *= -(-size // mapping.lanes(dimension))
        elif operand is not Operand.INPUTS or dimension in (Dimension.B, Dimension.G, Dimension.C):
            total *= size
    if operand is not Operand.INPUTS:
        return total
    rows, columns = windows_of(nest)
    return (
        total
        * rows.read_by_lanes(mapping.lanes(Dimension.OY), mapping.lanes(Dimension.FY))
        * columns.read_by_lanes(mapping.lanes(Dimension.OX), mapping.lanes(Dimension.FX))
    )


def _output_transfers(
    nest: LoopNest, mapping: Mapping, levels: tuple[str, ...], positions: list[int], unread: int
) -> list[Transfer]:
    """Outputs on their way out, and partial sums on their way back in.

    With a reduction loop outside a position, the tile leaves and returns once for every iteration of those loops; it
    does not return before its first visit, as it starts at zero (`unread` elements).
    """
    finished = nest.elements(Operand.OUTPUTS)
    visits = engine_reads(nest, mapping, Operand.OUTPUTS)
    transfers = [
        Transfer(Operand.OUTPUTS, ENGINE, levels[0], visits),
        Transfer(Operand.OUTPUTS, levels[0], ENGINE, visits - unread),
    ]
    for inner, outer, position in zip(levels, levels[1:], positions, strict=False):
        tile = dict(zip(DIMENSIONS, mapping.tile(nest, position), strict=True))
        rounds = prod(-(-nest.size(dimension) // tile[dimension]) for dimension in REDUCTION)
        transfers.append(Transfer(Operand.OUTPUTS, inner, outer, rounds * finished, partial=rounds > 1))
        if rounds > 1:
            transfers.append(Transfer(Operand.OUTPUTS, outer, inner, rounds * finished - unread, partial=True))
    return transfers
