"""Counts read off scheduled TIR: what its loops, predicates and copies say, whatever mapping was meant.

Conditions and indices connect only few loops each (rows, columns, one channel dimension), so the iteration space falls
into small independent parts: each is evaluated on a numpy grid and the results are multiplied.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import prod
from typing import Any

import numpy as np

from codesign.lowering.tir_reading import Access, Environment, Grid, Loop, Statement, Term, statements_of
from codesign.mapping.mapping import ENGINE, Allocation, LayerCounts, Transfer
from codesign.vocabulary import Operand

IN_DRAM: Mapping[Operand, str] = dict.fromkeys(Operand, "dram")


def counts_of_function(function: Any, homes: Mapping[Operand, str] = IN_DRAM) -> LayerCounts:
    """MACs, elements moved and tiles allocated by a scheduled layer.

    function: a PrimFunc over the buffers inputs, weights, outputs as schedule_layer makes it. homes: the memory each of
    them lies in. Raises ValueError for a statement that is neither a copy, an initialisation nor the update.
    """
    reading = _Reading(function, homes)
    update = reading.update
    lanes = prod(loop.lanes for loop in update.loops if loop.lanes)
    return LayerCounts(
        macs_useful=iterations(update.loops, update.conditions),
        macs_issued=distinct_per_step(update, ()) * lanes,
        transfers=tuple(sorted((*reading.copies(), *reading.engine_transfers()))),
        allocations=tuple(sorted(reading.allocations())),
    )


class _Reading:
    """The statements of one function by their part: copies, initialisations, the update.

    fills: those copies that bring partial sums back, recognised by coming before the update.
    """

    def __init__(self, function: Any, homes: Mapping[Operand, str]) -> None:
        self.homes = homes
        self.moves: list[Statement] = []
        self.initialisations: list[Statement] = []
        updates: list[Statement] = []
        statements = statements_of(function)
        for statement in statements:
            _sort_into(statement, self.moves, self.initialisations, updates)
        if len(updates) != 1:
            raise ValueError(f"one update block was expected, not {len(updates)}")
        self.update = updates[0]
        self.operands = self._operands_of_buffers(function)
        early = statements[: statements.index(self.update)]
        self.fills = [move for move in self.moves if move in early and self._operand(move) is Operand.OUTPUTS]

    def _operands_of_buffers(self, function: Any) -> dict[Any, Operand]:
        operands = dict(zip(function.params, (Operand.INPUTS, Operand.WEIGHTS, Operand.OUTPUTS), strict=True))
        operands[self.update.store.buffer] = Operand.OUTPUTS
        for move in self.moves:
            source, destination = move.loads[0].buffer, move.store.buffer
            operand = operands[source if source in operands else destination]
            operands[source] = operands[destination] = operand
        return operands

    def _operand(self, move: Statement) -> Operand:
        return self.operands[move.store.buffer]

    def _partial(self, move: Statement) -> bool:
        """Whether partial sums move: they come back into the tile they leave."""
        ends = {move.store.buffer, move.loads[0].buffer}
        return any(ends == {fill.store.buffer, fill.loads[0].buffer} for fill in self.fills)

    def _memory(self, access: Access, operand: Operand) -> str:
        return access.memory or self.homes[operand]

    def copies(self) -> Iterator[Transfer]:
        """Copies between memories: elements really read, so no zeros of the padding."""
        for move in self.moves:
            elements = iterations(move.loops, (*move.conditions, *move.guards))
            operand = self._operand(move)
            source, destination = self._memory(move.loads[0], operand), self._memory(move.store, operand)
            yield Transfer(operand, source, destination, elements, self._partial(move))

    def engine_transfers(self) -> Iterator[Transfer]:
        """What the lanes read and write. An output's first visit adds to the initial zero, which is never read."""
        for load in self.update.loads:
            elements = distinct_per_step(self.update, load.indices)
            if load.buffer.same_as(self.update.store.buffer):
                memory = self._memory(load, Operand.OUTPUTS)
                yield Transfer(Operand.OUTPUTS, ENGINE, memory, elements)
                first_visits = sum(iterations(part.loops, part.conditions) for part in self.initialisations)
                yield Transfer(Operand.OUTPUTS, memory, ENGINE, elements - first_visits)
            else:
                operand = self.operands[load.buffer]
                yield Transfer(operand, self._memory(load, operand), ENGINE, elements)

    def allocations(self) -> Iterator[Allocation]:
        """Tiles: what one run of a copy's own loops covers, on the side that lies further in."""
        for move in self.moves:
            if move in self.fills:
                continue  # the copy out of the same tile speaks for it
            operand = self._operand(move)
            inner = move.loads[0] if operand is Operand.OUTPUTS else move.store
            tile = prod(loop.extent for loop in move.loops[len(move.loops) - move.own :])
            yield Allocation(operand, self._memory(inner, operand), tile)


