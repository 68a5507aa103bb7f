"""What every network of a paper is held against: a second count, onnxruntime, gradients, and no work on the host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from torch import nn

from codesign.artifacts.onnx_runner import open_model
from codesign.compiler import estimate
from codesign.graph.graph import Graph
from codesign.importers.torch_importer import load_torch
from codesign.mapping.streaming import HOST
from codesign.workload.layers import layers_of, parameters_of

Image = tuple[int, int, int]


@dataclass(frozen=True)
class Counts:
    """Learned values (no running statistics), and multiply-accumulates for one image."""

    parameters: int
    macs: int


def counted_by_hooks(build: Callable[[], nn.Module], image: Image) -> Counts:
    """Counted while PyTorch runs it on tensors without values: output elements x kernel of every weighted layer."""
    with torch.device("meta"):
        module = build().eval()
    macs = 0

    def count(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal macs
        weight = layer.get_parameter("weight")
        places = inputs[0] if isinstance(layer, nn.ConvTranspose2d) else output
        macs += weight.numel() * (places.shape[2:].numel() if places.ndim == 4 else 1)

    weighted = [layer for layer in module.modules() if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear))]
    handles = [layer.register_forward_hook(count) for layer in weighted]
    module(torch.empty(1, *image, device="meta"))
    for handle in handles:
        handle.remove()
    return Counts(sum(value.numel() for value in module.parameters()), macs)


def counted_in_graph(graph: Graph) -> Counts:
    """Counted through the layers of the workload."""
    return Counts(parameters_of(graph), sum(layer.nest.macs for layer in layers_of(graph)))


def unsettled(module: nn.Module) -> nn.Module:
    """A module whose norms have statistics, scales and shifts of their own, as after training."""
    torch.manual_seed(7)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None and layer.running_var is not None
            layer.running_mean.normal_(0, 0.2)
            layer.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, 0, 0.2)
    return module.eval()


def normalized(build: Callable[[], nn.Module], image: Image) -> nn.Module:
    """A module whose norms have the statistics of what comes in, without which signals of new weights die away."""
    torch.manual_seed(7)
    module = build().train()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d | nn.BatchNorm1d):
            layer.momentum = 1.0
    module(torch.randn(8, *image))
    return module.eval()


def exported(module: nn.Module, image: Image, path: Path) -> Graph:
    """The imported network, and at `path` the ONNX file of it."""
    graph = load_torch(module, (torch.zeros(1, *image),))
    ir.save(graph.model, path)
    return graph


def check_outputs(module: nn.Module, image: Image, path: Path) -> None:
    """onnxruntime on the file gives what PyTorch gives, and something else for another image."""
    torch.manual_seed(3)
    x = torch.randn(1, *image)
    expected = module.eval()(x)
    runner = open_model(path)
    found = list(runner.run({runner.input_names[0]: x.numpy()})[0].values())
    other = list(runner.run({runner.input_names[0]: torch.randn(1, *image).numpy()})[0].values())
    expected = expected if isinstance(expected, tuple) else (expected,)
    for ours, theirs, turned in zip(expected, found, other, strict=True):
        values = ours.detach().numpy()
        assert np.abs(theirs - values).max() < 1e-4 * np.abs(values).max()
        assert np.abs(turned - values).max() > 1e-3 * np.abs(values).max()


def check_gradients(module: nn.Module, image: Image) -> None:
    """In training mode a step reaches every parameter."""
    torch.manual_seed(5)
    found = module.train()(torch.randn(4, *image))
    outputs = found if isinstance(found, tuple) else (found,)
    torch.stack([(output * torch.randn_like(output)).sum() for output in outputs]).sum().backward()
    for name, value in module.named_parameters():
        assert value.grad is not None and torch.isfinite(value.grad).all() and value.grad.abs().max() > 0, name


def on_host(path: Path, machine: str) -> list[str]:
    """Operators of layers a machine leaves to its host."""
    return [layer.layer.op for layer in estimate(str(path), hw=machine).layers if layer.engine == HOST]


def check_all(
    build: Callable[[], nn.Module],
    image: Image,
    path: Path,
    count: Callable[[Callable[[], nn.Module], Image], Counts] = counted_by_hooks,
    settle: Callable[[Callable[[], nn.Module], Image], nn.Module] = normalized,
) -> None:
    """Export to `path`, count twice, run twice, train, and cost without the host. count: the second count."""
    module = settle(build, image)
    graph = exported(module, image, path)
    assert counted_in_graph(graph) == count(build, image)
    check_outputs(module, image, path)
    check_gradients(module, image)
    assert on_host(path, "edge_npu") == []
