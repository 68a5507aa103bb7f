"""What terminal and page say about advice in the same words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from codesign.advice.advice import (
    LEAST_LOSSY_SAVING,
    Advice,
    OutputChange,
    Ranked,
    Standing,
    Suggestion,
    Trial,
    saving,
)
from codesign.report.explanation import MINIMISED, signed_text
from codesign.report.numbers import bytes_text, count_text, energy_text, percent_text
from codesign.rewriting.graph_pass import Price

RANKING = (
    "Ranked: EXACT first, then APPROXIMATE, then RESHAPES; within each by what it saves alone, best first.",
    "On top: run on the network as those taken above leave it, in this order, and taken if that is better again;",
    f"what is not EXACT must save {percent_text(LEAST_LOSSY_SAVING)} there.",
    "A pass is taken once: another choice of its options takes its place if it saves more alone and in the whole.",
)


def objective_text(advice: Advice) -> str:
    """What is minimised: `cycles`, `energy x cycles`."""
    return MINIMISED.get(advice.objective, advice.objective)


def figure_names(advice: Advice) -> tuple[str, ...]:
    """Headings of the figures compared; the objective is one of its own where it is neither cycles nor energy."""
    own = () if objective_text(advice) in ("cycles", "energy") else (objective_text(advice),)
    return *own, "cycles", "energy", advice.off_chip


def change_texts(advice: Advice, after: Price | None, before: Price) -> tuple[str, ...]:
    """The changes of these figures: `-25.0 %`; dashes where there is no price."""
    if after is None:
        return ("-",) * len(figure_names(advice))
    pairs = [(after.cycles, before.cycles), (after.energy_pj, before.energy_pj), (after.dram_bytes, before.dram_bytes)]
    own = [(after.score, before.score)] if len(figure_names(advice)) > len(pairs) else []
    return tuple(signed_text(-saving(new, old)) if old else "-" for new, old in [*own, *pairs])


def standing_word(ranked: Ranked) -> str:
    """`taken`, `instead`, `less`, `little`, `no gain`, `nowhere`, `refused`."""
    return ranked.standing.name.lower().replace("_", " ")


def standing_text(ranked: Ranked) -> str:
    """`taken`, `taken instead of a{b=c}`, `refused on top: reason`."""
    match ranked.standing:
        case Standing.INSTEAD:
            return f"taken instead of {ranked.instead_of}"
        case Standing.LESS:
            return f"saves less alone than {ranked.instead_of}"
        case Standing.NO_GAIN | Standing.LITTLE if ranked.instead_of:
            return f"{standing_word(ranked)} instead of {ranked.instead_of}"
        case Standing.NOWHERE | Standing.REFUSED:
            return f"{ranked.standing}: {ranked.reason}"
        case _:
            return str(ranked.standing)


def standing_note(ranked: Ranked) -> str:
    """What one word does not say."""
    plain = (Standing.TAKEN, Standing.LITTLE, Standing.NO_GAIN)
    says_all = ranked.standing in plain and not (ranked.standing is not Standing.TAKEN and ranked.instead_of)
    places = f"{ranked.applied} place{'s' * (ranked.applied != 1)} on top"
    return joined("" if says_all else standing_text(ranked), places if ranked.applied > ranked.trial.applied else "")


def price_text(advice: Advice, price: Price) -> str:
    """`15.7 M cycles, 25.4 mJ, 41.2 MiB dram; 3.50 M parameters, 301 M MACs`."""
    cost = f"{count_text(price.cycles)} cycles, {energy_text(price.energy_pj)}"
    size = f"{count_text(price.parameters)} parameters, {count_text(price.macs)} MACs"
    return f"{cost}, {bytes_text(price.dram_bytes)} {advice.off_chip}; {size}"


def size_text(after: int, before: int) -> str:
    """A number of parameters or MACs: `3.50 M`, and before it what it was where it changed."""
    return count_text(after) if after == before else f"{count_text(before)} -> {count_text(after)}"


def per_mac_text(advice: Advice, trial: Trial) -> str:
    """`-8.3 % cycles per MAC` where the number of MACs changes; nothing otherwise."""
    before, after = advice.baseline, trial.price
    if after is None or after.macs == before.macs or not before.macs or not after.macs or not before.score:
        return ""
    change = signed_text(after.score / after.macs / (before.score / before.macs) - 1)
    return f"{change} {objective_text(advice)} per MAC"


def row_note(advice: Advice, ranked: Ranked) -> str:
    """All that the figures of a row do not say."""
    trial = ranked.trial
    return joined(standing_note(ranked), per_mac_text(advice, trial), output_note(trial), alike_text(trial))


def worst(outputs: Sequence[OutputChange]) -> OutputChange | None:
    """The output to show: one that could not be compared before the one with the lowest cosine."""
    return min(outputs, key=lambda one: -2.0 if one.cosine is None else one.cosine, default=None)


def cosine_text(change: OutputChange | None) -> str:
    """Four digits; `-` where there is none."""
    return "-" if change is None or change.cosine is None else f"{change.cosine:.4f}"


def sqnr_text(change: OutputChange | None) -> str:
    """Decibels; `-` where there is none."""
    return "-" if change is None or change.sqnr_db is None else f"{change.sqnr_db:.1f} dB"


def alike_text(trial: Trial) -> str:
    """`the same with a{b=c}, a{b=d}`, or nothing."""
    return f"the same with {', '.join(trial.alike)}" if trial.alike else ""


def output_note(trial: Trial) -> str:
    """What qualifies the figures of the output shown, and which output it is where there are several."""
    return noted(trial.outputs)


def noted(outputs: Sequence[OutputChange]) -> str:
    """The same of outputs."""
    shown = worst(outputs)
    if shown is None:
        return ""
    which = f"{shown.output} (of {len(outputs)} outputs)" if len(outputs) > 1 else ""
    return ": ".join(filter(None, (which, shown.note)))


def left_lines(advice: Advice) -> Iterator[tuple[str, list[str]]]:
    """What is not ranked, by title: a line for each rewrite, with the main reason."""
    groups = {
        "no effect on the cost": [_neutral_text(trial) for trial in advice.neutral],
        "applied nowhere": [_left_text(trial, trial.main_reason) for trial in advice.unused],
        "refused": [_left_text(trial, trial.problem) for trial in advice.refused],
        "cannot be loaded": [f"{name}: {problem}" for name, problem in advice.broken],
    }
    yield from ((title, lines) for title, lines in groups.items() if lines)


def _neutral_text(trial: Trial) -> str:
    shown = worst(trial.outputs)
    figures = f"cosine {cosine_text(shown)}, SQNR {sqnr_text(shown)}" if shown and shown.cosine is not None else ""
    places = f"{trial.applied} place{'s' * (trial.applied != 1)}"
    return f"{trial.text} ({trial.effect}): {joined(places, figures, output_note(trial), alike_text(trial))}"


def _left_text(trial: Trial, why: str) -> str:
    return f"{trial.text}: {joined(why, alike_text(trial))}"


def joined(*parts: str) -> str:
    """Those there are, as one sentence."""
    return "; ".join(filter(None, parts))


def suggestion_texts(advice: Advice, suggestion: Suggestion) -> tuple[str, ...]:
    """The line for `--passes`, what it saves, and what it does to the outputs."""
    if not suggestion.rewrites:
        return ("nothing to take",)
    pairs = zip(figure_names(advice), change_texts(advice, suggestion.price, advice.baseline), strict=True)
    saved = ", ".join(f"{change} {name}" for name, change in pairs)
    texts = [f"--passes {quoted(suggestion.passes)}", f"{saved}: {price_text(advice, suggestion.price)}"]
    shown = worst(suggestion.outputs)
    if shown is not None:
        figures = f"cosine {cosine_text(shown)}, SQNR {sqnr_text(shown)}" if shown.cosine is not None else ""
        texts.append(f"outputs: {joined(figures, noted(suggestion.outputs))}")
    return tuple(texts)


def quoted(passes: str) -> str:
    """As a shell takes it: braces and commas in quotes."""
    return f"'{passes}'" if "{" in passes else passes
