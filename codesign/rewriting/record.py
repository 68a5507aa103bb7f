"""What a pass did, as pure data: part of every plan and report."""

from __future__ import annotations

from dataclasses import dataclass

WORST = 10


@dataclass(frozen=True)
class DeclinedRecord:
    """Where a pass did not apply, and why."""

    where: str
    reason: str


@dataclass(frozen=True)
class TensorNoise:
    """A tensor of a quantised network against the float one, over the calibration data.

    layer: the node that makes it (`input NAME` for an input of the network). bits, fraction_bits: of its codes; both 0
    where it is float. sqnr_db: signal to quantisation noise, 10 log10(sum x^2 / sum (x - y)^2); None where no number
    differs. saturated: how many of `numbers` lie beyond the range of the codes; what Relu or Clip cut off is not among
    them.
    """

    layer: str
    tensor: str
    bits: int
    fraction_bits: int
    sqnr_db: float | None
    saturated: int
    numbers: int


@dataclass(frozen=True)
class QuantizationRecord:
    """What quantisation did to the numbers. calibration: the data, in words. synthetic: it was made up.

    outputs: of the network. layers: every quantised tensor, in the order of the network.
    """

    calibration: str
    synthetic: bool
    outputs: tuple[TensorNoise, ...]
    layers: tuple[TensorNoise, ...]

    @property
    def worst(self) -> tuple[TensorNoise, ...]:
        """The ten quantised tensors of least signal to noise, the worst first."""
        noisy = [layer for layer in self.layers if layer.sqnr_db is not None]
        return tuple(sorted(noisy, key=lambda layer: (layer.sqnr_db or 0.0, layer.tensor))[:WORST])

    @property
    def saturated(self) -> int:
        """Numbers beyond the range of their codes, all tensors together."""
        return sum(layer.saturated for layer in self.layers)

    @property
    def numbers(self) -> int:
        """Numbers of all quantised tensors together."""
        return sum(layer.numbers for layer in self.layers)


@dataclass(frozen=True)
class PassRecord:
    """What one pass did. effect: EXACT, APPROXIMATE or RESHAPES. applied: how many places it changed.

    quantization: the noise it brought, of a pass that quantises.
    """

    name: str
    effect: str
    applied: int
    declined: tuple[DeclinedRecord, ...]
    seconds: float
    quantization: QuantizationRecord | None = None
