"""A mapping given in a file, and what it costs as it stands."""

from __future__ import annotations

from dataclasses import dataclass, replace

from codesign.hardware.profile import HardwareProfile
from codesign.mapping.cost import layer_cost
from codesign.mapping.counts import counts_of
from codesign.mapping.layer_cost import LayerCost
from codesign.mapping.mapper import on_chip_bytes
from codesign.mapping.mapping import Mapping
from codesign.workload.loop_nest import LoopNest


@dataclass(frozen=True)
class Given:
    """The mapping a layer was given, and its place in the file, `m.yaml:12:5`."""

    mapping: Mapping
    where: str


def given_cost(nest: LoopNest, mapping: Mapping, profile: HardwareProfile) -> LayerCost:
    """Price one legal mapping as it stands, without a search.

    bound_cycles: all lanes busy in every cycle, which holds for every mapping on the engine; gap: of the cycles to it.
    """
    lanes = profile.engines[mapping.engine].peak_macs_per_cycle
    bound_cycles = -(-nest.loop_macs * profile.passes(mapping.engine) // lanes)
    cost = layer_cost(
        nest,
        mapping,
        profile,
        counts_of(nest, mapping, profile),
        on_chip_bytes=on_chip_bytes(nest, profile, mapping),
        bound_cycles=bound_cycles,
        gap=0.0,
        proven=False,
    )
    return replace(cost, bound_cycles=bound_cycles, gap=cost.cycles / bound_cycles - 1)
