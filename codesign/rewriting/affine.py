"""Scale and shift of a whole tensor, as numbers that broadcast to it, and how they look on the other side of a node.

A per-channel normalisation, a scale per tensor and a constant per element are one thing here: x -> scale x + shift with
arrays of the tensor's rank, 1 wherever nothing varies. Moving one past a reshape, a transposition or a split is moving
the arrays; what comes out is folded into a linear operator if it then varies along the operator's channels alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from codesign.graph.graph import constant_of, shape_of
from codesign.graph.operators import Pool, is_operator, optional_input
from codesign.rewriting.linear import CannotFoldError, ScaleShift
from codesign.rewriting.reshape import Sizes, dimension_groups
from codesign.vocabulary import OperationKind

_RESHAPES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity")


@dataclass(frozen=True)
class Affine:
    """x -> scale x + shift, element by element; float64 arrays of x's rank, every size 1 or x's."""

    scale: np.ndarray
    shift: np.ndarray

    @classmethod
    def of_channels(cls, terms: ScaleShift, axis: int, rank: int) -> Affine:
        """Terms per channel, the channels on `axis` of a tensor of this rank."""
        shape = [-1 if place == axis else 1 for place in range(rank)]
        return cls(terms.scale.reshape(shape), terms.shift.reshape(shape))

    @property
    def axes(self) -> frozenset[int]:
        """The axes along which scale or shift varies."""
        sizes = zip(self.scale.shape, self.shift.shape, strict=True)
        return frozenset(axis for axis, pair in enumerate(sizes) if pair != (1, 1))

    @property
    def is_identity(self) -> bool:
        """Whether it changes nothing."""
        return not self.shift.any() and bool((self.scale == 1.0).all())

    def then(self, later: Affine) -> Affine:
        """This one first, `later` on its result."""
        return Affine(later.scale * self.scale, later.scale * self.shift + later.shift)

    def only_scale(self) -> Affine:
        """Without the shift."""
        return Affine(self.scale, np.zeros([1] * self.shift.ndim))

    def for_channels(self, axis: int, channels: int, where: str) -> ScaleShift:
        """One number for each of the channels on `axis`. Raises CannotFoldError; where: whose channels they are."""
        others = sorted(self.axes - {axis})
        if others:
            named = ", ".join(map(str, others))
            raise CannotFoldError(
                f"scale and shift vary along axis {named} of {where}, whose channels lie on axis {axis}"
            )
        return ScaleShift(*(np.broadcast_to(term.reshape(-1), (channels,)) for term in (self.scale, self.shift)))

    def reshaped(self, old: Sizes, new: Sizes) -> Affine:
        """For the same elements in the same order under another shape."""
        return Affine(_reshaped(self.scale, old, new), _reshaped(self.shift, old, new))

    def transposed(self, order: Sequence[int]) -> Affine:
        """For the transposed tensor."""
        return Affine(self.scale.transpose(order), self.shift.transpose(order))

    def part(self, axis: int, start: int, length: int) -> Affine:
        """For a slice of the tensor along an axis."""
        return Affine(*(_sliced(term, axis, start, length) for term in (self.scale, self.shift)))

    def within(self, axis: int, size: int, start: int, length: int) -> Affine:
        """For a tensor of `size` along an axis, of which it is to change a slice and leave the rest alone."""
        pads = [(start, size - start - length) if place == axis else (0, 0) for place in range(self.scale.ndim)]
        scale, shift = (_stretched(term, axis, length) for term in (self.scale, self.shift))
        return Affine(narrowed(np.pad(scale, pads, constant_values=1.0)), narrowed(np.pad(shift, pads)))

    def fitted(self, shape: Sizes) -> Affine | None:
        """For a factor of this shape in a product that broadcasts, or None when it varies where the factor does not."""
        extra = self.scale.ndim - len(shape)
        if extra < 0 or any(axis < extra or shape[axis - extra] != self._size(axis) for axis in self.axes):
            return None
        return Affine(*(term.reshape(term.shape[extra:]) for term in (self.scale, self.shift)))

    def _size(self, axis: int) -> int:
        sizes: tuple[int, int] = (self.scale.shape[axis], self.shift.shape[axis])
        return max(sizes)


def narrowed(term: np.ndarray) -> np.ndarray:
    """Size 1 along every axis where it does not vary."""
    for axis in range(term.ndim):
        first = term.take([0], axis)
        if term.shape[axis] > 1 and bool((term == first).all()):
            term = first
    return term


def without_leading_ones(term: np.ndarray, rank: int = 0) -> np.ndarray:
    """The shortest shape of at least `rank` dimensions that broadcasts alike."""
    while term.ndim > rank and term.shape[0] == 1:
        term = term[0]
    return term


def carried_back(result: ir.Value, affine: Affine) -> tuple[ir.Value, Affine] | None:
    """The input of the node that makes `result`, and what must happen to it instead; None for a node that mixes.

    Reshapes and transpositions move elements; splits and slices are passed because what they leave out stays as it is.
    Averages, resizing and padding with zeros are linear in each channel: a scale that does not vary where they mix
    passes.
    """
    node = result.producer()
    source = node.inputs[0] if node is not None and node.inputs else None
    if node is None or source is None:
        return None
    there, here = shape_of(source), shape_of(result)
    if is_operator(node, "Transpose"):
        return source, affine.transposed([int(place) for place in np.argsort(_order(node, len(there)))])
    if is_operator(node, *_RESHAPES):
        return source, affine.reshaped(here, there)
    if (part := part_of(result)) is not None:
        kept = tuple(part.length if axis == part.axis else size for axis, size in enumerate(there))
        return source, affine.reshaped(here, kept).within(part.axis, there[part.axis], part.start, part.length)
    return (source, affine) if _scales_through(node, affine) else None


def carried_forward(node: ir.Node, index: int, affine: Affine) -> tuple[tuple[ir.Value, Affine], ...] | None:
    """What happens to a node's results when `affine` happens to its input `index`; None for a node that mixes.

    As for carried_back; a concatenation is passed because its other inputs stay as they are.
    """
    source, result = node.inputs[index], node.outputs[0]
    if source is None:
        return None
    there, here = shape_of(source), shape_of(result)
    if is_operator(node, "Concat"):
        axis = node.attributes.get_int("axis") % len(here)
        start = sum(shape_of(part)[axis] for part in node.inputs[:index] if part is not None)
        return ((result, affine.within(axis, here[axis], start, there[axis])),)
    if index != 0:
        return None
    if is_operator(node, "Transpose"):
        return ((result, affine.transposed(_order(node, len(there)))),)
    if is_operator(node, *_RESHAPES):
        return ((result, affine.reshaped(there, here)),)
    parts = [(output, part) for output in node.outputs if (part := part_of(output)) is not None]
    if parts:
        return tuple((output, _part_as(affine, part, there, shape_of(output))) for output, part in parts)
    return ((result, affine),) if _scales_through(node, affine) else None


def _part_as(affine: Affine, part: Part, whole: Sizes, shape: Sizes) -> Affine:
    """For a part of a tensor, with the axis of size 1 it was taken along or without it."""
    kept = tuple(part.length if axis == part.axis else size for axis, size in enumerate(whole))
    return affine.part(part.axis, part.start, part.length).reshaped(kept, shape)


def _order(node: ir.Node, rank: int) -> list[int]:
    return list(node.attributes.get_ints("perm") or reversed(range(rank)))


@dataclass(frozen=True)
class Part:
    """The positions start ... start + length - 1 along one axis."""

    axis: int
    start: int
    length: int


def part_of(result: ir.Value) -> Part | None:
    """What of its node's input a result of Split, a Slice along one axis or a Gather at one position is, or None."""
    node = result.producer()
    source = node.inputs[0] if node is not None and node.inputs else None
    if node is None or source is None or not is_operator(node, "Split", "Slice", "Gather"):
        return None
    shape = shape_of(source)
    axis = node.attributes.get_int("axis", 0) % max(1, len(shape))
    if node.op_type == "Split":
        sizes = [shape_of(output)[axis] for output in node.outputs]
        return Part(axis, sum(sizes[: result.index() or 0]), shape_of(result)[axis])
    terms = [constant_of(value) for value in node.inputs[1:]]
    if any(term is None or term.size != 1 for term in terms):
        return None
    numbers = [int(term.reshape(())) for term in terms if term is not None]
    if node.op_type == "Gather":
        return Part(axis, numbers[0] % shape[axis], 1)
    start, _, axis, step = (*numbers, *(0, 1)[len(numbers) - 2 :])
    axis %= len(shape)
    start = min(start + shape[axis] if start < 0 else start, shape[axis])
    return Part(axis, start, shape_of(result)[axis]) if step == 1 and start >= 0 else None


