"""A second count of a network, without codesign: what torch says of its layers, on tensors that have no numbers."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import nn

from codesign.networks.architecture import Architecture
from codesign.networks.blocks import SqueezeExcite
from codesign.networks.counts import Counts

Seen = list[tuple[nn.Module, tuple[int, ...]]]


def without_numbers(found: Architecture) -> nn.Module:
    """The module on torch's meta device, in evaluation mode: sizes alone."""
    with torch.device("meta"):
        return found.build().eval()


def seen_layers(module: nn.Module, image: tuple[int, int, int]) -> Seen:
    """Convolutions and dense layers of a module on the meta device, with the shapes of what they make of one image."""
    seen: Seen = []

    def look(layer: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        seen.append((layer, tuple(output.shape)))

    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Linear)]
    hooks = [layer.register_forward_hook(look) for layer in layers]
    module(torch.empty(1, *image, device="meta"))
    for hook in hooks:
        hook.remove()
    return seen


def hooked_counts(module: nn.Module, image: tuple[int, int, int]) -> Counts:
    """Counts of a module on the meta device; every output of a layer takes the weights of one filter."""
    macs = sum(prod(shape) * prod(layer.weight.shape[1:]) for layer, shape in seen_layers(module, image))
    return Counts(*_stored(module), macs)


def walked_counts(module: nn.Module, side: int) -> Counts:
    """Counts of a chain of blocks without running it, padded with "same" or with the zeros of another image."""
    squeezing = {layer for part in module.modules() if isinstance(part, SqueezeExcite) for layer in part.modules()}
    macs = 0
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d) and layer not in squeezing:
            kernel, stride, image = layer.kernel_size[0], layer.stride[0], getattr(layer, "side", None) or side
            zeros = max(0, (-(-image // stride) - 1) * stride + kernel - image)
            side = (side + zeros - kernel) // stride + 1
            macs += layer.weight.numel() * side * side
        elif isinstance(layer, nn.Conv2d | nn.Linear):
            macs += layer.weight.numel()
    return Counts(*_stored(module), macs)


def _stored(module: nn.Module) -> tuple[int, int]:
    """Learned values, and running means and variances."""
    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    statistics = sum(layer.running_mean.numel() + layer.running_var.numel() for layer in norms)
    return sum(value.numel() for value in module.parameters()), statistics
