"""What a loss makes of a network's weights, by PyTorch's gradients: for passes that decide by data."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from codesign.errors import CodesignError
from codesign.graph.graph import Graph
from codesign.importers.pytorch import require_torch
from codesign.rewriting.graph_pass import ConstantAxis
from codesign.training.batch import batch_of
from codesign.training.conversion import WEIGHT_NAMES, to_torch
from codesign.training.samples import read_samples


@dataclass(frozen=True)
class GradientOracle:
    """Weight x gradient by automatic differentiation, as passes ask for it (SensitivityOracle).

    The network is in evaluation mode: BatchNormalization uses its running statistics. Loss, with labels: cross-entropy
    of the first output, which holds logits with classes along its second axis. Without: half the squared norm of all
    outputs, so that what changes the outputs most matters most. Both are the mean over the samples of a step.
    """

    def sensitivities(
        self, graph: Graph, data: Path, wanted: Collection[ConstantAxis]
    ) -> Mapping[ConstantAxis, np.ndarray]:
        """[steps, entries] by axis of a constant. Raises CodesignError: file, operators, torch, or numbers at fault."""
        samples = read_samples(graph, batch_of(graph), data)
        torch = require_torch(f"gradients of {graph.name}")
        module = to_torch(graph)
        parameters, names = dict(module.named_parameters()), module.meta[WEIGHT_NAMES]
        weights = {place.tensor: parameters[names[place.tensor]] for place in wanted if place.tensor in names}
        rows: dict[ConstantAxis, list[np.ndarray]] = {place: [] for place in wanted if place.tensor in weights}
        for number, (inputs, labels) in enumerate(samples.steps() if rows else ()):
            where = f"{data}: sample {number * samples.per_step}"
            products = dict(
                zip(weights, _products(torch, module, list(weights.values()), inputs, labels, where), strict=True)
            )
            for place, found in rows.items():
                found.append(_along(products[place.tensor], place.axis))
        return {place: np.stack(found) for place, found in rows.items()}


def _products(
    torch: ModuleType,
    module: Any,
    weights: Sequence[Any],
    inputs: Sequence[np.ndarray],
    labels: np.ndarray | None,
    where: str,
) -> list[np.ndarray]:
    """weight x gradient of every weight for the loss of one step; zeros where the loss does not depend on it."""
    with torch.enable_grad():
        outputs = module(*map(torch.from_numpy, inputs))
        loss = _loss(torch, outputs if isinstance(outputs, tuple) else (outputs,), labels, len(inputs[0]), where)
        gradients = torch.autograd.grad(loss, weights, materialize_grads=True)
    products = [
        weight.detach().numpy().astype(np.float64) * gradient.numpy()
        for weight, gradient in zip(weights, gradients, strict=True)
    ]
    if not all(np.isfinite(product).all() for product in products):
        raise CodesignError(where, "a gradient is not finite")
    return products


def _loss(torch: ModuleType, outputs: Sequence[Any], labels: np.ndarray | None, count: int, where: str) -> Any:
    """The loss of one step, as GradientOracle says."""
    if labels is not None:
        loss = torch.nn.functional.cross_entropy(outputs[0], torch.from_numpy(labels))
    else:
        loss = sum(0.5 * output.square().sum() for output in outputs if output.is_floating_point()) / count
    if not isinstance(loss, torch.Tensor) or not loss.requires_grad:
        raise CodesignError(where, "the loss does not depend on any weight")
    if not torch.isfinite(loss):
        raise CodesignError(where, f"the loss is {loss.item():g}")
    return loss


def _along(product: np.ndarray, axis: int) -> np.ndarray:
    """Sums over all axes but one."""
    total: np.ndarray = product.sum(axis=tuple(other for other in range(product.ndim) if other != axis))
    return total
