"""Writes multi-branch networks as their training leaves them, for evidence_merging.py, and what they should merge into.

    python benchmarks/branch_networks.py FOLDER [--only repvgg_a0,dbb]

Needs PyTorch with onnx and timm; nothing of codesign. FOLDER gets ts/, bn/ and dynamo/ (the TorchScript exporter with
BatchNormalization folded by PyTorch and kept, and the dynamo exporter) with one ONNX file for each network, and
expected.json: convolutions and parameters after re-parameterisation, for RepVGG and MobileOne those of timm's own
`reparameterize_model`. What is there already is not made again.

Nothing is trained. Normalisations get nearly the statistics of what flows through them, like trained ones, and random
scales and shifts; so every branch matters to the output, and nothing grows from layer to layer.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from timm.utils.model import reparameterize_model
from torch import Tensor, nn
from torch.nn import functional

RESOLUTION = 224
EXPORTERS = ("ts", "bn", "dynamo")
MORE = ("fastvit_t8", "repvit_m0_9", "repghostnet_050")  # timm's own form of these differs in more than branches
PUBLISHED = (
    *(f"repvgg_{size}" for size in ("a0", "a1", "a2", "b0", "b1", "b1g4", "b2", "b2g4", "b3")),
    *(f"mobileone_s{size}" for size in range(5)),
    *MORE,
)


class Norm(nn.BatchNorm2d):
    """BatchNorm2d, and what it makes of zero."""

    def of_zero(self) -> Tensor:
        return self.bias - self.running_mean * self.weight / torch.sqrt(self.running_var + self.eps)


def conv_norm(inputs: int, outputs: int, kernel: int | tuple[int, int], **more: object) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, bias=False, **more), Norm(outputs))


class AsymmetricBlock(nn.Module):
    """ACNet's block: 3x3, 1x3 and 3x1, each normalised. Source: Ding et al., ICCV 2019, figure 2."""

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int) -> None:
        super().__init__()
        more = {"stride": stride, "groups": groups}
        self.square = conv_norm(inputs, outputs, 3, padding=1, **more)
        self.row = conv_norm(inputs, outputs, (1, 3), padding=(0, 1), **more)
        self.column = conv_norm(inputs, outputs, (3, 1), padding=(1, 0), **more)

    def forward(self, x: Tensor) -> Tensor:
        return self.square(x) + self.column(x) + self.row(x)


class NormAndPad(nn.Module):
    """Normalises, then pads with what the normalisation makes of zero, so that a 1x1 before it still merges."""

    def __init__(self, channels: int, pad: int = 1) -> None:
        super().__init__()
        self.norm, self.pad = Norm(channels), pad

    def forward(self, x: Tensor) -> Tensor:
        y = functional.pad(self.norm(x), [self.pad] * 4)
        value = self.norm.of_zero().view(1, -1, 1, 1)
        y[:, :, 0 : self.pad, :] = value
        y[:, :, -self.pad :, :] = value
        y[:, :, :, 0 : self.pad] = value
        y[:, :, :, -self.pad :] = value
        return y


class IdentityBasedConv(nn.Module):
    """A 1x1 convolution whose weights are added to the identity."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.weight = nn.Parameter(torch.randn(channels, channels // groups, 1, 1) * 0.1)
        identity = torch.zeros(channels, channels // groups, 1, 1)
        for channel in range(channels):
            identity[channel, channel % (channels // groups)] = 1
        self.register_buffer("identity", identity)

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.weight + self.identity, groups=self.groups)


class DiverseBlock(nn.Module):
    """Diverse Branch Block: 3x3, 1x1, 1x1 - average, 1x1 - 3x3. Source: Ding et al., CVPR 2021, figure 2; depthwise
    blocks as in the authors' code: no 1x1, the average pads with zeros, and the inner width is doubled."""

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int) -> None:
        super().__init__()
        more = {"stride": stride, "groups": groups}
        self.square = conv_norm(inputs, outputs, 3, padding=1, **more)
        if groups < outputs:
            self.point: nn.Module | None = conv_norm(inputs, outputs, 1, **more)
            first = nn.Conv2d(inputs, outputs, 1, groups=groups, bias=False)
            self.average = nn.Sequential(first, NormAndPad(outputs), nn.AvgPool2d(3, stride), Norm(outputs))
            inner, narrow = inputs, IdentityBasedConv(inputs, groups)
        else:
            self.point = None
            self.average = nn.Sequential(nn.AvgPool2d(3, stride, 1), Norm(outputs))
            inner = 2 * inputs
            narrow = nn.Conv2d(inputs, inner, 1, groups=groups, bias=False)
        self.sequence = nn.Sequential(narrow, NormAndPad(inner), *conv_norm(inner, outputs, 3, **more))

    def forward(self, x: Tensor) -> Tensor:
        y = self.square(x)
        if self.point is not None:
            y = y + self.point(x)
        return y + self.average(x) + self.sequence(x)


