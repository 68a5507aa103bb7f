"""Concatenations without copies: who makes an operand writes it where the result wants it, who reads it reads it there.

    a = conv(x); b = conv(a); y = join(a, b)    -->    y.a = conv(x); y.b = conv(y.a)

With channels last, an operand's channels are the first (or next) few of every pixel of the result, so kernels touching
it are printed again with their pixels further apart. An operand stays a tensor of its own, and is copied, where it lies
in another result already, is the caller's or a constant, or where a kernel does not go through it row by row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from codesign.lowering.c_source.program import Call, Copy, CProgram, CTensor, Kernel, Part, Place

Pitches = dict[int, tuple[int, int]]
Variant = Callable[[str, Pitches], Kernel | None]  # a kernel and pitches of its parameters; None where it has no rows


def with_joins(program: CProgram, variant: Variant, copied: frozenset[str] = frozenset()) -> CProgram:
    """The program with operands written in place. program: every operand is copied into its part of the result.

    variant: prints a kernel for rows further apart. copied: results whose operands stay copied.
    """
    joining = _Joining(program, variant)
    # Outer results first: their operands may be results with parts of their own, which then lie in the outer one.
    for step in reversed(program.steps):
        if isinstance(step, Copy) and program.root(step.destination) not in {step.destination, *copied}:
            joining.place(step)
    return joining.program()


@dataclass
class _Joining:
    before: CProgram
    variant: Variant

    def __post_init__(self) -> None:
        self.tensors = dict(self.before.tensors)
        self.steps: list[Call | Copy] = list(self.before.steps)

    def place(self, step: Copy) -> None:
        """Let the source lie where it is copied to, if every step that touches it can find it there."""
        source, part = self.tensors[step.source], self.tensors[step.destination].part
        assert part is not None
        if source.place is not Place.ARENA or source.part is not None:
            return
        tensors = self._moved(source, part)
        if tensors is None:
            return
        steps = [other for other in self.steps if other is not step]
        touched = {name for name, tensor in tensors.items() if tensor is not self.tensors.get(name)}
        if all(self._runs(other, tensors) for other in steps if touched & set(names_of(other))):
            self.tensors, self.steps = tensors, steps

    def _moved(self, source: CTensor, part: Part) -> dict[str, CTensor] | None:
        """All tensors with the source where a part is, and its own parts with it; None where those do not fit."""
        whole = self.tensors[part.whole]
        moved = dict(self.tensors)
        moved[source.name] = replace(source, part=part, place=whole.place)
        for name, tensor in self.tensors.items():
            own = tensor.part
            if own is None or own.whole != source.name:
                continue
            if part.width == own.pitch:
                inner = replace(own, whole=part.whole, first=part.first + own.first, pitch=part.pitch)
            elif part.width == source.elements:
                inner = replace(own, whole=part.whole, first=part.first + own.first)
            else:
                return None
            moved[name] = replace(tensor, part=inner, place=whole.place)
        return moved

    def _runs(self, step: Call | Copy, tensors: dict[str, CTensor]) -> bool:
        if isinstance(step, Call):
            return self.variant(step.kernel, pitches_of(step, tensors)) is not None
        parts = [part for name in names_of(step) if (part := tensors[name].part) is not None]
        split = {part.width for part in parts if part.width != tensors[step.source].elements}
        return len(split) < 2

    def program(self) -> CProgram:
        """With the kernels that are used, and without the parts nobody copies to."""
        kernels: dict[str, Kernel] = {}
        steps: list[Call | Copy] = []
        for step in self.steps:
            if isinstance(step, Call):
                kernel = self.variant(step.kernel, pitches_of(step, self.tensors))
                assert kernel is not None
                kernels[kernel.name] = kernel
                step = replace(step, kernel=kernel.name)
            steps.append(step)
        used = {name for step in steps for name in names_of(step)}
        used |= {part.whole for name in used if (part := self.tensors[name].part) is not None}
        used |= {tensor.name for tensor in (*self.before.inputs, *self.before.outputs)}
        tensors = {name: tensor for name, tensor in self.tensors.items() if name in used}
        return replace(self.before, tensors=tensors, kernels=kernels, steps=tuple(steps))


def names_of(step: Call | Copy) -> tuple[str, ...]:
    """All tensors of a step."""
    return step.arguments if isinstance(step, Call) else (step.source, step.destination)


def pitches_of(step: Call, tensors: dict[str, CTensor]) -> Pitches:
    """Of the parameters whose tensors are parts of others in more than one row."""
    found: Pitches = {}
    for number, name in enumerate(step.arguments):
        part = tensors[name].part
        if part is not None and part.width != tensors[name].elements:
            found[number] = part.width, part.pitch
    return found
