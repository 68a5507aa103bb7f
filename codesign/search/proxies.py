"""Zero-cost proxies: what the weights a network begins with, and one batch at most, say of how well it will learn.

A number of a whole network each, higher is better, for comparing candidates with each other and nothing else. All are
as Abdelfattah et al., Zero-Cost Proxies for Lightweight NAS, ICLR 2021, section 3.2, make them of what others found for
single weights: a sum over kernels and matrices, that is weights of two axes or more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from codesign.errors import CodesignError, did_you_mean
from codesign.search.candidate import Candidate
from codesign.search.data import augmented
from codesign.search.trial import Trials, check_channels, initial_module, one_trial, seed_of

Proxy = Callable[[Any, Any, Any], float]
BATCH = 64


def synflow(module: Any, images: Any, labels: Any) -> float:
    """Sum of dR/dw x w, where R adds up the outputs for an image of ones, every weight taken as its absolute value.

    For layers in a row R is 1^T |W_n| ... |W_1| 1. Of `images` the shape alone counts, of `labels` nothing. BatchNorm
    passes on what it gets, scaled: it uses the statistics it begins with. Computed in double precision, as R grows with
    every layer. Source: Tanaka et al., Pruning neural networks without any data, NeurIPS 2020.
    """
    import torch

    module = module.double().eval()
    with torch.no_grad():
        for weight in module.parameters():
            weight.abs_()
    ones = torch.ones(1, *images.shape[1:], dtype=torch.float64)
    module(ones).sum().backward()
    return sum(float((weight.grad * weight.detach()).sum()) for weight in _weights(module))


def grad_norm(module: Any, images: Any, labels: Any) -> float:
    """Sum of ||dL/dW|| (Euclidean) over all kernels and matrices W, L the cross-entropy of one batch.

    Source: Abdelfattah et al. 2021, section 3.2.
    """
    _backward(module, images, labels)
    return sum(float(weight.grad.norm()) for weight in _weights(module))


def snip(module: Any, images: Any, labels: Any) -> float:
    """Sum of |dL/dw x w|, L the cross-entropy of one batch.

    Source: Lee et al., SNIP: single-shot network pruning based on connection sensitivity, ICLR 2019.
    """
    _backward(module, images, labels)
    return sum(float((weight.grad * weight.detach()).abs().sum()) for weight in _weights(module))


PROXIES: dict[str, Proxy] = {"synflow": synflow, "grad_norm": grad_norm, "snip": snip}


def score(trials: Trials, candidate: Candidate, name: str) -> float:
    """A candidate's score by the proxy of a name; follows from seed, candidate and data alone.

    Weights are those its training would begin with, and the batch is drawn from the training samples. May be infinite
    for a network too deep. Raises CodesignError for an unknown name, and for a network that cannot be built or run.
    """
    import torch

    if name not in PROXIES:
        hint = did_you_mean(name, PROXIES) or f"one of {', '.join(PROXIES)}"
        raise CodesignError(name, "no such zero-cost proxy", hint)
    with one_trial(trials, candidate):
        check_channels(trials, candidate)
        module = initial_module(candidate, trials.data.classes, trials.seed)
        torch.manual_seed(seed_of(trials.seed, candidate, 0))
        samples = trials.data.training(*candidate.image[1:])
        images, labels = samples.batch(torch.randperm(len(samples))[:BATCH].tolist())
        return PROXIES[name](module, augmented(images, trials.data.augmentation), labels)


def _backward(module: Any, images: Any, labels: Any) -> None:
    import torch

    module.train()
    torch.nn.functional.cross_entropy(module(images), labels).backward()


def _weights(module: Any) -> Iterator[Any]:
    """Kernels and matrices the result depends on."""
    return (weight for weight in module.parameters() if weight.ndim > 1 and weight.grad is not None)
