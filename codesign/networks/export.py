"""A network by name as a module, as a Graph, and as an ONNX file with random weights."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_ir as ir

from codesign.errors import CodesignError
from codesign.graph.graph import Graph
from codesign.importers.torch_importer import load_torch
from codesign.networks.adapters import adapted
from codesign.networks.architecture import Architecture
from codesign.networks.catalogue import architecture

if TYPE_CHECKING:
    from torch import nn

_PROTOBUF_LIMIT_BYTES = 1_900_000_000


def find(name: str) -> Architecture:
    """The network of a name: of the catalogue, or `PACKAGE:NAME` of an installed package. Raises CodesignError."""
    return adapted(name) if ":" in name else architecture(name)


def adjusted(
    found: Architecture, image: tuple[int, int, int] | None = None, classes: int | None = None
) -> Architecture:
    """The same network for another image (channels, rows, columns) or number of classes; None leaves what is.

    Raises CodesignError where the network does not leave that open.
    """
    wanted = {} if classes is None else {"classes": classes}
    if image is not None and image[0] != found.image[0]:
        wanted["channels"] = image[0]
    takes = inspect.signature(found.build).parameters
    for option in wanted:
        if option not in takes:
            raise CodesignError(found.name, f"does not take another number of {option}")
    build = found.build
    return replace(found, image=image or found.image, build=lambda: build(**wanted))


def build(found: Architecture, seed: int = 0) -> nn.Module:
    """The module in evaluation mode, with weights that depend on the seed alone.

    PyTorch's random numbers are left as they were.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = found.build()
        _draw_weights(module)
    return module.eval()


def graph_of(found: Architecture, seed: int = 0) -> Graph:
    """The network as codesign's import sees it, a batch of one. Raises CodesignError when PyTorch cannot export it."""
    import torch

    return load_torch(build(found, seed), (torch.zeros(1, *found.image),), found.name)


def export(
    name: str, path: Path, seed: int = 0, image: tuple[int, int, int] | None = None, classes: int | None = None
) -> Path:
    """Write a network as ONNX; the same arguments write the same bytes. Returns the path.

    Raises CodesignError rather than overwrite anything, for unknown names, and for what PyTorch cannot export.
    """
    if path.exists():
        raise CodesignError(str(path), "already exists", "choose another name; nothing was written")
    if not path.parent.is_dir():
        raise CodesignError(str(path), f"there is no folder {path.parent}")
    found = adjusted(find(name), image, classes)
    graph = graph_of(found, seed)
    if graph.host_tail is not None:
        problem = "ends in operators whose sizes depend on data"
        raise CodesignError(name, problem, "export it with torch.onnx.export; codesign reads the file")
    _write(graph, path, {"codesign.network": name, "codesign.source": found.source, "codesign.seed": str(seed)})
    return path


def _draw_weights(module: nn.Module) -> None:
    """Weights that keep signals alive, and statistics that differ by channel.

    PyTorch's default weights shrink what they pass on: after fifty layers the network says the same of every image.
    Convolutions get those of He et al. 2015, equation 10. Dense layers keep what their family draws.
    """
    from torch import nn

    for part in module.modules():
        if isinstance(part, nn.Conv1d | nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
        elif isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d) and part.running_mean is not None:
            nn.init.normal_(part.running_mean, 0, 0.1)
            nn.init.uniform_(part.running_var, 0.5, 1.5)


def _write(graph: Graph, path: Path, facts: dict[str, str]) -> None:
    """Write beside it, then rename: a killed run leaves no half file."""
    model = graph.model.clone()
    for part in (model, model.graph, *model.graph):
        part.metadata_props.clear()  # the exporter's, with paths of this machine
    for value in (*model.graph.inputs, *(value for node in model.graph for value in node.outputs)):
        value.metadata_props.clear()
    model.metadata_props.update(facts)
    stored = sum(
        value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value is not None
    )
    outside = f"{path.name}.data" if stored > _PROTOBUF_LIMIT_BYTES else None
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        ir.save(model, unfinished, external_data=outside)
        unfinished.replace(path)
    except OSError as error:
        raise CodesignError(str(path), f"cannot be written: {error.strerror}") from error
    finally:
        unfinished.unlink(missing_ok=True)
