"""From PyTorch (a module, an exported program, a .pt2 file) to a Graph, by way of PyTorch's own ONNX exporter.

What is trusted: a module is Python of the caller and runs. A .pt2 file is read with PyTorch's weights-only unpickler,
which builds tensors and nothing else; PyTorch on its own falls back to full unpickling, which runs code from the file.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import warnings
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import onnx
from onnx_ir.passes import common

from codesign.errors import CodesignError
from codesign.graph.graph import Graph, constant_of
from codesign.graph.operators import is_operator
from codesign.importers.onnx_importer import NO_SHAPES, import_proto
from codesign.importers.pytorch import digest_of, require_torch

TENSOR_NAMES = "codesign_tensor_names"  # in the meta of a torch.fx.GraphModule: names of its inputs and its outputs
_OPSET = 18
_REGISTRATION = "torch.onnx._internal.exporter._registration"  # the logger that names packages it does not find
_FORCE_WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # read by torch.load; wins over weights_only=False in the code
_CODE_OBJECTS = ("custom_obj_", "opaque_obj_")  # archive entries that PyTorch unpickles in full
_SAVE_HINT = "save it with torch.export.save"
_CODE_HINT = "reading it would run code from the file; export the model without custom objects"

logger = logging.getLogger(__name__)


def load_torch(
    module_or_exported_program: object, example_inputs: tuple[object, ...] | None = None, name: str = "module"
) -> Graph:
    """Export a torch.nn.Module (in evaluation mode) or an ExportedProgram and import the result.

    example_inputs: the module's positional arguments; their shapes become the network's. Raises CodesignError when
    torch is missing, example inputs are, or PyTorch cannot export the module.
    """
    torch = require_torch(name)
    module = module_or_exported_program
    if isinstance(module, torch.export.ExportedProgram):
        return _export(torch, module, (), name, None, digest_of(module.state_dict))
    if not isinstance(module, torch.nn.Module):
        problem = f"cannot import an object of type {type(module).__name__}"
        raise CodesignError(name, problem, "give a path, a torch.nn.Module or an ExportedProgram")
    if example_inputs is None:
        raise CodesignError(name, "a module needs example inputs", "pass example_inputs=(tensor, ...)")
    was_training = module.training
    module.eval()
    try:
        return _export(torch, module, tuple(example_inputs), name, None, digest_of(module.state_dict()))
    finally:
        module.train(was_training)


def load_pt2(path: Path, input_shapes: Mapping[str, tuple[int, ...]] = NO_SHAPES) -> Graph:
    """Import a file written by torch.export.save. input_shapes: for programs exported with dynamic sizes.

    Raises CodesignError when torch is missing, the file is none, or it holds objects other than tensors.
    """
    where = str(path)
    if not path.is_file():
        raise CodesignError(where, "no such file", "give the path of a .onnx or .pt2 file")
    _refuse_code(path)
    torch = require_torch(where)
    try:
        with _weights_only():
            program = torch.export.load(path)
    except Exception as error:  # PyTorch raises many types for malformed archives
        raise CodesignError(where, f"PyTorch cannot read it: {_reason(error)}", _SAVE_HINT) from error
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return _export(torch, program, (), path.stem, path, digest, input_shapes)


def _export(
    torch: Any,
    program: Any,
    arguments: tuple[object, ...],
    name: str,
    source: Path | None,
    digest: str,
    input_shapes: Mapping[str, tuple[int, ...]] = NO_SHAPES,
) -> Graph:
    where = str(source) if source is not None else name
    printed = io.StringIO()  # the exporter prints its progress; results belong on stdout, nothing else
    try:
        with redirect_stdout(printed), _hushed():
            exported = torch.onnx.export(
                program, arguments, dynamo=True, opset_version=_OPSET, optimize=False, **_names_of(program)
            )
    except Exception as error:  # whatever the module or the exporter raises
        raise CodesignError(where, f"PyTorch cannot export it: {_reason(error)}", "try torch.onnx.export") from error
    logger.debug("%s", printed.getvalue())
    proto: onnx.ModelProto = exported.model_proto
    weights = {tensor.name for tensor in proto.graph.initializer}
    graph = import_proto(proto, name=name, sha256=digest, source=source, input_shapes=input_shapes)
    _drop_added_biases(graph, weights)
    return graph


def _drop_added_biases(graph: Graph, weights: Collection[str]) -> None:
    """Take out biases of zeros that PyTorch's exporter gives convolutions without one; weights: what the module has."""
    for node in graph.nodes:
        bias = node.inputs[2] if is_operator(node, "Conv", "ConvTranspose") and len(node.inputs) > 2 else None
        values = constant_of(bias)
        if bias is not None and values is not None and bias.name not in weights and not values.any():
            node.resize_inputs(2)
    common.RemoveUnusedNodesPass()(graph.model)


@contextmanager
def _hushed() -> Iterator[None]:
    """Without what the exporter says of its own parts: operators of packages that are absent, deprecated calls."""
    registration = logging.getLogger(_REGISTRATION)
    before = registration.level
    registration.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        registration.setLevel(before)


def _names_of(program: Any) -> dict[str, tuple[str, ...]]:
    """The tensor names a module remembers from the network it was made from."""
    names = getattr(program, "meta", {}).get(TENSOR_NAMES)
    return {} if names is None else {"input_names": names[0], "output_names": names[1]}


def _refuse_code(path: Path) -> None:
    """Raise CodesignError for archives with pickled objects; reads the list of entries only."""
    where = str(path)
    if not zipfile.is_zipfile(path):
        raise CodesignError(where, "is not a .pt2 file", _SAVE_HINT)
    with zipfile.ZipFile(path) as archive:
        for entry in archive.namelist():
            if any(part.startswith(_CODE_OBJECTS) for part in entry.split("/")):
                raise CodesignError(where, f"holds an object that is no tensor: {entry}", _CODE_HINT)


@contextmanager
def _weights_only() -> Iterator[None]:
    """Let torch.load build tensors only, whatever its caller asks for."""
    before = os.environ.get(_FORCE_WEIGHTS_ONLY)
    os.environ[_FORCE_WEIGHTS_ONLY] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_FORCE_WEIGHTS_ONLY]
        else:
            os.environ[_FORCE_WEIGHTS_ONLY] = before


def _reason(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
