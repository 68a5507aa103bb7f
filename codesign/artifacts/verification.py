"""Holds every artifact of a build against the original model: largest relative difference per output and per layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from codesign.artifacts.c_folder.borders import borders_of
from codesign.artifacts.c_folder.prefix import FOLDER
from codesign.artifacts.c_runner import run_c
from codesign.artifacts.integers import IntegerArrays, integer_arrays
from codesign.artifacts.manifest import Manifest, changed_files, read_manifest, sha256_of
from codesign.artifacts.onnx_runner import OnnxRunner, open_model
from codesign.errors import CodesignError
from codesign.importers.model import load_model
from codesign.lowering.interface import HOST_TAIL_FILE, LIBRARY_FILE, Interface, Tensor
from codesign.planning.plan import Plan

MODEL_FILE = "model.onnx"
C_FILE = f"{FOLDER}/model.c"
PLAN_FILE = "plan.json"
ORIGINAL = "the original"
INTEGERS = "codesign.numerics"
_ROUNDED = f"not all scales are powers of two: onnxruntime rounds in float32 what {INTEGERS} computes exactly"
FLOAT_TOLERANCE = 1e-4
SEED = 0
_LARGEST_RANDOM_INDEX = 8

Arrays = dict[str, np.ndarray]
Run = Callable[[Mapping[str, np.ndarray]], tuple[Arrays, Arrays]]  # -> outputs, layers
Finish = Callable[[Mapping[str, np.ndarray]], Arrays]  # what the host is handed -> what it makes of it


@dataclass(frozen=True)
class Difference:
    """One tensor of one artifact against a reference.

    value: max|a - b| / max|b|; infinite when shapes differ, or where one has a number and the other has none. constant:
    the one value the whole reference tensor has (a comparison that proves nothing), else None. expected: passes that
    change the numbers lie between the two, so a difference is no error.
    """

    artifact: str
    reference: str
    tensor: str
    is_output: bool
    value: float
    tolerance: float
    constant: float | None = None
    expected: bool = False

    @property
    def ok(self) -> bool:
        """Within tolerance, or not expected to be."""
        return self.expected or self.value <= self.tolerance

    @property
    def verdict(self) -> str:
        """The word behind the number in the report."""
        if not self.ok:
            return "DIFFERS"
        if self.constant is not None:
            return f"proves nothing: every value is {self.constant:g}"
        return "expected to differ" if self.expected else "ok"


@dataclass(frozen=True)
class VerificationReport:
    """What was compared. notes: what a reader must know to judge it, data first."""

    differences: tuple[Difference, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Nothing differs, and every artifact held strictly has an output that is not the same number all over."""
        strict = [d for d in self.differences if not d.expected]
        proven = {d.artifact for d in strict if d.is_output and d.constant is None}
        return bool(strict) and all(d.ok for d in strict) and proven == {d.artifact for d in strict}

    def __str__(self) -> str:
        lines = list(self.notes)
        for pair in dict.fromkeys((d.artifact, d.reference) for d in self.differences):
            lines.append(f"{pair[0]} against {pair[1]}: largest relative difference")
            lines += [_line(d) for d in self.differences if (d.artifact, d.reference) == pair]
        failed = sum(not d.ok for d in self.differences)
        if self.ok:
            return "\n".join([*lines, f"verified: {len(self.differences)} comparisons hold"])
        verdict = f"{failed} of {len(self.differences)} comparisons fail" if failed else "nothing was proven"
        return "\n".join([*lines, f"FAILED: {verdict}"])


def verify(build_folder: Path, data: Mapping[str, np.ndarray] | None, model: Path | None) -> VerificationReport:
    """Run every artifact in a build folder and the original model on the same data and compare.

    data: one array per input, by tensor name; without it, random data with a fixed seed. model: the original, when it
    has moved since. Where passes changed the numbers, the library is held strictly against model.onnx instead. Where
    the host runs the end of the network, it is given the reference's tensors: among scores that are nearly equal the
    smallest difference picks other boxes, which says nothing about the artifact.
    Raises CodesignError when the folder, the data or the original is not what it should be.
    """
    from codesign.lowering.runtime import check_inputs

    manifest, interface = read_manifest(build_folder), Interface.read(build_folder)
    inputs = dict(data) if data is not None else random_inputs(interface)
    check_inputs(interface, inputs, str(build_folder))
    notes = [f"data: {'given' if data is not None else f'random (seed {SEED}), because none was given'}"]
    changed = changed_files(build_folder, manifest)
    if changed:
        notes.append(f"changed since it was built: {', '.join(changed)}")
    runs = _artifacts(build_folder, interface)
    artifacts = {name: run(inputs) for name, run in runs.items() if (build_folder / name).is_file()}
    original = _original(manifest, model, interface, inputs, notes)
    passes = _passes_that_change(build_folder)
    if passes:
        notes.append(f"{', '.join(passes)} change the numbers: {MODEL_FILE} is expected to differ from {ORIGINAL}")
    finish = _finish(build_folder, interface, inputs, notes)
    integers = integer_arrays(build_folder / MODEL_FILE, inputs)
    if integers is None:
        differences = _differences(artifacts, original, finish, expected=bool(passes))
    else:
        notes += [] if integers.exact_in_float32 else [_ROUNDED]
        differences = _integer_differences(artifacts, original, integers, finish, changed=bool(passes))
    return VerificationReport(tuple(differences), tuple(notes))


