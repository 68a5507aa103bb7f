"""Runs a graph in onnxruntime, its optimiser off, and shows tensors inside it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from codesign.errors import CodesignError
from codesign.graph.graph import Graph

_FATAL = 4  # onnxruntime's log level: its complaints come back as exceptions
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Runner:
    """A graph ready to run. wanted: the tensors it shows, each once."""

    session: Any
    wanted: tuple[str, ...]

    def run(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """The wanted tensors by name; one that is an input is handed back as it came."""
        shown = [name for name in self.wanted if name not in inputs]
        names = {value.name for value in self.session.get_inputs()}
        feeds = {name: array for name, array in inputs.items() if name in names}
        found = self.session.run(shown, feeds) if shown else []
        return {name: inputs[name] for name in self.wanted if name in inputs} | dict(zip(shown, found, strict=True))


def proto_of(graph: Graph) -> onnx.ModelProto:
    """The graph as one message with all weights in it. The graph stays as it is."""
    return ir.to_proto(ir.external_data.load_to_model(graph.model.clone()))


def open_proto(proto: onnx.ModelProto, wanted: Iterable[str], where: str) -> Runner:
    """A model ready to run, its `wanted` tensors among its outputs. Raises CodesignError when onnxruntime refuses."""
    import onnxruntime

    names = tuple(dict.fromkeys(wanted))
    known = {value.name for value in (*proto.graph.output, *proto.graph.input)}
    # An output without a stated type is given the one onnxruntime infers.
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # protobuf and onnxruntime raise types of their own
        problem = f"onnxruntime cannot run it: {str(error).strip().splitlines()[0]}"
        raise CodesignError(where, problem, "calibration computes activations with onnxruntime") from error
    return Runner(session, names)


def open_graph(graph: Graph, wanted: Sequence[str]) -> Runner:
    """A graph ready to run. Raises CodesignError when onnxruntime refuses it."""
    return open_proto(proto_of(graph), wanted, str(graph.source or graph.name))
