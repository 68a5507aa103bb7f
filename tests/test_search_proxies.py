"""Zero-cost proxies: against counts by hand on networks of a few weights, and the same from run to run."""

from __future__ import annotations

from collections.abc import Iterator
from math import exp, inf, log, sqrt
from pathlib import Path
from typing import Any

import pytest

from codesign.errors import CodesignError
from codesign.networks.catalogue import catalogue
from codesign.search.proxies import PROXIES, grad_norm, score, snip, synflow
from tests.trial_parts import candidate, halves, trials, write_distribution

torch = pytest.importorskip("torch", reason="PyTorch is not installed")


@pytest.fixture(autouse=True)
def tiny_networks(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("distribution")
    write_distribution(folder)
    monkeypatch.syspath_prepend(folder)
    catalogue.cache_clear()
    yield
    catalogue.cache_clear()


def dense(*weights: list[list[float]], biases: bool = False) -> Any:
    """Dense layers in a row, over the pixels of an image."""
    layers = [torch.nn.Linear(len(weight[0]), len(weight), bias=biases) for weight in weights]
    with torch.no_grad():
        for layer, weight in zip(layers, weights, strict=True):
            layer.weight.copy_(torch.tensor(weight))
            if biases:
                layer.bias.fill_(0.5)
    return torch.nn.Sequential(torch.nn.Flatten(), *layers)


# Two pixels, two hidden numbers, two classes.
FIRST = [[1.0, -2.0], [0.5, 3.0]]
SECOND = [[2.0, -1.0], [-1.0, 0.0]]
IMAGES = [[[[3.0, 1.0]]], [[[0.0, 2.0]]]]
LABELS = [0, 1]


def test_synflow_by_hand() -> None:
    # R = 1^T |W2| |W1| 1: |W1| 1 = (3, 3.5), |W2| (3, 3.5) = (9.5, 3), R = 12.5. Every path holds one weight of each
    # layer, so dR/dw x w adds up to R over a layer: 12.5 twice.
    assert synflow(dense(FIRST, SECOND), torch.zeros(1, 1, 1, 2), None) == pytest.approx(25.0)
    # A layer more, a sum over its inputs: once more R over each of the three.
    assert synflow(dense(FIRST, SECOND, [[1.0, -1.0]]), torch.zeros(1, 1, 1, 2), None) == pytest.approx(37.5)
    # With biases of 0.5 the paths through them have no weight of the first layer: |W2| (3.5, 4) = (11, 3.5), so 14.5
    # over the second layer, and 12.5 over the first one still.
    assert synflow(dense(FIRST, SECOND, biases=True), torch.zeros(1, 1, 1, 2), None) == pytest.approx(27.0)


def test_synflow_is_of_signs_and_data_independent() -> None:
    positive = [[abs(value) for value in row] for row in FIRST]
    flipped, image = dense(positive, SECOND), torch.full((5, 1, 1, 2), 7.0)
    assert synflow(flipped, image, None) == synflow(dense(FIRST, SECOND), -image, None)
    assert synflow(dense([[2.0, -2.0], [0.5, 3.0]], SECOND), image, None) != pytest.approx(25.0)


def softmax_gradients() -> list[list[float]]:
    """dL/d(outputs) of one matrix W = FIRST on IMAGES: (softmax - one-hot) / 2 for each sample."""
    gradients = []
    for ((pixels,),), label in zip(IMAGES, LABELS, strict=True):
        outputs = [sum(w * x for w, x in zip(row, pixels, strict=True)) for row in FIRST]
        total = sum(map(exp, outputs))
        gradients.append([(exp(out) / total - (row == label)) / 2 for row, out in enumerate(outputs)])
    return gradients


def weight_gradients() -> list[list[float]]:
    """dL/dW[row][column]: over samples, gradient of the output times the pixel."""
    gradients = softmax_gradients()
    pixels = [image[0][0] for image in IMAGES]
    return [
        [
            sum(gradient[row] * pixel[column] for gradient, pixel in zip(gradients, pixels, strict=True))
            for column in (0, 1)
        ]
        for row in (0, 1)
    ]


def test_grad_norm_and_snip_by_hand() -> None:
    by_hand = weight_gradients()
    images, labels = torch.tensor(IMAGES), torch.tensor(LABELS)
    norm = sqrt(sum(value**2 for row in by_hand for value in row))
    assert grad_norm(dense(FIRST), images, labels) == pytest.approx(norm, rel=1e-5)
    saliency = sum(
        abs(value * weight)
        for row, weights in zip(by_hand, FIRST, strict=True)
        for value, weight in zip(row, weights, strict=True)
    )
    assert snip(dense(FIRST), images, labels) == pytest.approx(saliency, rel=1e-5)
    assert snip(dense(FIRST), images, 1 - labels) != pytest.approx(saliency, rel=1e-2)


def test_norms_add_up_over_layers_and_biases_count_nothing() -> None:
    # A second layer that passes on what the first makes has the gradient of the same outputs, by the hidden numbers.
    images, labels = torch.tensor(IMAGES), torch.tensor(LABELS)
    identity = [[1.0, 0.0], [0.0, 1.0]]
    hidden = [[sum(w * x for w, x in zip(row, image[0][0], strict=True)) for row in FIRST] for image in IMAGES]
    second = [
        sum(gradient[row] * values[column] for gradient, values in zip(softmax_gradients(), hidden, strict=True))
        for row in (0, 1)
        for column in (0, 1)
    ]
    norm = sqrt(sum(value**2 for row in weight_gradients() for value in row)) + sqrt(sum(value**2 for value in second))
    module = dense(FIRST, identity, biases=True)
    with torch.no_grad():
        for layer in module[1:]:
            layer.bias.zero_()
    assert grad_norm(module, images, labels) == pytest.approx(norm, rel=1e-5)


@pytest.mark.parametrize("name", PROXIES)
def test_a_score_follows_from_seed_candidate_and_data(name: str, tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    first = score(trials(tmp_path), candidate(4), name)
    assert score(trials(tmp_path / "elsewhere"), candidate(4), name) == first
    assert torch.equal(torch.random.get_rng_state(), state)
    assert 0 < first < inf
    assert score(trials(tmp_path, seed=2), candidate(4), name) != first
    assert score(trials(tmp_path), candidate(6), name) != first
    other_data = score(trials(tmp_path, halves(seed=9)), candidate(4), name)
    assert (other_data == first) == (name == "synflow")  # it looks at no data
    assert list(tmp_path.iterdir()) == []


def test_deep_networks_stay_finite() -> None:
    # 1000 layers of two weights of 1: R = 2^1000 x 2, as much over each layer, far beyond single precision.
    ones = [[1.0, 1.0], [1.0, 1.0]]
    assert log(synflow(dense(*[ones] * 1000), torch.zeros(1, 1, 1, 2), None), 2) == pytest.approx(1001 + log(1000, 2))


def test_a_proxy_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(CodesignError) as caught:
        score(trials(tmp_path), candidate(4), "sinflow")
    assert str(caught.value) == "sinflow: no such zero-cost proxy\n  hint: did you mean synflow?"
    with pytest.raises(CodesignError) as caught:
        score(trials(tmp_path), candidate(4, channels=3), "snip")
    assert str(caught.value) == "tiny-width=4-dropout=0.1: takes images of 3 channels; the data have 1"
