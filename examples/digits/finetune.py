"""Rewrites a digits network with loss, trains it further, and writes the repaired network as ONNX.

`python examples/digits/finetune.py -o build/repaired.onnx` rounds the channels of digits_wide.onnx down; `--distill`
lets it learn from the original's answers too. With `--checkpoint FILE` a killed run goes on where it stopped, and ends
in the same weights. Needs the extras torch and dev: `pip install '.[torch,dev]'`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch.utils.data import DataLoader
from train import BATCH, shifted, split

import codesign
from codesign.errors import CodesignError
from codesign.importers.model import load_model
from codesign.rewriting.graph_pass import PassContext
from codesign.rewriting.pipeline import resolve_pipeline
from codesign.rewriting.runner import run_pipeline
from codesign.training.distillation import Distillation
from codesign.training.fine_tuning import FineTuning, fine_tune
from codesign.training.progress import training_progress
from codesign.training.sensitivity import GradientOracle

HERE = Path(__file__).resolve().parent


def moved(samples: list[tuple[np.ndarray, np.int64]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and labels of a batch, every image moved by up to a pixel."""
    images, labels = zip(*samples, strict=True)
    return shifted(torch.from_numpy(np.stack(images))), torch.tensor(labels)


def show(what: str, network: Any, images: np.ndarray, labels: np.ndarray) -> None:
    """Print how many of the held-out digits a network gets right."""
    with torch.no_grad():
        right = int((network(torch.from_numpy(images)).argmax(1).numpy() == labels).sum())
    parameters = sum(weight.numel() for weight in network.parameters())
    print(f"{what:<28} {right}/{len(labels)} right = {right / len(labels):.2%}, {parameters:,} parameters", flush=True)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Rewrites a digits network with loss and trains it further.")
    parser.add_argument("--model", type=Path, default=HERE / "digits_wide.onnx")
    parser.add_argument("--passes", default="round-channels{mode=down}", help="as codesign compile takes them")
    parser.add_argument("--epochs", type=int, default=FineTuning.epochs)
    parser.add_argument("--seed", type=int, default=FineTuning.seed)
    parser.add_argument("--distill", action="store_true", help="learn from the original's answers as well")
    parser.add_argument("--temperature", type=float, default=Distillation.temperature)
    parser.add_argument("--checkpoint", type=Path, help="written after every epoch; a killed run goes on from it")
    parser.add_argument("--output", "-o", type=Path, help="where the repaired network goes, as ONNX")
    return parser.parse_args()


def main() -> None:
    chosen = options()
    torch.set_num_threads(1)  # more only wait for each other on a network as small as this
    images, heldout_images, labels, heldout_labels = split()
    graph = load_model(chosen.model)
    rewritten, records = run_pipeline(
        graph, resolve_pipeline(chosen.passes), PassContext(sensitivity_oracle=GradientOracle())
    )
    original, network = codesign.to_torch(graph), codesign.to_torch(rewritten)
    show(graph.name, original, heldout_images, heldout_labels)
    applied = ", ".join(f"{record.name} {record.applied} times" for record in records)
    show(f"after {applied}", network, heldout_images, heldout_labels)

    batches = DataLoader(list(zip(images, labels, strict=True)), BATCH, shuffle=True, collate_fn=moved)
    settings = FineTuning(epochs=chosen.epochs, seed=chosen.seed)
    soft = Distillation(original, chosen.temperature) if chosen.distill else None
    with training_progress("fine-tuning") as on_step:
        losses = fine_tune(network, batches, settings, distillation=soft, checkpoint=chosen.checkpoint, on_step=on_step)
    show(f"after {len(losses)} epochs", network, heldout_images, heldout_labels)

    if chosen.output is not None:
        one = torch.from_numpy(heldout_images[:1])
        ir.save(load_model(network, example_inputs=(one,)).model, chosen.output)
        print(f"wrote {chosen.output}")


if __name__ == "__main__":
    try:
        main()
    except CodesignError as error:
        sys.exit(str(error))
