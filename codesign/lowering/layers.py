"""Every mapped layer of a plan as scheduled TIR, held against what the cost model charged."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import fields

from codesign.errors import DoesNotFitError, Problem
from codesign.hardware.profile import HardwareProfile
from codesign.lowering.counts import counts_of_function
from codesign.lowering.schedule import ScheduledLayer, schedule_layer
from codesign.mapping.mapping import LayerCounts
from codesign.planning.plan import Plan, PlannedLayer


def schedule_layers(
    plan: Plan, profile: HardwareProfile, on_layer: Callable[[str, int, int], None] | None = None
) -> dict[str, ScheduledLayer]:
    """Scheduled TIR by layer name; layers with the same nest share one function.

    MACs, transfers and allocations are read back off every function. Raises DoesNotFitError naming every layer whose
    counts differ from the plan's, number by number. on_layer: told name, number from 1, and how many functions there
    are.
    """
    first = [planned for planned in plan.layers if planned.cost.mapping is not None and not planned.repeats_of]
    functions: dict[str, ScheduledLayer] = {}
    problems: list[Problem] = []
    for number, planned in enumerate(first, 1):
        if on_layer is not None:
            on_layer(planned.layer.name, number, len(first))
        layer = _schedule(planned, profile, f"layer_{number:03}_{identifier(planned.layer.name)}")
        functions[planned.layer.name] = layer
        counted = counts_of_function(layer.function, profile.off_chip)
        problems.extend(count_problems(plan.model.name, planned, counted))
    if problems:
        raise DoesNotFitError.of(problems)
    mapped = (planned for planned in plan.layers if planned.cost.mapping is not None)
    return {planned.layer.name: functions[planned.repeats_of or planned.layer.name] for planned in mapped}


def identifier(name: str) -> str:
    """A layer's name as part of a C identifier."""
    return re.sub(r"[^0-9A-Za-z]+", "_", name).strip("_")[:48]


def count_problems(model: str, planned: PlannedLayer, counted: LayerCounts) -> Iterator[Problem]:
    """Where the scheduled code and the cost model disagree on one layer."""
    charged = planned.cost.counts
    if charged is None or charged == counted:
        return
    where = f"{model}: node {planned.layer.name}"
    for field in fields(LayerCounts):
        ours, theirs = getattr(charged, field.name), getattr(counted, field.name)
        if ours != theirs:
            what = f"{field.name}: the cost model charged {ours}, the scheduled code shows {theirs}"
            yield Problem(where, what, "this is a fault of codesign: please report it with the model and the profile")


def _schedule(planned: PlannedLayer, profile: HardwareProfile, name: str) -> ScheduledLayer:
    if planned.cost.mapping is None:
        raise ValueError(f"{planned.layer.name} has no mapping")
    return schedule_layer(planned.layer.nest, planned.cost.mapping, profile, name)


def tir_text(layer: ScheduledLayer) -> str:
    """The schedule as TVMScript, ready to be read."""
    return str(layer.function.script()) + "\n"
