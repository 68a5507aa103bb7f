"""Tries every rewrite alone, ranks them, and puts them on top of each other in that order.

Ranked: EXACT before APPROXIMATE before RESHAPES, for nobody pays for an exact one; within each by the share of the
objective saved alone, best first. From the top down each is run on the network as those taken so far left it, and is
taken when that makes it better again; one that is not exact must save 1 % there. A pass is taken once: another choice
of its options does not go on top of it but takes its place, if it saves more alone and the whole is better for it. What
saved nothing alone has its turn as well: it may apply where others have been.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from codesign.advice.advice import (
    LEAST_LOSSY_SAVING,
    Ranked,
    Standing,
    Trial,
    improves,
    main_reason,
    same_cost,
    saving,
)
from codesign.advice.outputs import Judge
from codesign.errors import CodesignError, DoesNotFitError
from codesign.graph.graph import Graph
from codesign.rewriting.graph_pass import CostOracle, Effect, GraphPass, PassContext, Price
from codesign.rewriting.options import short_text_of
from codesign.rewriting.pipeline import Pipeline
from codesign.rewriting.record import PassRecord
from codesign.rewriting.runner import run_pipeline

_LOG = logging.getLogger(__name__)
OnItem = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Workbench:
    """Where rewrites are tried: the baseline network, the machine, and who knows prices and outputs."""

    base: Graph
    context: PassContext
    oracle: CostOracle
    judge: Judge

    @cached_property
    def baseline(self) -> Price:
        """The price of the network before any rewrite."""
        return self.oracle.price(self.base)

    def run(self, graph: Graph, step: GraphPass) -> tuple[Graph, PassRecord]:
        """A graph after a pass, and what it did. Raises CodesignError when the pass breaks it, or fails."""
        try:
            after, [record] = run_pipeline(graph, Pipeline(step.name, (step,)), self.context)
        except CodesignError:
            raise
        except Exception as error:
            # A pass file is a stranger's program: it breaks its own row, not the advice on all others.
            _LOG.info("%s failed", step.name, exc_info=True)
            raise DoesNotFitError(f"pass {step.name}", f"it failed: {type(error).__name__}: {error}") from error
        return after, record

    def trial(self, step: GraphPass) -> Trial:
        """One rewrite alone."""
        tried = Trial(step.name, short_text_of(step), str(step.effect_here), None, None)
        try:
            graph, record = self.run(self.base, step)
            if not record.applied:
                return replace(tried, record=record, price=self.baseline)
            tried = replace(tried, record=record)
            price = self.oracle.price(graph)
        except CodesignError as error:
            return replace(tried, problem=_first_line(error))
        outputs = () if step.effect_here is Effect.EXACT else self.judge.changes(graph)
        return replace(tried, price=price, outputs=outputs)


@dataclass(frozen=True)
class Level:
    """A rewrite that is taken, and the network after it. alone: the price of the baseline with it."""

    step: GraphPass
    graph: Graph
    alone: Price


@dataclass
class Stack:
    """Rewrites on top of each other. price: of the network after all of them."""

    bench: Workbench
    price: Price
    levels: list[Level] = field(default_factory=list)

    @property
    def steps(self) -> tuple[GraphPass, ...]:
        """What is taken, in the order it runs."""
        return tuple(level.step for level in self.levels)

    @property
    def graph(self) -> Graph:
        """The network after all of it."""
        return self._below(len(self.levels))

    def offer(self, trial: Trial, step: GraphPass) -> Ranked:
        """Take a rewrite if the network is better for it."""
        before = self.price
        place = next((at for at, level in enumerate(self.levels) if level.step.name == step.name), len(self.levels))
        instead_of = short_text_of(self.levels[place].step) if place < len(self.levels) else ""
        ranked = Ranked(trial, Standing.REFUSED, before, instead_of=instead_of)
        alone = trial.price or self.bench.baseline
        if instead_of and not improves(alone, self.levels[place].alone):
            return replace(ranked, standing=Standing.LESS)
        try:
            levels, record = self._with(place, step, alone)
            if not record.applied:
                return replace(ranked, standing=Standing.NOWHERE, reason=main_reason(record))
            price = self.bench.oracle.price(levels[-1].graph)
        except CodesignError as error:
            return replace(ranked, reason=_first_line(error))
        ranked = replace(ranked, after=price, applied=record.applied)
        if not improves(price, before):
            return replace(ranked, standing=Standing.NO_GAIN)
        if step.effect_here is not Effect.EXACT and saving(price.score, before.score) < LEAST_LOSSY_SAVING:
            return replace(ranked, standing=Standing.LITTLE)
        self.levels, self.price = levels, price
        return replace(ranked, standing=Standing.INSTEAD if instead_of else Standing.TAKEN)

    def _with(self, place: int, step: GraphPass, alone: Price) -> tuple[list[Level], PassRecord]:
        """The levels with a step at a place, those above it run again."""
        graph, record = self.bench.run(self._below(place), step)
        if not record.applied:
            return self.levels, record
        levels = [*self.levels[:place], Level(step, graph, alone)]
        for level in self.levels[place + 1 :]:
            graph, _ = self.bench.run(graph, level.step)
            levels.append(replace(level, graph=graph))
        return levels, record

    def _below(self, place: int) -> Graph:
        return self.levels[place - 1].graph if place else self.bench.base


def tried(bench: Workbench, steps: Sequence[GraphPass], on_item: OnItem) -> list[tuple[Trial, GraphPass]]:
    """Every rewrite alone, in the order given; choices of a pass that come to the same are one."""
    found = []
    for number, step in enumerate(steps, 1):
        on_item(short_text_of(step), number, len(steps))
        found.append((bench.trial(step), step))
    return list(_told_apart(found))


def _told_apart(trials: Sequence[tuple[Trial, GraphPass]]) -> Iterator[tuple[Trial, GraphPass]]:
    """The first of all choices of a pass that come to the same, with the names of the others."""
    groups: dict[tuple[object, ...], list[tuple[Trial, GraphPass]]] = {}
    for trial, step in trials:
        groups.setdefault(trial.outcome, []).append((trial, step))
    for (first, step), *others in groups.values():
        yield replace(first, alike=tuple(trial.text for trial, _ in others)), step


def in_rank(trials: Iterable[tuple[Trial, GraphPass]], baseline: Price) -> list[tuple[Trial, GraphPass]]:
    """All but those refused, in their rank."""
    fit = [(trial, step) for trial, step in trials if trial.price is not None]
    return sorted(fit, key=lambda item: _rank(item[0], baseline))


def changes_cost(ranked: Ranked, baseline: Price) -> bool:
    """Whether a rewrite makes a difference, alone or on top."""
    pairs = ((ranked.trial.price, baseline), (ranked.after, ranked.before))
    return any(after is not None and not same_cost(after, before) for after, before in pairs)


def _rank(trial: Trial, baseline: Price) -> tuple[object, ...]:
    price = trial.price or baseline
    figures = ("score", "cycles", "energy_pj", "dram_bytes")
    savings = (round(-saving(getattr(price, name), getattr(baseline, name)), 9) for name in figures)
    return list(Effect).index(Effect(trial.effect)), *savings, trial.text


def _first_line(error: CodesignError) -> str:
    first = error.problems[0]
    more = f" (and {len(error.problems) - 1} more)" if len(error.problems) > 1 else ""
    return f"{first.where}: {first.problem}{more}"
