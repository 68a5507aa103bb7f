"""Runs a pipeline over a copy of a graph, checks it after every pass, and writes dumps when asked."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from codesign.errors import CodesignError, DoesNotFitError, did_you_mean
from codesign.graph.graph import Graph
from codesign.rewriting.check import Face, problem_after
from codesign.rewriting.graph_pass import Applied, Declined, GraphPass, PassContext
from codesign.rewriting.pipeline import Pipeline
from codesign.rewriting.record import PassRecord, QuantizationRecord

_LOG = logging.getLogger(__name__)
_PROTOBUF_LIMIT_BYTES = 2**31 - 2**24  # protobuf's own limit, less room for everything that is no weight


@dataclass(frozen=True)
class Progress:
    """The pass about to run: its number from 1, how many there are, its name."""

    number: int
    total: int
    name: str


def run_pipeline(
    graph: Graph,
    pipeline: Pipeline,
    context: PassContext,
    *,
    stop_after: str | None = None,
    dump_directory: Path | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> tuple[Graph, tuple[PassRecord, ...]]:
    """The rewritten copy of a graph, and what every pass did; the graph itself is left as it is.

    stop_after: the last pass to run. dump_directory: gets NN-passname.onnx after every pass.
    Raises CodesignError for a stop_after that is not in the pipeline or a dump that cannot be written, and
    DoesNotFitError, naming the pass, when the graph is broken after a pass.
    """
    steps = _steps(pipeline, stop_after)
    if dump_directory is not None:
        _make(dump_directory)
    current, records = graph.copy(), []
    for number, step in enumerate(steps, 1):
        if on_progress is not None:
            on_progress(Progress(number, len(steps), step.name))
        records.append(_run_pass(current, step, context, graph))
        if dump_directory is not None:
            _dump(current, dump_directory / f"{number:02}-{step.name}.onnx")
    return current, tuple(records)


def _steps(pipeline: Pipeline, stop_after: str | None) -> tuple[GraphPass, ...]:
    names = [step.name for step in pipeline.passes]
    if stop_after is None:
        return pipeline.passes
    if stop_after not in names:
        runs = f"it runs {', '.join(names)}" if names else "it runs no pass"
        hint = did_you_mean(stop_after, dict.fromkeys(names)) or runs
        raise CodesignError("--stop-after", f"{stop_after} is not in the pipeline {pipeline.name}", hint)
    last = len(names) - names[::-1].index(stop_after)
    return pipeline.passes[:last]


def _run_pass(graph: Graph, step: GraphPass, context: PassContext, original: Graph) -> PassRecord:
    before = Face.of(graph)
    start = time.perf_counter()
    try:
        outcomes = step.run(graph, context)
    except Exception as error:
        error.add_note(f"while the pass {step.name} ran on {graph.name}")
        raise
    seconds = time.perf_counter() - start
    _check(graph, step, before, original)
    applied = [outcome for outcome in outcomes if isinstance(outcome, Applied)]
    declined = tuple(outcome for outcome in outcomes if isinstance(outcome, Declined))
    noise = next((outcome for outcome in outcomes if isinstance(outcome, QuantizationRecord)), None)
    for outcome in applied:
        _LOG.info("%s: %s: %s", step.name, outcome.where, outcome.detail)
    _LOG.info("%s: applied %d, declined %d, %.3f s", step.name, len(applied), len(declined), seconds)
    return PassRecord(step.name, str(step.effect_here), len(applied), declined, seconds, noise)


def _check(graph: Graph, step: GraphPass, before: Face, original: Graph) -> None:
    problem = problem_after(graph, before, step.effect_here)
    if not problem:
        return
    own = problem_after(original, Face.of(original), step.effect_here)
    if own:
        raise CodesignError(original.name, f"before any pass: {own}", "the model is not valid ONNX")
    hint = "this is a fault of the pass, not of the model; run without it"
    raise DoesNotFitError(f"pass {step.name}", f"{graph.name}: {problem}", hint)


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CodesignError("--dump-graphs", f"{directory} cannot be made: {error.strerror}") from error


def _dump(graph: Graph, path: Path) -> None:
    # A clone with the weights in memory: their paths, when they are external, are relative to the model's own folder.
    model = ir.external_data.load_to_model(graph.model.clone())
    size_bytes = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    try:
        ir.save(model, path, external_data=f"{path.name}.data" if size_bytes > _PROTOBUF_LIMIT_BYTES else None)
    except OSError as error:
        raise CodesignError("--dump-graphs", f"{path} cannot be written: {error.strerror}") from error
