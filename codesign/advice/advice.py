"""What advice says, as pure data: every rewrite tried, what it changes, what it saves alone and on top of others."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

from codesign.planning.plan import Identity
from codesign.rewriting.graph_pass import Price
from codesign.rewriting.record import PassRecord

SAME = 1e-9  # relative; a smaller difference is rounding
LEAST_LOSSY_SAVING = 0.01  # nobody repairs a network by training for less


@dataclass(frozen=True)
class OutputChange:
    """How far one output of the network moved from the original's, over all samples.

    sqnr_db: power of the original output over power of the difference. Both figures are None where they would mean
    nothing, and note says why; a note may also qualify them.
    """

    output: str
    cosine: float | None
    sqnr_db: float | None
    note: str = ""


@dataclass(frozen=True)
class Trial:
    """One rewrite on the baseline, alone.

    text: as `--passes` takes it. record: what it did, None when it was refused. price: of the network after it, None
    when it was refused; problem says why then. outputs: for effects other than EXACT. alike: other choices
    of its options that come to the same here.
    """

    name: str
    text: str
    effect: str
    record: PassRecord | None
    price: Price | None
    problem: str = ""
    outputs: tuple[OutputChange, ...] = ()
    alike: tuple[str, ...] = ()

    @property
    def outcome(self) -> tuple[object, ...]:
        """All that it came to; equal for two choices between which nothing can be told here."""
        declined = self.record.declined if self.record is not None else ()
        return self.name, self.effect, self.applied, declined, self.price, self.problem, self.outputs

    @property
    def applied(self) -> int:
        """How many places it changed."""
        return self.record.applied if self.record is not None else 0

    @property
    def main_reason(self) -> str:
        """The reason it declined for most often, and how many places there are beside."""
        return main_reason(self.record)


def main_reason(record: PassRecord | None) -> str:
    """`the most frequent reason (and 3 more places)`, or that there was nothing to look at."""
    if record is None or not record.declined:
        return "nothing here to apply it to"
    [(reason, count)] = Counter(part.reason for part in record.declined).most_common(1)
    more = len(record.declined) - 1
    places = f" ({len(record.declined)} places)" if count > more else f" (and {more} more place{'s' * (more > 1)})"
    return reason + (places if more else "")


class Standing(StrEnum):
    """What became of a rewrite on top of those above it in the rank."""

    TAKEN = "taken"
    INSTEAD = "taken instead of another choice"
    LESS = "saves less alone than the choice taken"
    LITTLE = "saves too little on top"
    NO_GAIN = "no gain on top"
    NOWHERE = "applies nowhere on top"
    REFUSED = "refused on top"

    @property
    def is_taken(self) -> bool:
        """Whether it is part of what is advised."""
        return self in (Standing.TAKEN, Standing.INSTEAD)


@dataclass(frozen=True)
class Ranked:
    """A rewrite in its rank. before, after: prices without and with it on top of those taken above it.

    instead_of: the other choice of the same pass whose place it takes, or would take. applied: places on top.
    after: None where it was not tried on top, applies nowhere there, or was refused; reason says why.
    """

    trial: Trial
    standing: Standing
    before: Price
    after: Price | None = None
    instead_of: str = ""
    applied: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Suggestion:
    """Rewrites to take together. passes: for `--passes`, the baseline's included. price: of the network after them."""

    passes: str
    rewrites: tuple[str, ...]
    price: Price
    outputs: tuple[OutputChange, ...] = ()


@dataclass(frozen=True)
class Advice:
    """Every rewrite of the catalogue on one network and one machine.

    base: the pipeline of the baseline, empty for none. ranked: those that change the cost, alone or on top, EXACT
    before APPROXIMATE before RESHAPES, and by what they save alone. neutral: applied, but cost the same. unused:
    applied nowhere. refused: with the problem. broken: passes that cannot be loaded, and why. data: what outputs were
    compared on.
    """

    codesign: str
    model: Identity
    hardware: Identity
    objective: str
    off_chip: str
    base: str
    baseline: Price
    ranked: tuple[Ranked, ...]
    neutral: tuple[Trial, ...]
    unused: tuple[Trial, ...]
    refused: tuple[Trial, ...]
    broken: tuple[tuple[str, str], ...]
    exact: Suggestion
    all: Suggestion
    data: str


def differs(after: float, before: float) -> bool:
    """Whether two figures differ by more than rounding."""
    return abs(after - before) > SAME * max(abs(after), abs(before))


def improves(after: Price, before: Price) -> bool:
    """Whether a price is better: by the objective; where that is equal by cycles, then energy, then dram traffic."""
    for new, old in zip(_figures(after), _figures(before), strict=True):
        if differs(new, old):
            return new < old
    return False


def same_cost(after: Price, before: Price) -> bool:
    """Whether nothing but rounding lies between two prices (sizes of the network aside)."""
    return not any(differs(new, old) for new, old in zip(_figures(after), _figures(before), strict=True))


def saving(after: float, before: float) -> float:
    """Share of a figure that is saved; below 0 where it grows."""
    return 1 - after / before if before else 0.0


def _figures(price: Price) -> tuple[float, float, float, float]:
    return price.score, price.cycles, price.energy_pj, price.dram_bytes
