"""The least cycles a convolution can take on a machine, whatever the schedule: what passes compare forms by.

A bound, not a price (the mapper's is that, and passes stand below it): lanes are as full as the sizes of a layer allow,
and what has its home off chip is moved once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, inf, prod

from codesign.graph.operators import Convolution
from codesign.hardware.profile import HardwareProfile
from codesign.hardware.sections import Engine, LayerForm
from codesign.vocabulary import Dimension, Operand, OperationKind


@dataclass(frozen=True)
class ConvolutionSizes:
    """Sizes of a convolution's loops; channels (C, K) are those of one group."""

    batch: int
    groups: int
    outputs: int
    inputs: int
    input_size: tuple[int, int]
    output_size: tuple[int, int]
    kernel: tuple[int, int]

    @classmethod
    def of(cls, view: Convolution) -> ConvolutionSizes:
        """The sizes of a node."""
        outputs, inputs = view.out_channels // view.group, view.in_channels // view.group
        return cls(view.batch, view.group, outputs, inputs, view.input_size, view.output_size, view.kernel)

    def merged(self, times: int) -> ConvolutionSizes:
        """With so many groups at a time as one, all of whose outputs read all of its inputs."""
        return replace(self, groups=self.groups // times, outputs=self.outputs * times, inputs=self.inputs * times)

    @property
    def kind(self) -> OperationKind:
        """What machines call it."""
        if self.groups == 1:
            return OperationKind.CONVOLUTION
        return OperationKind.DEPTHWISE_CONVOLUTION if self.inputs == 1 else OperationKind.GROUPED_CONVOLUTION

    def elements(self, operand: Operand) -> int:
        """Elements of one operand's tensor."""
        match operand:
            case Operand.WEIGHTS:
                return self.groups * self.outputs * self.inputs * prod(self.kernel)
            case Operand.INPUTS:
                return self.batch * self.groups * self.inputs * prod(self.input_size)
            case Operand.OUTPUTS:
                return self.batch * self.groups * self.outputs * prod(self.output_size)

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return self.batch * prod(self.output_size) * self.elements(Operand.WEIGHTS)


def least_cycles(sizes: ConvolutionSizes, profile: HardwareProfile) -> float:
    """Of the engine that takes the fewest; infinite when no engine runs this kind of convolution with this kernel."""
    kernel = "x".join(map(str, sizes.kernel))
    able = [
        name
        for name, engine in profile.engines.items()
        if sizes.kind in engine.operations and (not engine.kernels or kernel in engine.kernels)
    ]
    cycles = [sizes.macs * profile.cycles_per_step(name) / _busy_lanes(sizes, profile.engines[name]) for name in able]
    return max(min(cycles), _off_chip_cycles(sizes, profile)) if cycles else inf


def _busy_lanes(sizes: ConvolutionSizes, engine: Engine) -> int:
    """Lanes that have work: on every axis at most as many as the dimensions it unrolls have elements."""
    extents = _extents(sizes, engine.layer_form)
    return prod(min(axis.size, prod(extents[dimension] for dimension in axis.unrolls)) for axis in engine.axes.values())


def _extents(sizes: ConvolutionSizes, form: LayerForm) -> dict[Dimension, int]:
    rows, columns = sizes.output_size
    kernel_rows, kernel_columns = sizes.kernel
    batch, inputs = sizes.batch, sizes.inputs
    if form is LayerForm.MATRIX_PRODUCT:
        batch, inputs, rows, columns = 1, inputs * kernel_rows * kernel_columns, 1, batch * rows * columns
        kernel_rows = kernel_columns = 1
    values = (batch, sizes.groups, sizes.outputs, inputs, rows, columns, kernel_rows, kernel_columns)
    return dict(zip(Dimension, values, strict=True))


def _off_chip_cycles(sizes: ConvolutionSizes, profile: HardwareProfile) -> float:
    """To move every operand whose home is the outermost memory once, reading and writing at the same time if it can."""
    memory = profile.memories[profile.off_chip]
    moved = {
        operand: ceil(sizes.elements(operand) * profile.bits(operand) / 8)
        if profile.home(operand) == profile.off_chip
        else 0
        for operand in Operand
    }
    read, written = moved[Operand.WEIGHTS] + moved[Operand.INPUTS], moved[Operand.OUTPUTS]
    ports = memory.ports
    if ports.read_write is not None:
        return (read + written) / memory.bytes_per_cycle(ports.read_write)
    if ports.read is None or ports.write is None:
        return 0.0
    return max(read / memory.bytes_per_cycle(ports.read), written / memory.bytes_per_cycle(ports.write))
