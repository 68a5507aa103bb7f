"""round-channels: numbers of channels that fill an array, for all layers that must agree on them at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal

from codesign.graph.coupling import Coupling, Group, couple
from codesign.graph.graph import Graph, node_name, shape_of
from codesign.graph.operators import is_operator
from codesign.rewriting.graph_pass import Applied, Declined, Effect, GraphPass, Outcome, PassContext
from codesign.rewriting.importance import Rate, Scores, first_order_taylor, normalisation_scales, weight_norms
from codesign.rewriting.resolution import powers_of_two_around
from codesign.rewriting.rounding import Rounding, side_by_side
from codesign.rewriting.width_search import Limits, Sizes, choose_sizes
from codesign.vocabulary import Dimension


@dataclass(frozen=True)
class RoundChannels(GraphPass):
    """Rounds the channels of every coupled group to a size that fills an array of a power-of-two width.

    before:  x -> Conv 24 -> Relu -> Conv 40 -> + -> Conv 1000
                                  `-> Conv 40 -´
    after:   x -> Conv 32 -> Relu -> Conv 64 -> + -> Conv 1000          (mode=up; the two of 40 are one group)
                                  `-> Conv 64 -´

    Which layers must agree is found by coupling: additions, depthwise and grouped convolutions, gates, concatenations
    (each part is rounded where it lies), splits, shuffles (which become a Gather where they no longer are one), heads
    of an attention. Inputs and outputs of the network never change, nor does what a normalisation or reduction over
    the channels sees; each such group is named.

    mode: up, the next power of two; down, the one below, least important channels removed; compound, the nearest, a
    tie goes down; multiple-of, the next multiple of `multiple`; auto, see below.

    Exact: (up and multiple-of) a new channel gets a filter, bias and shift of zeros. What the layers behind it make of
    zero is one number for the whole map, such as 0.5 behind a sigmoid, and every layer that sums over channels has
    zero weights for the new one, so it adds 0.5 x 0 = 0. That needs a finite number: 0 x infinity is none, so a group
    does not grow where channels are divided by channels, nor under Log, Reciprocal and the like. Two activations that
    are multiplied, as in attention, have no weights that are zero: there one of the two must be zero itself.

    down and compound give another network: train it further. auto does too: it takes for every group the power of two
    or the multiple of the lanes along an axis that makes the network cheapest on the machine, by the objective of the
    run, while a share of parameters or MACs between `at_least` and `at_most` is kept.

    criterion: which channels go. weight-norm: the sum of a filter's |w|. batch-norm-scale: |scale|. taylor: the squared
    change of a loss, to first order, when the channel goes: (sum of weight x gradient)^2, the mean over samples. The
    loss is cross-entropy of the first output where `data` has `labels`, else half the squared norm of the outputs.
    Coupled layers are added up. Gradients need PyTorch.

    Source: EfficientNet-HF, equation 7 (compound); importance as in Li et al. 2017 (arXiv:1608.08710), Liu et al. 2017
    (arXiv:1708.06519), Molchanov et al. 2017 (arXiv:1611.06440) and 2019 (CVPR, equation 8); coupling as in Fang et al.
    2023 (arXiv:2301.12900).
    """

    name: ClassVar[str] = "round-channels"
    effect: ClassVar[Effect] = Effect.EXACT
    effects: ClassVar[Mapping[str, Effect]] = MappingProxyType(
        {"mode=down": Effect.RESHAPES, "mode=compound": Effect.RESHAPES, "mode=auto": Effect.RESHAPES}
    )

    mode: Annotated[Literal["up", "down", "compound", "multiple-of", "auto"], "which size is taken"] = "up"
    multiple: Annotated[int, "mode=multiple-of: sizes are multiples of it"] = 8
    criterion: Annotated[
        Literal["weight-norm", "batch-norm-scale", "taylor"],
        "channels that go: small filters, small scales, or those the loss misses least",
    ] = "weight-norm"
    data: Annotated[str, "criterion=taylor: .npz file, inputs by name and integer labels if there are any"] = ""
    limit: Annotated[Literal["parameters", "macs"], "mode=auto: what is kept"] = "parameters"
    at_least: Annotated[float, "mode=auto: share of the original's that must be kept"] = 0.95
    at_most: Annotated[float, "mode=auto: share of the original's that must not be exceeded"] = 1.25

    def __post_init__(self) -> None:
        if self.multiple < 1:
            raise ValueError(f"multiple must be 1 or more, not {self.multiple}")
        if not 0 <= self.at_least <= 1 <= self.at_most:
            raise ValueError(f"1 must lie between at_least and at_most, not outside {self.at_least} to {self.at_most}")
        if self.data and self.criterion != "taylor":
            raise ValueError(f"data is read by criterion=taylor, not by {self.criterion}")

    def run(self, graph: Graph, context: PassContext) -> list[Outcome]:
        """Decide for every group, then change all of them in one go."""
        rounding = Rounding(graph, self._rate(graph, context))
        if self.mode == "auto":
            return self._cheapest(graph, rounding, context)
        wanted = {
            number: size
            for number, group in enumerate(rounding.groups)
            if (size := self._target(group.size)) != group.size
        }
        if rounding.removes(wanted) and (reason := self._unrated(context)):
            return [Declined(graph.name, reason)]
        return [*_carried_out(rounding, wanted), *self._odd_sums(graph)]

    def _unrated(self, context: PassContext) -> str:
        """Why nothing can tell which channels go, or nothing."""
        if self.criterion != "taylor":
            return ""
        if not self.data:
            return "criterion=taylor asks what a loss makes of data, and no data=FILE.npz is given"
        if context.sensitivity_oracle is None:
            return "criterion=taylor asks for gradients, and nothing here computes them"
        return ""

    def _rate(self, graph: Graph, context: PassContext) -> Rate:
        """How much channels matter; `_unrated` says when that cannot be told."""
        match self.criterion:
            case "weight-norm":
                return weight_norms
            case "batch-norm-scale":
                return normalisation_scales

        def taylor(coupling: Coupling) -> Scores:
            oracle = context.sensitivity_oracle
            assert oracle is not None and self.data
            return first_order_taylor(coupling, lambda wanted: oracle.sensitivities(graph, Path(self.data), wanted))

        return taylor

    def _odd_sums(self, graph: Graph) -> list[Outcome]:
        """Concatenations and groups whose parts are rounded where they lie, but not their sum; each sum once."""
        found: dict[str, Outcome] = {}
        for value, axes in couple(graph).axes.items():
            node = value.producer()
            for axis, dimension in enumerate(axes):
                size = shape_of(value)[axis]
                if node is None or not is_operator(node, "Concat", "Conv") or not dimension or len(dimension) < 2:
                    continue
                parts = side_by_side(dimension)
                if self._target(size) != size and all(self._target(run.entries) == run.entries for run in dimension):
                    found.setdefault(
                        parts, Declined(node_name(node), f"{parts} channels lie side by side, {size} in all")
                    )
        return list(found.values())

    def _target(self, size: int) -> int:
        below, above = powers_of_two_around(size)
        match self.mode:
            case "up":
                return above
            case "down":
                return below
            case "compound":
                return below if size - below <= above - size else above
            case _:
                return -(-size // self.multiple) * self.multiple

    def _cheapest(self, graph: Graph, rounding: Rounding, context: PassContext) -> list[Outcome]:
        """The sizes the machine likes best, powers of two and multiples of the widths of its arrays among them."""
        if context.cost_oracle is None or context.profile is None:
            return [Declined(graph.name, "mode=auto asks what sizes cost, and no machine is given")]
        if reason := self._unrated(context):
            return [Declined(graph.name, reason)]
        axes = (axis for engine in context.profile.engines.values() for axis in engine.axes.values())
        multiples = {axis.size for axis in axes if {Dimension.K, Dimension.C} & set(axis.unrolls)}
        candidates = {
            number: sizes
            for number, group in enumerate(rounding.groups)
            if (sizes := [size for size in _near(group.size, multiples) if not rounding.refusal(number, size)])
        }

        limits = Limits(self.limit, self.at_least, self.at_most)
        chosen = choose_sizes(graph, candidates, rounding.resized, context.cost_oracle, limits)
        if not chosen.sizes:
            return [Declined(graph.name, "no sizes within the limits cost less than those it has")]
        return _carried_out(rounding, chosen.sizes)


def _near(size: int, multiples: Iterable[int]) -> list[int]:
    """The powers of two and the multiples of each of these next to a size, as far as they are within a third of it."""
    sizes = set(powers_of_two_around(size)).union(
        *({size // step * step, -(-size // step) * step} for step in multiples)
    )
    return sorted(found for found in sizes if found != size and 3 * abs(found - size) <= size)


def _carried_out(rounding: Rounding, wanted: Sizes) -> list[Outcome]:
    """The sizes that can be had are; the others are declined."""
    groups = rounding.groups
    reasons = rounding.apply(wanted)
    done = [_applied(groups[number], size) for number, size in wanted.items() if number not in reasons]
    return [*done, *(Declined(groups[number].name, reason) for number, reason in reasons.items())]


def _applied(group: Group, size: int) -> Applied:
    tensors = len({member.tensor for member in group.members})
    return Applied(group.name, f"{group.size} -> {size} channels in {tensors} tensor{'s' * (tensors > 1)}")
