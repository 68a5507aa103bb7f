"""The boxes a face detector finds: score threshold, non-maximum suppression, and how well two sets of boxes agree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SCORE = 0.7  # the detector's own demonstration takes these two
OVERLAP = 0.3


@dataclass(frozen=True)
class Faces:
    """What is left of one picture. anchors: above the score; boxes [n, 4]: relative corners x, y, x, y after
    suppression, best first; scores [n]."""

    anchors: int
    boxes: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True)
class Agreement:
    """Of two sets of boxes. overlap: the least intersection over union of a pair; 0 where a box has no partner."""

    boxes: int
    others: int
    overlap: float

    @property
    def is_same(self) -> bool:
        """As many boxes, every one with a partner of its own that covers it to more than 99 %."""
        return self.boxes == self.others and self.overlap > 0.99


@dataclass(frozen=True)
class Match:
    """One detector's boxes against another's. found, missed: of its faces, those the other has and has not; extra:
    boxes of the other that are none of its faces."""

    found: int
    missed: int
    extra: int

    def __add__(self, other: Match) -> Match:
        return Match(self.found + other.found, self.missed + other.missed, self.extra + other.extra)


def faces_of(scores: np.ndarray, boxes: np.ndarray) -> Faces:
    """scores: [1, anchors, 2], the second is that of a face; boxes: [1, anchors, 4]."""
    face = scores[0, :, 1]
    order = np.argsort(-face, kind="stable")
    order = order[face[order] > SCORE]
    kept: list[int] = []
    for index in order:
        if not kept or overlaps(boxes[0, kept], boxes[0, index]).max() <= OVERLAP:
            kept.append(int(index))
    return Faces(len(order), boxes[0, kept], face[kept])


def overlaps(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Intersection over union of every one of boxes [n, 4] with a box [4]."""
    low, high = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
    common = np.prod(np.clip(high - low, 0, None), axis=1)
    union = _area(boxes) + _area(box[None]) - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def _area(boxes: np.ndarray) -> np.ndarray:
    return np.asarray((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))


def agreement(ours: Faces, theirs: Faces) -> Agreement:
    """Every box gets the best partner no box before it has taken."""
    free = list(range(len(ours.boxes)))
    least = 1.0
    for box in theirs.boxes:
        if not free:
            least = 0.0
            break
        found = overlaps(ours.boxes[free], box)
        least = min(least, float(found.max()))
        del free[int(found.argmax())]
    return Agreement(len(theirs.boxes), len(ours.boxes), 0.0 if free else least)


def match(ours: Faces, theirs: Faces, overlap: float) -> Match:
    """Their faces, best score first, each found where a free box of ours overlaps it by more than `overlap`."""
    free, found = list(range(len(ours.boxes))), 0
    for box in theirs.boxes:
        shares = overlaps(ours.boxes[free], box) if free else np.zeros(1)
        if shares.max() > overlap:
            found += 1
            del free[int(shares.argmax())]
    return Match(found, len(theirs.boxes) - found, len(free))
