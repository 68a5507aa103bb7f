"""Sizes for the coupled groups of a graph: which ones are refused and why, and the change to those that are not."""

from __future__ import annotations

from functools import cached_property
from itertools import groupby

import numpy as np

from codesign.graph.coupling import couple
from codesign.graph.graph import Graph
from codesign.graph.segments import Dimension, Segment, resolved
from codesign.rewriting.importance import Rate
from codesign.rewriting.width_search import Sizes
from codesign.rewriting.widths import Change, change_widths, grown, starved


class Rounding:
    """The groups of a graph and what can be done to them. rate: how much channels matter, asked when some must go."""

    def __init__(self, graph: Graph, rate: Rate) -> None:
        self._graph = graph
        self._rate = rate
        self._coupling = couple(graph)
        self.groups = self._coupling.groups

    @cached_property
    def _scores(self) -> dict[int, np.ndarray]:
        """How much each channel matters, by number of the group; a group nothing is known of is absent."""
        rated = self._rate(self._coupling)
        return {number: rated[group.segment] for number, group in enumerate(self.groups) if group.segment in rated}

    def removes(self, sizes: Sizes) -> bool:
        """Whether channels that may go would go."""
        return any(size < self.groups[number].size and self.groups[number].shrinks for number, size in sizes.items())

    def refusal(self, number: int, size: int) -> str:
        """Why a group, by number, cannot have this size, or nothing."""
        group = self.groups[number]
        stays = f"{group.size} channels stay, instead of {size}"
        frozen = [reason for reason in group.frozen if (reason.grows if size > group.size else reason.shrinks)]
        if frozen:
            reasons = "; ".join(dict.fromkeys(str(reason.reason) for reason in frozen))
            return f"{stays}: {reasons} ({_some([reason.where for reason in frozen])})"
        if size < group.size and number not in self._scores:
            return f"{stays}: nothing tells which of them matter"
        return ""

    def apply(self, sizes: Sizes) -> dict[int, str]:
        """Change the graph, once; which groups, by number, could not have their size, and why."""
        reasons: dict[int, str] = {}
        changes: dict[Segment, Change] = {}
        for number, size in sizes.items():
            reason = self.refusal(number, size)
            if reason:
                reasons[number] = reason
            else:
                changes[self.groups[number].segment] = self._change(number, size)
        reasons |= self._without_new(changes)
        change_widths(self._graph, self._coupling, changes)
        return reasons

    def resized(self, sizes: Sizes) -> Graph:
        """A copy of the graph with these sizes; what matters is not asked again."""
        copy = Rounding(self._graph.copy(), self._rate)
        copy._scores = self._scores
        copy.apply(sizes)
        return copy._graph

    def _change(self, number: int, size: int) -> Change:
        group = self.groups[number]
        if size > group.size:
            return grown(group.segment, size)
        best = np.argsort(-self._scores[number], kind="stable")[:size]
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
