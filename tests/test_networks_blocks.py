"""Shared building blocks: widths, and padding as onnxruntime does it."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

torch = pytest.importorskip("torch")

from codesign.networks.blocks import (  # noqa: E402
    ConvNormAct,
    EfficientChannelAttention,
    InvertedResidual,
    SqueezeExcite,
    convolution,
    power_of_two,
    round_to_8,
)


@pytest.mark.parametrize(
    ("channels", "rounded"),
    [(3, 8), (11.9, 16), (12, 16), (26.6, 24), (26.7, 32), (34.7, 32), (36, 40), (18.4, 24), (17.7, 16)],
)
def test_round_to_8(channels: float, rounded: int) -> None:
    assert round_to_8(channels) == rounded


def test_round_to_8_never_falls_below_90_percent() -> None:
    assert round_to_8(11.4) == 16  # the nearest, 8, is 70 %
    assert all(round_to_8(channels / 10) >= 0.9 * channels / 10 for channels in range(1, 4000))


def test_power_of_two() -> None:
    # The paper's rule written out: up when strictly nearer.
    for channels in range(1, 3000):
        up, down = 2 ** int(np.ceil(np.log2(channels))), 2 ** int(np.floor(np.log2(channels)))
        assert power_of_two(channels) == (up if up - channels < channels - down else down)
    assert (power_of_two(24), power_of_two(25), power_of_two(96), power_of_two(320)) == (16, 32, 64, 256)


def same_upper(x: np.ndarray, weight: np.ndarray, stride: int, pad: str) -> np.ndarray:
    """A convolution of onnxruntime that works its padding out itself."""
    node = helper.make_node("Conv", ["x", "w"], ["y"], strides=[stride] * 2, auto_pad=pad)
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, list("bcij"))]
    graph = helper.make_graph([node], "g", inputs, outputs, [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize("size", [15, 16, 17])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 2), (7, 4)])
def test_same_padding_is_that_of_onnxruntime(size: int, kernel: int, stride: int) -> None:
    torch.manual_seed(0)
    ours = convolution(3, 4, kernel, stride, padding="same")
    x = torch.randn(2, 3, size, size + 1)
    result = ours(x).detach().numpy()
    weight = ours.weight.detach().numpy()
    np.testing.assert_allclose(result, same_upper(x.numpy(), weight, stride, "SAME_UPPER"), rtol=1e-4, atol=1e-5)
    if stride == 2:  # the odd zero must not stand in front
        lower = same_upper(x.numpy(), weight, stride, "SAME_LOWER")
        assert np.abs(result - lower).max() > 0.1
    assert convolution(3, 4, kernel, stride)(x).shape == result.shape


def test_same_padding_of_a_dilated_kernel() -> None:
    ours, x = convolution(3, 4, 3, dilation=2, padding="same"), torch.randn(1, 3, 11, 12)
    theirs = torch.nn.functional.conv2d(x, ours.weight, padding="same", dilation=2)
    assert torch.equal(ours(x), theirs)


def test_parts_of_an_inverted_residual() -> None:
    block = InvertedResidual(16, 16, 96, 5, squeezed=4)
    kinds = [type(layer) for layer in block.layers]
    assert kinds == [ConvNormAct, ConvNormAct, SqueezeExcite, ConvNormAct]
    assert block.adds_input
    assert len(InvertedResidual(16, 24, 16).layers) == 2
    assert len(InvertedResidual(16, 24, 16, always_expand=True).layers) == 3
    assert not InvertedResidual(16, 24, 96).adds_input
    assert not InvertedResidual(16, 16, 96, stride=2).adds_input


def test_squeeze_excite_weighs_channels() -> None:
    torch.manual_seed(0)
    block = SqueezeExcite(8, 2)
    x = torch.randn(3, 8, 5, 5)
    ratio = (block(x) / x).detach()
    assert torch.allclose(ratio, ratio[:, :, :1, :1].expand_as(ratio), atol=1e-5)
    assert ratio.std() > 1e-3


@pytest.mark.parametrize("kernel", [1, 3])
def test_channel_attention_weighs_neighbours(kernel: int) -> None:
    torch.manual_seed(0)
    attention, x = EfficientChannelAttention(kernel), torch.randn(2, 7, 5, 4)
    averages = x.numpy().mean((2, 3))
    taps = attention.across.weight.detach().numpy().reshape(kernel)
    # numpy turns the second one round; PyTorch does not
    mixed = np.stack([np.convolve(row, taps[::-1], "same") for row in averages])
    weighed = x.numpy() / (1 + np.exp(-mixed))[:, :, None, None]
    np.testing.assert_allclose(attention(x).detach().numpy(), weighed, rtol=1e-5)
    if kernel == 3:  # the order matters
        turned = np.stack([np.convolve(row, taps, "same") for row in averages])
        assert np.abs(turned - mixed).max() > 1e-3
