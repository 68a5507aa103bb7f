"""From an ONNX file to a Graph: static shapes, constants folded, the producer's names, what depends on data cut off."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import onnx
import onnx_ir as ir
from onnx_ir import external_data
from onnx_ir.passes import common

from codesign.errors import CodesignError, Problem
from codesign.graph.graph import Graph, node_name
from codesign.importers.blame import blaming
from codesign.importers.channels import check_channels
from codesign.importers.host_tail import cut_host_tail
from codesign.importers.input_shapes import set_input_shapes
from codesign.importers.onnx_file import read_onnx_file
from codesign.importers.simplify import infer_strictly, proto_without_weights, simplify
from codesign.importers.structure import check_opset, check_structure, name_nodes

NO_SHAPES: Mapping[str, tuple[int, ...]] = MappingProxyType({})
_SHAPE_HINT = "state the shape in the file's value_info, or fix the size it depends on before exporting"


def load_onnx(path: Path, input_shapes: Mapping[str, tuple[int, ...]] = NO_SHAPES) -> Graph:
    """Read an ONNX file, opset 9 to the newest one onnx knows, and bring it to the form every part expects.

    input_shapes: a static shape for every input whose file leaves sizes open. After import every tensor is static,
    nodes have unique names (the producer's, else their first output's), inputs and outputs keep names and order,
    weights are initializers, and only constants were folded. What depends on data is cut off at the end
    (`Graph.host_tail`).
    Raises CodesignError for every bad file, naming file and node.
    """
    file = read_onnx_file(path)
    return import_proto(file.proto, name=path.stem, sha256=file.sha256, source=path, input_shapes=input_shapes)


def import_proto(
    proto: onnx.ModelProto,
    *,
    name: str,
    sha256: str,
    source: Path | None = None,
    input_shapes: Mapping[str, tuple[int, ...]] = NO_SHAPES,
) -> Graph:
    """The same from a parsed message, whose node names are completed in place. source: where errors point."""
    where = str(source) if source is not None else name
    check_opset(proto, where)
    with blaming(where, "reading the graph"):
        name_nodes(proto.graph)
        check_structure(proto.graph, where)
        model = ir.from_proto(proto)
    if source is not None:
        external_data.set_base_dir(model.graph, source.parent)
        with blaming(where, "reading external data"):
            model = external_data.load_to_model(model)  # whoever writes the graph later needs no folder
    common.RemoveInitializersFromInputsPass()(model)
    common.TopologicalSortPass()(model)
    _check_operators(model, where)
    set_input_shapes(model.graph, input_shapes, where)
    model = simplify(model, where)
    graph = cut_host_tail(Graph(model, name, sha256, source), where)
    _require_static(graph.model, where)
    infer_strictly(graph.model, where)
    check_channels(graph.model, where)
    _name_new_nodes(graph.model)
    return graph


def _check_operators(model: ir.Model, where: str) -> None:
    """onnx's own check of every node: known operators of the standard domain, required attributes, argument counts."""
    proto, _ = proto_without_weights(model)
    proto.ir_version = max(proto.ir_version, 4)  # before 4 every weight had to be an input as well
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.SetInParent()  # a missing shape is inferred or reported later, in plain words
    try:
        onnx.checker.check_model(proto)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        lines = str(error).strip().splitlines()
        raise CodesignError(where, f"is not valid ONNX: {lines[0]}", "export the model again") from error


def _require_static(model: ir.Model, where: str) -> None:
    """Raise CodesignError naming every node whose result is the first without a static shape, or no tensor."""
    problems = []
    for node in model.graph:
        at = f"{where}: node {node_name(node)}"
        unknown = [str(value.name) for value in node.outputs if value.name and not _is_static(value)]
        if any(not isinstance(value.type, ir.TensorType | None) for value in node.outputs):
            problems.append(Problem(at, f"{node.op_type} makes a sequence or optional; only tensors can be compiled"))
        elif unknown and all(value is None or _is_static(value) for value in node.inputs):
            problems.append(Problem(at, f"{node.op_type}: the shape of {', '.join(unknown)} is unknown", _SHAPE_HINT))
    if problems:
        raise CodesignError.of(problems)


def _is_static(value: ir.Value) -> bool:
    return value.shape is not None and value.shape.is_static()


def _name_new_nodes(model: ir.Model) -> None:
    """Nodes that folding made get their first output's name; names stay unique."""
    taken: set[str] = set()
    for node in model.graph:
        base, number = node.name or str(node.outputs[0].name), 2
        name = base
        while name in taken:
            name, number = f"{base}_{number}", number + 1
        node.name = name
        taken.add(name)
