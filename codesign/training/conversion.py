"""Back to training: a network, rewritten or not, as a torch.nn.Module with trainable weights.

Why no converter from outside: of the published ones, onnx2torch (1.5.15, August 2024) ends at opset 17, onnx2pytorch
(0.6.0, August 2026) keeps constants of MatMul and Add as untrained buffers beside a second copy of every weight and
cannot be exported again, onnx2fx (0.0.1, 2026) makes running statistics of BatchNormalization into weights; the first
two need torchvision, whose published build does not load beside a CPU build of torch; none takes another batch than the
exported one. After import a graph has static shapes, one opset and folded constants, which leaves little to do.
docs/training.md has the figures.
"""

from __future__ import annotations

import logging
from os import PathLike
from typing import Any

import onnx
import onnx_ir as ir

from codesign.errors import CodesignError, Problem
from codesign.graph.graph import Graph, node_name, shape_of
from codesign.importers.model import load_model
from codesign.importers.onnx_importer import import_proto
from codesign.importers.pytorch import require_torch
from codesign.importers.torch_importer import TENSOR_NAMES
from codesign.training.batch import batch_of
from codesign.training.builder import Builder, UnsupportedError, identifier
from codesign.training.torch_operators import CONVERSIONS

WEIGHT_NAMES = "codesign_weight_names"  # in the meta of the module: a parameter's name by that of its constant

_LOG = logging.getLogger(__name__)
_HINT = "docs/training.md lists what comes back to PyTorch"

Network = Graph | ir.Model | onnx.ModelProto | str | PathLike[str]


def to_torch(network: Network) -> Any:
    """The network as a torch.fx.GraphModule in evaluation mode; it computes what the network computes.

    network: a Graph, the path of an .onnx or .pt2 file, or an onnx or onnx_ir model. Every node with weights is a
    submodule named after it (`/stem/conv/Conv` is `stem_conv_Conv`), its weights are parameters: of Conv, Gemm, MatMul
    and normalisations, and constants of more than one number that are added, multiplied or concatenated (positional
    embeddings, layer scales). Weights that nodes share stay shared. BatchNormalization comes back with scale, shift
    and running statistics. Inputs are positional, in order; several outputs are a tuple. The first axis takes any
    number of samples unless an operator of the network mixes them.
    What depends on data at the end of the network (`Graph.host_tail`) is left out. Raises CodesignError when torch is
    missing, the network is bad, or an operator has no counterpart: all such nodes at once.
    """
    torch = require_torch("to_torch")
    graph = _graph_of(network)
    where = str(graph.source or graph.name)
    if graph.host_tail is not None:
        names = ", ".join(f"{name} ({operator})" for name, operator in graph.host_tail.nodes[:3])
        _LOG.warning("%s: the module ends where sizes depend on data: before %s", where, names)
    builder = Builder(torch, graph, batch_of(graph), torch.fx.Graph(), torch.nn.Module())
    _add_inputs(builder, where)
    problems = [problem for node in graph.nodes for problem in _add_node(builder, node, where)]
    if problems:
        raise CodesignError.of(problems)
    results = [_output(builder, value) for value in graph.outputs]
    builder.fx.output(results[0] if len(results) == 1 else tuple(results))
    module = torch.fx.GraphModule(builder.root, builder.fx, identifier(graph.name))
    module.meta[TENSOR_NAMES] = (_names(graph.inputs), _names(graph.outputs))
    module.meta[WEIGHT_NAMES] = builder.parameter_names()
    return module.eval()


def _names(values: list[ir.Value]) -> tuple[str, ...]:
    return tuple(str(value.name) for value in values)


def _graph_of(network: Network) -> Graph:
    match network:
        case Graph():
            return network
        case str() | PathLike():
            return load_model(network)
        case ir.Model():
            return import_proto(ir.to_proto(network), name=network.graph.name or "network", sha256="")
        case onnx.ModelProto():
            proto = onnx.ModelProto()
            proto.CopyFrom(network)
            return import_proto(proto, name=network.graph.name or "network", sha256="")
    raise CodesignError(
        "to_torch",
        f"cannot convert an object of type {type(network).__name__}",
        "give a Graph, a path or an ONNX model",
    )


def _add_inputs(b: Builder, where: str) -> None:
    for value in b.graph.inputs:
        placeholder = b.fx.placeholder(identifier(str(value.name)))
        about = f"{where}: input {value.name}"
        b.known[value] = b.call(checked_input, placeholder, shape_of(value), about, b.batch.fixed_by)


def checked_input(x: Any, shape: tuple[int, ...], where: str, fixed_by: str) -> Any:
    """The input itself, when it has the network's shape: another one might pass through and mean something else."""
    found = tuple(x.shape)
    if found == shape or (not fixed_by and len(found) == len(shape) and found[1:] == shape[1:]):
        return x
    if fixed_by and found[1:] == shape[1:]:
        hint = f"{fixed_by}; export the network with the batch it is trained with"
        raise CodesignError(where, f"takes {shape[0]} samples at once, not {found[0]}", hint)
    wanted = list(shape) if fixed_by else ["any number", *shape[1:]]
    raise CodesignError(where, f"has shape {list(found)}; the network takes [{', '.join(map(str, wanted))}]")


def _add_node(b: Builder, node: ir.Node, where: str) -> list[Problem]:
    """Grow the graph by one node; what stands in the way is answered, and its results are left out."""
    at = f"{where}: node {node_name(node)}"
    conversion = CONVERSIONS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if conversion is None:
        domain = f" of {node.domain}" if node.domain else ""
        problems = [Problem(at, f"{node.op_type}{domain} has no counterpart in PyTorch here", _HINT)]
    else:
        problems = _convert(b, node, conversion, at)
    for value in node.outputs if problems else ():
        b.known[value] = None
    return problems


def _convert(b: Builder, node: ir.Node, conversion: Any, at: str) -> list[Problem]:
    try:
        found = conversion(b, node)
    except UnsupportedError as error:
        return [Problem(at, f"{node.op_type} {error} has no counterpart in PyTorch here", _HINT)]
    results = found if isinstance(found, list) else [found]
    b.known.update(zip(node.outputs, results, strict=False))
    return []


def _output(b: Builder, value: ir.Value) -> Any:
    """A result; a constant one (all of the network folded away) is a buffer."""
    if value in b.known:
        return b.known[value]
    b.root.register_buffer("constant", b.tensor(value))
    return b.fx.get_attr("constant")
