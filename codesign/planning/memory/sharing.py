"""Sharing: which tensors lie in the same memory, at fixed distances, and whether one more part contradicts that."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class Sharing:
    """Groups of tensors at fixed distances; every tensor begins as a group of its own.

    stored: sizes of the tensors that are written; in one group they must not share a byte.
    """

    stored: dict[str, int]
    above: dict[str, tuple[str, int]] = field(default_factory=dict)  # tensor: one in its group, bytes behind it
    members: dict[str, list[tuple[int, str]]] = field(default_factory=dict)  # by root: stored tensors, where they begin

    def place(self, name: str) -> tuple[str, int]:
        """The first tensor of a group (its root), and how many bytes behind it this one begins (may be negative)."""
        way, at = [], name
        while self.above.get(at, (at, 0))[0] != at:
            way.append(at)
            at = self.above[at][0]
        distance = 0
        for name_on_way in reversed(way):
            distance += self.above[name_on_way][1]
            self.above[name_on_way] = at, distance
        return at, distance

    def refusal(self, tensor: str, whole: str, offset_bytes: int) -> str:
        """Why a tensor cannot lie there in another, or nothing: it does now."""
        (top, at), (whole_top, whole_at) = self.place(tensor), self.place(whole)
        shift = whole_at + offset_bytes - at
        if top == whole_top:
            return f"tensor {tensor} cannot lie {offset_bytes} bytes into {whole}" if shift else ""
        mine = [(begin + shift, name) for begin, name in self._stored(top)]
        both = sorted([*mine, *self._stored(whole_top)])
        for (begin, before), (after, name) in zip(both, both[1:], strict=False):
            if begin + self.stored[before] > after:
                return f"tensors {before} and {name} are written to the same bytes"
        self.above[top] = whole_top, shift
        self.members[whole_top] = both
        self.members.pop(top, None)
        return ""

    def add(self, name: str, size_bytes: int) -> None:
        """A tensor that is written, and that no group holds yet."""
        self.stored[name] = size_bytes

    def groups(self, names: Iterable[str]) -> list[dict[str, int]]:
        """Every group: where its tensors begin, the first of them at 0."""
        found: dict[str, dict[str, int]] = {}
        for name in names:
            root, at = self.place(name)
            found.setdefault(root, {})[name] = at
        return [{name: at - min(group.values()) for name, at in group.items()} for group in found.values()]

    def _stored(self, root: str) -> list[tuple[int, str]]:
        return self.members.get(root, [(0, root)] if root in self.stored else [])
