"""Inputs that outputs are compared on: given ones, or seeded random numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from codesign.errors import CodesignError, Problem
from codesign.graph.graph import Graph, shape_of

SEED = 0
_LARGEST_INDEX = 8
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Samples:
    """Inputs by name, one dictionary a run. source: what they are, in words. given: not synthetic."""

    source: str
    given: bool
    runs: tuple[Arrays, ...]


def synthetic(graph: Graph, count: int = 1) -> Samples:
    """Runs of standard normal numbers (small integers, true and false for inputs of these types)."""
    generator = np.random.default_rng(SEED)
    runs = tuple({str(value.name): _random(value, generator) for value in graph.inputs} for _ in range(count))
    return Samples(f"synthetic data (standard normal, seed {SEED})", given=False, runs=runs)


def given(graph: Graph, arrays: Mapping[str, np.ndarray], where: str) -> Samples:
    """Arrays by input name; the first dimension may hold several batches. Raises CodesignError with all problems."""
    problems: list[Problem] = []
    parts = {str(value.name): _batches(value, arrays, where, problems) for value in graph.inputs}
    if not problems and len(counts := {len(batches) for batches in parts.values()}) > 1:
        hint = "the first dimension of every array must hold as many"
        problems.append(Problem(where, f"{' and '.join(map(str, sorted(counts)))} samples for different inputs", hint))
    if problems:
        raise CodesignError.of(problems)
    count = min((len(batches) for batches in parts.values()), default=0)
    runs = tuple({name: batches[at] for name, batches in parts.items()} for at in range(count))
    return Samples(f"{where}, {count} sample{'s' * (count != 1)}", given=True, runs=runs)


def shuffled(run: Arrays) -> Arrays:
    """The same numbers in another order: an input that says something else."""
    generator = np.random.default_rng(SEED + 1)
    return {name: generator.permutation(array.ravel()).reshape(array.shape) for name, array in run.items()}


def resized(run: Arrays, graph: Graph) -> Arrays | None:
    """The images of a run at the sizes a network takes, bilinear; None when an input differs in more than that."""
    found: Arrays = {}
    for value in graph.inputs:
        name, wanted = str(value.name), shape_of(value)
        array = run[name]
        if array.shape != wanted and (array.shape[:2] != wanted[:2] or len(wanted) != 4 or array.dtype.kind != "f"):
            return None
        for axis in (2, 3) if array.shape != wanted else ():
            array = _interpolated(array, axis, wanted[axis])
        found[name] = array
    return found


def fitted(samples: Samples, graph: Graph) -> Samples:
    """The samples at the sizes a network takes after passes. Raises CodesignError where more than sizes differ."""
    runs = [resized(run, graph) for run in samples.runs]
    found = tuple(run for run in runs if run is not None)
    if len(found) < len(runs):
        problem = "they fit the network as it was imported, and not as it is after the passes before"
        raise CodesignError(samples.source, problem, "run those passes later, or without this data")
    return replace(samples, runs=found)


def batches(graph: Graph, items: Iterable[Mapping[str, np.ndarray] | np.ndarray], where: str) -> Samples:
    """What an iterator gives: arrays by input name, or one array for a network with one input.

    Raises CodesignError with all problems of the first item that does not fit, and when there is none at all.
    """
    names = [str(value.name) for value in graph.inputs]
    runs: list[Arrays] = []
    for number, item in enumerate(items, 1):
        arrays = {names[0]: np.asarray(item)} if len(names) == 1 and not isinstance(item, Mapping) else item
        if not isinstance(arrays, Mapping):
            hint = f"give arrays by name: {', '.join(names)}"
            raise CodesignError(where, f"item {number} is one array, and the network has {len(names)} inputs", hint)
        runs += given(graph, arrays, f"{where}, item {number}").runs
    if not runs:
        raise CodesignError(where, "it gave nothing", "an iterator can be run through once")
    return Samples(f"{where}, {len(runs)} sample{'s' * (len(runs) != 1)}", given=True, runs=tuple(runs))


def _interpolated(array: np.ndarray, axis: int, size: int) -> np.ndarray:
    """Linear along one axis; pixels have their centre at half their width."""
    old = array.shape[axis]
    places = np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, old - 1)
    below = np.floor(places).astype(int)
    share = (places - below).reshape([-1 if at == axis else 1 for at in range(array.ndim)])
    above = np.minimum(below + 1, old - 1)
    mixed = np.take(array, below, axis) * (1 - share) + np.take(array, above, axis) * share
    return np.asarray(mixed, array.dtype)


def _random(value: ir.Value, generator: np.random.Generator) -> np.ndarray:
    dtype, shape = _dtype(value), shape_of(value)
    if dtype.kind == "b":
        return generator.random(shape) < 0.5
    if dtype.kind in "iu":
        return generator.integers(0, _LARGEST_INDEX, shape).astype(dtype)
    return generator.standard_normal(shape).astype(dtype)


def _dtype(value: ir.Value) -> np.dtype:
    return np.dtype(np.float32) if value.dtype is None else np.dtype(value.dtype.numpy())


def _batches(
    value: ir.Value, arrays: Mapping[str, np.ndarray], where: str, problems: list[Problem]
) -> tuple[np.ndarray, ...]:
    name, wanted, dtype = str(value.name), shape_of(value), _dtype(value)
    array = arrays.get(name)
    if array is None:
        problems.append(Problem(where, f"no array for the input {name}", f"it holds {', '.join(arrays) or 'none'}"))
    elif array.shape[1:] != wanted[1:] or array.ndim != len(wanted) or len(array) % wanted[0] or not len(array):
        what = f"{name} has the shape {_times(array.shape)}, and the network takes {_times(wanted)}"
        problems.append(Problem(where, what, "the first dimension may be a multiple, for several samples"))
    elif not np.can_cast(array.dtype, dtype, "same_kind"):
        problems.append(Problem(where, f"{name} holds {array.dtype}, and the network takes {dtype}"))
    elif array.dtype.kind == "f" and not np.isfinite(array).all():
        problems.append(Problem(where, f"{name} holds numbers that are not finite"))
    else:
        return tuple(np.split(array.astype(dtype), len(array) // wanted[0]))
    return ()


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"