def _scales_through(node: ir.Node, affine: Affine) -> bool:
    """Whether a scale alone passes a node that is linear in its input and mixes only where the scale does not vary."""
    if affine.shift.any() or node.inputs[0] is None:
        return False
    old, new = shape_of(node.inputs[0]), shape_of(node.outputs[0])
    if len(old) != len(new):
        return False
    if (pool := Pool.of(node)) is not None and pool.kind is OperationKind.AVERAGE_POOL:
        return max(affine.axes, default=0) < 2
    if is_operator(node, "Pad"):
        filled = constant_of(optional_input(node, 2))
        zeros = optional_input(node, 2) is None or (filled is not None and not filled.any())
        reflects = node.attributes.get_string("mode", "constant") != "constant"
        return (zeros or reflects) and all(old[axis] == new[axis] for axis in affine.axes)
    if is_operator(node, "Resize"):
        crops = node.attributes.get_string("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
        return not crops and old[:2] == new[:2] and max(affine.axes, default=0) < 2
    return False


def _reshaped(term: np.ndarray, old: Sizes, new: Sizes) -> np.ndarray:
    """Only the groups of dimensions along which the term varies are written out in full."""
    full, result = list(term.shape), [1] * len(new)
    for inputs, outputs in dimension_groups(old, new):
        if max(term.shape[inputs], default=1) > 1:
            full[inputs], result[outputs] = old[inputs], new[outputs]
    return narrowed(np.broadcast_to(term, full).reshape(result))


def _sliced(term: np.ndarray, axis: int, start: int, length: int) -> np.ndarray:
    return term if term.shape[axis] == 1 else narrowed(term.take(range(start, start + length), axis))


def _stretched(term: np.ndarray, axis: int, length: int) -> np.ndarray:
    return np.repeat(term, length, axis) if term.shape[axis] == 1 else term
