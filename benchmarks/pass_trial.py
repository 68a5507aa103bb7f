"""Tries passes on one network: the same outputs, a second run that changes nothing, a planted error that is seen."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from network_weights import enliven, negate_a_weight, random_inputs

from codesign.errors import CodesignError
from codesign.graph.graph import Graph, constant_of, node_name
from codesign.importers.onnx_importer import import_proto
from codesign.rewriting.check import Face, problem_after
from codesign.rewriting.graph_pass import Applied, Declined, GraphPass, Outcome, PassContext
from codesign.rewriting.linear import linear_of

TOLERANCE = 1e-4
GAINS = (0, 1, 2, 0.5, 0.2, 1.5, 3, 4)
CALM = 3e-5  # rounding that grows more than that would say nothing of a rewrite
FELT = 1e-3  # a negated weight must change the outputs of a network that is worth comparing by that much
_FILTERS = 8  # of so many one weight is negated, until one is felt: what leads there may be zero

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Subject:
    """A network to try passes on. expected: what onnxruntime makes of `feeds` with the file itself, before any import.

    enlivened: its weights were scaled first, or its outputs would hardly have depended on its first layer.
    judged: difference, control and problem by pass and digest of what it made: other options often make the same.
    """

    graph: Graph
    feeds: Arrays
    expected: Arrays
    enlivened: bool
    judged: dict[tuple[str, bytes], tuple[float, float, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """One pass on one network. applied: places. declined: reasons without the names of nodes, and how often each.

    difference: of the outputs; control: the same with one weight negated; both None where nothing was changed.
    problem: what is wrong, or nothing. seconds: of processor time.
    """

    applied: int
    declined: Mapping[str, int]
    difference: float | None
    control: float | None
    problem: str
    seconds: float


def read_subject(path: Path) -> Subject:
    """Import a file, its weights scaled where they would prove nothing. Raises CodesignError."""
    for gain, place in product(GAINS, (0, 1)):
        proto = onnx.load(path)
        if gain:
            enliven(proto, gain)
        if place == 0:
            feeds = random_inputs(proto)
            copy = onnx.ModelProto()
            copy.CopyFrom(proto)  # the graph goes on reading its message, and this one gets a wrong weight
            graph = import_proto(copy, name=path.stem, sha256="", source=path)
            names = [str(value.name) for value in graph.outputs]
            expected = run(proto, feeds, names)
        calm = relative_difference(run(proto, nudged(feeds), names), expected) < CALM
        negate_a_weight(proto, place)
        if calm and relative_difference(run(proto, feeds, names), expected) > FELT:
            break
    else:
        raise CodesignError(path.name, "its outputs feel nothing, or the rounding of every number")
    return Subject(graph, feeds, expected, gain > 0)


def nudged(feeds: Arrays) -> Arrays:
    """The same inputs, off by about the rounding of ten operations."""
    return {
        name: array * array.dtype.type(1 + 1e-6) if array.dtype.kind == "f" else array for name, array in feeds.items()
    }


def run(proto: onnx.ModelProto, feeds: Arrays, names: list[str]) -> dict[str, np.ndarray]:
    """What onnxruntime makes of a model, its own rewrites off; names: tensors to show, outputs or not."""
    outputs = {value.name for value in proto.graph.output}
    shown = onnx.ModelProto()
    shown.CopyFrom(proto)
    shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in outputs)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1  # files are tried side by side
    options.log_severity_level = 4
    session: Any = onnxruntime.InferenceSession(shown.SerializeToString(), options, providers=["CPUExecutionProvider"])
    read = {value.name: feeds[value.name] for value in session.get_inputs()}
    return dict(zip(names, session.run(names, read), strict=True))


def relative_difference(found: Arrays, expected: Arrays) -> float:
    """The largest max|a - b| / max|b| of an output; infinite where shapes differ or a number is none."""
    return max(_relative(found[name], value) for name, value in expected.items())


def _relative(found: np.ndarray, expected: np.ndarray) -> float:
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    largest = float(np.abs(expected).max(initial=0.0))
    distance = float(np.abs(found.astype(np.float64) - expected).max(initial=0.0))
    return distance / largest if largest else float("inf" if distance else 0)


def try_pass(subject: Subject, step: GraphPass) -> Trial:
    """Run a pass on a copy of the network, twice; any exception it raises is its problem."""
    started = time.process_time()
    applied, declined, difference, control, problem = 0, Counter[str](), None, None, ""
    try:
        after = subject.graph.copy()
        outcomes = step.run(after, PassContext())
        applied = sum(isinstance(outcome, Applied) for outcome in outcomes)
        declined = Counter(_reasons(outcomes, subject.graph))
        problem = problem_after(after, Face.of(subject.graph), step.effect_here)
        if not applied and not same(after, subject.graph):
            problem = problem or "it applied nowhere and changed the graph"
        if applied and not problem:
            made = (step.name, sha256(ir.to_proto(after.model).SerializeToString(deterministic=True)).digest())
            if made not in subject.judged:
                subject.judged[made] = _judged(after, subject, step)
            difference, control, problem = subject.judged[made]
    except Exception as error:  # a pass may raise anything, and onnxruntime has errors of its own
        problem = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:300]}"
    return Trial(applied, declined, difference, control, problem, time.process_time() - started)


def _judged(after: Graph, subject: Subject, step: GraphPass) -> tuple[float, float, str]:
    """Difference, control and problem of a network a pass made."""
    difference = relative_difference(_outputs(after, subject), subject.expected)
    control = _control(after, subject)
    return difference, control, _fault(difference, control) or _second_run(after, step)


def _fault(difference: float, control: float) -> str:
    if not difference < TOLERANCE:
        return f"the outputs differ by {difference:.1e}"
    if not control > TOLERANCE:
        return f"a negated weight changes the outputs by {control:.1e} only: not caught"
    return ""


def _second_run(once: Graph, step: GraphPass) -> str:
    twice = once.copy()
    again = [outcome for outcome in step.run(twice, PassContext()) if isinstance(outcome, Applied)]
    if again:
        return f"a second run applied it again, at {again[0].where}: {again[0].detail}"
    return "" if same(twice, once) else "a second run changed the graph"


def same(one: Graph, other: Graph) -> bool:
    """Whether two graphs are the same to the last byte, in whatever order their weights are stored."""
    first, second = ({str(name): value.const_value for name, value in _stored(graph)} for graph in (one, other))
    if first.keys() != second.keys() or not all(_equal(tensor, second[name]) for name, tensor in first.items()):
        return False
    return _without_weights(one) == _without_weights(other)


def _stored(graph: Graph) -> Iterator[tuple[str, ir.Value]]:
    """Weights and other constants by name."""
    yield from graph.model.graph.initializers.items()


def _equal(one: ir.TensorProtocol | None, other: ir.TensorProtocol | None) -> bool:
    if one is other or one is None or other is None:
        return one is other
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def _without_weights(graph: Graph) -> bytes:
    bare = graph.model.clone()
    bare.graph.initializers.clear()
    proto = ir.to_proto(bare)
    proto.graph.value_info.sort(key=lambda value: value.name)
    return bytes(proto.SerializeToString(deterministic=True))


def _outputs(graph: Graph, subject: Subject) -> dict[str, np.ndarray]:
    return run(ir.to_proto(graph.model), subject.feeds, list(subject.expected))


def _control(after: Graph, subject: Subject) -> float:
    """By how much the outputs are off when the rewrite has one weight wrong."""
    worst = 0.0
    for last, filter_index in product((False, True), range(_FILTERS)):
        altered = after.copy()
        if not _plant(altered, subject.graph, filter_index, last):
            continue
        worst = max(worst, relative_difference(_outputs(altered, subject), subject.expected))
        if worst > TOLERANCE:
            break
    return worst


def _plant(graph: Graph, original: Graph, filter_index: int, last: bool) -> bool:
    """Negate the largest weight of a filter in the first layer the pass wrote, or else in the first layer of all.

    last: in the last layer of all, for a network in which those of the first are hardly felt.
    """
    old = {id(value.const_value) for _, value in _stored(original)}
    layers = [view for node in graph.nodes if (view := linear_of(node)) is not None and constant_of(view.w) is not None]
    layers = layers[-1:] if last else sorted(layers, key=lambda view: id(view.w.const_value) in old)
    weights = constant_of(layers[0].w) if layers else None
    if weights is None or filter_index >= len(weights):
        return False
    values = weights.copy()
    values[filter_index].flat[np.abs(values[filter_index]).argmax()] *= -1
    layers[0].w.const_value = ir.tensor(values, name=layers[0].w.name)
    return True


def _reasons(outcomes: list[Outcome], graph: Graph) -> Iterator[str]:
    """Why a pass declined, every name of a node or tensor replaced by an ellipsis."""
    names = {node_name(node) for node in graph.nodes}
    names |= {str(value.name) for node in graph.nodes for value in (*node.outputs, *node.inputs) if value is not None}
    for outcome in outcomes:
        if isinstance(outcome, Declined):
            yield " ".join(_without_name(word, names) for word in outcome.reason.split(" "))


def _without_name(word: str, names: set[str]) -> str:
    bare = word.strip("(),;:.'`")
    return word.replace(bare, "...") if bare in names else word
