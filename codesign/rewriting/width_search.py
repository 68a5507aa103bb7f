"""Sizes of coupled groups by what they cost on a machine, with so many parameters or MACs kept.

Every size of every group is priced alone. A network of all the best would be the smallest one; so a channel is worth
something: with a price on the limited quantity each group takes the size of least `cost - price x quantity` (a
Lagrangian relaxation), and the price is the lowest that keeps the network within its limits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Literal, TypeAlias

from codesign.errors import DoesNotFitError
from codesign.graph.graph import Graph
from codesign.rewriting.graph_pass import CostOracle, Price

Quantity: TypeAlias = Literal["parameters", "macs"]
Sizes: TypeAlias = Mapping[int, int]
Resize: TypeAlias = Callable[[Sizes], Graph]


@dataclass(frozen=True)
class Limits:
    """What is kept: between these shares of the original's parameters or MACs."""

    quantity: Quantity
    at_least: float
    at_most: float

    def of(self, price: Price) -> int:
        """The limited quantity."""
        return price.parameters if self.quantity == "parameters" else price.macs

    def hold(self, price: Price, original: Price) -> bool:
        """Whether a network keeps to them."""
        return self.at_least * self.of(original) <= self.of(price) <= self.at_most * self.of(original)


@dataclass(frozen=True)
class Chosen:
    """Sizes by number of the group, and what they cost; without sizes the original is best."""

    sizes: dict[int, int]
    before: Price
    after: Price


@dataclass(frozen=True)
class _Option:
    """A size of a group: by how much score and quantity change, as shares of the original's."""

    size: int
    score: float
    quantity: float


def choose_sizes(
    graph: Graph,
    candidates: Mapping[int, Sequence[int]],
    resize: Resize,
    oracle: CostOracle,
    limits: Limits,
) -> Chosen:
    """The sizes of least score within the limits, as far as the sum of single changes tells it.

    candidates: sizes besides its own for a group, by number. resize: a network with these sizes.
    """
    original = oracle.price(graph)
    options = {
        number: [_Option(0, 0.0, 0.0), *_options(number, sizes, resize, oracle, limits, original)]
        for number, sizes in candidates.items()
    }
    best = Chosen({}, original, original)
    # The lowest price that keeps enough is found by halving: a higher one keeps more.
    prices = _prices(options)
    low, high = 0, len(prices)
    while low < high:
        middle = (low + high) // 2
        worth = prices[middle]
        sizes = {
            number: choice.size
            for number, own in options.items()
            if (choice := min(own, key=lambda option: option.score - worth * option.quantity)).size
        }
        price = _price(resize(sizes), oracle) if sizes else original
        if price is None:
            break
        if limits.hold(price, original) and price.score < best.after.score:
            best = Chosen(sizes, original, price)
        if limits.of(price) < limits.at_least * limits.of(original):
            low = middle + 1
        else:
            high = middle
    return best


def _options(
    number: int, sizes: Sequence[int], resize: Resize, oracle: CostOracle, limits: Limits, original: Price
) -> list[_Option]:
    """Every size of one group, alone; one that does not fit the machine is none."""
    found = []
    for size in sizes:
        price = _price(resize({number: size}), oracle)
        if price is not None:
            quantity = limits.of(price) / limits.of(original) - 1
            found.append(_Option(size, price.score / original.score - 1, quantity))
    return found


def _prices(options: Mapping[int, Sequence[_Option]]) -> list[float]:
    """Prices between any two of those at which some group takes another size, in rising order."""
    pairs = (pair for own in options.values() for pair in combinations(own, 2))
    turns = {(a.score - b.score) / (a.quantity - b.quantity) for a, b in pairs if a.quantity != b.quantity}
    ordered = sorted(turns)
    return [(one + other) / 2 for one, other in pairwise(ordered)]


def _price(graph: Graph, oracle: CostOracle) -> Price | None:
    try:
        return oracle.price(graph)
    except DoesNotFitError:
        return None
