"""From a network and a catalogue of passes to advice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from codesign.advice.advice import Advice, Ranked, Suggestion
from codesign.advice.ranking import OnItem, Stack, Workbench, changes_cost, in_rank, tried
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
    baseline = bench.baseline
    trials = tried(bench, steps, on_stage("trying"))
    order = in_rank(trials, baseline)
    exact = [item for item in order if item[1].effect_here is Effect.EXACT]
    stack, offered = Stack(bench, baseline), list[Ranked]()
    suggestions: list[Suggestion] = []
    on_item = on_stage("stacking")
    for part in (exact, order[len(exact) :]):
        for trial, step in part:
            on_item(trial.text, len(offered) + 1, len(order))
            offered.append(stack.offer(trial, step))
        suggestions.append(_suggestion(heading, stack))
    ranked = tuple(one for one in offered if changes_cost(one, baseline))
    told = {one.trial.text for one in ranked}
    left = [trial for trial, _ in trials if trial.text not in told and not trial.problem]
    return Advice(
        codesign=heading.codesign,
        model=heading.model,
        hardware=heading.hardware,
        objective=heading.objective,
        off_chip=heading.off_chip,
        base=_texts(heading.base.passes),
        baseline=baseline,
        ranked=ranked,
        neutral=tuple(trial for trial in left if trial.applied),
        unused=tuple(trial for trial in left if not trial.applied),
        refused=tuple(trial for trial, _ in trials if trial.problem),
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
