"""Predictions for the rows of docs/validation.md, by the public functions of the planner."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from validation_layers import batched, read_layers
from validation_rows import NETWORKS, Prediction, Row, Task

from codesign import __version__
from codesign.hardware.loading import load_profile
from codesign.hardware.profile import HardwareProfile
from codesign.mapping.objective import Objective
from codesign.planning.plan import Identity, Plan
from codesign.planning.planner import Network, plan_network
from codesign.vocabulary import Operand
from codesign.workload.layer import Layer


@dataclass(frozen=True)
class Outcome:
    """A planned task."""

    plan: Plan
    profile: HardwareProfile
    batch: int

    @property
    def gap(self) -> float:
        """The largest of its searches: 0 where every mapping is proven best."""
        return max((layer.cost.gap for layer in self.plan.layers), default=0.0)

    @property
    def seconds(self) -> float:
        """Of the whole batch."""
        return self.plan.totals.cycles / (self.profile.clock_mhz * 1e6)

    def moved_bytes(self, memory: str, operands: Iterable[Operand], *, reads: bool = True, writes: bool = True) -> int:
        """Bytes out of and into one memory."""
        parts = [part for layer in self.plan.layers for part in layer.cost.traffic]
        chosen = [part for part in parts if part.memory == memory and part.operand in tuple(operands)]
        return sum(part.read_bytes * reads + part.write_bytes * writes for part in chosen)

    def lanes(self) -> float:
        """Lanes in use, the mean over compute cycles."""
        layers = [layer.cost for layer in self.plan.layers if layer.cost.counts is not None]
        issued = sum(cost.counts.macs_issued for cost in layers if cost.counts is not None)
        return issued / sum(cost.compute_cycles for cost in layers)


Quantity = Callable[[Outcome, Row], float]
_FEATURE_MEMORY = "system_sram"  # behind port 0 of an Ethos-U: features, and weights on their way from flash


def _cycles(outcome: Outcome, _: Row) -> float:
    return outcome.plan.totals.cycles


def _milliseconds(outcome: Outcome, _: Row) -> float:
    return outcome.seconds * 1e3


def _compute_cycles(outcome: Outcome, _: Row) -> float:
    return sum(layer.cost.compute_cycles for layer in outcome.plan.layers)


def _unstalled_milliseconds(outcome: Outcome, _: Row) -> float:
    cycles = sum(layer.cost.cycles - layer.cost.stall_cycles for layer in outcome.plan.layers)
    return cycles / (outcome.profile.clock_mhz * 1e3)


def _frames_per_second(outcome: Outcome, row: Row) -> float:
    return row.cores * outcome.batch / outcome.seconds


def _rate(outcome: Outcome, row: Row) -> float:
    if row.unit == "TOPS":
        return 2 * outcome.plan.totals.macs / outcome.seconds / 1e12
    return _frames_per_second(outcome, row)


def _utilization(outcome: Outcome, row: Row) -> float:
    return outcome.plan.totals.utilization * (100 if row.unit.startswith("%") else 1)


def _active_percent(outcome: Outcome, row: Row) -> float:
    return 100 * _compute_cycles(outcome, row) / outcome.plan.totals.cycles


def _dram_kib(outcome: Outcome, _: Row) -> float:
    return outcome.moved_bytes(outcome.profile.off_chip, Operand) / 1024 / outcome.batch


def _dram_megabytes_per_second(outcome: Outcome, _: Row) -> float:
    return outcome.moved_bytes(outcome.profile.off_chip, Operand) / 1e6 / outcome.seconds


def _beats_read(outcome: Outcome, _: Row) -> float:
    return outcome.moved_bytes(_FEATURE_MEMORY, Operand, writes=False) / 8


def _beats_written(outcome: Outcome, _: Row) -> float:
    return outcome.moved_bytes(_FEATURE_MEMORY, Operand, reads=False) / 8


QUANTITIES: dict[str, Quantity] = {
    "total_latency": _milliseconds,
    "latency": _milliseconds,
    "latency_1thread": _milliseconds,
    "processing_latency": _unstalled_milliseconds,
    "throughput": _rate,
    "throughput_1thread": _frames_per_second,
    "throughput_multi": _frames_per_second,
    "cycles": _cycles,
    "total_cycles": _cycles,
    "npu_active": _cycles,
    "mac_cycles": _compute_cycles,
    "utilisation": _utilization,
    "hw_mac_utilisation": _utilization,
    "useful_macs": _utilization,
    "array_active_cycles": _active_percent,
    "active_pes": lambda outcome, _: outcome.lanes(),
    "glb_accesses": lambda outcome, _: outcome.moved_bytes("global_buffer", Operand) / 1e6,
    "dram_traffic": _dram_kib,
    "dram_bw_avg": _dram_megabytes_per_second,
    "axi0_read_beats": _beats_read,
    "axi0_write_beats": _beats_written,
}


def predict(rows: Sequence[Row], workers: int = 2) -> Iterator[Prediction]:
    """Predictions of the rows that have layers; tasks run in processes of their own."""
    wanted = [row for row in rows if row.layers]
    tasks = sorted({row.task for row in wanted})
    by_task = {task: [row for row in wanted if row.task == task] for task in tasks}
    if workers == 1:
        for task in tasks:
            yield from predict_task(task, by_task[task])
        return
    with ProcessPoolExecutor(workers) as pool:
        for found in pool.map(predict_task, tasks, by_task.values()):
            yield from found


def predict_task(task: Task, rows: Sequence[Row]) -> list[Prediction]:
    """Predictions of rows with the same task."""
    outcome = outcome_of(task)
    return [Prediction(row.row, QUANTITIES[row.quantity](outcome, row), outcome.gap) for row in rows]


def outcome_of(task: Task) -> Outcome:
    """Plan the layers of a task. Raises DoesNotFitError."""
    profile = with_settings(load_profile(task.machine).profile, task.settings)
    source, layers = read_layers(NETWORKS / f"{task.layers}.csv")
    chosen = [batched(layer, task.batch) for layer in layers if _in_scope(layer, task.scope)]
    network = Network(
        model=Identity(task.layers, ""),
        where=source,
        layers=chosen,
        outputs=frozenset(),
        parameters=sum(layer.parameters for layer in chosen),
        precision="",
        passes=(),
    )
    plan = plan_network(network, profile, Identity(task.machine, ""), Objective(task.objective), version=__version__)
    return Outcome(plan, profile, task.batch)


def _in_scope(layer: Layer, scope: str) -> bool:
    if scope == "convolutions":
        return layer.nest.has_macs
    return scope == "all" or layer.name in scope.split("+")


def with_settings(profile: HardwareProfile, settings: str) -> HardwareProfile:
    """The profile with what a row's source states otherwise: `clock_mhz=287 memories.dram.ports...=10`."""
    if not settings:
        return profile
    data = json.loads(profile.model_dump_json(exclude_none=False))
    for setting in settings.split():
        path, value = setting.split("=")
        *way, last = path.split(".")
        place = data
        for key in way:
            place = place[key]
        if last not in place:
            raise KeyError(f"{profile.name} has no {path}")
        place[last] = json.loads(value)
    return HardwareProfile.model_validate_json(json.dumps(data))
