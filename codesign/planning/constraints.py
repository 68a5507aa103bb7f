"""Constraints in a mapping file: layers that are searched within less than the machine allows (docs/mappings.md).

    constraints:
      - layers: [/first/conv/Conv, /second/conv/Conv]  # or `all`: every searched layer the file does not name
        engine: array                                  # this engine alone
        stationary: weights                            # this dataflow alone
        unroll: {rows: [C], columns: [K]}              # of these axes, these dimensions alone

A constraint is a narrower machine: the search sees its engines with fewer dimensions on their axes and with a fixed
dataflow. Nothing is added, so a mapping found there is one of the whole machine, at the same cost.
"""

from __future__ import annotations

from dataclasses import dataclass

from codesign.hardware.profile import HardwareProfile
from codesign.hardware.sections import Axis, Engine
from codesign.planning.file_reading import FileReading, hint_for, shown
from codesign.vocabulary import Dimension, Operand
from codesign.yaml_reader import YamlDocument, YamlPath, YamlValue

ALL = "all"
_RIGHTS = ("engine", "stationary", "unroll")

Unroll = tuple[tuple[str, tuple[Dimension, ...]], ...]  # axes, and the dimensions each may spread


@dataclass(frozen=True)
class Constraint:
    """What layers may use of a machine. where: the place in the file, `m.yaml:12:5`.

    engine, stationary: None for any. unroll: axes of `engine` that may spread some of their dimensions alone, none for
    one lane; axes that are not there keep theirs.
    """

    where: str
    engine: str | None = None
    stationary: Operand | None = None
    unroll: Unroll = ()

    def allows(self, name: str, profile: HardwareProfile) -> bool:
        """Whether an engine may run these layers: it is the one named, and no other operand is stationary on it."""
        fixed = profile.engines[name].stationary
        return self.engine in (None, name) and (self.stationary is None or fixed in (None, self.stationary))

    def narrowed(self, profile: HardwareProfile) -> HardwareProfile:
        """The machine as these layers see it; engines they may not use are unchanged."""
        engines = {
            name: self._narrower(engine) if self.allows(name, profile) else engine
            for name, engine in profile.engines.items()
        }
        return profile.model_copy(update={"engines": engines})

    def _narrower(self, engine: Engine) -> Engine:
        axes = {**engine.axes, **{axis: _spreading(engine.axes[axis], chosen) for axis, chosen in self.unroll}}
        return engine.model_copy(update={"axes": axes, "stationary": self.stationary or engine.stationary})


def _spreading(axis: Axis, chosen: tuple[Dimension, ...]) -> Axis:
    """An axis that spreads the chosen dimensions alone; without any it has one lane, or one turn after another idle."""
    return axis.model_copy(update={"unrolls": chosen} if chosen or axis.in_turn else {"size": 1})


@dataclass(frozen=True)
class ConstraintEntry:
    """One constraint and the layers it is meant for; None for all that the file does not name."""

    document: YamlDocument
    path: YamlPath
    layers: tuple[str, ...] | None
    constraint: Constraint

    def where(self, *path: str | int) -> str:
        """`file:line:column` of the entry, or of what is below it."""
        return self.document.where((*self.path, *path))


def read_constraints(reading: FileReading, path: YamlPath, value: YamlValue) -> tuple[ConstraintEntry, ...]:
    """All constraints that can be read; what is wrong with the others is noted."""
    entries: list[ConstraintEntry] = []
    for index, item in enumerate(reading.items(path, value, "a list of entries, each with its layers")):
        entry = _entry(reading, (*path, index), item)
        first = next((other for other in entries if other.layers is None), None)
        if entry is not None and entry.layers is None and first is not None:
            problem = f"layers: all other layers have a constraint already, at {first.where('layers')}"
            reading.refuse((*entry.path, "layers"), problem, "remove one of the two")
        entries.extend([entry] if entry is not None else [])
    return tuple(entries)


