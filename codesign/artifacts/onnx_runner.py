"""Runs an ONNX file with onnxruntime and shows tensors inside it, the reference every artifact is held against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from codesign.errors import CodesignError

_TYPES = {"float32": "float", "float64": "double"}  # onnxruntime's names where they are not numpy's
_FATAL = 4  # onnxruntime's log level: its complaints come back as exceptions


@dataclass(frozen=True)
class OnnxRunner:
    """A model ready to run. outputs: its own outputs; inner: other tensors it shows as well."""

    session: Any
    outputs: tuple[str, ...]
    inner: tuple[str, ...]

    @property
    def input_names(self) -> tuple[str, ...]:
        """Of every input."""
        return tuple(value.name for value in self.session.get_inputs())

    def takes(self, name: str, array: np.ndarray) -> bool:
        """Whether an input has the type and the shape of an array; a size that the file leaves open fits anything."""
        value = next((value for value in self.session.get_inputs() if value.name == name), None)
        if value is None:
            return False
        wanted = tuple(value.shape)
        sizes = zip(wanted, array.shape, strict=False)
        fits = len(wanted) == array.ndim and all(size == has for size, has in sizes if isinstance(size, int))
        return fits and value.type == f"tensor({_TYPES.get(str(array.dtype), str(array.dtype))})"

    def run(self, inputs: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Outputs, and inner tensors, by name. Inputs the model does not have are ignored."""
        feed = {name: inputs[name] for name in self.input_names if name in inputs}
        names = [*self.outputs, *self.inner]
        found = dict(zip(names, self.session.run(names, feed), strict=True))
        return {name: found[name] for name in self.outputs}, {name: found[name] for name in self.inner}


def open_model(path: Path, wanted: Sequence[str] = ()) -> OnnxRunner:
    """The model at `path` as onnxruntime reads it. wanted: inner tensors to show, those the model has.

    Raises CodesignError when there is no such file or onnxruntime refuses it.
    """
    import onnxruntime

    if not path.is_file():
        raise CodesignError(str(path), "no such file")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    # Its optimiser is no reference: it moves a Pad with zeros into MaxPool, which pads with minus infinity.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        model = onnx.load(path)
        outputs = tuple(value.name for value in model.graph.output)
        made = {name for node in model.graph.node for name in node.output}
        inner = tuple(name for name in wanted if name in made and name not in outputs)
        # An output without a stated type is given the one onnxruntime infers.
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner)
        session = onnxruntime.InferenceSession(_source(model, path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # protobuf and onnxruntime raise types of their own
        raise CodesignError(str(path), f"onnxruntime cannot run it: {str(error).strip().splitlines()[0]}") from error
    return OnnxRunner(session, outputs, inner)


def _source(model: onnx.ModelProto, path: Path) -> bytes:
    try:
        return bytes(model.SerializeToString())
    except Exception as error:
        raise ValueError(f"{path.name} with its weights is larger than one message of 2 GiB") from error
