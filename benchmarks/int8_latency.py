"""The files bench_latency.py compares: a network, and for int8 the same network as three files for onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from integer_networks import NETWORKS, Quantized, Source, imported, quantized

from codesign.graph.graph import Graph
from codesign.rewriting.graph_pass import PassContext
from codesign.rewriting.pipeline import resolve_pipeline
from codesign.rewriting.runner import run_pipeline

INTEGER_NETWORKS = {
    "resnet18": NETWORKS["ResNet-18"],
    "mobilenetv2_1.0": NETWORKS["MobileNetV2"],
    "squeezenet1_0": Source("squeezenet1_0"),
    "ultraface_rfb320": NETWORKS["face detector"],
    "efficientnet_b0": NETWORKS["EfficientNet-B0, hard activations"],
}


@dataclass(frozen=True)
class Files:
    """ours: compiled with these passes. theirs: onnxruntime's, by heading; the first is the same network. feed: random
    numbers where it is empty."""

    name: str
    ours: Path
    theirs: Mapping[str, Path]
    passes: str = "default"
    feed: Mapping[str, np.ndarray] = field(default_factory=dict)


def float_files(path: Path, folder: Path) -> Files:
    """One file for both."""
    del folder
    return Files(path.stem, path, {"onnxruntime": path})


def integer_files(path: Path, folder: Path) -> Files:
    """A network quantised by codesign, by onnxruntime's own tool, and not at all."""
    source = INTEGER_NETWORKS[path.stem]
    ours, plain = quantized(source, path.parent), imported(source, path.parent)
    assert ours is not None
    assert plain is not None
    plain, _ = run_pipeline(plain, resolve_pipeline(source.passes), PassContext())
    same = _saved(ours.graph, folder / "same.onnx")
    in_float = _saved(plain, folder / "float.onnx")
    theirs = {
        "onnxruntime: same file": same,
        "quantised by its own tool": _by_its_own_tool(in_float, ours, folder / "own.onnx"),
        "float": in_float,
    }
    return Files(path.stem, same, theirs, "none", ours.inputs[0])


FILES: dict[bool, Callable[[Path, Path], Files]] = {False: float_files, True: integer_files}


def _saved(graph: Graph, path: Path) -> Path:
    onnx.save(ir.to_proto(graph.model), path)
    return path


def _by_its_own_tool(path: Path, data: Quantized, made: Path) -> Path:
    """uint8 activations, int8 weights of a scale for every output channel."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rest: Iterator[Mapping[str, Any]] = iter(data.inputs)

        def get_next(self) -> Mapping[str, Any] | None:
            return next(self.rest, None)

    types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantize_static(path, made, Reader(), quant_format=QuantFormat.QDQ, per_channel=True, **types)
    return made
