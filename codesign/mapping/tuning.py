"""Which lines bound a layer best: tried on a coarse grid, where a table costs little."""

from __future__ import annotations

import numpy as np

from codesign.mapping.bounds import Tables
from codesign.mapping.grid import Floats, Group
from codesign.mapping.layer_space import LayerSpace
from codesign.mapping.lines import Lines
from codesign.mapping.meter import Vector
from codesign.mapping.objective import AnyObjective, Objective
from codesign.mapping.weighing import weighing

PRICES = (0.0, 0.01, 0.03, 0.08, 0.2, 0.6)  # of the memory's whole size, in parts of the objective
BLEND_PRICES = (0.01, 0.04, 0.15)
BLEND_RATIOS = (0.5, 1.0, 2.0)
LANE_SHARES = (0.25, 0.5, 0.75)
FILL_SHARES = (0.8, 0.98, 1.0)  # of the lanes; the rest is traffic off chip
A_HAIR = 0.001  # of lane cycles beside the busiest port: of mappings that keep it equally busy, one that fills little
PORTS_TRIED = 2
NEARLY = 0.97  # of the best bound of latency
NEGLIGIBLE = 1e-30  # cycles or pJ no weight is scaled by


def candidates(space: LayerSpace) -> Lines:
    """Energy at several prices, every port alone, and blends of energy with the ports most in demand."""
    least, limits = space.compulsory, space.shared_bytes
    width = len(least)
    rows: list[tuple[Vector, float]] = []
    scale = np.where(least > NEGLIGIBLE, least, 1.0)
    energy = np.zeros(width)
    energy[-1] = 1 / scale[-1]
    rows.extend((energy, price) for price in PRICES)
    latency = max(float(least[:-1].max()), NEGLIGIBLE)
    for port in range(width - 1):
        alone = np.zeros(width)
        alone[port] = 1 / latency
        rows.append((alone, 0.0))
    busiest = np.argsort(-least[:-1], kind="stable")[:PORTS_TRIED]
    for port in busiest[busiest > 0]:
        for share in LANE_SHARES:  # a tile cannot be small (short fill) and large (little traffic) at once
            mix = np.zeros(width)
            mix[[0, port]] = share / latency, (1 - share) / latency
            rows.extend((mix, price) for price in (0.0, *BLEND_PRICES[:1]))
    for port in busiest:
        for ratio in BLEND_RATIOS:
            blend = energy.copy()
            blend[port] = ratio / latency
            rows.extend((blend, price) for price in BLEND_PRICES)
    prices = np.asarray([[price / limit for limit in limits] for _, price in rows]).reshape(len(rows), len(limits))
    return Lines(np.asarray([weights for weights, _ in rows]), prices, limits)


def chosen(lines: Lines, root: Floats) -> list[int]:
    """The line that bounds energy best, the one that bounds latency best, and the best blend of each kind."""
    latency, energy = lines.cycles > 0, lines.energy > 0
    per_energy = np.where(energy & ~latency, root / np.where(energy, lines.energy, 1.0), -np.inf)
    per_latency = np.where(latency & ~energy, root / np.where(latency, lines.cycles, 1.0), -np.inf)
    picks = [int(np.argmax(per_energy)), int(np.argmax(per_latency))]
    least_energy, least_latency = per_energy[picks[0]], per_latency[picks[1]]
    gains = []
    for line in lines.mixed:
        slow, costly = lines.edge(line, root[line], least_latency, least_energy)
        gains.append((min(slow * least_energy, least_latency * costly), line))
    if gains:
        picks.append(max(gains)[1])
    return picks


def useful(lines: Lines, root: Floats) -> list[int]:
    """All but those over cycles alone that bound latency much worse than another does."""
    bounds = {line: root[line] / lines.cycles[line] for line in lines.pure_cycles}
    least = NEARLY * max(bounds.values(), default=0.0)
    return [line for line in range(len(root)) if bounds.get(line, least) >= least]


def tuned_tables(space: LayerSpace, merged: tuple[Group, ...]) -> Tables:
    """Tables of the few lines that bound best, all candidates tried."""
    tables = Tables(weighing(space, candidates(space)).merged(merged))
    return tables.only(chosen(tables.lines, tables.root()))


def quick_lines(space: LayerSpace, objective: AnyObjective) -> Lines:
    """Energy, both, and the busiest port: enough where memories are large.

    Where lane cycles count most the port's line is left out: most of them are spent from the start, so that labels know
    them without a line. Not so for latency alone: what is left is a short fill against little traffic off chip, at
    exchange rates that differ from layer to layer.
    """
    least = space.compulsory
    scale = np.where(least > NEGLIGIBLE, least, 1.0)
    energy = np.zeros(len(least))
    energy[-1] = 1 / scale[-1]
    port = int(np.argmax(least[:-1]))
    alone = np.zeros(len(least))
    alone[port] = 1 / scale[port]
    lanes = np.zeros(len(least))
    lanes[0] = 1 / scale[port]
    rows = [energy, energy + (1 - A_HAIR) * alone + A_HAIR * lanes, alone]
    if port == 0 and objective is Objective.LATENCY:
        far = np.zeros(len(least))
        far[_off_chip(space)] = 1 / scale[port]
        rows = [energy, *(share * alone + (1 - share) * far for share in FILL_SHARES)]
    elif port == 0:
        rows = rows[:2]
    return Lines(np.stack(rows), np.zeros((len(rows), len(space.shared))), space.shared_bytes)


def _off_chip(space: LayerSpace) -> int:
    """The busiest port of the outermost memory that has any, or the lanes."""
    memories = [name.partition(".")[0] for name in space.meter.ports]
    own = [at for at, name in enumerate(memories, 1) if name == memories[-1]]
    return max(own, key=lambda at: float(space.compulsory[at]), default=0)
