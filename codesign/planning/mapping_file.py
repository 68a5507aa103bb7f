"""Reads a mapping file: mappings of a network's layers as YAML that a person writes or edits (docs/mappings.md).

    mappings:
      - layers: [/first/conv/Conv, /second/conv/Conv]
        sizes: {K: 32, C: 32, OY: 8, OX: 8, FY: 3, FX: 3}      # optional; the layers must have these
        engine: array
        lanes:
          rows: {C: 32}
          columns: {K: 32}
        loops:                                                 # outermost first
          - accumulators: [outputs]                            # a residence: the tile of the loops below it
          - FY: 3
          - sram: [weights, inputs]
          ...
    constraints:                                               # for layers that are searched, see constraints.py
      - layers: [/stem/conv/Conv]
        stationary: weights

Read here is what needs no network: keys, types, names of the machine, and that every operand rests once in each of its
on-chip memories. codesign.planning.instructions holds the entries against the layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from codesign.hardware.profile import HardwareProfile
from codesign.mapping.mapping import Mapping, Residence, SpatialLoop, TemporalLoop
from codesign.planning.constraints import ConstraintEntry, read_constraints
from codesign.planning.file_reading import FileReading, hint_for, shown
from codesign.vocabulary import Dimension, Operand
from codesign.yaml_reader import YamlDocument, YamlPath, YamlValue, read_yaml

LARGEST_EXTENT = 2**31 - 1
MOST_LOOPS = 64
TWICE = " twice"  # behind an operand: two copies of its tile, the next one fills behind the one in use
_FILE_KEYS = ("mappings", "constraints")
_ENTRY_KEYS = ("layers", "sizes", "engine", "lanes", "loops")
_NEEDED_KEYS = ("layers", "engine", "lanes", "loops")

Resting = dict[tuple[Operand, str], tuple[Residence, YamlPath]]  # every residence, and its place in the file


@dataclass(frozen=True)
class Entry:
    """One mapping and the layers it is meant for. sizes: what they must have (1 where left out), None for anything."""

    document: YamlDocument
    path: YamlPath
    layers: tuple[str, ...]
    sizes: dict[Dimension, int] | None
    mapping: Mapping

    def where(self, *path: str | int) -> str:
        """`file:line:column` of the entry, or of what is below it."""
        return self.document.where((*self.path, *path))


@dataclass(frozen=True)
class MappingFile:
    """What a mapping file says: mappings to take as they are, and constraints on the search for others."""

    mappings: tuple[Entry, ...] = ()
    constraints: tuple[ConstraintEntry, ...] = ()


def read_mapping_file(path: Path, profile: HardwareProfile) -> MappingFile:
    """A mapping file for one machine. Raises CodesignError with every problem, in the file's order."""
    reader = _Reader(read_yaml(path), profile)
    file = reader.file()
    reader.finish()
    return file


