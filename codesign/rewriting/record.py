"""What a pass did, as pure data: part of every plan and report."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DeclinedRecord:
    """Where a pass did not apply, and why."""

    where: str
    reason: str


@dataclass(frozen=True)
class PassRecord:
    """What one pass did. effect: EXACT, APPROXIMATE or RESHAPES. applied: how many places it changed."""

    name: str
    effect: str
    applied: int
    declined: tuple[DeclinedRecord, ...]
    seconds: float
