"""Reads an ONNX file and refuses, before touching any weight, what is cut short, lies about sizes or points outside."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from codesign.errors import CodesignError, Problem
from codesign.importers.blame import blaming

_MOST_BYTES = 2**31 - 1  # protobuf's own limit for one message
_TOP_LEVEL_FIELDS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26})  # of ModelProto, onnx.proto
_GRAPH_FIELD = 7
_LENGTH_DELIMITED = 2
_FIXED_BYTES = {1: 8, 5: 4}
_NOT_ONNX_HINT = "give a .onnx file (protobuf, not text) or a .pt2 file"
_CUT_HINT = "copy or download the file again"


@dataclass(frozen=True)
class OnnxFile:
    """A parsed file. Weights stay where they are: in the message, or in files beside it that have been checked."""

    proto: onnx.ModelProto
    sha256: str


def read_onnx_file(path: Path) -> OnnxFile:
    """Parse the file at `path` and check every tensor's stated size against its data.

    Raises CodesignError: no file, a folder, empty, not ONNX, truncated, tensors whose data do not fill their shape, and
    external data outside the model's folder, missing or too short.
    """
    data = _read_bytes(path)
    digest = hashlib.sha256(data).hexdigest()
    proto = _parse(data, str(path))
    with blaming(str(path), "reading the tensors"):
        problems = list(_tensor_problems(proto, path))
    if problems:
        raise CodesignError.of(problems)
    return OnnxFile(proto, digest)


def _read_bytes(path: Path) -> bytes:
    where = str(path)
    if not path.exists():
        raise CodesignError(where, "no such file", "give the path of a .onnx or .pt2 file")
    if not path.is_file():
        raise CodesignError(where, "is a folder, not an ONNX file" if path.is_dir() else "is not a regular file")
    size_bytes = path.stat().st_size
    if size_bytes == 0:
        raise CodesignError(where, "is empty", _NOT_ONNX_HINT)
    if size_bytes > _MOST_BYTES:
        raise CodesignError(
            where,
            f"has {size_bytes} bytes; one protobuf message holds {_MOST_BYTES} at most",
            "save the weights as external data beside the model",
        )
    try:
        return path.read_bytes()
    except OSError as error:
        raise CodesignError(where, f"cannot be read: {error.strerror}") from error


def _parse(data: bytes, where: str) -> onnx.ModelProto:
    """The message in `data`; tells a truncated model from what never was one."""
    try:
        proto: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except DecodeError as error:
        cut = _truncation(data)
        if cut is None:
            raise CodesignError(where, "is not an ONNX file", _NOT_ONNX_HINT) from error
        raise CodesignError(where, cut, _CUT_HINT) from error
    if not proto.HasField("graph") or not proto.ir_version:
        raise CodesignError(where, "is not an ONNX file: it holds no graph", _NOT_ONNX_HINT)
    if not proto.graph.node and not proto.graph.output:
        raise CodesignError(where, "is not an ONNX file: its graph is empty", _NOT_ONNX_HINT)
    return proto


def _truncation(data: bytes) -> str | None:
    """What is missing at the end, when every field before it looks like a model's; None when this is no model."""
    position, seen_graph_or_header = 0, False
    while position < len(data):
        key, position = _varint(data, position)
        field, wire_type = key >> 3, key & 7
        if field not in _TOP_LEVEL_FIELDS:
            return None
        if wire_type == _LENGTH_DELIMITED:
            length, position = _varint(data, position)
            missing = position + length - len(data)
            if missing > 0:
                known = seen_graph_or_header or field == _GRAPH_FIELD
                return f"is truncated: {missing} bytes are missing at its end" if known else None
            position += length
        elif wire_type == 0:
            _, position = _varint(data, position)
        else:
            position += _FIXED_BYTES.get(wire_type, len(data))
        seen_graph_or_header = True
    return None


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """A protobuf variable-length integer and the position after it."""
    value = shift = 0
    while position < len(data) and shift < 64:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if not byte & 0x80:
            break
    return value, position


