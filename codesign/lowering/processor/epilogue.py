"""What a kernel does to its sums on their way out: residual additions and activations, in the network's order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from codesign.lowering.processor.layout import Layout
from codesign.lowering.processor.registers import load, splat

Expression = Any  # an expression of TIR; tvm carries no types


@dataclass(frozen=True)
class Clip:
    """min(max(x, low), high); None leaves a side open."""

    low: float | None
    high: float | None


@dataclass(frozen=True)
class LeakyRelu:
    """x where it is positive, slope * x elsewhere."""

    slope: float


@dataclass(frozen=True)
class HardSigmoid:
    """clip(slope * x + shift, 0, 1); times x itself for HardSwish."""

    slope: float
    shift: float
    times_x: bool = False


@dataclass(frozen=True)
class AddTensor:
    """x + another feature map of the same sizes."""

    layout: Layout


Step = Clip | LeakyRelu | HardSigmoid | AddTensor
Place = Sequence[Expression]  # image, block, row, column


def tensors_of(steps: Sequence[Step]) -> list[Layout]:
    """Feature maps the steps read, in order."""
    return [step.layout for step in steps if isinstance(step, AddTensor)]


def apply(steps: Sequence[Step], value: Expression, lanes: int, tensors: Sequence[Any], place: Place) -> Expression:
    """The vector after all steps. tensors: buffers of tensors_of(steps)."""
    remaining = list(tensors)
    for step in steps:
        match step:
            case AddTensor(layout):
                value = value + load(remaining.pop(0), layout.offset(*place), lanes)
            case Clip(low, high):
                value = _clip(value, low, high, lanes)
            case LeakyRelu(slope):
                scaled = value * splat(T.float32(slope), lanes)
                value = tirx.max(value, scaled) if slope <= 1 else tirx.min(value, scaled)
            case HardSigmoid(slope, shift, times_x):
                line = value * splat(T.float32(slope), lanes) + splat(T.float32(shift), lanes)
                gate = _clip(line, 0.0, 1.0, lanes)
                value = gate * value if times_x else gate
    return value


def _clip(value: Expression, low: float | None, high: float | None, lanes: int) -> Expression:
    if low is not None:
        value = tirx.max(value, splat(T.float32(low), lanes))
    if high is not None:
        value = tirx.min(value, splat(T.float32(high), lanes))
    return value
