"""Samples for a network from an .npz file: its inputs by name and, where there are any, labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from codesign.artifacts.arrays import read_arrays
from codesign.errors import CodesignError, Problem, did_you_mean
from codesign.graph.graph import Graph, shape_of
from codesign.training.batch import Batch

LABELS = "labels"


@dataclass(frozen=True)
class Samples:
    """Inputs in the network's order, samples along the first axis of each. per_step: how many go in at once."""

    inputs: tuple[np.ndarray, ...]
    labels: np.ndarray | None
    per_step: int

    def steps(self) -> Iterator[tuple[tuple[np.ndarray, ...], np.ndarray | None]]:
        """Inputs and labels of one step after the other."""
        for start in range(0, len(self.inputs[0]), self.per_step):
            part = slice(start, start + self.per_step)
            yield tuple(array[part] for array in self.inputs), None if self.labels is None else self.labels[part]


def read_samples(graph: Graph, batch: Batch, data: Path) -> Samples:
    """The samples of a file, one a step, or as many as a network with a batch of its own takes (`batch`).

    Raises CodesignError when the file cannot be read, and for names, shapes, types and labels that do not fit, all at
    once.
    """
    if batch.size == 0:
        raise CodesignError(str(graph.source or graph.name), f"takes no samples one by one: {batch.fixed_by}")
    arrays, where = read_arrays(data), str(data)
    problems = [*_names(graph, arrays, where), *_inputs(graph, arrays, where)]
    if problems:
        raise CodesignError.of(problems)
    names = [str(value.name) for value in graph.inputs]
    per_step = batch.size if batch.fixed_by else 1
    labels = arrays[LABELS] if LABELS in arrays and LABELS not in names else None
    count = _count({name: len(arrays[name]) for name in names}, per_step, batch, where)
    if labels is not None:
        _check_labels(graph, labels, count, batch.size, where)
    types = [value.dtype.numpy() if value.dtype is not None else np.dtype(np.float32) for value in graph.inputs]
    inputs = tuple(np.ascontiguousarray(arrays[name], kind) for name, kind in zip(names, types, strict=True))
    return Samples(inputs, None if labels is None else labels.astype(np.int64), per_step)


def _names(graph: Graph, arrays: Mapping[str, np.ndarray], where: str) -> Iterator[Problem]:
    names = [str(value.name) for value in graph.inputs]
    for name in names:
        if name not in arrays:
            held = ", ".join(arrays) or "nothing"
            yield Problem(where, f"no array is called {name}, which is an input of the network", f"it holds {held}")
    for name in arrays:
        if name not in (*names, LABELS):
            hint = did_you_mean(name, (*names, LABELS)) or f"names are {', '.join((*names, LABELS))}"
            yield Problem(where, f"{name} is no input of the network", hint)


def _inputs(graph: Graph, arrays: Mapping[str, np.ndarray], where: str) -> Iterator[Problem]:
    for value in graph.inputs:
        name, kind = str(value.name), value.dtype.numpy() if value.dtype is not None else np.dtype(np.float32)
        array = arrays.get(name)
        if array is None:
            continue
        if array.ndim == 0 or array.shape[1:] != shape_of(value)[1:]:
            wanted = ", ".join(map(str, ("any number", *shape_of(value)[1:])))
            yield Problem(where, f"{name} has shape {list(array.shape)}; the network takes [{wanted}]")
        if array.dtype.kind not in "biuf" or not np.can_cast(array.dtype, kind, "same_kind"):
            yield Problem(where, f"{name} is of type {array.dtype}; the network takes {kind}")
        elif not np.isfinite(array).all():
            yield Problem(where, f"{name} has numbers that are not finite")


def _count(counts: Mapping[str, int], per_step: int, batch: Batch, where: str) -> int:
    """How many samples there are. Raises CodesignError when inputs disagree or they do not fill the network's batch."""
    [count, *others] = dict.fromkeys(counts.values())
    if others:
        each = ", ".join(f"{name} {number}" for name, number in counts.items())
        raise CodesignError(where, f"inputs have different numbers of samples: {each}")
    if count == 0:
        raise CodesignError(where, "holds no samples")
    if count % per_step:
        raise CodesignError(where, f"holds {count} samples; the network takes {per_step} at once", batch.fixed_by)
    return count


def _check_labels(graph: Graph, labels: np.ndarray, count: int, batch_size: int, where: str) -> None:
    """Raises CodesignError unless labels are classes of the first output, one for every place it has classes for."""
    output = graph.outputs[0]
    shape, kind = shape_of(output), output.dtype.numpy() if output.dtype is not None else np.dtype(np.float32)
    if len(shape) < 2 or shape[0] != batch_size or kind.kind != "f":
        raise CodesignError(
            where,
            f"labels need logits of [samples, classes, ...]; the first output, {output.name}, is {kind} {list(shape)}",
        )
    wanted = (count, *shape[2:])
    if labels.dtype.kind not in "iu":
        raise CodesignError(where, f"labels are of type {labels.dtype}; they must be integers")
    if labels.shape != wanted:
        raise CodesignError(where, f"labels have shape {list(labels.shape)}, not {list(wanted)}")
    if labels.min() < 0 or labels.max() >= shape[1]:
        found = f"{labels.min()} to {labels.max()}"
        raise CodesignError(where, f"labels are {found}; {output.name} has classes 0 to {shape[1] - 1}")
