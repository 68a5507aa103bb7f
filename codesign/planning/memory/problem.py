"""MemoryProblem: steps and the tensors they read and write, as activation memory planning sees a network.

Nothing here knows layers, graphs or machines; `of_network.py` makes a problem of a network, and tests make their own.
"""

from __future__ import annotations

from dataclasses import dataclass

ALIGNMENT = 16


@dataclass(frozen=True)
class Tensor:
    """Bytes that must lie together. alignment: its offset in the arena is a multiple of it, in bytes."""

    name: str
    size_bytes: int
    alignment: int = ALIGNMENT


@dataclass(frozen=True)
class Overwrite:
    """The output may begin lead_bytes before the input begins, if that dies in this step and ends no earlier.

    output: written by the step; input: read by it. scratch_bytes: room the step needs besides to do so (one channel
    of an in-place depthwise convolution), and only if it does. lead_bytes: how far behind its reading a step writes
    (rows of a window, for one that goes through an image pixel by pixel).
    """

    output: str
    input: str
    scratch_bytes: int = 0
    lead_bytes: int = 0


@dataclass(frozen=True)
class Step:
    """Work that runs at once. While it runs everything it reads and writes is in memory, and scratch_bytes besides.

    overwrites: ways to write in place; at most one of them is taken. after: names of steps that must have run before,
    whatever this one reads.
    """

    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    scratch_bytes: int = 0
    overwrites: tuple[Overwrite, ...] = ()
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """`tensor` is bytes offset_bytes and up of `whole`: the same memory, never copied.

    A view is its whole at offset 0. Operands of a concatenation without copies are parts of its result, which no step
    writes then; results of a split are parts of its operand.
    """

    tensor: str
    whole: str
    offset_bytes: int = 0


@dataclass(frozen=True)
class MemoryProblem:
    """What must be planned. steps: in an order that runs; any other that runs may be chosen.

    inputs: tensors that are there before the first step, and in the arena until their last reader (one nobody reads
    stays). outputs: tensors that stay until after the last step. A caller whose inputs lie elsewhere leaves them out.
    Every other tensor is written by one step, or made up of parts that are.
    """

    tensors: tuple[Tensor, ...]
    steps: tuple[Step, ...]
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()
