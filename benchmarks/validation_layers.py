"""Lists of layers as small files, so that `validation.py` needs neither the networks nor what they were made with.

    python benchmarks/validation_layers.py MODEL.onnx LIST.csv --source "torchvision 0.28 resnet18, 1x3x224x224"

writes the layers of a model after the passes of the pipeline `default`, tensors renamed t0, t1, ...
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable, Iterator
from dataclasses import replace
from math import prod
from pathlib import Path

from codesign.hardware.loading import load_profile
from codesign.importers.model import load_model
from codesign.rewriting.graph_pass import PassContext
from codesign.rewriting.pipeline import resolve_pipeline
from codesign.rewriting.runner import run_pipeline
from codesign.vocabulary import OperationKind
from codesign.workload.layer import Layer
from codesign.workload.layers import layers_of
from codesign.workload.loop_nest import LoopNest

_NUMBERS = (
    "sizes",
    "stride",
    "dilation",
    "pads",
    "input_rows",
    "input_columns",
    "input_dilation",
    "input_elements",
    "output_elements",
    "operations",
)
_COLUMNS = ("name", "op", "kind", *_NUMBERS, "inputs", "outputs", "parameters")
_TUPLES = ("sizes", "stride", "dilation", "pads", "input_dilation")


def read_layers(path: Path) -> tuple[str, list[Layer]]:
    """Source and layers of a list."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return lines[0].removeprefix("# "), [_layer(row) for row in csv.DictReader(lines[1:])]


def write_layers(path: Path, source: str, layers: Iterable[Layer]) -> None:
    """The list `read_layers` reads."""
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write(f"# {source}\n")
        writer = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(_row(layer) for layer in layers)


def batched(layer: Layer, batch: int) -> Layer:
    """The same layer for a batch: B times as much, rows (OX) of a matrix product."""
    if batch == 1:
        return layer
    nest = layer.nest
    sizes, columns = list(nest.sizes), nest.input_columns
    if nest.kind in (OperationKind.DENSE, OperationKind.MATMUL):
        sizes[5] *= batch
        columns *= batch
    else:
        sizes[0] *= batch
    grown = replace(
        nest,
        sizes=tuple(sizes),
        input_columns=columns,
        input_elements=nest.input_elements * batch,
        output_elements=nest.output_elements * batch,
        operations=nest.operations * batch,
    )
    return replace(layer, nest=grown)


def layers_of_model(path: Path) -> list[Layer]:
    """Layers of an ONNX file after the default passes, with short and different names."""
    graph, _ = run_pipeline(
        load_model(str(path), {}, None), resolve_pipeline("default"), PassContext(load_profile("edge_npu").profile)
    )
    return list(_renamed(layers_of(graph)))


def _renamed(layers: Iterable[Layer]) -> Iterator[Layer]:
    tensors: dict[str, str] = {}
    for number, layer in enumerate(layers):
        inputs = tuple(tensors.setdefault(name, f"t{len(tensors)}") for name in layer.inputs)
        outputs = tuple(tensors.setdefault(name, f"t{len(tensors)}") for name in layer.outputs)
        yield replace(layer, name=f"{layer.op.lower()}{number}", inputs=inputs, outputs=outputs)


def _row(layer: Layer) -> dict[str, object]:
    numbers = {name: getattr(layer.nest, name) for name in _NUMBERS}
    joined = {name: " ".join(map(str, value)) if name in _TUPLES else value for name, value in numbers.items()}
    ends = {"inputs": " ".join(layer.inputs), "outputs": " ".join(layer.outputs), "parameters": layer.parameters}
    return {"name": layer.name, "op": layer.op, "kind": str(layer.nest.kind), **joined, **ends}


def _layer(row: dict[str, str]) -> Layer:
    numbers: dict[str, object] = {
        name: tuple(map(int, row[name].split())) if name in _TUPLES else int(row[name]) for name in _NUMBERS
    }
    nest = LoopNest(OperationKind(row["kind"]), **numbers)  # type: ignore[arg-type]
    ends = tuple(row["inputs"].split()), tuple(row["outputs"].split())
    return Layer(row["name"], row["op"], nest, *ends, parameters=int(row["parameters"]))


def chain(parts: Iterable[tuple[str, LoopNest]]) -> list[Layer]:
    """Layers one behind the other, for lists written by hand."""
    return [
        Layer(
            name, "Conv", nest, (f"t{number}",), (f"t{number + 1}",), parameters=prod(nest.sizes[1:4] + nest.sizes[6:])
        )
        for number, (name, nest) in enumerate(parts)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("list", type=Path)
    parser.add_argument("--source", required=True)
    options = parser.parse_args()
    write_layers(options.list, options.source, layers_of_model(options.model))


if __name__ == "__main__":
    main()
