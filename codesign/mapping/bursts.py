"""Bursts: how many a memory that moves whole ones takes for a tile.

Tensors lie with their channels last, those of all groups side by side: neighbours are the output channels of a kernel
position and input channel (weights), the input channels of a pixel (inputs), the output channels of a pixel (outputs).
A tile breaks into runs of neighbours, and every run begins a burst of its own:

    all channels of 2 groups of 3   ->  one run of 6
    2 channels of each of 2 groups  ->  two runs of 2

So bursts depend on the tile's groups and channels alone, whatever else it spans.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from codesign.hardware.profile import HardwareProfile
from codesign.mapping.mapping import ENGINE, Mapping, Transfer
from codesign.vocabulary import DIMENSIONS, Dimension, Operand
from codesign.workload.loop_nest import LoopNest

CHANNEL = {Operand.WEIGHTS: Dimension.K, Operand.INPUTS: Dimension.C, Operand.OUTPUTS: Dimension.K}


@dataclass(frozen=True)
class Runs:
    """Neighbours of one operand, and the bursts they are moved in. groups, channels: of the layer."""

    groups: int
    channels: int
    element_bits: int
    burst_bytes: int

    def per_element(self, groups: int, channels: int) -> float:
        """Bursts over elements of the whole layer, in tiles of so many groups and channels, the last ones ragged."""
        bursts = sum(
            many * more * self._bursts(group, channel)
            for many, group in _parts(self.groups, groups)
            for more, channel in _parts(self.channels, channels)
        )
        return bursts / (self.groups * self.channels)

    def per_element_of_tile(self, groups: int, channels: int) -> float:
        """Bursts over elements of one tile."""
        return self._bursts(groups, channels) / (groups * channels)

    def _bursts(self, groups: int, channels: int) -> int:
        runs, length = (1, groups * channels) if channels == self.channels else (groups, channels)
        return runs * -(-length * self.element_bits // (8 * self.burst_bytes))


def _parts(size: int, tile: int) -> Iterator[tuple[int, int]]:
    """(how many, of which size): whole tiles, and what is left."""
    yield size // tile, tile
    if size % tile:
        yield 1, size % tile


def runs_of(nest: LoopNest, profile: HardwareProfile, operand: Operand, memory: str, *, partial: bool) -> Runs | None:
    """The runs of an operand in a memory; None where it moves no bursts."""
    burst_bytes = profile.memories[memory].burst_bytes
    if burst_bytes is None:
        return None
    bits = profile.precision.accumulators_bits if partial else profile.bits(operand)
    return Runs(nest.size(Dimension.G), nest.size(CHANNEL[operand]), bits, burst_bytes)


@dataclass(frozen=True)
class Density:
    """Bursts per element that one transfer takes off chip: over the layer, and of its largest tile alone."""

    layer: float
    tile: float


def density_of(nest: LoopNest, mapping: Mapping, profile: HardwareProfile, transfer: Transfer) -> Density | None:
    """Of a transfer to or from the memory off chip; None where that moves no bursts, and for all others."""
    memory = profile.off_chip
    if memory not in (transfer.source, transfer.destination) or ENGINE in (transfer.source, transfer.destination):
        return None
    runs = runs_of(nest, profile, transfer.operand, memory, partial=transfer.partial)
    if runs is None:
        return None
    inner = transfer.source if transfer.destination == memory else transfer.destination
    residence = mapping.residence(transfer.operand, inner)
    if residence is None:
        raise ValueError(f"the mapping has no residence of {transfer.operand} in {inner}")
    tile = dict(zip(DIMENSIONS, mapping.tile(nest, residence.position), strict=True))
    here = tile[Dimension.G], tile[CHANNEL[transfer.operand]]
    return Density(runs.per_element(*here), runs.per_element_of_tile(*here))
