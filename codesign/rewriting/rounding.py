"""Sizes for the coupled groups of a graph: which ones are refused and why, and the change to those that are not."""

from __future__ import annotations

from itertools import groupby
from typing import Literal, TypeAlias

import numpy as np

from codesign.graph.coupling import Group, couple
from codesign.graph.graph import Graph
from codesign.graph.segments import Dimension, Segment, resolved
from codesign.rewriting.importance import normalisation_scales, weight_norms
from codesign.rewriting.width_search import Sizes
from codesign.rewriting.widths import Change, change_widths, grown, starved

Criterion: TypeAlias = Literal["weight-norm", "batch-norm-scale"]


class Rounding:
    """The groups of a graph and what can be done to them. criterion: which channels go where some must."""

    def __init__(self, graph: Graph, criterion: Criterion) -> None:
        self._graph = graph
        self._coupling = couple(graph)
        rate = weight_norms if criterion == "weight-norm" else normalisation_scales
        self._scores = rate(self._coupling)
        self.groups = self._coupling.groups

    def refusal(self, group: Group, size: int) -> str:
        """Why a group cannot have this size, or nothing."""
        stays = f"{group.size} channels stay, instead of {size}"
        frozen = [reason for reason in group.frozen if (reason.grows if size > group.size else reason.shrinks)]
        if frozen:
            reasons = "; ".join(dict.fromkeys(str(reason.reason) for reason in frozen))
            return f"{stays}: {reasons} ({_some([reason.where for reason in frozen])})"
        if size < group.size and group.segment not in self._scores:
            return f"{stays}: nothing tells which of them matter"
        return ""

    def apply(self, sizes: Sizes) -> dict[int, str]:
        """Change the graph, once; which groups, by number, could not have their size, and why."""
        reasons: dict[int, str] = {}
        changes: dict[Segment, Change] = {}
        for number, size in sizes.items():
            reason = self.refusal(self.groups[number], size)
            if reason:
                reasons[number] = reason
            else:
                changes[self.groups[number].segment] = self._change(self.groups[number], size)
        reasons |= self._without_new(changes)
        change_widths(self._graph, self._coupling, changes)
        return reasons

    def _change(self, group: Group, size: int) -> Change:
        if size > group.size:
            return grown(group.segment, size)
        best = np.argsort(-self._scores[group.segment], kind="stable")[:size]
        return Change(np.sort(best))

    def _without_new(self, changes: dict[Segment, Change]) -> dict[int, str]:
        """Take back changes behind selections that find no new channel there."""
        reasons: dict[int, str] = {}
        while found := starved(self._coupling, changes):
            behind = {run.segment for selection in found for run in resolved(selection.after)}
            for number, group in enumerate(self.groups):
                if group.segment in behind and changes.pop(group.segment, None) is not None:
                    where = found[0].nodes[-1].name
                    reasons[number] = f"{group.size} channels stay: {where} selects them from channels that do not grow"
        return reasons


def side_by_side(dimension: Dimension) -> str:
    """The parts of a dimension: `64 + 32 + 32` or `3 x 20`."""
    sizes = [run.entries for run in dimension]
    counted = [(size, len(list(same))) for size, same in groupby(sizes)]
    return " + ".join(f"{count} x {size}" if count > 2 else " + ".join([str(size)] * count) for size, count in counted)


def _some(places: list[str]) -> str:
    """The first two, and how many more."""
    different = list(dict.fromkeys(places))
    more = f" and {len(different) - 2} more" if len(different) > 2 else ""
    return ", ".join(different[:2]) + more
