"""`codesign advise --json`: the same as data."""

from __future__ import annotations

from codesign.advice.advice import Advice, OutputChange, Ranked, Suggestion, Trial
from codesign.planning.plan import Identity
from codesign.report.schema import Declined, File, Part
from codesign.rewriting.graph_pass import Price


class PriceReport(Part):
    """What the network costs per inference, and how large it is."""

    score: float
    """What is minimised: cycles, picojoules, their product or a weighted sum."""
    cycles: int
    energy_pj: float
    dram_bytes: int
    """Read from and written into the outermost memory."""
    macs: int
    parameters: int


class OutputReport(Part):
    """How far an output moved from the baseline's."""

    output: str
    cosine: float | None
    """Null where it would mean nothing; `note` says why."""
    sqnr_db: float | None
    """Power of the output over power of the difference; null where there is no difference, too."""
    note: str


class RewriteReport(Part):
    """A rewrite of the baseline alone."""

    passes: str
    """As `--passes` takes it."""
    name: str
    effect: str
    """EXACT (same function up to float rounding), APPROXIMATE (other numbers) or RESHAPES (another network)."""
    applied: int
    declined: list[Declined]
    price: PriceReport | None
    """Null when it was refused; `problem` says why."""
    problem: str
    outputs: list[OutputReport]
    """For effects other than EXACT."""
    alike: list[str]
    """Other choices of its options that come to the same here."""


class RankedReport(Part):
    """A rewrite that changes the cost, alone or on top of those taken above it."""

    rewrite: RewriteReport
    standing: str
    """`taken`, `taken instead of another choice`, `saves less alone than the choice taken`, `saves too little on top`,
    `no gain on top`, `applies nowhere on top` or `refused on top`."""
    instead_of: str
    """The other choice of the same pass whose place it takes, or would take."""
    before: PriceReport
    """With those taken above it."""
    after: PriceReport | None
    """With this one as well; null where it was not tried on top, applies nowhere there, or was refused."""
    applied_on_top: int
    reason: str
    """Why it applies nowhere on top, or was refused there."""


class SuggestionReport(Part):
    """Rewrites to take together."""

    passes: str
    """For `--passes`, those of the baseline first."""
    rewrites: list[str]
    price: PriceReport
    outputs: list[OutputReport]


class BrokenReport(Part):
    """A pass that cannot be loaded."""

    name: str
    problem: str


class AdviceReport(Part):
    """Which rewrites help a network on a machine, and what each does to it (codesign advise --json)."""

    codesign: str
    model: File
    hardware: File
    objective: str
    base: str
    """The passes of the baseline; empty for none."""
    data: str
    """What outputs were compared on."""
    baseline: PriceReport
    ranked: list[RankedReport]
    """EXACT before APPROXIMATE before RESHAPES, within each by the share of `score` saved alone, best first."""
    neutral: list[RewriteReport]
    """Applied, and the cost stayed the same."""
    unused: list[RewriteReport]
    """Applied nowhere."""
    refused: list[RewriteReport]
    broken: list[BrokenReport]
    exact: SuggestionReport
    """All EXACT ones that were taken."""
    all: SuggestionReport
    """Everything that was taken."""


def advice_json(advice: Advice) -> str:
    """The advice as indented JSON."""
    report = AdviceReport(
        codesign=advice.codesign,
        model=_file(advice.model),
        hardware=_file(advice.hardware),
        objective=advice.objective,
        base=advice.base,
        data=advice.data,
        baseline=_price(advice.baseline),
        ranked=[_ranked(ranked) for ranked in advice.ranked],
        neutral=[_rewrite(trial) for trial in advice.neutral],
        unused=[_rewrite(trial) for trial in advice.unused],
        refused=[_rewrite(trial) for trial in advice.refused],
        broken=[BrokenReport(name=name, problem=problem) for name, problem in advice.broken],
        exact=_suggestion(advice.exact),
        all=_suggestion(advice.all),
    )
    return report.model_dump_json(indent=1) + "\n"


def _file(identity: Identity) -> File:
    return File(name=identity.name, sha256=identity.sha256)


def _price(price: Price) -> PriceReport:
    return PriceReport(
        score=price.score,
        cycles=price.cycles,
        energy_pj=price.energy_pj,
        dram_bytes=price.dram_bytes,
        macs=price.macs,
        parameters=price.parameters,
    )


def _outputs(outputs: tuple[OutputChange, ...]) -> list[OutputReport]:
    return [OutputReport(output=one.output, cosine=one.cosine, sqnr_db=one.sqnr_db, note=one.note) for one in outputs]


def _rewrite(trial: Trial) -> RewriteReport:
    declined = trial.record.declined if trial.record is not None else ()
    return RewriteReport(
        passes=trial.text,
        name=trial.name,
        effect=trial.effect,
        applied=trial.applied,
        declined=[Declined(where=part.where, reason=part.reason) for part in declined],
        price=None if trial.price is None else _price(trial.price),
        problem=trial.problem,
        outputs=_outputs(trial.outputs),
        alike=list(trial.alike),
    )


def _ranked(ranked: Ranked) -> RankedReport:
    return RankedReport(
        rewrite=_rewrite(ranked.trial),
        standing=str(ranked.standing),
        instead_of=ranked.instead_of,
        before=_price(ranked.before),
        after=None if ranked.after is None else _price(ranked.after),
        applied_on_top=ranked.applied,
        reason=ranked.reason,
    )


def _suggestion(suggestion: Suggestion) -> SuggestionReport:
    return SuggestionReport(
        passes=suggestion.passes,
        rewrites=list(suggestion.rewrites),
        price=_price(suggestion.price),
        outputs=_outputs(suggestion.outputs),
    )
