"""A mapping file held against the network's layers: everything in it can be done, or is refused with all reasons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from codesign.errors import CodesignError, Problem, nearest
from codesign.hardware.profile import HardwareProfile
from codesign.mapping.layer_form import nest_on, not_run, runs
from codesign.mapping.legality import problems_of
from codesign.planning.constraints import Constraint, ConstraintEntry
from codesign.planning.given import Given
from codesign.planning.mapping_file import Entry, MappingFile
from codesign.vocabulary import DIMENSIONS, OperationKind
from codesign.workload.layer import Layer
from codesign.workload.loop_nest import LoopNest

_NAMES_SHOWN = 3

Instruction = Given | Constraint  # what a file says of one layer


def instructions_of(file: MappingFile, layers: Sequence[Layer], profile: HardwareProfile) -> dict[str, Instruction]:
    """The mapping a layer was given, or the constraint on its search, by its name; other layers are left out.

    Raises CodesignError naming every layer the network does not have, every reason why a mapping is not one of its
    layer on this machine, and every layer no engine may run under its constraint.
    """
    by_name: dict[str, list[Layer]] = {}
    for layer in layers:
        by_name.setdefault(layer.name, []).append(layer)
    found: dict[str, Instruction] = {}
    problems: list[Problem] = []

    def meant(entry: Entry | ConstraintEntry, names: Sequence[str], instruction: Instruction) -> list[Layer]:
        """The layers of these names, which take the instruction."""
        for index, name in enumerate(names):
            if name not in by_name:
                problems.append(_unknown(entry.where("layers", index), name, layers))
            found[name] = instruction
        return [layer for name in names for layer in by_name.get(name, ())]

    for entry in file.mappings:
        problems.extend(_misfits(entry, meant(entry, entry.layers, Given(entry.mapping, entry.where())), profile))
    for part in sorted(file.constraints, key=lambda part: part.layers is None):
        names = _others(layers, found, profile) if part.layers is None else part.layers
        problems.extend(_unable(part, meant(part, names, part.constraint), profile))
    if problems:
        raise CodesignError.of(problems)
    return found


def _others(layers: Sequence[Layer], named: dict[str, Instruction], profile: HardwareProfile) -> list[str]:
    """Names of the layers that are searched and that no entry names."""
    engines = profile.engines.values()
    searched = (
        layer.name for layer in layers if layer.nest.has_macs and any(runs(engine, layer.nest) for engine in engines)
    )
    return [name for name in dict.fromkeys(searched) if name not in named]


def _unable(entry: ConstraintEntry, layers: Sequence[Layer], profile: HardwareProfile) -> Iterator[Problem]:
    """Layers that no engine may run under a constraint; those with the same reason share a line."""
    alike: dict[str, list[str]] = {}
    for layer in layers:
        alike.setdefault(_why_not(entry.constraint, layer.nest, profile), []).append(layer.name)
    for reason, names in alike.items():
        if reason:
            yield Problem(f"{entry.where()}: {_layers_text(names)}", reason)


def _why_not(constraint: Constraint, nest: LoopNest, profile: HardwareProfile) -> str:
    """Why no engine may run a layer under a constraint; empty where one may."""
    if not nest.has_macs:
        return _without_macs(nest.kind)
    allowed = [engine for name, engine in profile.engines.items() if constraint.allows(name, profile)]
    if any(runs(engine, nest) for engine in allowed):
        return ""
    what = not_run(nest, allowed)
    if constraint.engine is not None:
        return f"engine {constraint.engine} does not run {what}"
    return f"no engine runs {what} with stationary {constraint.stationary}"


def _layers_text(names: Sequence[str]) -> str:
    """`layer a`, `layers a, b, c and 5 more`."""
    shown, more = names[:_NAMES_SHOWN], len(names) - _NAMES_SHOWN
    return f"layer{'s' if len(names) > 1 else ''} {', '.join(shown)}{f' and {more} more' if more > 0 else ''}"


def _without_macs(kind: OperationKind) -> str:
    return f"{kind} has no multiply-accumulates, and only layers with them have a mapping"


def _unknown(where: str, name: str, layers: Sequence[Layer]) -> Problem:
    close = nearest(name, [layer.name for layer in layers])
    hint = f"did you mean {close}?" if close else "`codesign estimate` shows the names of the layers after the passes"
    return Problem(where, f"the network has no layer {name}", hint)


def _misfits(entry: Entry, layers: Sequence[Layer], profile: HardwareProfile) -> Iterator[Problem]:
    """Why a mapping is none of its layers; layers with the same loops share a line."""
    name, engine = entry.mapping.engine, profile.engines[entry.mapping.engine]
    alike: dict[tuple[LoopNest, str], list[str]] = {}
    for layer in layers:
        unable = "" if runs(engine, layer.nest) else not_run(layer.nest, [engine])
        alike.setdefault((nest_on(engine, layer.nest), unable), []).append(layer.name)
    for (nest, unable), names in alike.items():
        who = _layers_text(names)
        if not nest.has_macs:
            yield Problem(f"{entry.where()}: {who}", _without_macs(nest.kind))
            continue
        said = [entry.sizes.get(dimension, 1) for dimension in DIMENSIONS] if entry.sizes is not None else nest.sizes
        for dimension, size in zip(DIMENSIONS, said, strict=True):
            if size != nest.size(dimension):
                where = f"{entry.where('sizes', str(dimension))}: {who}"
                hint = "was the file written for another network, input shape or list of passes?"
                yield Problem(where, f"{dimension} is {nest.size(dimension)}, not {size}", hint)
        if tuple(said) != nest.sizes:
            continue  # a mapping of other loops: its reasons would say nothing more
        if unable:
            yield Problem(f"{entry.where('engine')}: {who}", f"engine {name} does not run {unable}")
        for reason in problems_of(nest, entry.mapping, profile):
            yield Problem(f"{entry.where()}: {who}", reason)
