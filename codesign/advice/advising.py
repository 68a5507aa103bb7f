"""From a network and a catalogue of passes to advice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from codesign.advice.advice import Advice, Ranked, Suggestion
from codesign.advice.ranking import OnItem, Stack, Workbench, ranked_first, tried
from codesign.planning.plan import Identity
from codesign.rewriting.graph_pass import Effect, GraphPass
from codesign.rewriting.options import short_text_of
from codesign.rewriting.pipeline import Pipeline


@dataclass(frozen=True)
class Heading:
    """What the advice is about. base: the pipeline that made the baseline."""

    codesign: str
    model: Identity
    hardware: Identity
    objective: str
    off_chip: str
    base: Pipeline
    broken: tuple[tuple[str, str], ...] = ()


def advice_on(
    bench: Workbench, heading: Heading, steps: Sequence[GraphPass], on_stage: Callable[[str], OnItem]
) -> Advice:
    """Try, rank and stack the rewrites.

    on_stage: who is told about the items of a stage. Raises DoesNotFitError when the baseline fits no engine.
    """
    baseline = bench.oracle.price(bench.base)
    trials = tried(bench, steps, on_stage("trying"))
    in_rank = ranked_first(trials, baseline)
    stack = Stack(bench, baseline)
    exact = [item for item in in_rank if item[1].effect_here is Effect.EXACT]
    ranked: list[Ranked] = []
    suggestions: list[Suggestion] = []
    on_item = on_stage("stacking")
    for part in (exact, in_rank[len(exact) :]):
        for trial, step in part:
            on_item(trial.text, len(ranked) + 1, len(in_rank))
            ranked.append(stack.offer(trial, step))
        suggestions.append(_suggestion(heading, stack))
    refused = tuple(trial for trial, _ in trials if trial.problem)
    told = {item.trial.text for item in ranked} | {trial.text for trial in refused}
    left = [trial for trial, _ in trials if trial.text not in told]
    return Advice(
        codesign=heading.codesign,
        model=heading.model,
        hardware=heading.hardware,
        objective=heading.objective,
        off_chip=heading.off_chip,
        base=_texts(heading.base.passes),
        baseline=baseline,
        ranked=tuple(ranked),
        neutral=tuple(trial for trial in left if trial.applied),
        unused=tuple(trial for trial in left if not trial.applied),
        refused=refused,
        broken=heading.broken,
        exact=suggestions[0],
        all=suggestions[1],
        data=bench.judge.samples.source,
    )


def _suggestion(heading: Heading, stack: Stack) -> Suggestion:
    passes = (*heading.base.passes, *stack.steps)
    lossy = any(step.effect_here is not Effect.EXACT for step in stack.steps)
    outputs = stack.bench.judge.changes(stack.graph) if lossy else ()
    return Suggestion(_texts(passes) or "none", tuple(map(short_text_of, stack.steps)), stack.price, outputs)


def _texts(steps: Sequence[GraphPass]) -> str:
    return ",".join(map(short_text_of, steps))
