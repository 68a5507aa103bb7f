"""Networks with attention, and MicroNet: printed figures, attention against PyTorch's, onnxruntime, gradients."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from codesign.networks.architecture import Architecture  # noqa: E402
from codesign.networks.attention import LinformerAttention, SelfAttention  # noqa: E402
from codesign.networks.families import edgevit, linformer, micronet, mobilevitv3  # noqa: E402
from tests.papers_networks import (  # noqa: E402
    Counts,
    Image,
    check_all,
)

FAMILIES = (edgevit, linformer, micronet, mobilevitv3)
PUBLISHED: dict[str, Architecture] = {entry.name: entry for family in FAMILIES for entry in family.ARCHITECTURES}


def counted_by_torch(build: Callable[[], torch.nn.Module], image: Image) -> Counts:
    """PyTorch's own counter of operations, which sees products of activations too, on tensors without values."""
    with torch.device("meta"):
        module = build().eval()
        x = torch.empty(1, *image)
    with FlopCounterMode(display=False) as counter:
        module(x)
    return Counts(sum(value.numel() for value in module.parameters()), counter.get_total_flops() // 2)


# Millions of parameters and MACs. Printed for MobileViTv3 in the survey's table 5.4 (digits cut off, not rounded), for
# EdgeViT in later papers.
PRINTED = {
    "mobilevitv3_0.5": (1.4, 480, 10),
    "mobilevitv3_1.0": (5.1, 1870, 10),
    "edgevit_xxs": (4.1, 600, 50),
    "edgevit_s": (13.1, 1900, 50),
}


@pytest.mark.parametrize("name", PRINTED)
def test_printed_figures(name: str) -> None:
    parameters, macs, digit = PRINTED[name]
    found = counted_by_torch(PUBLISHED[name].build, PUBLISHED[name].image)
    assert round(found.parameters / 1e6, 1) == parameters
    assert abs(found.macs / 1e6 - macs) < digit


@pytest.mark.parametrize(("size", "parameters", "macs"), [("xxs", 1.2, 280), ("xs", 2.5, 920), ("s", 5.8, 1840)])
def test_mobilevitv3_as_its_authors_count(size: str, parameters: float, macs: float) -> None:
    """Their profiler takes a product of attention for tokens x channels x channels MACs, not tokens^2 x channels."""
    found = counted_by_torch(PUBLISHED[f"mobilevitv3_{size}"].build, (3, 256, 256))
    over = 0
    for (_, width, depth), side in zip(mobilevitv3.SIZES[size].mixed, (32, 16, 8), strict=True):
        tokens = (side // 2) ** 2
        over += (
            2 * 4 * depth * (tokens * tokens * width - tokens * width * width)
        )  # of 4 pixels a patch, by key and value
    assert round(found.parameters / 1e6, 1) == parameters
    assert abs((found.macs - over) / 1e6 - macs) < 10
    if size != "s":
        assert abs(found.macs / 1e6 - macs) > 40


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [("micronet_m0", 1.0, 4), ("micronet_m1", 1.8, 6), ("micronet_m2", 2.4, 12), ("micronet_m3", 2.6, 21)],
)
def test_micronet_as_printed_with_one_mac_for_every_result_of_batch_norm(
    name: str, parameters: float, macs: int
) -> None:
    """Figures of the README of the authors' code."""
    with torch.device("meta"):
        module = PUBLISHED[name].build().eval()
        x = torch.empty(1, 3, 224, 224)
    normed = 0

    def count(layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal normed
        normed += output.numel()

    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.register_forward_hook(count)
    module(x)
    found = counted_by_torch(PUBLISHED[name].build, (3, 224, 224))
    assert round(found.parameters / 1e6, 1) == parameters
    assert round((found.macs + normed) / 1e6) == macs
    assert round(found.macs / 1e6) < macs


def test_vit_without_linformer_is_vit_tiny() -> None:
    """5,717,416 parameters and 1,253,683,200 MACs are those of timm's vit_tiny_patch16_224."""
    assert counted_by_torch(partial(linformer.VisionTransformer, rank=0), (3, 224, 224)) == Counts(5717416, 1253683200)
    found = counted_by_torch(linformer.VisionTransformer, (3, 224, 224))
    assert found == Counts(5717416 + 12 * 2 * 197 * 64, 1253683200 - 12 * 2 * (197 * 197 - 2 * 197 * 64) * 192)


def test_self_attention_is_that_of_pytorch() -> None:
    torch.manual_seed(0)
    ours, theirs = SelfAttention(12, 3), torch.nn.MultiheadAttention(12, 3, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(ours.query_key_value.weight)
        theirs.in_proj_bias.copy_(ours.query_key_value.bias)
        theirs.out_proj.load_state_dict(ours.projection.state_dict())
    x = torch.randn(2, 5, 12)
    torch.testing.assert_close(ours(x), theirs(x, x, x)[0])
    assert not torch.allclose(ours(x), SelfAttention(12, 3)(x))


def test_linformer_with_as_many_made_tokens_as_tokens_can_be_full_attention() -> None:
    torch.manual_seed(0)
    full, ours = SelfAttention(12, 3), LinformerAttention(12, 3, tokens=5, rank=5)
    ours.load_state_dict(full.state_dict(), strict=False)
    x = torch.randn(2, 5, 12)
    assert not torch.allclose(ours(x), full(x))
    with torch.no_grad():
        for projection in (ours.of_keys, ours.of_values):
            projection.weight.copy_(torch.eye(5))
    torch.testing.assert_close(ours(x), full(x))


def test_patches_and_back() -> None:
    x = torch.arange(2 * 3 * 4 * 6.0).reshape(2, 3, 4, 6)
    patches = mobilevitv3.to_patches(x)
    assert patches.shape == (2, 4, 6, 3)
    assert torch.equal(patches[1, 2, :, 0], x[1, 0, 1::2, 0::2].flatten())  # the third pixel is below the first
    assert torch.equal(mobilevitv3.to_image(patches, x), x)


def test_shift_max_takes_the_next_channel_of_the_next_group() -> None:
    """With weights of (1, 0) for the first sum and (0, 1) for the second, as if nothing had been learned."""
    module = micronet.DynamicShiftMax(6, groups=2, reduction=1, start=((1.0, 0.0), (0.0, 1.0)))
    torch.nn.init.zeros_(module.weights[3].weight)
    torch.nn.init.zeros_(module.weights[3].bias)
    x = torch.randn(2, 6, 3, 3)
    following = x[:, [4, 5, 3, 1, 2, 0]]
    torch.testing.assert_close(module(x), torch.maximum(x, following))
    single = micronet.DynamicShiftMax(6, groups=2, reduction=1, maximum=False)
    torch.nn.init.zeros_(single.weights[3].weight)
    torch.nn.init.zeros_(single.weights[3].bias)
    torch.testing.assert_close(single(x), x)


VIT = mobilevitv3.Size(8, ((8, 1),), ((16, 24, 1),), expansion=2, head=32)
MICRO = micronet.Size(
    (2, 2),
    16,
    (  # one of every kind of block
        micronet.Row(2, 8, 3, (2, 2), 0, 4, 2, (True, False, True), 8),
        micronet.Row(1, 8, 5, (1, 4), 4, 4, 4, (True, True, True), 8),
        micronet.Row(1, 32, 3, (1, 4), 4, 4, 0, (False, True, True), 8),
    ),
)


SMALL: dict[str, Callable[[], torch.nn.Module]] = {
    "mobilevitv3": partial(mobilevitv3.MobileViTv3, VIT, classes=7),
    "mobilevitv3_linear": partial(mobilevitv3.MobileViTv3, VIT, mobilevitv3.LinearFusion, classes=7),
    "edgevit": partial(edgevit.edgevit, (16, 24), (1, 1), 8, (2, 1), classes=7),
    "linformer": partial(linformer.VisionTransformer, 16, 1, 2, 4, 8, 32, classes=7),
    "micronet": partial(micronet.MicroNet, MICRO, classes=7),
}


@pytest.mark.parametrize("name", SMALL)
def test_small_ones_export_run_train_and_cost(name: str, tmp_path: Path) -> None:
    check_all(SMALL[name], (3, 32, 32), tmp_path / "network.onnx", counted_by_torch)