def random_inputs(interface: Interface) -> Arrays:
    """Standard normal numbers, bytes of all values, small integers; the same ones every time."""
    generator = np.random.default_rng(SEED)
    return {tensor.name: _random(tensor, generator) for tensor in interface.inputs}


def relative_difference(found: np.ndarray, reference: np.ndarray) -> float:
    """max|a - b| / max|b|, infinite for other shapes and for infinities or NaN that only one of them has."""
    if found.shape != reference.shape:
        return float("inf")
    a, b = found.astype(np.float64), reference.astype(np.float64)
    differing = ~((a == b) | (np.isnan(a) & np.isnan(b)))
    if not differing.any():
        return 0.0
    largest = np.abs(b[np.isfinite(b)]).max(initial=0.0)
    difference = np.abs(a[differing] - b[differing]).max()
    if not np.isfinite(difference) or largest == 0.0:
        return float("inf")
    return float(difference / largest)


def _line(difference: Difference) -> str:
    kind = "output" if difference.is_output else "layer"
    return f"  {kind:6}  {difference.tensor:56}  {difference.value:8.1e}  {difference.verdict}"


def _random(tensor: Tensor, generator: np.random.Generator) -> np.ndarray:
    dtype = np.dtype(tensor.dtype)
    if dtype.kind == "b":
        return generator.random(tensor.shape) < 0.5
    if dtype.kind in "iu":
        largest = np.iinfo(dtype).max + 1 if dtype.itemsize == 1 else _LARGEST_RANDOM_INDEX
        return generator.integers(0, largest, tensor.shape).astype(dtype)
    return generator.standard_normal(tensor.shape).astype(dtype)


def _artifacts(folder: Path, interface: Interface) -> dict[str, Run]:
    """How each kind of artifact is run; kinds a folder does not hold are left out by the caller."""
    return {
        MODEL_FILE: lambda inputs: _run_model(folder, interface, inputs),
        LIBRARY_FILE: lambda inputs: _run_library(folder, inputs),
        C_FILE: lambda inputs: (_run_c(folder, inputs), {}),
    }


def _run_model(folder: Path, interface: Interface, inputs: Mapping[str, np.ndarray]) -> tuple[Arrays, Arrays]:
    return open_model(folder / MODEL_FILE, _layer_names(interface)).run(inputs)


def _finish(folder: Path, interface: Interface, inputs: Mapping[str, np.ndarray], notes: list[str]) -> Finish:
    """The part of the network that runs on the host, if there is one."""
    if not interface.host_tail:
        return lambda handed: {}
    notes.append(f"{HOST_TAIL_FILE} is given what the reference hands it")
    tail = open_model(folder / HOST_TAIL_FILE)
    return lambda handed: tail.run({**inputs, **handed})[0]


def _run_c(folder: Path, inputs: Mapping[str, np.ndarray]) -> Arrays:
    """Outputs as numbers, whether the C makes numbers or codes."""
    borders = borders_of(load_model(folder / MODEL_FILE, {}, None))
    return borders.numbers(run_c(folder / FOLDER, borders.interface, borders.coded(inputs)))


def _run_library(folder: Path, inputs: Mapping[str, np.ndarray]) -> tuple[Arrays, Arrays]:
    from codesign.lowering.runtime import load_library

    library = load_library(folder)
    outputs, layers = library.run(inputs), library.run_layers(inputs)
    return outputs, {name: layers[name] for name in _layer_names(library.interface) if name not in outputs}


def _layer_names(interface: Interface) -> list[str]:
    return [tensor.name for tensor in interface.layers]


