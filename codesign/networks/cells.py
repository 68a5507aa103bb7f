"""Networks of cells: a cell as data, as architecture searches find them, and the network that stacks it.

A cell reads the result of the cell before it and of the one before that, both made as wide as the cell. Every node
applies an operation to each of two states and adds what comes out; the cell's result is some of the states, joined.

Source: Zoph et al., Learning Transferable Architectures, 2018; widths, strides and what happens at the borders as in
its authors' public TensorFlow code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from codesign.networks.blocks import SameConvolution, convolution

EPSILON = 1e-3  # of BatchNorm, in all these networks


@dataclass(frozen=True)
class Cell:
    """A kind of cell.

    nodes: (operation, state, operation, state). State 0 is the result of the cell before, 1 that of the cell before
    that one, 2 the first node. outputs: the states that are joined, along channels.
    """

    nodes: tuple[tuple[str, int, str, int], ...]
    outputs: tuple[int, ...]


class ConvNorm(nn.Sequential):
    """A convolution without bias and BatchNorm, padded as TensorFlow does. kernel: rows and columns, or a square."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
    ) -> None:
        layer = SameConvolution(in_channels, out_channels, kernel, stride, bias=False)
        super().__init__(layer, nn.BatchNorm2d(out_channels, eps=EPSILON))


class Separable(nn.Sequential):
    """Twice a depthwise and a 1x1 convolution, with ReLU between the two. The stride is in the first."""

    def __init__(self, in_channels: int, channels: int, kernel: int, stride: int, dilation: int = 1) -> None:
        layers: list[nn.Module] = []
        for inner, step in ((in_channels, stride), (channels, 1)):
            depthwise = convolution(inner, inner, kernel, step, groups=inner, dilation=dilation, padding="same")
            layers += [depthwise, ConvNorm(inner, channels, 1), nn.ReLU()]
        super().__init__(*layers[:-1])


class Bottleneck(nn.Sequential):
    """Convolutions with a quarter of the channels between two 1x1 convolutions. kernels: with the stride of each."""

    def __init__(
        self, in_channels: int, channels: int, kernels: Sequence[tuple[tuple[int, int], tuple[int, int]]]
    ) -> None:
        inner = channels // 4
        layers: list[nn.Module] = [ConvNorm(in_channels, inner, 1), nn.ReLU()]
        for kernel, stride in kernels:
            layers += [ConvNorm(inner, inner, kernel, stride), nn.ReLU()]
        super().__init__(*layers, ConvNorm(inner, channels, 1))


