"""The order in which cuts are placed: every stage of it, and the steps between stages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

from codesign.vocabulary import Operand

OUTPUTS = list(Operand).index(Operand.OUTPUTS)


class Stage(NamedTuple):
    """Cuts placed so far, by operand; partial: the last one of the outputs left its sums incomplete."""

    placed: tuple[int, ...]
    partial: bool = False


class Step(NamedTuple):
    """Placing one more cut, by number. waiting: the cuts left after it.

    complete, partial: numbers of the stages that follow, by what the tile holds of the reduction; no partial one where
    it makes no difference.
    """

    cut: int
    arrives_partial: bool
    complete: int
    partial: int | None
    waiting: tuple[int, ...]


@dataclass(frozen=True)
class Stairs:
    """The stages of all layers whose operands leave equally many memories.

    levels: how many, by operand. together: operands whose first cut is placed before the first one of the outputs: a
    tile of theirs lies within a tile of outputs.

    Stages and cuts have numbers: stages with fewer cuts come first, cuts go by operand, innermost memory first.
    """

    levels: tuple[int, ...]
    together: tuple[int, ...] = ()

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """All stages."""
        found = {Stage((0,) * len(self.levels)): None}
        for stage in (queue := list(found)):
            for _, _, complete, partial in self._moves(stage):
                for following in (complete, partial):
                    if following is not None and following not in found:
                        found[following] = None
                        queue.append(following)
        return tuple(sorted(found, key=lambda stage: sum(stage.placed)))

    @cached_property
    def steps(self) -> tuple[tuple[Step, ...], ...]:
        """What may be placed next, by stage."""
        number = {stage: at for at, stage in enumerate(self.stages)}
        waiting = {stage: self._waiting(stage) for stage in self.stages}
        return tuple(
            tuple(
                Step(
                    sum(self.levels[:operand]) + stage.placed[operand],
                    arrives_partial,
                    number[complete],
                    None if partial is None else number[partial],
                    waiting[complete],
                )
                for operand, arrives_partial, complete, partial in self._moves(stage)
            )
            for stage in self.stages
        )

    @cached_property
    def spans(self) -> tuple[tuple[int, int], ...]:
        """First stage with so many cuts placed, and the first with more."""
        placed = [sum(stage.placed) for stage in self.stages]
        return tuple((placed.index(count), placed.index(count) + placed.count(count)) for count in sorted(set(placed)))

    @property
    def last(self) -> int:
        """Everything placed."""
        return len(self.stages) - 1

    def _waiting(self, stage: Stage) -> tuple[int, ...]:
        firsts = [sum(self.levels[:operand]) for operand in range(len(self.levels))]
        parts = zip(firsts, self.levels, stage.placed, strict=True)
        return tuple(first + at for first, count, done in parts for at in range(done, count))

    def _moves(self, stage: Stage) -> Iterator[tuple[int, bool, Stage, Stage | None]]:
        """Operand, whether its cut's tile arrives partial, and the stages that may follow."""
        for operand, count in enumerate(self.levels):
            done = stage.placed[operand]
            if done == count or (operand == OUTPUTS and not all(stage.placed[other] for other in self.together)):
                continue
            placed = (*stage.placed[:operand], done + 1, *stage.placed[operand + 1 :])
            if operand != OUTPUTS:
                yield operand, False, Stage(placed, stage.partial), None
            elif done + 1 == count:
                yield operand, stage.partial, Stage(placed), None
            else:
                yield operand, stage.partial, Stage(placed), Stage(placed, partial=True)


@lru_cache(maxsize=64)
def stairs(levels: tuple[int, ...], together: tuple[int, ...] = ()) -> Stairs:
    """The stages for so many memories."""
    return Stairs(levels, together)
