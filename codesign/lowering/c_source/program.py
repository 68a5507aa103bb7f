"""A network as data a C file is written from: kernels, tensors, and the steps that call the ones on the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from math import prod

import numpy as np

C_TYPES = {
    "float32": "float",
    "float64": "double",
    "bool": "uint8_t",
    **{f"{sign}int{bits}": f"{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}

SCHEDULED = "codesign.scheduled"  # a function of TIR with this attribute is printed as it is
# Of such a function: parameters whose every element is read once, right before the output's in the same place.
READ_IN_PLACE = "codesign.read_in_place"
# Of such a function: by parameter, how many bytes before it the output may begin and lie over it.
WRITTEN_BEHIND = "codesign.written_behind"

# A function with this attribute lays its operands side by side: [rows, width] each, and [rows, all widths].
JOINED = "codesign.joined"


class Place(Enum):
    """Where a tensor lies: in an argument of the run function, among the constants, or in the arena."""

    INPUT = "input"
    OUTPUT = "output"
    CONSTANT = "constant"
    ARENA = "arena"


@dataclass(frozen=True)
class Part:
    """`width` elements in every `pitch` elements of the tensor `whole`, from the element `first` on."""

    whole: str
    first: int
    width: int
    pitch: int


@dataclass(frozen=True)
class CTensor:
    """A tensor by a unique identifier. label: what it is called in the model, if anything; any text.

    part: where it lies in another one, if it does.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    place: Place
    label: str = ""
    part: Part | None = None

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """How much room it takes."""
        return self.elements * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Parameter:
    """A tensor a kernel takes: its name in the kernel, numpy's name of the type, whether the kernel only reads it.

    may_be_output: the kernel reads every element only to compute the element of its output in the same place, so both
    may lie in the same memory. lead_bytes: both may if the output begins so many bytes before it, or more.
    """

    name: str
    dtype: str
    is_read_only: bool
    may_be_output: bool = False
    lead_bytes: int | None = None

    @property
    def is_overwritten(self) -> bool:
        """Whether the output may lie in its memory."""
        return self.may_be_output or self.lead_bytes is not None


@dataclass(frozen=True)
class Kernel:
    """A function of C. source: its definition. helpers: names of the functions of `helpers` it calls. scratch_bytes:
    what it needs beside its tensors; if that is not 0, the last argument points to it."""

    name: str
    source: str
    parameters: tuple[Parameter, ...]
    scratch_bytes: int
    helpers: frozenset[str]
    uses_math: bool


@dataclass(frozen=True)
class Call:
    """A step: a kernel on tensors (identifiers), in the order of its parameters."""

    kernel: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Copy:
    """A step: a tensor copied into another one of the same size. Either may be part of a third."""

    source: str
    destination: str


@dataclass(frozen=True)
class CProgram:
    """inputs, outputs: in the order of the run function's arguments. tensors, kernels: by identifier. constants: what
    tensors of Place.CONSTANT hold. apart: the program with all operands of some concatenations copied into them, by the
    names of the results."""

    inputs: tuple[CTensor, ...]
    outputs: tuple[CTensor, ...]
    tensors: dict[str, CTensor]
    constants: dict[str, np.ndarray]
    kernels: dict[str, Kernel]
    steps: tuple[Call | Copy, ...]
    apart: Callable[[frozenset[str]], CProgram] | None = field(default=None, compare=False)

    def root(self, name: str) -> str:
        """The tensor whose memory a tensor is part of; itself, if of none."""
        part = self.tensors[name].part
        return name if part is None else part.whole

    @property
    def joined(self) -> frozenset[str]:
        """Tensors that steps write straight into others, which are concatenations."""
        return frozenset(self.root(name) for name, tensor in self.tensors.items() if tensor.part is not None)

    @property
    def border_bytes(self) -> int:
        """Inputs and outputs, which are the caller's."""
        return sum(tensor.size_bytes for tensor in (*self.inputs, *self.outputs))

    @property
    def copied_bytes(self) -> int:
        """What steps do but copy, in a run."""
        return sum(self.tensors[step.destination].size_bytes for step in self.steps if isinstance(step, Copy))

    def touched(self, step: Call | Copy) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The tensors a step reads, and those it writes."""
        if isinstance(step, Copy):
            return (step.source,), (step.destination,)
        pairs = tuple(zip(self.kernels[step.kernel].parameters, step.arguments, strict=True))
        reads = tuple(name for parameter, name in pairs if parameter.is_read_only)
        return reads, tuple(name for parameter, name in pairs if not parameter.is_read_only)

    def overwrites(self, step: Call | Copy) -> tuple[tuple[str, str, int], ...]:
        """(read, written, lead) of tensors a step may have in the same memory: the second begins lead bytes before."""
        if isinstance(step, Copy):
            return ()
        pairs = tuple(zip(self.kernels[step.kernel].parameters, step.arguments, strict=True))
        outputs = [name for parameter, name in pairs if not parameter.is_read_only]
        return tuple((name, outputs[0], p.lead_bytes or 0) for p, name in pairs if p.is_overwritten)

    def scratch_bytes(self, step: Call | Copy) -> int:
        """What a step needs beside its tensors."""
        return self.kernels[step.kernel].scratch_bytes if isinstance(step, Call) else 0