class _Reader(FileReading):
    """Turns plain data into entries; what is wrong is noted with its place."""

    def file(self) -> MappingFile:
        """All entries that can be read."""
        data = self.section((), self.document.data, _FILE_KEYS, ())
        if data == {} and isinstance(self.document.data, dict):
            self.refuse((), f"one of the keys {', '.join(_FILE_KEYS)} is needed")
        listed = self.items(("mappings",), data.get("mappings", []), "a list of entries, each with its layers")
        mappings = [self._entry(("mappings", index), value) for index, value in enumerate(listed)]
        constraints = read_constraints(self, ("constraints",), data.get("constraints", []))
        return MappingFile(tuple(entry for entry in mappings if entry is not None), constraints)

    def _entry(self, path: YamlPath, value: YamlValue) -> Entry | None:
        data = self.section(path, value, _ENTRY_KEYS, _NEEDED_KEYS)
        layers = self.layer_names((*path, "layers"), data["layers"], "a mapping") if "layers" in data else ()
        sizes = self._extents((*path, "sizes"), data["sizes"]) if "sizes" in data else None
        engine = self.engine((*path, "engine"), data["engine"]) if "engine" in data else None
        if engine is None or "lanes" not in data or "loops" not in data:
            return None
        spatial = self._lanes((*path, "lanes"), data["lanes"], engine)
        before = len(self.found)
        loops, resting = self._loops((*path, "loops"), data["loops"], engine)
        readable = len(self.found) == before  # otherwise what seems missing may be what could not be read
        residences = self._residences((*path, "loops"), resting, engine) if readable else ()
        return Entry(self.document, path, layers, sizes, Mapping(engine, spatial, loops, residences))

    def _lanes(self, path: YamlPath, value: YamlValue, engine: str) -> tuple[SpatialLoop, ...]:
        axes = self.profile.engines[engine].axes
        if not isinstance(value, dict):
            self.refuse(path, f"lanes must be a mapping, not {shown(value)}", "one line per axis: `rows: {C: 16}`")
            return ()
        spatial: list[SpatialLoop] = []
        for axis, extents in value.items():
            if axis not in axes:
                self.refuse((*path, axis), f"engine {engine} has no axis {axis}", hint_for(axis, axes))
            else:
                chosen = self._extents((*path, axis), extents)
                spatial.extend(SpatialLoop(axis, dimension, extent) for dimension, extent in chosen.items())
        return tuple(spatial)

    def _loops(self, path: YamlPath, value: YamlValue, engine: str) -> tuple[tuple[TemporalLoop, ...], Resting]:
        """The temporal loops, and where between them every residence stands; a loop of one iteration is none."""
        loops: list[TemporalLoop] = []
        resting: Resting = {}
        inside = _on_chip(self.profile, engine)
        what = "a list of `DIMENSION: extent` and `memory: [operands]`, outermost first"
        for index, line in enumerate(self.items(path, value, what)):
            here = (*path, index)
            if not isinstance(line, dict) or len(line) != 1:
                self.refuse(here, "a line of loops is `DIMENSION: extent` or `memory: [operands]`")
                continue
            [(name, content)] = line.items()
            if name in Dimension.__members__:
                extent = self._extent((*here, name), name, content)
                loops.extend([TemporalLoop(Dimension(name), extent)] if extent > 1 else [])
            elif name in inside:
                self._rest((*here, name), name, content, inside[name], len(loops), resting)
            elif name in self.profile.homes.values():
                self.refuse((*here, name), f"{name} holds whole tensors, no tiles", "remove this line")
            else:
                problem = f"{name} is neither a loop dimension nor an on-chip memory of engine {engine}"
                self.refuse((*here, name), problem, hint_for(name, (*Dimension, *inside)))
        if len(loops) > MOST_LOOPS:
            self.refuse(path, f"{len(loops)} loops are more than the {MOST_LOOPS} a mapping may have")
        return tuple(loops), resting

    def _rest(
        self,
        path: YamlPath,
        memory: str,
        value: YamlValue,
        held: tuple[Operand, ...],
        position: int,
        resting: Resting,
    ) -> None:
        """Note the residences of one line."""
        for index, name in enumerate(self.items(path, value, "a list of operands")):
            here = (*path, index)
            plain = name.removesuffix(TWICE) if isinstance(name, str) else name
            operand = next((operand for operand in Operand if operand == plain), None)
            if operand is None:
                self.refuse(here, f"{memory}: {shown(name)} is no operand", hint_for(plain, Operand))
            elif operand not in held:
                self.refuse(here, f"{memory} does not hold {operand}", f"it holds {', '.join(held)}")
            elif (operand, memory) in resting:
                first = self.document.where(resting[operand, memory][1])
                self.refuse(here, f"{operand} rest in {memory} already, at {first}", "remove one of the two")
            else:
                resting[operand, memory] = Residence(operand, memory, position, 1 if plain == name else 2), here

    def _residences(self, path: YamlPath, resting: Resting, engine: str) -> tuple[Residence, ...]:
        """One residence for every operand and on-chip memory, the inner memories never outside the outer ones."""
        residences: list[Residence] = []
        for operand in Operand:
            for memory in self.profile.hierarchy(engine, operand)[:-1]:
                if (operand, memory) not in resting:
                    hint = f"the line `{memory}: [{operand}]` stands above the loops whose {operand} it holds"
                    self.refuse(path, f"loops: no line says where {operand} rest in {memory}", hint)
                    continue
                residence, here = resting[operand, memory]
                inner = residences[-1] if residences and residences[-1].operand is operand else residence
                if residence.position > inner.position:
                    problem = f"{operand} reach {inner.memory} through {memory}, which stands further inside"
                    self.refuse(here, problem, f"move {memory} above {inner.memory}")
                residences.append(residence)
        return tuple(residences)

    def _extents(self, path: YamlPath, value: YamlValue) -> dict[Dimension, int]:
        """`{C: 16, FX: 2}`."""
        if not isinstance(value, dict):
            self.refuse(path, f"{path[-1]} must be a mapping, not {shown(value)}", "write {C: 16, FX: 2}")
            return {}
        extents = {}
        for name, extent in value.items():
            if name in Dimension.__members__:
                extents[Dimension(name)] = self._extent((*path, name), f"{path[-1]}.{name}", extent)
            else:
                self.refuse((*path, name), f"{path[-1]}: {name} is no loop dimension", hint_for(name, Dimension))
        return extents

    def _extent(self, path: YamlPath, what: str, value: YamlValue) -> int:
        """A whole number from 1; 1 where it is none."""
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST_EXTENT:
            return value
        self.refuse(path, f"{what} must be a whole number from 1 to {LARGEST_EXTENT}, not {shown(value)}")
        return 1


def _on_chip(profile: HardwareProfile, engine: str) -> dict[str, tuple[Operand, ...]]:
    """The on-chip memories an engine works with, and the operands each of them holds for it."""
    held: dict[str, tuple[Operand, ...]] = {}
    for operand in Operand:
        for memory in profile.hierarchy(engine, operand)[:-1]:
            held[memory] = (*held.get(memory, ()), operand)
    return held