class Pooling(nn.Module):
    """Maximum or average of the pixels there are under a square window, ceil(input / stride) results along an axis.

    As TensorFlow pads: an odd pixel of the border is behind, where ceil_mode takes it.
    """

    def __init__(self, kind: str, kernel: int, stride: int) -> None:
        super().__init__()
        self.kind, self.kernel, self.stride = kind, kernel, stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = x.shape[-1]  # the images of these networks are square
        border = max(0, (size - 1) // self.stride * self.stride + self.kernel - size)
        window = {"stride": self.stride, "padding": border // 2, "ceil_mode": border % 2 == 1}
        if self.kind == "max":
            return functional.max_pool2d(x, self.kernel, **window)
        return functional.avg_pool2d(x, self.kernel, count_include_pad=False, **window)


class FactorizedReduction(nn.Module):
    """Half the rows and columns: a 1x1 convolution of the pixels at even places beside one of those at odd places."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.even = nn.Conv2d(in_channels, channels // 2, 1, 2, bias=False)
        self.odd = nn.Conv2d(in_channels, channels - channels // 2, 1, 2, bias=False)
        self.norm = nn.BatchNorm2d(channels, eps=EPSILON)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shifted = x[:, :, 1:, 1:]
        if x.shape[-1] % 2:  # the last pixel at an odd place lies behind the border
            shifted = functional.pad(shifted, (0, 1, 0, 1))
        return self.norm(torch.cat((self.even(x), self.odd(shifted)), 1))


POOLS = {f"{kind}_{kernel}x{kernel}": (kind, kernel) for kind in ("max", "average") for kernel in (2, 3)}


def operation(name: str, in_channels: int, channels: int, stride: int) -> tuple[nn.Module, bool]:
    """An operation of a cell, and whether it reads its state after ReLU. Raises ValueError when there is none.

    Pooling and `identity` make no other width; where they must, a 1x1 convolution does.
    """
    match name:
        case "separable_3x3" | "separable_5x5" | "separable_7x7":
            return Separable(in_channels, channels, int(name[-1]), stride), True
        case "dilated_separable_5x5":
            return Separable(in_channels, channels, 5, stride, dilation=2), True
        case "1x1":
            return ConvNorm(in_channels, channels, 1, stride), True
        case "3x3":
            return Bottleneck(in_channels, channels, [((3, 3), (stride, stride))]), True
        case "1x7_7x1":
            return Bottleneck(in_channels, channels, [((1, 7), (1, stride)), ((7, 1), (stride, 1))]), True
        case "identity" if stride == 1 and in_channels == channels:
            return nn.Identity(), False
        case "identity":
            return ConvNorm(in_channels, channels, 1, stride), True
        case _ if name in POOLS:
            pool = Pooling(*POOLS[name], stride)
            same = in_channels == channels
            return (pool if same else nn.Sequential(pool, ConvNorm(in_channels, channels, 1))), False
    raise ValueError(f"no operation of a cell is called {name}")


class CellModule(nn.Module):
    """A cell of a network: two tensors in, one out, with len(cell.outputs) * width channels.

    before: channels of the results of the cell before and of the one before that, and whether the latter is twice as
    large; None for the latter where there is none: the first cell of a network takes its input as it is for state 1.
    """

    def __init__(self, cell: Cell, before: tuple[int, int | None, bool], width: int, stride: int) -> None:
        super().__init__()
        self.cell = cell
        channels, earlier, larger = before
        self.first = ConvNorm(channels, width, 1)
        self.second = None if earlier is None else _narrowed(earlier, width, larger)
        widths = [width, channels if earlier is None else width] + [width] * len(cell.nodes)
        self.operations = nn.ModuleList()
        self.reads: list[tuple[int, bool]] = []
        for node in cell.nodes:
            for name, state in (node[:2], node[2:]):
                made, activated = operation(name, widths[state], width, stride if state < 2 else 1)
                self.operations.append(made)
                self.reads.append((state, activated))
        reduced = [state for state in cell.outputs if state < 2 and stride == 2]
        self.reductions = nn.ModuleDict({str(state): FactorizedReduction(widths[state], width) for state in reduced})
        self.channels = len(cell.outputs) * width

    def forward(self, x: torch.Tensor, earlier: torch.Tensor) -> torch.Tensor:
        second = earlier if self.second is None else self.second(functional.relu(earlier))
        states = [self.first(functional.relu(x)), second]
        activated: dict[int, torch.Tensor] = {}  # one ReLU for all who read a state
        results = []
        for made, (state, after_relu) in zip(self.operations, self.reads, strict=True):
            if after_relu and state not in activated:
                activated[state] = functional.relu(states[state])
            results.append(made(activated[state] if after_relu else states[state]))
            if len(results) % 2 == 0:
                states.append(results[-2] + results[-1])
        for state, reduction in self.reductions.items():
            states[int(state)] = reduction(states[int(state)])
        return torch.cat([states[state] for state in self.cell.outputs], 1)


def _narrowed(in_channels: int, width: int, larger: bool) -> nn.Module:
    return FactorizedReduction(in_channels, width) if larger else ConvNorm(in_channels, width, 1)


class CellNetwork(nn.Module):
    """Cells one after another for ImageNet: (batch, channels, rows, columns) to (batch, classes).

    A 3x3 convolution and two reduction cells with a quarter and half of `width` come first. Then come stages of as
    many normal cells as `normal_cells` says, a reduction cell between two of them, each twice as wide as the last.
    """

    def __init__(
        self,
        normal: Cell,
        reduction: Cell,
        *,
        normal_cells: tuple[int, ...] = (4, 4, 4),
        width: int = 44,
        stem: int = 32,
        classes: int = 1000,
        channels: int = 3,
    ) -> None:
        super().__init__()
        plan = [(reduction, width // 4, 2), (reduction, width // 2, 2)]
        for stage, cells in enumerate(normal_cells):
            plan += [(reduction, width << stage, 2)] if stage else []
            plan += [(normal, width << stage, 1)] * cells
        self.stem = nn.Sequential(nn.Conv2d(channels, stem, 3, 2, bias=False), nn.BatchNorm2d(stem, eps=EPSILON))
        self.cells = nn.ModuleList()
        made: tuple[int, int | None] = (stem, None)
        halved = False
        for cell, cell_width, stride in plan:
            module = CellModule(cell, (*made, halved), cell_width, stride)
            self.cells.append(module)
            made, halved = (module.channels, made[0]), stride == 2
        self.head = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(made[0], classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        earlier = x = self.stem(x)
        for cell in self.cells:
            earlier, x = x, cell(x, earlier)
        return self.head(x)
