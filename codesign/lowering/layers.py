"""Every mapped layer of a plan as scheduled TIR, held against what the cost model charged."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from codesign.errors import DoesNotFitError, Problem
from codesign.hardware.profile import HardwareProfile
from codesign.hardware.sections import Conventions
from codesign.lowering.counts import counts_of_function
from codesign.lowering.schedule import ScheduledLayer, schedule_layer
from codesign.mapping.counts import counts_of
from codesign.mapping.mapping import LayerCounts
from codesign.planning.plan import Plan, PlannedLayer


def schedule_layers(
    plan: Plan,
    profile: HardwareProfile,
    on_layer: Callable[[str, int, int], None] | None = None,
    types: Mapping[str, str] | None = None,
) -> dict[str, ScheduledLayer]:
    """Scheduled TIR by layer name; layers with the same nest and types share one function.

    types: of a quantised network, the operands' type by layer name (one without is not scheduled); else float32.

    MACs, transfers and allocations are read back off every function. Raises DoesNotFitError naming every layer whose
    counts differ from the plan's, number by number. on_layer: told name, number from 1, and how many functions there
    are.
    """
    mapped = {planned.layer.name: planned for planned in plan.layers if planned.cost.mapping is not None}
    if types is not None:
        mapped = {name: planned for name, planned in mapped.items() if name in types}
    wanted = {
        name: (planned.repeats_of or name, (types or {}).get(name, "float32")) for name, planned in mapped.items()
    }
    first = {key: mapped[name] for name, key in reversed(wanted.items())}
    functions: dict[tuple[str, str], ScheduledLayer] = {}
    problems: list[Problem] = []
    for number, key in enumerate(dict.fromkeys(wanted.values()), 1):
        planned = first[key]
        if on_layer is not None:
            on_layer(planned.layer.name, number, len(first))
        layer = _schedule(planned, profile, f"layer_{number:03}_{identifier(planned.layer.name)}", key[1])
        functions[key] = layer
        counted = counts_of_function(layer.function, profile.homes)
        problems.extend(count_problems(plan.model.name, as_executed(planned, profile), counted))
    if problems:
        raise DoesNotFitError.of(problems)
    return {name: functions[key] for name, key in wanted.items()}


def as_executed(planned: PlannedLayer, profile: HardwareProfile) -> PlannedLayer:
    """The layer with counts of what is really moved, where a profile's conventions count more (zeros of the padding as
    data, accumulators read before they hold anything): code is held to these, the report keeps the convention's."""
    if profile.conventions == Conventions() or planned.cost.mapping is None:
        return planned
    plain = profile.model_copy(update={"conventions": Conventions()})
    counts = counts_of(planned.layer.nest, planned.cost.mapping, plain)
    return replace(planned, cost=replace(planned.cost, counts=counts))


def identifier(name: str) -> str:
    """A layer's name as part of a C identifier."""
    return re.sub(r"[^0-9A-Za-z]+", "_", name).strip("_")[:48]


def count_problems(model: str, planned: PlannedLayer, counted: LayerCounts) -> Iterator[Problem]:
    """Where the scheduled code and the cost model disagree on one layer, number by number."""
    if planned.cost.counts is None:
        raise ValueError(f"{planned.layer.name} has a mapping, but no counts to hold it against")
    charged, found = _numbers(planned.cost.counts), _numbers(counted)
    hint = "this is a fault of codesign: please report it with the model and the profile"
    for what in dict.fromkeys((*charged, *found)):
        ours, theirs = charged.get(what, []), found.get(what, [])
        if ours != theirs:
            problem = f"{what}: the cost model charged {_shown(ours)}, the scheduled code shows {_shown(theirs)}"
            yield Problem(f"{model}: node {planned.layer.name}", problem, hint)


def _numbers(counts: LayerCounts) -> dict[str, list[int]]:
    """Every count by what it says, all of them where several say the same."""
    numbers = {"useful MACs": [counts.macs_useful], "issued MACs": [counts.macs_issued]}
    for move in counts.transfers:
        what = f"elements of {move.operand} from {move.source} to {move.destination}"
        numbers.setdefault(what, []).append(move.elements)
    for tile in counts.allocations:
        numbers.setdefault(f"elements of the tile of {tile.operand} in {tile.memory}", []).append(tile.elements)
    return numbers


def _shown(numbers: list[int]) -> str:
    return " and ".join(map(str, numbers)) or "none"


def _schedule(planned: PlannedLayer, profile: HardwareProfile, name: str, dtype: str) -> ScheduledLayer:
    if planned.cost.mapping is None:
        raise ValueError(f"{planned.layer.name} has no mapping")
    return schedule_layer(planned.layer.nest, planned.cost.mapping, profile, name, dtype)


def tir_text(layer: ScheduledLayer) -> str:
    """The schedule as TVMScript, ready to be read."""
    return str(layer.function.script()) + "\n"
