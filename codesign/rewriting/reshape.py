"""What a Reshape's fixed target must become when the sizes of its input change."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

Sizes = tuple[int, ...]


def followed_shape(old_input: Sizes, new_input: Sizes, old_output: Sizes) -> Sizes | None:
    """The output shape that does to `new_input` what `old_output` does to `old_input`, or None when that is not clear.

    Dimensions are matched from the left in the finest groups of equal products: (1, 64, 7, 7) -> (1, 64, 49) is
    1|1, 64|64, 7 7|49. A group whose sizes change must end in one dimension: into which of two a change would go is
    not known.
    """
    result: list[int] = []
    for inputs, outputs in dimension_groups(old_input, old_output):
        old, new = (sizes[inputs] for sizes in (old_input, new_input))
        target = list(old_output[outputs])
        if old != new:
            wide = [place for place, size in enumerate(target) if size > 1] or list(range(len(target)))
            if len(wide) != 1:
                return None
            target[wide[0]] = prod(new)
        result += target
    return tuple(result)


def dimension_groups(inputs: Sizes, outputs: Sizes) -> list[tuple[slice, slice]]:
    """The finest pairs of index ranges with equal products, from the left; left-over ones belong to the last."""
    groups: list[tuple[slice, slice]] = []
    left = right = 0
    while left < len(inputs) and right < len(outputs):
        first, second = left, right
        left, right = left + 1, right + 1
        while (a := prod(inputs[first:left])) != (b := prod(outputs[second:right])):
            left, right = (left + 1, right) if a < b else (left, right + 1)
        groups.append((slice(first, left), slice(second, right)))
    if groups:
        last_inputs, last_outputs = groups.pop()
        groups.append((slice(last_inputs.start, len(inputs)), slice(last_outputs.start, len(outputs))))
    return groups


def evaluated(target: Sequence[int], input_shape: Sizes, *, allow_zero: bool) -> Sizes | None:
    """The shape a Reshape target with 0 (copy) and -1 (the rest) means for an input, or None when it does not fit."""
    sizes = [
        input_shape[place] if size == 0 and not allow_zero and place < len(input_shape) else int(size)
        for place, size in enumerate(target)
    ]
    rest = prod(size for size in sizes if size != -1)
    if -1 in sizes and rest and prod(input_shape) % rest == 0:
        sizes[sizes.index(-1)] = prod(input_shape) // rest
    return tuple(sizes) if prod(sizes) == prod(input_shape) and -1 not in sizes else None