def _original(
    manifest: Manifest, given: Path | None, interface: Interface, inputs: Mapping[str, np.ndarray], notes: list[str]
) -> tuple[Arrays, Arrays] | None:
    """What the original model makes of the inputs, or None with a note why it cannot be asked."""
    path = given or (Path(manifest.model.source) if manifest.model.source else None)
    if path is None or path.suffix != ".onnx":
        kind = path or "a PyTorch module"
        notes.append(f"{ORIGINAL} is {kind}, not an ONNX file: {LIBRARY_FILE} is held against {MODEL_FILE}")
        return None
    if not path.is_file():
        raise CodesignError(str(path), "the original model is not there", "say where it is with --model FILE")
    if sha256_of(path) != manifest.model.sha256:
        hint = "compile it again, or give the original with --model FILE"
        raise CodesignError(str(path), "is not the model this build was made of: its content differs", hint)
    handed = [tensor.name for tensor in interface.outputs]
    runner = open_model(path, [*handed, *_layer_names(interface)])
    if not _takes(runner, inputs):
        notes.append(f"{ORIGINAL} takes other inputs and was not run")
        return None
    outputs, inner = runner.run(inputs)
    return {**outputs, **{name: inner.pop(name) for name in handed if name in inner}}, inner


def _takes(runner: OnnxRunner, inputs: Mapping[str, np.ndarray]) -> bool:
    """Whether all inputs a model has are there, of the types and shapes it wants."""
    return all(name in inputs and runner.takes(name, inputs[name]) for name in runner.input_names)


def _passes_that_change(folder: Path) -> list[str]:
    """Names of the passes that ran and change the numbers."""
    plan = Plan.from_json((folder / PLAN_FILE).read_text(encoding="utf-8"))
    return [record.name for record in plan.passes if record.effect != "EXACT" and record.applied]


def _differences(
    artifacts: Mapping[str, tuple[Arrays, Arrays]],
    original: tuple[Arrays, Arrays] | None,
    finish: Finish,
    *,
    expected: bool,
) -> Iterable[Difference]:
    model = artifacts.get(MODEL_FILE)
    for name, found in artifacts.items():
        if original is not None:
            yield from _compare(name, _finished(found, original, finish), ORIGINAL, original, expected=expected)
        if name != MODEL_FILE and model is not None and (expected or original is None):
            truth = _finished(model, model, finish)
            yield from _compare(name, _finished(found, model, finish), MODEL_FILE, truth, expected=False)


def _integer_differences(
    artifacts: Mapping[str, tuple[Arrays, Arrays]],
    original: tuple[Arrays, Arrays] | None,
    integers: IntegerArrays,
    finish: Finish,
    *,
    changed: bool,
) -> Iterable[Difference]:
    """Of a quantised network: every artifact against the integer semantics, whose codes have no tolerance.

    What onnxruntime makes of it in float32 is held to them where float32 is exact, and expected to differ elsewhere.
    """
    for name, found in artifacts.items():
        rounded = name == MODEL_FILE and not integers.exact_in_float32
        truth = _finished(integers.of(found), integers.of(found), finish)
        yield from _compare(name, _finished(found, truth, finish), INTEGERS, truth, expected=rounded)
        if original is not None:
            expected = changed or not integers.exact_in_float32
            yield from _compare(name, _finished(found, original, finish), ORIGINAL, original, expected=expected)


def _finished(found: tuple[Arrays, Arrays], reference: tuple[Arrays, Arrays], finish: Finish) -> tuple[Arrays, Arrays]:
    """With what the host makes of the reference's tensors (of its own where the reference has none by that name)."""
    return {**found[0], **finish({**found[0], **reference[0]})}, found[1]


def _compare(
    artifact: str, found: tuple[Arrays, Arrays], reference: str, truth: tuple[Arrays, Arrays], *, expected: bool
) -> Iterable[Difference]:
    """Outputs, each of which the artifact must have, then layers both have."""
    for is_output, ours, theirs in ((True, found[0], truth[0]), (False, found[1], truth[1])):
        for tensor, right in theirs.items():
            if tensor in ours or is_output:
                value = relative_difference(ours[tensor], right) if tensor in ours else float("inf")
                tolerance = FLOAT_TOLERANCE if right.dtype.kind == "f" else 0.0
                yield Difference(artifact, reference, tensor, is_output, value, tolerance, _constant(right), expected)


def _constant(array: np.ndarray) -> float | None:
    """The value of a tensor of two or more elements that are all equal (0 for an empty one)."""
    if array.size == 0:
        return 0.0
    return float(array.flat[0]) if array.size > 1 and bool((array == array.flat[0]).all()) else None
