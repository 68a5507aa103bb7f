"""Building blocks that families share: convolution with norm and activation, squeeze-excite, inverted residual, widths.

Images are (batch, channels, rows, columns). A square is given by one number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

Activation = Callable[[], nn.Module]
# "symmetric" puts (kernel - 1) / 2 zeros on every side, as PyTorch's own networks do. "same" puts as few zeros as a
# result of ceil(input / stride) needs, the odd one behind, as TensorFlow does. Both give results of the same size. A
# number puts the zeros that "same" puts around an image of so many rows and columns, whatever comes in: an image of odd
# size in a network for an even one loses its last row. Early EfficientNets in PyTorch are padded so.
Padding = Literal["symmetric", "same"] | int


def round_to_8(channels: float, multiple: int = 8) -> int:
    """The nearest multiple of 8, halves up, at least 8, and one more where it would be below 90 % of `channels`.

    Source: MobileNetV2 and EfficientNet, as their authors' code scales widths.
    """
    rounded = max(multiple, int(channels + multiple / 2) // multiple * multiple)
    return rounded + multiple if rounded < 0.9 * channels else rounded


def power_of_two(channels: int) -> int:
    """The nearest power of two, the lower one of two as near: 24 becomes 16, 25 becomes 32.

    Source: compound channels rounding, Wang et al., EfficientNet-eLite, equation 7.
    """
    below = 1 << (channels.bit_length() - 1)
    return below if channels - below <= 2 * below - channels else 2 * below


class SameConvolution(nn.Conv2d):
    """A convolution with padding "same": the zeros follow from the size of what comes in, or from `side`.

    An exported network has one input size, so they are constants there. An odd zero stands behind, as a Pad of its own.
    """

    side: int | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        image = x.shape[2:] if self.side is None else (self.side, self.side)
        sizes = zip(image, self.kernel_size, self.stride, self.dilation, strict=True)
        rows, columns = (_zeros(*size) for size in sizes)
        even = (rows // 2, columns // 2)
        if rows % 2 or columns % 2:
            x = functional.pad(x, (even[1], columns - even[1], even[0], rows - even[0]))
            even = (0, 0)
        return functional.conv2d(x, self.weight, self.bias, self.stride, even, self.dilation, self.groups)


def _zeros(size: int, kernel: int, stride: int, dilation: int) -> int:
    """How many zeros along one axis, before and behind together."""
    last = (size - 1) // stride * stride  # where the last window begins
    return max(0, last + (kernel - 1) * dilation + 1 - size)


def convolution(
    in_channels: int,
    out_channels: int,
    kernel: int,
    stride: int = 1,
    *,
    groups: int = 1,
    dilation: int = 1,
    padding: Padding = "symmetric",
    bias: bool = False,
) -> nn.Conv2d:
    """A convolution whose result has ceil(input / stride) rows and columns. kernel: odd."""
    if padding == "symmetric":
        zeros = (kernel - 1) // 2 * dilation
        return nn.Conv2d(in_channels, out_channels, kernel, stride, zeros, dilation, groups, bias)
    made = SameConvolution(in_channels, out_channels, kernel, stride, dilation=dilation, groups=groups, bias=bias)
    made.side = None if padding == "same" else padding
    return made


class ConvNormAct(nn.Sequential):
    """Convolution without bias, BatchNorm, activation; no activation when it is None. The rest as in `convolution`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 3,
        stride: int = 1,
        *,
        groups: int = 1,
        dilation: int = 1,
        activation: Activation | None = nn.ReLU,
        padding: Padding = "symmetric",
        epsilon: float = 1e-5,
    ) -> None:
        layers = [
            convolution(in_channels, out_channels, kernel, stride, groups=groups, dilation=dilation, padding=padding),
            nn.BatchNorm2d(out_channels, eps=epsilon),
        ]
        super().__init__(*layers, *([activation()] if activation is not None else []))


class SqueezeExcite(nn.Module):
    """Weighs channels by what their averages say: pool, 1x1 to `squeezed`, activation, 1x1 back, gate, multiply.

    Source: Hu et al., Squeeze-and-Excitation Networks, 2018; with convolutions and biases as in MobileNetV3.
    """

    def __init__(
        self, channels: int, squeezed: int, activation: Activation = nn.ReLU, gate: Activation = nn.Sigmoid
    ) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.squeeze = nn.Conv2d(channels, squeezed, 1)
        self.activation = activation()
        self.excite = nn.Conv2d(squeezed, channels, 1)
        self.gate = gate()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gate(self.excite(self.activation(self.squeeze(self.pool(x)))))


class EfficientChannelAttention(nn.Module):
    """Weighs channels by the averages of a few neighbours: pool, convolve along the channels, sigmoid, multiply.

    kernel: how many channels weigh in, odd. Source: Wang et al., ECA-Net, 2020.
    """

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.across = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        averages = self.pool(x).flatten(2).transpose(1, 2)  # (batch, 1, channels)
        return x * torch.sigmoid(self.across(averages)).transpose(1, 2).unsqueeze(-1)


class InvertedResidual(nn.Module):
    """1x1 to `expanded` channels, depthwise, squeeze-excite, 1x1 to `out_channels` without activation; plus the input.

    Nothing is expanded where `expanded` is `in_channels`, unless `always_expand`. squeezed: channels between the two
    halves of squeeze-excite; 0 for none. The input is added where stride is 1 and the channels stay.
    Source: Sandler et al., MobileNetV2, 2018; with squeeze-excite Tan et al., MnasNet, 2019.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        expanded: int,
        kernel: int = 3,
        stride: int = 1,
        *,
        squeezed: int = 0,
        activation: Activation = nn.ReLU6,
        squeeze_activation: Activation = nn.ReLU,
        gate: Activation = nn.Sigmoid,
        padding: Padding = "symmetric",
        epsilon: float = 1e-5,
        always_expand: bool = False,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if expanded != in_channels or always_expand:
            layers += [ConvNormAct(in_channels, expanded, 1, activation=activation, epsilon=epsilon)]
        layers += [
            ConvNormAct(
                expanded,
                expanded,
                kernel,
                stride,
                groups=expanded,
                activation=activation,
                padding=padding,
                epsilon=epsilon,
            )
        ]
        if squeezed:
            layers += [SqueezeExcite(expanded, squeezed, squeeze_activation, gate)]
        layers += [ConvNormAct(expanded, out_channels, 1, activation=None, epsilon=epsilon)]
        self.layers = nn.Sequential(*layers)
        self.adds_input = stride == 1 and in_channels == out_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.layers(x) if self.adds_input else self.layers(x)


def pooled_classifier(channels: int, classes: int) -> nn.Sequential:
    """Global average pooling and one dense layer: (batch, channels, rows, columns) to (batch, classes)."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(channels, classes))
