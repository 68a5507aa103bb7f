"""What `codesign hw` shows: the known machines, one machine in words, its unsourced figures, a copy, the schema."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill

from pydantic import TypeAdapter, ValidationError

from codesign.errors import CodesignError
from codesign.hardware.loading import (
    find_profile,
    known_profiles,
    load_profile,
    read_profile,
    shipped_folder,
    validated,
)
from codesign.hardware.problems import dotted
from codesign.hardware.profile import HardwareProfile
from codesign.hardware.sections import Axis, Buffering, Conventions, Engine, LayerForm, Memory, Name, Ports
from codesign.yaml_reader import YamlDocument, YamlPath, YamlValue, read_yaml

_COLUMNS = 100


@dataclass(frozen=True)
class ListedProfile:
    """One line of `hw list`. problem: the first thing wrong with the file; then description and peak say nothing."""

    name: str
    path: Path
    origin: str
    description: str = ""
    peak_macs_per_cycle: int = 0
    clock_mhz: float = 0.0
    problem: str = ""


def list_profiles() -> tuple[ListedProfile, ...]:
    """Every machine that has a name, broken files included; of several with one name, the one `--hw` would find."""
    first = {found.name: found for found in reversed(tuple(known_profiles()))}
    return tuple(_listed(first[name].path, name, first[name].origin) for name in sorted(first))


def _listed(path: Path, name: str, origin: str) -> ListedProfile:
    try:
        profile = read_profile(path).profile
    except CodesignError as error:
        return ListedProfile(name, path, origin, problem=str(error.problems[0]).splitlines()[0])
    return ListedProfile(name, path, origin, profile.description, profile.peak_macs_per_cycle, profile.clock_mhz)


def machine_table() -> str:
    """The shipped machines as rows of a Markdown table, without what was published where (docs/hardware.md)."""
    rows = [
        "| Machine | MACs per cycle | Clock, MHz | On chip, KiB | Off chip, bytes per cycle |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for path in sorted(shipped_folder().glob("*.yaml")):
        profile = read_profile(path).profile
        built = [name for name, memory in list(profile.memories.items())[:-1] if memory.same_cells_as is None]
        on_chip = sum(profile.total_bytes(name) or 0 for name in built)
        memory = profile.memories[profile.off_chip]
        widths = [memory.bytes_per_cycle(at) for at in (memory.ports.read_write, memory.ports.read) if at is not None]
        off_chip = f"{widths[0]:g}" if widths else "no limit"
        peak = f"{profile.peak_macs_per_cycle:,}"
        rows.append(f"| `{profile.name}` | {peak} | {profile.clock_mhz:g} | {_kibibytes(on_chip)} | {off_chip} |")
    return "\n".join(rows)


def _kibibytes(size_bytes: int) -> str:
    """Three digits or all whole ones: 0.094, 8.06, 183, 29,056."""
    kibibytes = size_bytes / 1024
    return f"{kibibytes:,.0f}" if kibibytes >= 100 else f"{kibibytes:.3g}"


def show_profile(name_or_path: str) -> str:
    """One machine in words, lines of plain text. Raises CodesignError."""
    loaded = load_profile(name_or_path)
    profile = loaded.profile
    precision = profile.precision
    lines = [
        f"{profile.name}: {profile.description}",
        f"file: {loaded.path}",
        f"clock: {profile.clock_mhz:g} MHz",
        f"pipeline: {profile.pipeline}, where --passes names none",
        f"precision: weights {precision.weights_bits}, activations {precision.activations_bits}, "
        f"accumulators {precision.accumulators_bits} bits",
        "",
        "engines",
    ]
    for name, engine in profile.engines.items():
        lines.extend(_engine_lines(name, engine, profile))
    lines.extend(["", "memories, from the lanes outwards"])
    lines.extend(_memory_line(name, memory) for name, memory in profile.memories.items())
    lines.extend(["", *_rest_lines(profile)])
    for title, notes in (("source", profile.source), ("assumed", profile.assumed)):
        lines.extend(["", title, *(f"  {key}: {text.strip()}" for key, text in notes.items())])
    return "\n".join(_wrapped(line) for line in lines) + "\n"


def _wrapped(line: str) -> str:
    indent = " " * (len(line) - len(line.lstrip()) + 4)
    return fill(line, _COLUMNS, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _engine_lines(name: str, engine: Engine, profile: HardwareProfile) -> Iterator[str]:
    axes = " x ".join(
        f"{axis_name} {axis.size} ({'=' if axis.fixed else 'up to '}{','.join(axis.unrolls)}{_rules(axis)})"
        for axis_name, axis in engine.axes.items()
    )
    peak = profile.macs_per_cycle(name)
    tera_operations = 2 * peak * profile.clock_mhz * 1e6 / 1e12
    yield f"  {name}: {peak:,} MACs per cycle, {tera_operations:.4g} TOPS (2 operations a MAC)"
    yield f"    axes: {axes}"
    kernels = f"; kernels of {', '.join(engine.kernels)} alone" if engine.kernels else ""
    yield f"    runs: {', '.join(engine.operations)}{kernels}"
    if engine.group_by_group:
        yield "    groups run one after another: no tile holds anything of two"
    if engine.loaded_with_outputs:
        yield f"    {' and '.join(engine.loaded_with_outputs)} are loaded anew for every tile of outputs"
    if engine.same_lanes_as is not None:
        yield f"    the lanes of {engine.same_lanes_as}, driven another way"
    if engine.layer_form is LayerForm.MATRIX_PRODUCT:
        yield "    sees a layer as a product of two matrices (im2col)"
    if engine.stationary is not None:
        yield f"    {engine.stationary} are stationary: each stays in its innermost memory until all its uses are done"
    for operand, memories in engine.bypasses.items():
        if memories:
            yield f"    its {operand} pass {' and '.join(memories)} by"
    if engine.operand_bits is not None:
        times = "in one pass" if profile.passes(name) == 1 else f"in {profile.passes(name)} passes"
        yield f"    multiplies {engine.operand_bits} x {engine.operand_bits} bits: here every MAC {times}"
    yield f"    {engine.energy_pj_per_mac:g} pJ per MAC, pipeline of {engine.pipeline_depth_cycles} cycles"


def _memory_line(name: str, memory: Memory) -> str:
    size = "unbounded" if memory.size_bytes is None else f"{memory.size_bytes:,} bytes"
    if memory.replicated_over:
        size += f" per lane of {' x '.join(memory.replicated_over)}"
    parts = [
        f"  {name}: {size}",
        f"holds {', '.join(memory.holds)}",
        _ports_text(memory.ports),
        f"{memory.read_pj_per_byte:g} / {memory.write_pj_per_byte:g} pJ per byte read / written",
    ]
    if memory.engines:
        parts.append(f"for {', '.join(memory.engines)}")
    if memory.size_bytes is not None:
        parts.append(_buffering(memory))
    if memory.refill_overhead_cycles:
        parts.append(f"{memory.refill_overhead_cycles} cycles lost at every refill")
    parts.extend(_latency_parts(memory))
    return "; ".join(parts)


def _latency_parts(memory: Memory) -> Iterator[str]:
    if memory.same_cells_as is not None:
        yield f"the cells of {memory.same_cells_as}, used another way"
    if memory.coded_weight_bits is not None:
        yield f"weights coded in {memory.coded_weight_bits:g} bits each"
    if memory.burst_bytes is not None:
        yield f"whole bursts of {memory.burst_bytes} bytes"
    if memory.latency_cycles:
        yield f"{memory.latency_cycles} cycles from a request to its answer"
    rate = memory.requests_bytes_per_cycle
    if rate is not None:
        requests = f"{memory.requests_in_flight} requests of {memory.request_bytes} bytes in flight"
        yield f"{requests}, {rate:.3g} bytes per cycle"


def _rules(axis: Axis) -> str:
    return (f"; {axis.whole[0]} in full" if axis.whole else "") + (", in turn" if axis.in_turn else "")


def _buffering(memory: Memory) -> str:
    match memory.buffering:
        case Buffering.SINGLE:
            return "single-buffered"
        case Buffering.DOUBLE:
            return "double-buffered"
        case Buffering.OVERLAPPED:
            return "single-buffered, refills overlap all the same"
        case Buffering.EITHER:
            return "single- or double-buffered, tile by tile"


def _ports_text(ports: Ports) -> str:
    if ports.read_write is not None:
        return f"{ports.read_write.bytes_per_cycle:g} bytes per cycle, reads and writes together"
    if ports.read is not None and ports.write is not None:
        return f"{ports.read.bytes_per_cycle:g} / {ports.write.bytes_per_cycle:g} bytes per cycle read / written"
    return "never a bottleneck"


def _rest_lines(profile: HardwareProfile) -> Iterator[str]:
    unit, host = profile.vector_unit, profile.host
    if unit is None:
        yield "vector unit: none"
    else:
        yield f"vector unit: {unit.lanes} lanes, {unit.energy_pj_per_operation:g} pJ per operation"
        yield f"  runs: {', '.join(unit.operations)}"
        for kind, operators in unit.operators.items():
            yield f"  of {kind}: {', '.join(operators)} alone"
        for kind, cycles in unit.cycles_per_operation.items():
            yield f"  {kind}: {cycles:g} cycles of a lane for an operation"
        if unit.on_the_way_out:
            yield f"  on the way out of the layer before: {', '.join(unit.on_the_way_out)}"
    yield (
        f"host: {host.operations_per_cycle:g} operations and {host.bytes_per_cycle:g} bytes per cycle, "
        f"{host.energy_pj_per_operation:g} pJ per operation, {host.energy_pj_per_byte:g} pJ per byte"
    )
    for line in _convention_lines(profile.conventions):
        yield f"counts otherwise: {line}"


def _convention_lines(conventions: Conventions) -> Iterator[str]:
    """What a machine counts unlike the rest, a line each."""
    if conventions.padding_is_data:
        yield "zeros of the padding are stored and moved like data"
    if conventions.whole_weight_tiles:
        yield "weights are stored and moved in whole tiles of the lanes, zeros past a layer's sizes included"
    if conventions.first_partial_sums_are_read:
        yield "accumulators are read on an output's first visit too"
    if not conventions.fill_and_drain:
        yield "the first tile in and the last one out take no time of their own"
    if conventions.last_cycle_index:
        yield "cycles are the number of a layer's last cycle, from 0"


def check_profile(name_or_path: str | Path) -> list[str]:
    """What a valid machine still owes, a line each: figures without a source, notes that match nothing.

    Raises CodesignError when the file is no valid profile.
    """
    document = read_yaml(find_profile(str(name_or_path)))
    profile = validated(document)
    notes = {"source": profile.source, "assumed": profile.assumed}
    found = [*_unsourced(document, {*profile.source, *profile.assumed}), *_dead_notes(document, notes)]
    if profile.name != Path(document.name).stem:
        found.append((("name",), f"is {profile.name}, but the file is called {Path(document.name).name}"))
    found.sort(key=lambda entry: document.position(entry[0]))
    return [f"{document.where(path)}: {dotted(path)}: {what}" for path, what in found]


def _unsourced(document: YamlDocument, keys: set[str]) -> Iterator[tuple[YamlPath, str]]:
    for path, value in _leaves(document.data):
        prefixes = {".".join(map(str, path[:length])) for length in range(1, len(path) + 1)}
        if isinstance(value, int | float) and not isinstance(value, bool) and not prefixes & keys:
            yield path, "a figure without an entry in source or assumed"


def _dead_notes(document: YamlDocument, notes: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[YamlPath, str]]:
    known = {".".join(map(str, path)) for path in document.positions if path and path[0] not in notes}
    for section, entries in notes.items():
        for key, text in entries.items():
            if key not in known:
                yield (section, key), "matches nothing in this file"
            if not text.strip():
                yield (section, key), "says nothing"
    for key in notes["source"].keys() & notes["assumed"].keys():
        yield ("assumed", key), "stands in source as well"


def _leaves(value: YamlValue, path: YamlPath = ()) -> Iterator[tuple[YamlPath, YamlValue]]:
    match value:
        case dict():
            for key, inner in value.items():
                yield from _leaves(inner, (*path, key))
        case list():
            for index, inner in enumerate(value):
                yield from _leaves(inner, (*path, index))
        case _:
            yield path, value


def copy_profile(name_or_path: str, target: Path) -> Path:
    """Copies a machine's file, comments and all, as a start for one's own; returns the file written.

    A target without suffix gets `.yaml`; a folder gets the file under its old name. `name:` becomes the target's stem
    when that is a valid name. Raises CodesignError rather than overwrite anything.
    """
    document = read_yaml(find_profile(name_or_path))
    validated(document)
    if target.is_dir():
        target = target / Path(document.name).name
    return write_new(target, lambda stem: _renamed(document, stem))


def write_new(target: Path, text_for: Callable[[str], str]) -> Path:
    """Write a machine's file that is not there yet; a target without suffix gets `.yaml`. text_for: told the stem.

    Raises CodesignError rather than overwrite anything.
    """
    if not target.suffix:
        target = target.with_suffix(".yaml")
    if not target.parent.is_dir():
        raise CodesignError(str(target), f"there is no folder {target.parent}")
    try:
        with target.open("x", encoding="utf-8", newline="") as file:
            file.write(text_for(target.stem))
    except FileExistsError:
        raise CodesignError(str(target), "already exists", "choose another name; nothing was written") from None
    except OSError as error:
        raise CodesignError(str(target), f"cannot be written: {error.strerror}") from error
    return target


def valid_name(name: str) -> bool:
    """Whether a machine may be called so."""
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        return False
    return True


def _renamed(document: YamlDocument, name: str) -> str:
    if not valid_name(name):
        return document.text  # a file may be called anything; the machine inside then keeps its name
    lines = document.text.splitlines(keepends=True)
    index = document.position(("name",))[0] - 1
    lines[index] = re.sub(r"^(name:\s*)[^\s#]+", rf"\g<1>{name}", lines[index])
    return "".join(lines)


def schema_json() -> str:
    """The JSON schema of profiles, for editors that check YAML against one."""
    return json.dumps(HardwareProfile.model_json_schema(), indent=2) + "\n"
