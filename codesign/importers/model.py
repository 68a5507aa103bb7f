"""One door for every kind of model: an ONNX file, a PyTorch .pt2 file, a module, an exported program, a Graph."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path

from codesign.errors import CodesignError
from codesign.graph.graph import Graph
from codesign.importers.onnx_importer import NO_SHAPES, load_onnx


def load_model(
    source: str | PathLike[str] | object,
    input_shapes: Mapping[str, tuple[int, ...]] = NO_SHAPES,
    example_inputs: tuple[object, ...] | None = None,
) -> Graph:
    """Import `source`: a path to .onnx or .pt2, or a torch.nn.Module (needs example_inputs) or ExportedProgram.

    A Graph comes back as it is. Torch is imported only for PyTorch sources. Raises CodesignError for bad input.
    """
    if isinstance(source, Graph):
        return source
    if isinstance(source, str | PathLike):
        path = Path(source)
        if path.suffix == ".pt2":
            from codesign.importers.torch_importer import load_pt2

            return load_pt2(path, input_shapes)
        return load_onnx(path, input_shapes)
    if input_shapes:
        raise CodesignError("module", "takes its shapes from the example inputs, not from --input-shape")
    from codesign.importers.torch_importer import load_torch

    return load_torch(source, example_inputs)
