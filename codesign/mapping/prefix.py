"""Chain prefixes: the nodes of the mapper's search, what may follow them, and what every completion costs at least."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from codesign.mapping.cost import Vector
from codesign.mapping.cuts import IRRELEVANT, Cut, Floats, LayerSpace, Least, Tile, Tiles, regrowth
from codesign.vocabulary import DIMENSIONS, Operand


@dataclass(frozen=True, eq=False)
class Prefix:
    """A chain of tiles with the cuts placed so far.

    waiting: cuts by operand, innermost first. fixed: costs that stay; copies: by operand, those `regrowth` may still
    raise. used: bytes per memory. partial: the outputs' last cut lies inside a reduction loop.
    """

    space: LayerSpace
    tile: Tile
    waiting: tuple[tuple[Cut, ...], ...]
    fixed: Vector
    copies: tuple[Vector, ...]
    used: dict[str, float]
    chain: tuple[tuple[Cut, Tile], ...]
    partial: bool


def root_of(space: LayerSpace) -> Prefix:
    """The empty chain: one step of the lanes, no cut placed."""
    copies = tuple(space.meter.zero() for _ in Operand)
    return Prefix(space, (1,) * len(DIMENSIONS), space.cuts, space.constant(), copies, {}, (), partial=False)


def placeable(prefix: Prefix) -> list[tuple[Cut, Tiles]]:
    """The next cut of every operand with the tiles to try; one alone where it is best placed at once."""
    space, full = prefix.space, prefix.space.choice.steps
    options = []
    for waiting in prefix.waiting:
        if not waiting:
            continue
        cut = waiting[0]
        tiles = space.grow(prefix.tile, cut)
        if all(prefix.tile[index] == full[index] for index in cut.grows) and _never_smaller(prefix, cut):
            return [(cut, tiles)]
        options.append((cut, tiles))
    return options


def _never_smaller(prefix: Prefix, cut: Cut) -> bool:
    """True when the cut takes no less further out: as it saves nothing there either, it is best placed at once."""
    one = prefix.space.tiles(1, prefix.tile)
    here = prefix.space.bytes_taken(cut, one, partial=_arrives_partial(prefix, cut))
    return bool(np.max(here) <= cut.room.whole_bytes)


def _arrives_partial(prefix: Prefix, cut: Cut) -> bool:
    return prefix.partial and cut.operand is Operand.OUTPUTS


def fits(prefix: Prefix, cut: Cut, tiles: Tiles) -> NDArray[np.bool_]:
    """Which tiles fit, counting what is placed, the cut here, and the least every waiting cut takes later."""
    space = prefix.space
    need: dict[str, Floats | float] = dict(prefix.used)
    here = space.bytes_taken(cut, tiles, partial=_arrives_partial(prefix, cut))
    need[cut.memory] = need.get(cut.memory, 0.0) + here
    for other in _others(prefix, cut):
        need[other.memory] = need.get(other.memory, 0.0) + space.least_bytes(other, tiles)
    fitting = np.ones(tiles.count, dtype=bool)
    for memory, amount in need.items():
        size = space.profile.memories[memory].size_bytes
        if size is not None:
            fitting &= amount <= size
    return fitting


def _others(prefix: Prefix, cut: Cut) -> list[Cut]:
    """The cuts that wait beside this one."""
    return [waiting for group in prefix.waiting for waiting in group if waiting is not cut]


def _placed(prefix: Prefix, cut: Cut, tiles: Tiles) -> tuple[Floats, list[Floats]]:
    """Fixed costs and growing copies of all children, one row each."""
    space = prefix.space
    fixed = prefix.fixed + space.settled_costs(cut, tiles)
    copies = []
    for operand, vector in zip(Operand, prefix.copies, strict=True):
        factor = regrowth(prefix.tile, tiles, space.choice.steps, IRRELEVANT[operand])
        rows = np.broadcast_to(np.asarray(factor, dtype=np.float64), (tiles.count,))[:, None] * vector[None, :]
        copies.append(rows + space.repeated_costs(cut, tiles) if operand is cut.operand else rows)
    return fixed, copies


def least_from_here(prefix: Prefix, options: list[tuple[Cut, Tiles]]) -> dict[Cut, Least]:
    """Lower bounds of every waiting cut, wherever it is placed from this prefix's tile outwards."""
    space = prefix.space
    least = {cut: space.least(cut) for group in prefix.waiting for cut in group}
    for cut, tiles in options:
        if tiles.count == 1:
            continue  # a cut that cannot grow: no more is known than before
        fitting = np.ones(tiles.count, dtype=bool)
        if cut.room.size_bytes is not None:
            here = space.bytes_taken(cut, tiles, partial=_arrives_partial(prefix, cut))
            fitting &= here + prefix.used.get(cut.memory, 0.0) <= cut.room.size_bytes
        found = space.least_of(space.costs(cut, tiles)[fitting])
        cycles = np.maximum(found.cycles, least[cut].cycles)
        least[cut] = Least(cycles, max(found.energy_pj, least[cut].energy_pj))
    return least


def bounds(prefix: Prefix, cut: Cut, tiles: Tiles, least: dict[Cut, Least]) -> tuple[Floats, Floats]:
    """Lower bounds of latency and energy of all completions; exact when no other cut waits."""
    space = prefix.space
    fixed, copies = _placed(prefix, cut, tiles)
    total = fixed + sum(copies)
    cycles, energy = total[:, :-1] @ space.meter.blends.T, total[:, -1]
    lanes = total[:, 0]
    for other in _others(prefix, cut):
        cycles, energy = cycles + least[other].cycles, energy + least[other].energy_pj
        lanes = lanes + space.fill_cycles(other, tiles)
    return np.maximum(cycles.max(axis=1), lanes), energy


def child(prefix: Prefix, cut: Cut, tiles: Tiles, index: int) -> Prefix:
    """The prefix with one more cut, placed at one of the tiles."""
    space, tile = prefix.space, tiles.pick(index)
    one = space.tiles(1, _like(tiles, tile))
    fixed, copies = _placed(prefix, cut, one)
    taken = float(np.max(space.bytes_taken(cut, one, partial=_arrives_partial(prefix, cut))))
    used = {**prefix.used, cut.memory: prefix.used.get(cut.memory, 0.0) + taken}
    waiting = tuple(tuple(other for other in group if other is not cut) for group in prefix.waiting)
    partial = not space.complete(one)[0] if cut.operand is Operand.OUTPUTS else prefix.partial
    kept = tuple(rows[0] for rows in copies)
    return Prefix(space, tile, waiting, fixed[0], kept, used, (*prefix.chain, (cut, tile)), bool(partial))


def _like(tiles: Tiles, tile: Tile) -> list[Floats | int]:
    """One tile in the form of an array of tiles, so that growth is seen in the same dimensions."""
    return [
        np.asarray([float(size)]) if isinstance(shape, np.ndarray) else size
        for size, shape in zip(tile, tiles.steps, strict=True)
    ]
