"""Register blocks of the kernels for small processors, from a plan's mappings where its machine is such a processor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from codesign.errors import DoesNotFitError
from codesign.hardware.profile import HardwareProfile
from codesign.lowering.processor.macs import mac_problems
from codesign.planning.plan import Plan, PlannedLayer
from codesign.vocabulary import DIMENSIONS, Dimension, Operand

FLOAT_BITS, CODE_BITS = 32, 8


@dataclass(frozen=True)
class Block:
    """Sums kept in registers."""

    pixels: int
    channels: int

    @property
    def registers(self) -> int:
        """Sums and, in the inner loop, an operand of every pixel and of every channel."""
        return self.pixels * self.channels + self.pixels + self.channels


class Blocks:
    """The blocks of a build without a plan: the kernels' own."""

    def block(self, layer: str, own: Block, known: Sequence[Block], bits: int) -> Block:
        """The block of a layer by name. known: those there are kernels for. bits: of its operands."""
        del layer, known, bits
        return own

    def check(self, layer: str, counted: int, expected: int) -> None:
        """Hold the multiply-accumulates counted on a kernel's TIR against what its layer needs."""
        del layer
        if counted != expected:
            raise RuntimeError(f"internal error: a kernel does {counted} MACs, not {expected}")


@dataclass(frozen=True)
class MappedBlocks(Blocks):
    """The blocks of a plan, and its layers' own MACs."""

    plan: Plan
    profile: HardwareProfile

    def block(self, layer: str, own: Block, known: Sequence[Block], bits: int) -> Block:
        """The known block of most sums, and then of fewest operands, in what the mapping keeps next to the multipliers.

        own: where the machine says nothing of registers, or its mappings are for operands of another width.
        """
        planned = self._planned(layer)
        controller = self.profile.microcontroller
        if controller is None or self.profile.precision.activations_bits != bits or planned is None:
            return own
        mapped = mapped_block(planned, self.profile)
        if mapped is None:
            return own
        fitting = [block for block in known if _inside(block, mapped) and block.registers <= controller.registers]
        return max(fitting, key=lambda block: (block.pixels * block.channels, -block.registers))

    def check(self, layer: str, counted: int, expected: int) -> None:
        """As of all blocks, and against the layer of the plan. Raises DoesNotFitError."""
        planned = self._planned(layer)
        if planned is None:
            super().check(layer, counted, expected)
            return
        problems = list(mac_problems(self.plan.model.name, planned, counted, expected))
        if problems:
            raise DoesNotFitError.of(problems)

    def _planned(self, layer: str) -> PlannedLayer | None:
        return next((planned for planned in self.plan.layers if planned.layer.name == layer), None)


def mapped_block(planned: PlannedLayer, profile: HardwareProfile) -> Block | None:
    """Pixels and channels of the sums a mapping keeps in the memory next to the multipliers, if it keeps any."""
    mapping = planned.cost.mapping
    if mapping is None:
        return None
    memory = profile.hierarchy(mapping.engine, Operand.OUTPUTS)[0]
    residence = mapping.residence(Operand.OUTPUTS, memory)
    if residence is None:
        return None
    sizes = dict(zip(DIMENSIONS, mapping.tile(planned.layer.nest, residence.position), strict=True))
    return Block(sizes[Dimension.B] * sizes[Dimension.OY] * sizes[Dimension.OX], sizes[Dimension.K])


def _inside(block: Block, mapped: Block) -> bool:
    return block.pixels <= mapped.pixels and block.channels <= mapped.channels