def _tensor_problems(proto: onnx.ModelProto, path: Path) -> Iterator[Problem]:
    for tensor, node in _tensors(proto.graph):
        where = f"{path}: node {node}" if node else str(path)
        problem = _external_problem(tensor, path) if _is_external(tensor) else _embedded_problem(tensor)
        if problem is not None:
            yield Problem(where, f"tensor {tensor.name!r} {problem[0]}", problem[1])
    if proto.graph.sparse_initializer:
        yield Problem(str(path), "sparse initializers are not supported", "store the weights densely")


def _tensors(graph: onnx.GraphProto) -> Iterator[tuple[onnx.TensorProto, str]]:
    """Every tensor with the node that holds it ('' for initializers), subgraphs included."""
    for tensor in graph.initializer:
        yield tensor, ""
    for node in graph.node:
        name = node.name or (node.output[0] if node.output else node.op_type)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t, name
            for tensor in attribute.tensors:
                yield tensor, name
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _tensors(attribute.g)
            for inner in attribute.graphs:
                yield from _tensors(inner)


def _is_external(tensor: onnx.TensorProto) -> bool:
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL)


def _needed_bytes(tensor: onnx.TensorProto) -> int | None:
    """Bytes its shape needs when packed; None for strings and unknown types."""
    try:
        bits = int(ir.DataType(tensor.data_type).bitwidth)
    except (TypeError, ValueError):
        return None
    return -(-math.prod(int(size) for size in tensor.dims) * bits // 8)


def _embedded_problem(tensor: onnx.TensorProto) -> tuple[str, str] | None:
    if any(size < 0 for size in tensor.dims):
        return f"has a negative size: {_shape(tensor)}", _CUT_HINT
    needed = _needed_bytes(tensor)
    if needed is None:
        return None
    if tensor.HasField("raw_data"):
        held, unit = len(tensor.raw_data), "bytes"
    else:
        held, needed, unit = *_field_lengths(tensor), "values"
    if held == needed:
        return None
    return f"of shape {_shape(tensor)} needs {needed} {unit} and holds {held}", _CUT_HINT


def _field_lengths(tensor: onnx.TensorProto) -> tuple[int, int]:
    """Values held and needed in the typed field; types under 8 bits are packed into each int32."""
    name = onnx.helper.tensor_dtype_to_field(tensor.data_type)
    bits = ir.DataType(tensor.data_type).bitwidth
    count = math.prod(tensor.dims)
    if tensor.data_type in (onnx.TensorProto.COMPLEX64, onnx.TensorProto.COMPLEX128):
        count *= 2
    return len(getattr(tensor, name)), -(-count * bits // 8) if bits < 8 else count


def _external_problem(tensor: onnx.TensorProto, path: Path) -> tuple[str, str] | None:
    """What is wrong with a tensor's data outside the file; looks at names and sizes only, reads nothing."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    beside = "external data must lie in the model's folder or below it"
    if not location:
        return "is external but names no file", beside
    base = os.path.realpath(path.parent)
    target = os.path.realpath(os.path.join(base, location))
    if os.path.isabs(location) or os.path.commonpath([base, target]) != base or _climbs(location):
        return f"has its data outside the model's folder: {location}", beside
    if not os.path.isfile(target):
        return f"has its data in a file that does not exist: {location}", "copy it beside the model"
    if os.stat(target).st_nlink > 1:
        return f"has its data in a file with several hard links: {location}", "copy the file: a link may hide another"
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", -1))
    except ValueError:
        return "has an external offset or length that is no number", _CUT_HINT
    needed = _needed_bytes(tensor)
    if needed is None or offset < 0 or any(size < 0 for size in tensor.dims):
        return f"cannot be external: shape {_shape(tensor)}, offset {offset}", _CUT_HINT
    if length not in (-1, needed):
        return f"of shape {_shape(tensor)} needs {needed} bytes and declares {length} in {location}", _CUT_HINT
    held = os.path.getsize(target)
    if offset + needed > held:
        return f"needs bytes {offset} to {offset + needed} of {location}, which has {held}", _CUT_HINT
    return None


def _climbs(location: str) -> bool:
    """Whether a location leaves the folder on its way, even if it comes back."""
    return ".." in Path(location).parts


def _shape(tensor: onnx.TensorProto) -> str:
    return "x".join(str(size) for size in tensor.dims) or "scalar"
