"""What must hold after every pass, whatever it did: a valid, static network with the same face to the world."""

from __future__ import annotations

from dataclasses import dataclass

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import CheckerPass

from codesign.graph.graph import Graph
from codesign.rewriting.graph_pass import Effect


@dataclass(frozen=True)
class Face:
    """Inputs and outputs of a network as its users see them: (name, element type, shape) each, in order."""

    inputs: tuple[tuple[str, str, str], ...]
    outputs: tuple[tuple[str, str, str], ...]

    @classmethod
    def of(cls, graph: Graph) -> Face:
        """The face of a graph."""
        return cls(tuple(map(_seen, graph.inputs)), tuple(map(_seen, graph.outputs)))


def _seen(value: ir.Value) -> tuple[str, str, str]:
    return str(value.name), str(value.dtype), str(value.shape)


def problem_after(graph: Graph, before: Face, effect: Effect) -> str:
    """What a pass of this effect broke, or nothing. before: the face the pass was handed."""
    return _face_problem(before, Face.of(graph), effect) or _shape_problem(graph) or _onnx_problem(graph)


def _face_problem(before: Face, after: Face, effect: Effect) -> str:
    for what, old, new in (("inputs", before.inputs, after.inputs), ("outputs", before.outputs, after.outputs)):
        old_names, new_names = ([name for name, _, _ in face] for face in (old, new))
        if old_names != new_names:
            return f"the {what} were {', '.join(old_names)} and are now {', '.join(new_names) or 'none'}"
        if effect is not Effect.RESHAPES and old != new:
            was, now = next(pair for pair in zip(old, new, strict=True) if pair[0] != pair[1])
            return f"{was[0]} was {was[1]} {was[2]} and is now {now[1]} {now[2]}, though the pass is {effect}"
    return ""


def _shape_problem(graph: Graph) -> str:
    for node in graph.nodes:
        for value in node.outputs:
            if value.name and (value.shape is None or not value.shape.is_static()):
                return f"the shape of {value.name} is no longer static: {value.shape}"
    return ""


def _onnx_problem(graph: Graph) -> str:
    """The ONNX checker with shape inference, which contradicts every recorded shape that is not what it infers."""
    try:
        CheckerPass(full_check=True)(graph.model)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        return f"the ONNX checker refuses the graph: {str(error).strip()}"
    return ""
