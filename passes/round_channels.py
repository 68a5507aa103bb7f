"""round-channels: numbers of channels that fill an array, for all layers that must agree on them at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, ClassVar, Literal

import numpy as np

from codesign.graph.coupling import Coupling, Group, couple
from codesign.graph.graph import Graph
from codesign.graph.segments import Segment, resolved
from codesign.rewriting.graph_pass import Applied, Declined, Effect, GraphPass, Outcome, PassContext
from codesign.rewriting.importance import normalisation_scales, weight_norms
from codesign.rewriting.widths import Change, change_widths, grown, starved


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

    down and compound give another network: train it further.

    Source: EfficientNet-HF, equation 7 (compound); importance as in Li et al. 2017 (arXiv:1608.08710) and Liu et al.
    2017 (arXiv:1708.06519); coupling as in Fang et al. 2023 (arXiv:2301.12900).
    """

    name: ClassVar[str] = "round-channels"
    effect: ClassVar[Effect] = Effect.EXACT
    effects: ClassVar[Mapping[str, Effect]] = MappingProxyType(
        {"mode=down": Effect.RESHAPES, "mode=compound": Effect.RESHAPES, "mode=auto": Effect.RESHAPES}
    )

    mode: Annotated[Literal["up", "down", "compound", "multiple-of", "auto"], "which size is taken"] = "up"
    multiple: Annotated[int, "mode=multiple-of: sizes are multiples of it"] = 8
    criterion: Annotated[
        Literal["weight-norm", "batch-norm-scale"],
        "channels that go: small filters, or small scales",
    ] = "weight-norm"

    def __post_init__(self) -> None:
        if self.multiple < 1:
            raise ValueError(f"multiple must be 1 or more, not {self.multiple}")

    def run(self, graph: Graph, context: PassContext) -> list[Outcome]:
        """Decide for every group, then change all of them in one go."""
        coupling = couple(graph)
        outcomes: list[Outcome] = []
        changes: dict[Segment, Change] = {}
        scores = _scores(coupling, self.criterion)
        for group in coupling.groups:
            size = self._target(group.size)
            if size == group.size:
                continue
            reason = _refusal(group, size, scores)
            if reason:
                outcomes.append(Declined(group.name, reason))
            else:
                changes[group.segment] = _change(group, size, scores)
        for group in _without_new(coupling, changes):
            reason = f"{group.size} channels stay: no new channel reaches the selection they come from"
            outcomes.append(Declined(group.name, reason))
        change_widths(graph, coupling, changes)
        applied = [_applied(group, changes[group.segment]) for group in coupling.groups if group.segment in changes]
        return [*applied, *outcomes]

    def _target(self, size: int) -> int:
        below, above = 1 << (size.bit_length() - 1), 1 << (size - 1).bit_length()
        match self.mode:
            case "up":
                return above
            case "down":
                return below
            case "compound":
                return below if size - below <= above - size else above
            case _:
                return -(-size // self.multiple) * self.multiple


def _scores(coupling: Coupling, criterion: str) -> dict[Segment, np.ndarray]:
    return normalisation_scales(coupling) if criterion == "batch-norm-scale" else weight_norms(coupling)


def _refusal(group: Group, size: int, scores: Mapping[Segment, np.ndarray]) -> str:
    """Why a group cannot have this size, or nothing."""
    frozen = [reason for reason in group.frozen if (reason.grows if size > group.size else reason.shrinks)]
    if frozen:
        places = ", ".join(dict.fromkeys(reason.where for reason in frozen))
        reasons = "; ".join(dict.fromkeys(str(reason.reason) for reason in frozen))
        return f"{group.size} channels stay, instead of {size}: {reasons} ({places})"
    if size < group.size and group.segment not in scores:
        return f"{group.size} channels stay, instead of {size}: nothing here tells which of them matter"
    return ""


def _change(group: Group, size: int, scores: Mapping[Segment, np.ndarray]) -> Change:
    if size > group.size:
        return grown(group.segment, size)
    best = np.argsort(-scores[group.segment], kind="stable")[:size]
    return Change(np.sort(best))


def _without_new(coupling: Coupling, changes: dict[Segment, Change]) -> list[Group]:
    """Take back changes behind selections that find no new channel; which groups that was."""
    taken: list[Group] = []
    while found := starved(coupling, changes):
        segments = {run.segment for selection in found for run in resolved(selection.after)}
        back = [group for group in coupling.groups if group.segment in segments and group.segment in changes]
        taken += back
        for group in back:
            del changes[group.segment]
    return taken


def _applied(group: Group, change: Change) -> Applied:
    tensors = len({member.tensor for member in group.members})
    return Applied(group.name, f"{group.size} -> {change.size} channels in {tensors} tensor{'s' * (tensors > 1)}")
