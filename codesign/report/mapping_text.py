"""A mapping as one line a person reads.

    OY 4 | I,O->sram | K 8 | W->sram | C 2 || rows C 32, columns K 32

Loops from the outermost inwards; `I,O->sram` stands where those operands' tiles are brought into (or drained from) that
memory, `2W` where two copies are chosen for a tile; behind `||` the lanes: axis, dimension, how many.
"""

from __future__ import annotations

from codesign.mapping.mapping import Mapping, Residence
from codesign.vocabulary import Operand

LETTERS = {Operand.WEIGHTS: "W", Operand.INPUTS: "I", Operand.OUTPUTS: "O"}


def mapping_text(mapping: Mapping) -> str:
    """The whole mapping on one line; every loop, residence and lane of it appears once."""
    parts: list[str] = []
    for position in range(len(mapping.loops) + 1):
        # Outer memories first: within one operand, residences are listed innermost first.
        here = [part for part in reversed(mapping.residences) if part.position == position]
        if here:
            parts.append(_residences_text(here))
        if position < len(mapping.loops):
            loop = mapping.loops[position]
            text = f"{loop.dimension} {loop.extent}"
            joined = parts and "->" not in parts[-1]
            parts = [*parts[:-1], f"{parts[-1]} {text}"] if joined else [*parts, text]
    lanes = ", ".join(f"{loop.axis} {loop.dimension} {loop.extent}" for loop in mapping.spatial)
    return " | ".join(parts) + (f" || {lanes}" if lanes else "")


def _residences_text(residences: list[Residence]) -> str:
    """`I,O->sram W->registers`: operands with the same memory share an arrow."""
    memories: dict[str, list[Residence]] = {}
    for part in residences:
        memories.setdefault(part.memory, []).append(part)
    return " ".join(f"{','.join(map(_held, sorted(held, key=_letter)))}->{memory}" for memory, held in memories.items())


def _held(part: Residence) -> str:
    return f"{part.buffers if part.buffers > 1 else ''}{_letter(part)}"


def _letter(part: Residence) -> str:
    return LETTERS[part.operand]