def _sort_into(
    statement: Statement, moves: list[Statement], initialisations: list[Statement], updates: list[Statement]
) -> None:
    if not statement.loads:
        initialisations.append(statement)
    elif any(load.buffer.same_as(statement.store.buffer) for load in statement.loads):
        updates.append(statement)
    elif len(statement.loads) == 1:
        moves.append(statement)
    else:
        raise ValueError(f"block {statement.block} is neither a copy, an initialisation nor the update")


def iterations(loops: Iterable[Loop], conditions: Iterable[Term]) -> int:
    """Iterations of the loops in which all conditions hold."""
    total = 1
    for part, terms in _connected(loops, conditions):
        total *= int(np.count_nonzero(_where(part, terms)))
    return total


def distinct_per_step(statement: Statement, indices: tuple[Term, ...]) -> int:
    """Different index tuples the lanes use in one temporal step, summed over all steps; no indices: steps with work."""
    total = 1
    for part, terms in _connected(statement.loops, (*statement.conditions, *indices)):
        ordered = sorted(part, key=lambda loop: loop.lanes > 0)
        valid = _where(ordered, [term for term in terms if term not in indices])
        steps = prod(loop.extent for loop in ordered if not loop.lanes)
        used = np.zeros(valid.shape, dtype=np.int64)
        for index in (term for term in terms if term in indices):
            found = np.broadcast_to(index.value(_environment(ordered)), valid.shape)
            used = used * (int(found.max(initial=0)) + 1) + found
        total *= _distinct_per_row(np.where(valid, used, -1).reshape(steps, -1))
    return total


def _distinct_per_row(used: Grid) -> int:
    """Different values in each row, -1 left out, summed."""
    ordered = np.sort(used, axis=1)
    fresh = ordered[:, 1:] != ordered[:, :-1]
    return int(np.count_nonzero(fresh & (ordered[:, 1:] >= 0)) + np.count_nonzero(ordered[:, 0] >= 0))


def _connected(loops: Iterable[Loop], terms: Iterable[Term]) -> list[tuple[list[Loop], list[Term]]]:
    """Loops grouped by the terms that mention them together; each term with its group."""
    groups: list[tuple[list[Loop], list[Term]]] = [([loop], []) for loop in loops]
    for term in terms:
        touched = [group for group in groups if not term.loops.isdisjoint(group[0])]
        merged = (
            [loop for group in touched for loop in group[0]],
            [*(other for group in touched for other in group[1]), term],
        )
        groups = [group for group in groups if group not in touched]
        groups.append(merged)
    return groups


def _environment(loops: list[Loop]) -> Environment:
    """Each loop's values along an axis of its own."""
    return {loop: np.arange(loop.extent).reshape([-1 if other is loop else 1 for other in loops]) for loop in loops}


def _where(loops: list[Loop], conditions: Iterable[Term]) -> Grid:
    environment = _environment(loops)
    valid = np.ones([loop.extent for loop in loops], dtype=bool)
    for condition in conditions:
        valid &= np.asarray(condition.value(environment), dtype=bool)
    return valid
