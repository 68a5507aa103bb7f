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
    """A chain of tiles with the cuts placed so far. costs of weights and inputs copies may still grow by `regrowth`."""

    space: LayerSpace
    tile: Tile
    waiting: tuple[tuple[Cut, ...], ...]
    fixed: Vector
    copies: tuple[Vector, Vector]
    used: dict[str, float]
    chain: tuple[tuple[Cut, Tile], ...]
    grown: tuple[int, ...]


def root_of(space: LayerSpace) -> Prefix:
    """The empty chain: one step of the lanes, no cut placed."""
    zero = space.meter.zero()
    return Prefix(space, (1,) * len(DIMENSIONS), space.cuts, space.constant(), (zero, zero), {}, (), ())


def placeable(prefix: Prefix) -> list[tuple[Cut, Tiles]]:
    """The next cut of every operand with the tiles to try: all, or the whole tensor where another order covers them."""
    space = prefix.space
    options = []
    for rank, waiting in enumerate(prefix.waiting):
        if not waiting:
            continue
        covered = _covered(prefix, waiting[0], rank)
        tiles = space.whole_alone(prefix.tile) if covered else space.grow(prefix.tile, waiting[0])
        if tiles is not None:
            options.append((waiting[0], tiles))
    return options


def _covered(prefix: Prefix, cut: Cut, rank: int) -> bool:
    """A cut that cannot grow here and gained nothing from the last growth belongs before the last cut."""
    if not prefix.chain or prefix.chain[-1][0].operand is cut.operand:
        return False
    full = prefix.space.choice.steps
    if any(prefix.tile[index] < full[index] for index in cut.grows) or set(prefix.grown) & set(cut.grows):
        return False
    last = list(Operand).index(prefix.chain[-1][0].operand)
    return bool(prefix.grown) or rank < last


def fits(prefix: Prefix, cut: Cut, tiles: Tiles) -> NDArray[np.bool_]:
    """Which tiles fit, counting what is placed, the cut here, and the least every waiting cut takes later."""
    space = prefix.space
    need: dict[str, Floats | float] = dict(prefix.used)
    for room in cut.rooms:
        need[room.memory] = need.get(room.memory, 0.0) + space.bytes_taken(cut, room, tiles)
    for other in _others(prefix, cut):
        for room in other.rooms:
            need[room.memory] = need.get(room.memory, 0.0) + space.least_bytes(other, room, tiles)
    fitting = np.ones(tiles.count, dtype=bool)
    for memory, amount in need.items():
        size = space.profile.memories[memory].size_bytes
        if size is not None:
            fitting &= amount <= size
    return fitting


def _others(prefix: Prefix, cut: Cut) -> list[Cut]:
    """The cuts that wait beside this one."""
    return [waiting for group in prefix.waiting for waiting in group if waiting is not cut]


def _placed(prefix: Prefix, cut: Cut, tiles: Tiles) -> tuple[Vector, list[Vector]]:
    """Fixed costs and growing copies of all children, one row each."""
    space = prefix.space
    full = space.choice.steps
    fixed = np.repeat(prefix.fixed[None, :], tiles.count, axis=0)
    fixed[:, 0] += space.fill_cycles(cut, tiles)
    copies = []
    for operand, vector in zip((Operand.WEIGHTS, Operand.INPUTS), prefix.copies, strict=True):
        factor = np.asarray(regrowth(prefix.tile, tiles, full, IRRELEVANT[operand]), dtype=np.float64)
        rows = np.broadcast_to(factor, (tiles.count,))[:, None] * vector[None, :]
        if operand is cut.operand:
            moved = np.broadcast_to(np.asarray(space.moved(cut, tiles), dtype=np.float64), (tiles.count,))
            rows = rows + moved[:, None] * cut.hop[None, :]
        copies.append(rows)
    return fixed, copies


def least_from_here(prefix: Prefix, options: list[tuple[Cut, Tiles]]) -> dict[Cut, Least]:
    """Lower bounds of every waiting cut, wherever it is placed from this prefix's tile outwards."""
    space = prefix.space
    least = {cut: space.least(cut) for group in prefix.waiting for cut in group}
    for cut, tiles in options:
        if tiles.count == 1:
            continue  # the whole tensor alone, or a cut that cannot grow: no more is known than before
        fitting = np.ones(tiles.count, dtype=bool)
        for room in cut.rooms:
            if room.size_bytes is not None:
                fitting &= space.bytes_taken(cut, room, tiles) + prefix.used.get(room.memory, 0.0) <= room.size_bytes
        rows = space.costs(cut, tiles)[fitting]
        cycles = (rows[:, :-1] @ space.meter.blends.T).min(axis=0, initial=np.inf)
        energy = float(rows[:, -1].min(initial=np.inf))
        least[cut] = Least(np.maximum(cycles, least[cut].cycles), max(energy, least[cut].energy_pj))
    return least


def bounds(prefix: Prefix, cut: Cut, tiles: Tiles, least: dict[Cut, Least]) -> tuple[Floats, Floats]:
    """Lower bounds of latency and energy of all completions; exact when no other cut waits."""
    space = prefix.space
    fixed, copies = _placed(prefix, cut, tiles)
    total = fixed + copies[0] + copies[1]
    cycles, energy = total[:, :-1] @ space.meter.blends.T, total[:, -1]
    lanes = total[:, 0]
    for other in _others(prefix, cut):
        cycles, energy = cycles + least[other].cycles, energy + least[other].energy_pj
        lanes = lanes + space.fill_cycles(other, tiles)
    return np.maximum(cycles.max(axis=1), lanes), energy


def child(prefix: Prefix, cut: Cut, tiles: Tiles, index: int) -> Prefix:
    """The prefix with one more cut, placed at one of the tiles."""
    tile = tiles.pick(index)
    one = prefix.space.tiles(1, _like(tiles, tile))
    fixed, copies = _placed(prefix, cut, one)
    used = dict(prefix.used)
    for room in cut.rooms:
        used[room.memory] = used.get(room.memory, 0.0) + float(np.max(prefix.space.bytes_taken(cut, room, one)))
    waiting = tuple(tuple(other for other in group if other is not cut) for group in prefix.waiting)
    grown = tuple(index for index, (old, new) in enumerate(zip(prefix.tile, tile, strict=True)) if new > old)
    chain = (*prefix.chain, (cut, tile))
    return Prefix(prefix.space, tile, waiting, fixed[0], (copies[0][0], copies[1][0]), used, chain, grown)


def _like(tiles: Tiles, tile: Tile) -> list[Floats | int]:
    """One tile in the form of an array of tiles, so that growth is seen in the same dimensions."""
    return [
        np.asarray([float(size)]) if isinstance(shape, np.ndarray) else size
        for size, shape in zip(tile, tiles.steps, strict=True)
    ]
