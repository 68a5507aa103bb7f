"""Mappings given in a file, held against the network's layers: every one legal, or refused with all reasons."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from codesign.errors import CodesignError, Problem, nearest
from codesign.hardware.profile import HardwareProfile
from codesign.mapping.cost import layer_cost
from codesign.mapping.counts import counts_of
from codesign.mapping.layer_cost import LayerCost
from codesign.mapping.layer_form import nest_on
from codesign.mapping.legality import problems_of
from codesign.mapping.mapper import on_chip_bytes
from codesign.mapping.mapping import Mapping
from codesign.planning.mapping_file import Entry
from codesign.vocabulary import DIMENSIONS
from codesign.workload.layer import Layer
from codesign.workload.loop_nest import LoopNest

_NAMES_SHOWN = 3


@dataclass(frozen=True)
class Given:
    """The mapping a layer was given, and its place in the file, `m.yaml:12:5`."""

    mapping: Mapping
    where: str


def given_mappings(entries: Iterable[Entry], layers: Sequence[Layer], profile: HardwareProfile) -> dict[str, Given]:
    """What each layer named in a mapping file was given, by its name.

    Raises CodesignError naming every layer the network does not have and every reason why a mapping is not one of its
    layer on this machine.
    """
    by_name: dict[str, list[Layer]] = {}
    for layer in layers:
        by_name.setdefault(layer.name, []).append(layer)
    given: dict[str, Given] = {}
    problems: list[Problem] = []
    for entry in entries:
        meant: list[Layer] = []
        for index, name in enumerate(entry.layers):
            if name not in by_name:
                problems.append(_unknown(entry.where("layers", index), name, layers))
            meant.extend(by_name.get(name, ()))
            given[name] = Given(entry.mapping, entry.where())
        problems.extend(_misfits(entry, meant, profile))
    if problems:
        raise CodesignError.of(problems)
    return given


def given_cost(nest: LoopNest, mapping: Mapping, profile: HardwareProfile) -> LayerCost:
    """Price one legal mapping as it stands, without a search.

    bound_cycles: all lanes busy in every cycle, which holds for every mapping on the engine; gap: of the cycles to it.
    """
    bound_cycles = -(-nest.loop_macs // profile.engines[mapping.engine].peak_macs_per_cycle)
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


def _unknown(where: str, name: str, layers: Sequence[Layer]) -> Problem:
    close = nearest(name, [layer.name for layer in layers])
    hint = f"did you mean {close}?" if close else "`codesign estimate` shows the names of the layers after the passes"
    return Problem(where, f"the network has no layer {name}", hint)


def _misfits(entry: Entry, layers: Sequence[Layer], profile: HardwareProfile) -> Iterator[Problem]:
    """Why a mapping is none of its layers; layers with the same loops share a line."""
    alike: dict[LoopNest, list[str]] = {}
    for layer in layers:
        seen = nest_on(profile.engines[entry.mapping.engine], layer.nest)
        alike.setdefault(seen, []).append(layer.name)
    for nest, names in alike.items():
        shown, more = names[:_NAMES_SHOWN], len(names) - _NAMES_SHOWN
        who = f"layer{'s' if len(names) > 1 else ''} {', '.join(shown)}{f' and {more} more' if more > 0 else ''}"
        if not nest.has_macs:
            what = f"{nest.kind} has no multiply-accumulates, and only layers with them have a mapping"
            yield Problem(f"{entry.where()}: {who}", what)
            continue
        said = [entry.sizes.get(dimension, 1) for dimension in DIMENSIONS] if entry.sizes is not None else nest.sizes
        for dimension, size in zip(DIMENSIONS, said, strict=True):
            if size != nest.size(dimension):
                where = f"{entry.where('sizes', str(dimension))}: {who}"
                hint = "was the file written for another network, input shape or list of passes?"
                yield Problem(where, f"{dimension} is {nest.size(dimension)}, not {size}", hint)
        if tuple(said) != nest.sizes:
            continue  # a mapping of other loops: its reasons would say nothing more
        engine = entry.mapping.engine
        if nest.kind not in profile.engines[engine].operations:
            yield Problem(f"{entry.where('engine')}: {who}", f"engine {engine} does not run {nest.kind}")
        for reason in problems_of(nest, entry.mapping, profile):
            yield Problem(f"{entry.where()}: {who}", reason)
