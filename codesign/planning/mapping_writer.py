"""Plan -> mapping file: the mapping of every mapped layer, for reading, editing and `--mapping` (docs/mappings.md)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from codesign.errors import CodesignError
from codesign.mapping.counts import tile_elements
from codesign.mapping.mapping import Mapping, Residence
from codesign.planning.mapping_file import TWICE
from codesign.planning.plan import Plan, PlannedLayer
from codesign.vocabulary import DIMENSIONS, Operand
from codesign.workload.loop_nest import LoopNest

_LONGEST_LINE = 100
_PLAIN = re.compile(r"[A-Za-z/_][A-Za-z0-9/_.-]*")
_NOT_TEXT = frozenset({"null", "true", "false"})  # plain words YAML takes for something else


def mapping_file_text(plan: Plan) -> str:
    """Every mapping of a plan as a mapping file; layers with the same loops and mapping share an entry."""
    groups: dict[tuple[LoopNest, Mapping], list[PlannedLayer]] = {}
    for planned in plan.layers:
        if planned.cost.mapping is not None:
            groups.setdefault((planned.layer.nest, planned.cost.mapping), []).append(planned)
    lines = [
        f"# Mappings of {_quoted(plan.model.name)} on {plan.hardware.name}, scheduled for least {plan.objective}.",
        "# Give them back, edited or not, with `--mapping FILE`. Comments are not read.",
        "mappings:" if groups else "mappings: []",
    ]
    for (nest, mapping), layers in groups.items():
        lines.extend(_entry(nest, mapping, layers))
    return "\n".join(lines) + "\n"


def check_absent(path: Path) -> None:
    """Raises CodesignError when there is something at `path` already: perhaps somebody's edits."""
    if path.exists():
        raise CodesignError(str(path), "already exists", "choose another name; nothing was written")


def write_mapping_file(plan: Plan, path: Path) -> None:
    """Write `mapping_file_text` into a new file. Raises CodesignError rather than overwrite anything."""
    check_absent(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8", newline="") as file:
            file.write(mapping_file_text(plan))
    except OSError as error:
        raise CodesignError(str(path), f"cannot be written: {error.strerror}") from error


def _entry(nest: LoopNest, mapping: Mapping, layers: list[PlannedLayer]) -> Iterator[str]:
    cost = layers[0].cost
    yield ""
    yield f"  # {cost.cycles:,} cycles, {cost.energy_pj / 1e6:,.3f} uJ{' each' if len(layers) > 1 else ''}"
    yield from _names([_quoted(planned.layer.name) for planned in layers])
    yield f"    sizes: {_extents((str(d), size) for d, size in zip(DIMENSIONS, nest.sizes, strict=True) if size > 1)}"
    yield f"    engine: {mapping.engine}"
    yield from _lanes(mapping)
    lines = list(_loops(nest, mapping))
    yield "    loops:" if lines else "    loops: []"
    yield from (f"      - {line}" for line in lines)


def _names(names: list[str]) -> Iterator[str]:
    together = f"  - layers: [{', '.join(names)}]"
    if len(together) <= _LONGEST_LINE or len(names) == 1:
        yield together
        return
    yield "  - layers:"
    yield from (f"      - {name}" for name in names)


def _lanes(mapping: Mapping) -> Iterator[str]:
    """One line per axis; lanes of one axis over the same dimension are one loop."""
    yield "    lanes:" if mapping.spatial else "    lanes: {}"
    for axis in dict.fromkeys(loop.axis for loop in mapping.spatial):
        extents: dict[str, int] = {}
        for loop in mapping.spatial:
            if loop.axis == axis:
                extents[str(loop.dimension)] = extents.get(str(loop.dimension), 1) * loop.extent
        yield f"      {axis}: {_extents(extents.items())}"


def _loops(nest: LoopNest, mapping: Mapping) -> Iterator[str]:
    """Outermost first; residences stand above the loops whose tile they hold, outer memories first."""
    for position in range(len(mapping.loops) + 1):
        memories: dict[str, list[Residence]] = {}
        for part in reversed(mapping.residences):
            if part.position == position:
                memories.setdefault(part.memory, []).append(part)
        for memory, parts in memories.items():
            ranked = sorted(parts, key=lambda part: list(Operand).index(part.operand))
            tile = mapping.tile(nest, position)
            held = " + ".join(f"{tile_elements(nest, part.operand, tile):,}" for part in ranked)
            yield f"{memory}: [{', '.join(map(_resting, ranked))}] # {held} elements"
        if position < len(mapping.loops):
            loop = mapping.loops[position]
            yield f"{loop.dimension}: {loop.extent}"


def _resting(part: Residence) -> str:
    return f"{part.operand}{TWICE if part.buffers == 2 else ''}"


def _extents(items: Iterable[tuple[str, int]]) -> str:
    return "{" + ", ".join(f"{name}: {extent}" for name, extent in items) + "}"


def _quoted(name: str) -> str:
    """A name as YAML: plain where that is safe, in double quotes otherwise."""
    if _PLAIN.fullmatch(name) and name.lower() not in _NOT_TEXT:
        return name
    return '"' + "".join(_escaped(letter) for letter in name) + '"'


def _escaped(letter: str) -> str:
    if letter in '"\\':
        return f"\\{letter}"
    return letter if letter.isprintable() else f"\\U{ord(letter):08x}"
