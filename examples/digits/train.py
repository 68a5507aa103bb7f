"""Trains two digits networks and writes digits.onnx, digits_wide.onnx and three .npz files beside this file.

Needs the extras torch and dev: `pip install '.[torch,dev]'`, then `python examples/digits/train.py` (about a minute
on one core). The seed, the split and the number of epochs are fixed; the held-out split is looked at once, at
the end.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

HERE = Path(__file__).resolve().parent
SEED = 2024
HELD_OUT_FRACTION = 0.2
EPOCHS = 40
BATCH = 64
CALIBRATION = 256
LARGEST_PIXEL = 16.0  # pixels are 0..16: dividing by a power of two is exact


def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """3x3 convolution, BatchNorm, ReLU: (B, inputs, H, W) -> (B, outputs, H/stride, W/stride)."""
    parts = OrderedDict[str, nn.Module]()
    parts["conv"] = nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
    parts["norm"] = nn.BatchNorm2d(outputs)
    parts["relu"] = nn.ReLU()
    return nn.Sequential(parts)


@dataclass(frozen=True)
class Widths:
    """Channels of the layers; by default powers of two."""

    stem: int = 16
    block: int = 32  # on both sides of the residual addition
    inner: int = 32
    top: int = 64


WIDE = Widths(stem=24, block=48, inner=40, top=96)  # drawn up before anyone looked at a chip


class DigitsNet(nn.Module):
    """Kernels are 3x3, and the last average is over 4x4 = 16 pixels: a shift by four.

    (B, 1, 8, 8) pixels in 0..1 -> (B, 10) logits.
    """

    def __init__(self, widths: Widths) -> None:
        super().__init__()
        self.stem = convolution(1, widths.stem)
        self.widen = convolution(widths.stem, widths.block)
        self.first = convolution(widths.block, widths.inner)
        self.second = convolution(widths.inner, widths.block)
        self.reduce = convolution(widths.block, widths.top, stride=2)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(widths.top, 10)

    def forward(self, image: Tensor) -> Tensor:
        features = self.widen(self.stem(image))
        features = self.reduce(features + self.second(self.first(features)))
        return self.classifier(self.average(features).flatten(1))


def split() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images (N, 1, 8, 8) float32 in 0..1, to train and held out, then their labels (N,) in the same order."""
    digits = load_digits()
    images = (digits.images / LARGEST_PIXEL).astype(np.float32)[:, None]
    labels = digits.target.astype(np.int64)
    return train_test_split(images, labels, test_size=HELD_OUT_FRACTION, random_state=SEED, stratify=labels)


def shifted(images: Tensor) -> Tensor:
    """The same images moved by up to one pixel each way, a new draw for every image."""
    padded = nn.functional.pad(images, (1, 1, 1, 1))
    moves = torch.randint(0, 3, (len(images), 2)).tolist()
    return torch.stack([padded[i, :, y : y + 8, x : x + 8] for i, (y, x) in enumerate(moves)])


def train(widths: Widths, images: Tensor, labels: Tensor) -> DigitsNet:
    """A network in evaluation mode, after EPOCHS passes over the training images."""
    torch.manual_seed(SEED)
    model = DigitsNet(widths)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=1e-2)
    batches = -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=EPOCHS * batches)
    for epoch in range(EPOCHS):
        total = 0.0
        for picked in torch.randperm(len(images)).split(BATCH):
            loss = nn.functional.cross_entropy(model(shifted(images[picked])), labels[picked], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * len(picked)
        print(f"epoch {epoch + 1:2d}/{EPOCHS}  loss {total / len(images):.4f}", flush=True)
    return model.eval()


def export(model: DigitsNet, path: Path) -> None:
    """Writes ONNX with BatchNorm kept as an operator, so that the compiler's own passes have it to fold."""
    torch.onnx.export(
        model,
        (torch.zeros(1, 1, 8, 8),),
        str(path),
        input_names=["image"],
        output_names=["logits"],
        opset_version=17,
        dynamo=False,
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
    )


def main() -> None:
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    train_images, heldout_images, train_labels, heldout_labels = split()
    for name, widths in (("digits.onnx", Widths()), ("digits_wide.onnx", WIDE)):
        model = train(widths, torch.from_numpy(train_images), torch.from_numpy(train_labels))
        with torch.no_grad():
            predicted = model(torch.from_numpy(heldout_images)).argmax(1).numpy()
        right = int((predicted == heldout_labels).sum())
        print(f"{name}: held-out accuracy: {right}/{len(heldout_labels)} = {right / len(heldout_labels):.2%}")
        export(model, HERE / name)
    calibration = {"image": train_images[:CALIBRATION], "labels": train_labels[:CALIBRATION]}
    np.savez_compressed(HERE / "calibration.npz", **calibration)
    np.savez_compressed(HERE / "heldout.npz", image=heldout_images, label=heldout_labels)
    np.savez_compressed(HERE / "digit.npz", image=heldout_images[:1])


if __name__ == "__main__":
    main()
