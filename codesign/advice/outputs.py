"""What a rewrite does to the outputs, run by onnxruntime before and after."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import inf, log10

import numpy as np
import onnx_ir as ir

from codesign.advice.advice import OutputChange
from codesign.graph.graph import Graph, shape_of
from codesign.graph.samples import Arrays, Samples, resized, shuffled

LEAST_DEPENDENCE = 1e-3  # of an output's size; what another input changes less hardly depends on it
_FATAL = 4  # onnxruntime's log level: its complaints come back as exceptions


class CannotRunError(Exception):
    """onnxruntime refuses a network."""


@dataclass(frozen=True)
class Judge:
    """Holds rewritten networks against the original one on the same samples."""

    original: Graph
    samples: Samples

    def changes(self, after: Graph) -> tuple[OutputChange, ...]:
        """One for each output, in order."""
        try:
            return tuple(self._changes(after))
        except CannotRunError as error:
            note = f"onnxruntime cannot run it: {error}"
            return tuple(OutputChange(str(value.name), None, None, note) for value in self.original.outputs)

    def _changes(self, after: Graph) -> Iterator[OutputChange]:
        names = [str(value.name) for value in self.original.outputs]
        runs, note = self._runs(after)
        if runs is None:
            yield from (OutputChange(name, None, None, note) for name in names)
            return
        found = None
        for before, now in zip(self.original.outputs, after.outputs, strict=True):
            name, old, new = str(before.name), shape_of(before), shape_of(now)
            if old != new:
                yield OutputChange(name, None, None, f"not comparable: it was {_times(old)} and is {_times(new)} now")
                continue
            found = _outputs(after, runs) if found is None else found
            yield _change(name, self._before[name], found[name], self._dependence[name], note)

    def _runs(self, after: Graph) -> tuple[tuple[Arrays, ...] | None, str]:
        """The samples as the rewritten network takes them, and what was done to them."""
        pairs = [(shape_of(old), shape_of(new)) for old, new in zip(self.original.inputs, after.inputs, strict=True)]
        changed = [(old, new) for old, new in pairs if old != new]
        if not changed:
            return self.samples.runs, ""
        was, now = (_times(shape) for shape in changed[0])
        if not self.samples.given:
            return None, f"not comparable: the input was {was} and is {now} now; give pictures with --data"
        runs = [resized(run, after) for run in self.samples.runs]
        if any(run is None for run in runs):
            return None, f"not comparable: the input was {was} and is {now} now"
        return tuple(run for run in runs if run is not None), f"on data resized from {was} to {now}"

    @cached_property
    def _before(self) -> Arrays:
        return _outputs(self.original, self.samples.runs)

    @cached_property
    def _dependence(self) -> dict[str, float]:
        """Of each output, how much an input of the same numbers in another order changes it."""
        other = _outputs(self.original, (shuffled(self.samples.runs[0]),))
        return {name: _relative(other[name], found[:1]) for name, found in self._before.items()}


def _change(name: str, before: np.ndarray, after: np.ndarray, dependence: float, note: str) -> OutputChange:
    if before.dtype.kind not in "f":
        share = float((before == after).mean()) if before.size else 1.0
        return OutputChange(name, None, None, _joined(f"{share:.1%} of its {before.dtype} values are the same", note))
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        return OutputChange(name, None, None, _joined("it holds numbers that are not finite", note))
    if dependence < LEAST_DEPENDENCE:
        share_text = f"another input changes it by {dependence:.1e} of its size"
        return OutputChange(name, None, None, _joined(f"proves nothing: {share_text}", note))
    relative = _relative(after, before)
    if relative == 0:
        return OutputChange(name, 1.0, None, _joined("the same numbers in floating point", note))
    if relative > dependence:
        note = _joined(f"changed more than by another input ({dependence:.1e} of its size)", note)
    return OutputChange(name, _cosine(after, before), -20 * log10(relative), note)


def _joined(*notes: str) -> str:
    return "; ".join(filter(None, notes))


def _relative(after: np.ndarray, before: np.ndarray) -> float:
    """Size of the difference over the size of what it differs from (root mean squares)."""
    a, b = after.astype(np.float64).ravel(), before.astype(np.float64).ravel()
    size, distance = float(np.linalg.norm(b)), float(np.linalg.norm(a - b))
    return distance / size if size else (inf if distance else 0.0)


def _cosine(after: np.ndarray, before: np.ndarray) -> float:
    a, b = after.astype(np.float64).ravel(), before.astype(np.float64).ravel()
    sizes = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / sizes if sizes else 0.0


def _outputs(graph: Graph, runs: tuple[Arrays, ...]) -> Arrays:
    """Outputs by name, those of all runs one after the other. Raises CannotRunError."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    options.intra_op_num_threads = 1
    # Its optimiser is no reference: it moves a Pad with zeros into MaxPool, which pads with minus infinity.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    names = [str(value.name) for value in graph.outputs]
    try:
        model = ir.to_proto(graph.model).SerializeToString()
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        found = [session.run(names, run) for run in runs]
    except Exception as error:  # protobuf and onnxruntime raise types of their own
        raise CannotRunError(str(error).strip().splitlines()[0]) from error
    return {name: np.stack([outputs[at] for outputs in found]) for at, name in enumerate(names)}


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"