class PlainBlock(nn.Conv2d):
    """What a block merges into."""

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int) -> None:
        super().__init__(inputs, outputs, 3, stride, 1, groups=groups)


class Stack(nn.Module):
    """A small classifier of blocks: dense, strided, in groups and depthwise ones."""

    LAYERS = ((3, 32, 2, 1), (32, 64, 2, 1), (64, 64, 1, 1), (64, 128, 2, 4), (128, 128, 1, 128), (128, 256, 2, 1))

    def __init__(self, block: Callable[[int, int, int, int], nn.Module]) -> None:
        super().__init__()
        blocks = [nn.Sequential(block(*layer), nn.ReLU()) for layer in self.LAYERS]
        self.blocks, self.classifier = nn.Sequential(*blocks), nn.Linear(self.LAYERS[-1][1], 1000)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.blocks(x).mean((2, 3)))


BLOCKS = {"acnet": AsymmetricBlock, "dbb": DiverseBlock}


def built(name: str) -> nn.Module:
    """The network in its training form, ready for inference."""
    torch.manual_seed(0)
    model = Stack(BLOCKS[name]) if name in BLOCKS else timm.create_model(name, pretrained=False)
    _enliven(model)
    return model.eval()


def _enliven(model: nn.Module) -> None:
    """Give every normalisation, in the order they run, nearly the statistics of what it is handed."""
    hooks = [
        module.register_forward_pre_hook(_calibrate) for module in model.modules() if isinstance(module, nn.BatchNorm2d)
    ]
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                nn.init.normal_(module.bias, 0, 0.1)  # exporters store equal constants, as many zeros, only once
        model.eval()(torch.randn(2, 3, RESOLUTION, RESOLUTION))
    for hook in hooks:
        hook.remove()


def _calibrate(norm: nn.BatchNorm2d, inputs: tuple[Tensor, ...]) -> None:
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias, 0, 0.2)
    variance, mean = torch.var_mean(inputs[0], dim=(0, 2, 3))
    norm.running_mean.copy_(mean + 0.2 * variance.sqrt() * torch.randn_like(mean))
    norm.running_var.copy_(variance * torch.empty_like(variance).uniform_(0.7, 1.4) + 1e-3)


def expected(name: str) -> dict[str, object]:
    """Convolutions and parameters after re-parameterisation, and before."""
    model = built(name)
    before = sum(isinstance(module, nn.Conv2d | IdentityBasedConv) for module in model.modules())
    merged = Stack(PlainBlock) if name in BLOCKS else reparameterize_model(model)
    return {
        "network": name,
        "before": before,
        "convolutions": sum(isinstance(module, nn.Conv2d) for module in merged.modules()),
        "parameters": sum(parameter.numel() for parameter in merged.parameters()),
        "same_parameters": name not in MORE,
        "source": "the same stack of plain convolutions" if name in BLOCKS else f"timm {timm.__version__}",
    }


def export(model: nn.Module, path: Path, exporter: str) -> None:
    part = path.with_suffix(".part")
    x = torch.randn(1, 3, RESOLUTION, RESOLUTION)
    with torch.no_grad():
        if exporter == "dynamo":
            torch.onnx.export(model, (x,), part, dynamo=True, opset_version=18, external_data=False, verbose=False)
        elif exporter == "bn":
            mode = torch.onnx.TrainingMode.PRESERVE
            torch.onnx.export(
                model, (x,), part, dynamo=False, opset_version=17, training=mode, do_constant_folding=False
            )
        else:
            torch.onnx.export(model, (x,), part, dynamo=False, opset_version=17)
    part.replace(path)


def make(folder: Path, name: str) -> None:
    figures = folder / "expected.json"
    known = json.loads(figures.read_text()) if figures.exists() else {}
    if name not in known:
        known[name] = expected(name)
        figures.write_text(json.dumps(known, indent=2) + "\n")
    for exporter in EXPORTERS:
        path = folder / exporter / f"{name}.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            export(built(name), path, exporter)
            print(path, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default="", help="names between commas")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    wanted = set(filter(None, options.only.split(",")))
    for name in (*BLOCKS, *PUBLISHED):
        if not wanted or name in wanted:
            make(options.folder, name)


if __name__ == "__main__":
    main()
