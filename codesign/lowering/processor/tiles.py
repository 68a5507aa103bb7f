"""The register block and the loops around it, read from a layer's mapping."""

from __future__ import annotations

from codesign.hardware.profile import HardwareProfile
from codesign.hardware.sections import Processor
from codesign.lowering.processor.loops import Tile
from codesign.mapping.mapping import Mapping
from codesign.vocabulary import DIMENSIONS, Dimension, Operand, OperationKind
from codesign.workload.loop_nest import LoopNest

FLOAT_BITS = 32


def lanes_of(processor: Processor) -> int:
    """Float values in a vector."""
    return processor.vector_bits // FLOAT_BITS


def tile_of(nest: LoopNest, mapping: Mapping, profile: HardwareProfile) -> Tile:
    """What a mapping keeps in the memory next to the lanes, as vectors of channels, rows and columns.

    Where that is fewer sums than keep the multiply-adders busy, the loops next to it move into the block. Loops over
    images and over groups that are no channels stay outside of all others. Raises ValueError for a machine that is no
    processor and for a mapping without a residence there.
    """
    if profile.processor is None:
        raise ValueError(f"{profile.name} is no processor")
    memory = profile.hierarchy(mapping.engine, Operand.OUTPUTS)[0]
    residence = mapping.residence(Operand.OUTPUTS, memory)
    if residence is None:
        raise ValueError(f"the mapping has no residence of outputs in {memory}")
    sizes = dict(zip(DIMENSIONS, mapping.tile(nest, residence.position), strict=True))
    depthwise = nest.kind is OperationKind.DEPTHWISE_CONVOLUTION
    channels = Dimension.G if depthwise else Dimension.K
    tiled = (channels, Dimension.OY, Dimension.OX)
    loops = tuple((loop.dimension, loop.extent) for loop in mapping.loops[: residence.position])
    vectors = 1 if depthwise else -(-sizes[Dimension.K] // lanes_of(profile.processor))
    tile = Tile(
        vectors,
        sizes[Dimension.OY],
        sizes[Dimension.OX],
        tuple((dimension, extent) for dimension, extent in loops if dimension in tiled and extent > 1),
    )
    return widened(tile, nest, profile.processor, depthwise)


def widened(tile: Tile, nest: LoopNest, processor: Processor, depthwise: bool) -> Tile:
    """The tile with as many rows, or else vectors, as it takes to keep the multiply-adders busy."""
    sums = tile.vectors * tile.rows * tile.columns
    if sums >= processor.sums_in_flight:
        return tile
    most = max(1, processor.vector_registers // sums // 2)
    rows = min(-(-processor.sums_in_flight // sums), nest.size(Dimension.OY) // tile.rows, most)
    if rows > 1:
        return Tile(tile.vectors, tile.rows * rows, tile.columns, _without(tile, Dimension.OY))
    blocks = -(-nest.size(Dimension.K) // lanes_of(processor))
    more = min(-(-processor.sums_in_flight // sums), blocks // tile.vectors, most)
    if depthwise or more <= 1:
        return tile
    return Tile(tile.vectors * more, tile.rows, tile.columns, _without(tile, Dimension.K))


def _without(tile: Tile, dimension: Dimension) -> tuple[tuple[Dimension, int], ...]:
    """Loops of the tile with those of one dimension joined where the outermost of them stood."""
    kept: list[tuple[Dimension, int]] = []
    for level in tile.loops:
        if level[0] is not dimension or dimension not in {known for known, _ in kept}:
            kept.append(level)
    return tuple(kept)