def _entry(reading: FileReading, path: YamlPath, value: YamlValue) -> ConstraintEntry | None:
    data = reading.section(path, value, ("layers", *_RIGHTS), ("layers",))
    if "layers" not in data:
        return None
    layers = None if data["layers"] == ALL else reading.layer_names((*path, "layers"), data["layers"], "a constraint")
    if data.keys() == {"layers"}:
        reading.refuse(path, f"a constraint needs one of {', '.join(_RIGHTS)}")
    engine = reading.engine((*path, "engine"), data["engine"]) if "engine" in data else None
    if engine is None and "engine" in data:
        return None  # what the others may say depends on it
    unroll: Unroll = ()
    if "unroll" in data:
        unrolling = engine or next(iter(reading.profile.engines))
        if engine is None and len(reading.profile.engines) > 1:
            known = ", ".join(reading.profile.engines)
            problem = f"unroll: {reading.profile.name} has several engines, and engine does not say whose axes"
            reading.refuse((*path, "unroll"), problem, f"add the key engine; known: {known}")
        else:
            engine = unrolling
            unroll = _unroll(reading, (*path, "unroll"), data["unroll"], engine)
    stationary = _stationary(reading, (*path, "stationary"), data["stationary"]) if "stationary" in data else None
    constraint = Constraint(reading.document.where(path), engine, stationary, unroll)
    if stationary is not None:
        _check_dataflow(reading, (*path, "stationary"), constraint)
    return ConstraintEntry(reading.document, path, layers, constraint)


def _stationary(reading: FileReading, path: YamlPath, value: YamlValue) -> Operand | None:
    operand = next((operand for operand in Operand if operand == value), None)
    if operand is None:
        reading.refuse(path, f"stationary: {shown(value)} is no operand", hint_for(value, Operand))
    return operand


def _check_dataflow(reading: FileReading, path: YamlPath, constraint: Constraint) -> None:
    """Some engine may have the dataflow: none keeps what its own fixed one excludes."""
    engines = reading.profile.engines
    meant = [constraint.engine] if constraint.engine is not None else list(engines)
    if not any(constraint.allows(name, reading.profile) for name in meant):
        fixed = " and ".join(f"{engines[name].stationary} on {name}" for name in meant)
        reading.refuse(path, f"stationary: the machine fixes {fixed}, {constraint.stationary} cannot be")


def _unroll(reading: FileReading, path: YamlPath, value: YamlValue, engine: str) -> Unroll:
    axes = reading.profile.engines[engine].axes
    if not isinstance(value, dict):
        reading.refuse(path, f"unroll must be a mapping, not {shown(value)}", "one line per axis: `rows: [C]`")
        return ()
    if not value:
        reading.refuse(path, "unroll: at least one axis is needed")
    unroll = []
    for name, listed in value.items():
        if name not in axes:
            reading.refuse((*path, name), f"engine {engine} has no axis {name}", hint_for(name, axes))
        else:
            unroll.append((name, _dimensions(reading, (*path, name), listed, axes[name])))
    return tuple(unroll)


def _dimensions(reading: FileReading, path: YamlPath, value: YamlValue, axis: Axis) -> tuple[Dimension, ...]:
    """Some of an axis' own dimensions, in its order."""
    chosen: list[Dimension] = []
    listed = reading.items(path, value, "a list of dimensions")
    for index, name in enumerate(listed):
        here = (*path, index)
        dimension = next((dimension for dimension in Dimension if dimension == name), None)
        if dimension is None:
            reading.refuse(here, f"{path[-1]}: {shown(name)} is no loop dimension", hint_for(name, axis.unrolls))
        elif dimension not in axis.unrolls:
            reading.refuse(here, f"axis {path[-1]} cannot unroll {name}", f"it may unroll {', '.join(axis.unrolls)}")
        elif dimension in chosen:
            reading.refuse(here, f"{path[-1]}: {name} is listed twice")
        else:
            chosen.append(dimension)
    if axis.fixed and listed == [] and isinstance(value, list):
        reading.refuse(path, f"axis {path[-1]} is fixed: it always runs {axis.unrolls[0]}", "leave the axis out")
    missing = [dimension for dimension in axis.whole if dimension not in chosen]
    if missing:
        reading.refuse(path, f"axis {path[-1]} runs {missing[0]} in full", f"keep {missing[0]} among them")
    return tuple(dimension for dimension in axis.unrolls if dimension in chosen)
