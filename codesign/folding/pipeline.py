"""A network as a streaming pipeline on an FPGA: every layer is a stage of its own, and all of them work at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil

from codesign.errors import CodesignError, DoesNotFitError, Problem
from codesign.folding.fastest import Choice, choices_of, fastest, least_needed
from codesign.folding.stage import Stage, Target
from codesign.hardware.board import Board
from codesign.hardware.resources import RESOURCES, Amounts, available
from codesign.importers.model import load_model
from codesign.vocabulary import OperationKind
from codesign.workload.layer import Layer
from codesign.workload.layers import layers_of

MATRIX_KINDS = frozenset(
    {OperationKind.CONVOLUTION, OperationKind.DEPTHWISE_CONVOLUTION, OperationKind.DENSE},
)
IN_THRESHOLDS = "in the thresholds of the stage before"
PASSING: dict[OperationKind, str] = {
    OperationKind.ACTIVATION: IN_THRESHOLDS,
    OperationKind.MAX_POOL: "pools as values pass",
    OperationKind.AVERAGE_POOL: "pools as values pass",
    OperationKind.ELEMENTWISE: "joins streams; the queue of the shorter branch is not counted",
    OperationKind.VIEW: "no work",
}
_HINT = "fewer --bits, a larger --share or another board may do"
PASSING_OPERATORS = {"BatchNormalization": IN_THRESHOLDS, "Concat": "joins streams", "Pad": "pads as values pass"}


@dataclass(frozen=True)
class Passing:
    """A layer that computes on values as they pass: no weights, no multipliers. elements: of its larger side."""

    layer: Layer
    note: str
    elements: int


@dataclass(frozen=True)
class StreamingPipeline:
    """A network on a board. stages: in the order of the network. budget: what it was allowed to take."""

    name: str
    target: Target
    stages: tuple[Choice | Passing, ...]
    budget: Amounts

    @property
    def choices(self) -> tuple[Choice, ...]:
        """The stages with weights."""
        return tuple(stage for stage in self.stages if isinstance(stage, Choice))

    @property
    def interval_cycles(self) -> int:
        """Cycles from one image to the next: those of the slowest stage."""
        return max(choice.cycles for choice in self.choices)

    @property
    def amounts(self) -> Amounts:
        """Resources of all stages."""
        return sum((choice.amounts for choice in self.choices), Amounts())

    def width(self, passing: Passing) -> int:
        """Elements a cycle a passing layer must handle to keep pace."""
        return ceil(passing.elements / self.interval_cycles)


def stream(model: str, target: Target, share: int, input_shapes: Mapping[str, tuple[int, ...]]) -> StreamingPipeline:
    """The fastest pipeline of a model (path of an ONNX or .pt2 file) within `share` percent of the board.

    Raises what `fold` does, and CodesignError for a model that cannot be read.
    """
    graph = load_model(model, input_shapes)
    where = str(graph.source or graph.name)
    return fold(graph.name, where, layers_of(graph), target, budget_of(target.board, share))


def budget_of(board: Board, share: int) -> Amounts:
    """`share` percent of a board: its DSP slices, block RAMs and either LUTs, or storage where LUTs have no formula."""
    whole = available(board)
    luts, storage_bits = (whole.luts, 0) if board.lut_inputs == 6 else (0, whole.storage_bits)
    return Amounts(*(figure * share // 100 for figure in (whole.dsp_slices, whole.block_rams, luts, storage_bits)))


def fold(name: str, where: str, layers: tuple[Layer, ...], target: Target, budget: Amounts) -> StreamingPipeline:
    """The fastest pipeline of layers in topological order; what follows the last stages is left to the processor.

    Raises CodesignError naming every layer that has no streaming form, DoesNotFitError with what is missing.
    """
    tail = _tail(layers)
    problems = [problem for layer in layers if layer.name not in tail for problem in _problems(layer, where)]
    if not any(layer.nest.kind in MATRIX_KINDS for layer in layers):
        problems.append(Problem(where, "no layer has weights to fold"))
    if problems:
        raise CodesignError.of(problems)
    parts = [
        Stage.of(layer) if layer.nest.kind in MATRIX_KINDS else _passing(layer, layer.name in tail) for layer in layers
    ]
    choices = [choices_of(part, target) for part in parts if isinstance(part, Stage)]
    best = fastest(choices, budget)
    if best is None:
        raise DoesNotFitError.of(_missing(where, choices, target.board, budget))
    chosen = iter(best)
    stages = tuple(next(chosen) if isinstance(part, Stage) else part for part in parts)
    return StreamingPipeline(name, target, stages, budget)


def _tail(layers: tuple[Layer, ...]) -> frozenset[str]:
    """Names of layers without a streaming form that no stage reads from, and of all that read from these."""
    read_by_stages: set[str] = set()
    for layer in reversed(layers):
        if layer.nest.kind in MATRIX_KINDS or read_by_stages.intersection(layer.outputs):
            read_by_stages.update(layer.inputs)
    left: set[str] = set()
    names: set[str] = set()
    for layer in layers:
        starts = not _streams(layer) and not read_by_stages.intersection(layer.outputs)
        if layer.nest.kind not in MATRIX_KINDS and (starts or left.intersection(layer.inputs)):
            left.update(layer.outputs)
            names.add(layer.name)
    return frozenset(names)


def _streams(layer: Layer) -> bool:
    return layer.nest.kind in MATRIX_KINDS or layer.nest.kind in PASSING or layer.op in PASSING_OPERATORS


def _passing(layer: Layer, is_tail: bool) -> Passing:
    nest = layer.nest
    if is_tail:
        return Passing(layer, "left to the processor", 0)
    note = PASSING_OPERATORS.get(layer.op) or PASSING[nest.kind]
    return Passing(layer, note, max(nest.input_elements, nest.output_elements))


def _problems(layer: Layer, where: str) -> Iterator[Problem]:
    """Why a layer has no streaming form; nothing when it has one."""
    nest, node = layer.nest, f"{where}: node {layer.name}"
    if nest.kind in MATRIX_KINDS:
        if nest.sizes[0] != 1:
            yield Problem(node, f"the batch is {nest.sizes[0]}, a stream takes one image at a time", "--input-shape")
        if nest.kind is OperationKind.DEPTHWISE_CONVOLUTION and nest.sizes[2] != 1:
            yield Problem(node, f"{nest.sizes[2]} outputs for each input channel have no streaming form here")
    elif not _streams(layer):
        hint = "`codesign estimate` costs the network all the same"
        yield Problem(node, f"{layer.op} ({nest.kind}) has no streaming form here", hint)


def _missing(where: str, choices: list[tuple[Choice, ...]], board: Board, budget: Amounts) -> Iterator[Problem]:
    """What even the smallest pipeline lacks: the one resource of which a little more would do, or else all it lacks."""
    limits = {index: has for index, has in enumerate(budget.all) if has}
    bounds = {index: least_needed(choices, budget, index) for index in limits}
    needed = {index: count for index, count in bounds.items() if count is not None and count > limits[index]}
    if needed:
        least = min(needed, key=lambda index: needed[index] / limits[index])
        needed = {least: needed[least]}
    else:
        alone = {index: sum(min(one.amounts.all[index] for one in stage) for stage in choices) for index in limits}
        needed = {index: count for index, count in alone.items() if count > limits[index]}
    for index, count in needed.items():
        problem = f"needs at least {count:,} {RESOURCES[index]}, the budget on {board.name} is {limits[index]:,}"
        yield Problem(where, problem, _HINT)
    if not needed:
        yield Problem(where, f"no foldings keep within all resources of {board.name} at once", _HINT)
