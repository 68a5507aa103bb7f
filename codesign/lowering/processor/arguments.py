"""Arguments of kernels with MACs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm.tirx.script.builder import ir as T

from codesign.lowering.processor.epilogue import Step, tensors_of
from codesign.lowering.processor.layout import Layout


@dataclass(frozen=True)
class Buffers:
    """Arguments of a kernel. tensors: what its epilogue reads."""

    x: Any
    w: Any
    bias: Any
    tensors: list[Any]
    y: Any


def float_arguments(steps: Sequence[Step]) -> list[Any]:
    """Feature maps a float epilogue reads, declared."""
    layouts = enumerate(tensors_of(steps))
    return [T.arg(f"tensor_{number}", T.buffer((layout.size,), "float32")) for number, layout in layouts]


def integer_arguments(
    name: str, sources: Sequence[Layout], result: Layout, read: str = "uint8", written: str = "uint8"
) -> tuple[list[Any], Any]:
    """Begins a kernel over flat buffers of codes: its sources, and what it writes."""
    T.func_name(name)
    T.func_attr({"tirx.noalias": True, "codesign_processor": 1})
    reads = [T.arg(f"tensor_{number}", T.buffer((layout.size,), read)) for number, layout in enumerate(sources)]
    return reads, T.arg("outputs", T.buffer((result.size,), written))
